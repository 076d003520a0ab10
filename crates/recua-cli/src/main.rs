//! The command `recua`. One file a command; start at [`dispatch`]. [`args`] is the parsed command line, [`failure`]
//! how a command fails, [`output`] what the user sees.
#![forbid(unsafe_code)]

mod args;
mod argv;
mod bench;
mod chat;
mod doctor;
mod failure;
mod inspect;
mod interrupt;
mod list;
mod logits;
mod man;
mod model;
mod output;
mod progress;
mod prompt;
mod pull;
mod quantize;
mod render;
mod rm;
mod run;
mod screen;
mod source;
mod store;
mod synth;
mod table;
mod tokenize;
mod verify_batch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use failure::Result;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    without_device_selection();
    let cli = Cli::parse_from(argv::rewritten(std::env::args_os(), &Cli::command()));
    // A panic has already printed its message; here it only becomes one of the documented exit codes.
    match std::panic::catch_unwind(|| dispatch(cli.command)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        Err(_) => ExitCode::from(1),
    }
}

/// Starts the program anew without Mesa's layer for the selection of devices, where that has nothing to select from: without a desktop's
/// session it writes an error to stderr whenever GPUs are enumerated. Only an environment variable disables it, and a process can only set
/// one safely for another.
#[cfg(target_os = "linux")]
fn without_device_selection() {
    use std::os::unix::process::CommandExt;
    const DISABLES: &str = "NODEVICE_SELECT";
    let is_set = |name| std::env::var_os(name).is_some();
    if !recua::DEVICE_NAMES.contains(&"wgpu") || is_set("XDG_RUNTIME_DIR") || is_set(DISABLES) {
        return;
    }
    let mut args = std::env::args_os();
    let mut command = std::process::Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    // It returns only if that fails; then the error is written, as always.
    let _ = command.args(args).env(DISABLES, "1").exec();
}

fn dispatch(command: Command) -> Result {
    match command {
        Command::Run(args) => run::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Pull(args) => pull::run(args),
        Command::List(args) => list::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Bench(args) => bench::run(args),
        Command::BenchMemory(args) => bench::memory::run(args),
        Command::VerifyBatch(args) => verify_batch::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Render(args) => render::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Completions { shell } => completions(shell),
        Command::Man(args) => man::run(args),
    }
}

fn completions(shell: clap_complete::Shell) -> Result {
    // Generated in memory first, because clap_complete panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "recua", &mut script);
    output::print(&script)
}
