//! What happens only at a terminal: the program runs in a pseudo-terminal, which also passes on Ctrl-C.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::{Folder, golden, program, recua};

/// No step of a test waits longer.
const PATIENCE: Duration = Duration::from_secs(120);

const CTRL_C: &str = "\x03";
const UP: &str = "\x1b[A";

/// The program in a terminal.
struct Terminal {
    child: Child,
    pty: Arc<pty_process::blocking::Pty>,
    pieces: mpsc::Receiver<Vec<u8>>,
    /// All that was shown so far.
    seen: String,
    /// What of it was looked at.
    looked_at: usize,
}

impl Terminal {
    /// Runs the program; its history is the file `history`.
    fn run(args: &[&str], history: &str) -> Self {
        Self::run_with(args, &[("RECUA_HISTORY", history)])
    }

    /// Runs the program with these environment variables.
    fn run_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start(args, env, None)
    }

    /// Runs the program with its standard error elsewhere.
    fn run_apart(args: &[&str], stderr: Stdio) -> Self {
        Self::start(args, &[], Some(stderr))
    }

    fn start(args: &[&str], env: &[(&str, &str)], stderr: Option<Stdio>) -> Self {
        let (pty, pts) = pty_process::blocking::open().expect("a pseudo-terminal");
        pty.resize(pty_process::Size::new(24, 200)).expect("a size");
        let mut command = pty_process::blocking::Command::new(program())
            .args(args)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(env.iter().copied());
        if let Some(stderr) = stderr {
            command = command.stderr(stderr);
        }
        let child = command.spawn(pts).expect("the program starts");
        let pty = Arc::new(pty);
        let (send, pieces) = mpsc::channel();
        let reader = pty.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // The end is an error on Linux.
            while let Ok(n @ 1..) = (&*reader).read(&mut piece) {
                if send.send(piece[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, pty, pieces, seen: String::new(), looked_at: 0 }
    }

    fn types(&self, text: &str) {
        (&*self.pty).write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Waits until the program shows `text`, behind what was waited for before.
    fn shows(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen[self.looked_at..].find(text) {
                self.looked_at += at + text.len();
                return;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("{text:?} is not behind {} bytes of {:?}", self.looked_at, self.seen),
            }
        }
    }

    /// Waits until the program ends, and returns its exit code.
    fn ends(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            // It may wait for somebody to read the rest of what it shows.
            match self.pieces.recv_timeout(Duration::from_millis(20)) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().expect("its status");
                    return status.code().expect("an exit code, not a signal");
                }
            }
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("the program does not end; it showed {:?}", self.seen);
            }
        }
    }
}

/// The small model without a template, whose answers with these flags are long and of all kinds of characters.
fn long_answers(command: &str) -> Vec<String> {
    let flags =
        ["--temp", "3", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", "22", "--device", "cpu"];
    let model = golden("Q8_0");
    [command, &model].into_iter().chain(flags).map(str::to_owned).collect()
}

#[test]
fn a_chat_keeps_what_is_typed_ahead() {
    let folder = Folder::new();
    let mut chat = Terminal::run(&["chat", "demo", "--device", "cpu"], &folder.path("history"));
    chat.shows("/help lists the commands");
    chat.shows("> ");
    // Three lines at once: the second and third are typed before the first is answered.
    chat.types("What is the sum of 5 and 18?\rSpell forest.\rWhat is the sum of 6 and 18?\r");
    chat.shows("23");
    chat.shows("f-o-r-e-s-t");
    chat.shows("24");
    chat.types("\"\"\"What is the sum\rof 7 and 18?\"\"\"\r");
    chat.shows(". ");
    chat.shows("tokens/s]");
    chat.types("/set temp warm\r");
    chat.shows("invalid value 'warm' for '--temp");
    chat.types("/bye\r");
    assert_eq!(chat.ends(), 0);
}

#[test]
fn history_lasts_and_is_private() {
    let folder = Folder::new();
    let history = folder.path("state/history");
    let mut chat = Terminal::run(&["chat", "demo", "--device", "cpu"], &history);
    chat.shows("> ");
    chat.types("Spell forest.\r");
    chat.shows("tokens/s]");
    // Ctrl-D means the end only to the prompt.
    chat.shows("> ");
    chat.types("\x04");
    assert_eq!(chat.ends(), 0);
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&history), mode(&folder.path("state"))), (0o600, 0o700));
    let mut chat = Terminal::run(&["chat", "demo", "--device", "cpu"], &history);
    chat.shows("> ");
    chat.types(&format!("{UP}\r"));
    chat.shows("f-o-r-e-s-t");
    chat.types("/bye\r");
    assert_eq!(chat.ends(), 0);
    // What is no file is left as it is.
    let mut chat = Terminal::run(&["chat", "demo", "--device", "cpu"], &folder.path("state"));
    chat.shows("no history is kept");
    chat.shows("is not a file");
    chat.shows("> ");
    chat.types("\x04");
    assert_eq!(chat.ends(), 0);
}

#[test]
fn ctrl_c_ends_an_answer_and_not_the_chat() {
    let args = long_answers("chat");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut chat = Terminal::run(&args, "");
    chat.shows("> ");
    chat.types("hello\r");
    // What is typed is shown behind the prompt, then the answer begins.
    chat.shows("hello");
    chat.shows("\r\n");
    chat.shows("1");
    chat.types(CTRL_C);
    chat.shows("[ended by Ctrl-C]");
    chat.shows("> ");
    chat.types("/bye\r");
    assert_eq!(chat.ends(), 0);
}

#[test]
fn run_without_a_prompt_is_a_chat() {
    let model = golden("Q8_0");
    let mut chat = Terminal::run(&["run", &model, "--device", "cpu"], "");
    chat.shows("/help lists the commands");
    chat.types("/bye\r");
    assert_eq!(chat.ends(), 0);
}

#[test]
fn what_a_model_writes_cannot_move_the_cursor() {
    let mut args = long_answers("run");
    args.extend(["--raw", "-n", "600", "a"].map(str::to_owned));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let piped = recua(&args).ok();
    let is_harmful = |c: char| c.is_control() && !"\r\n\t".contains(c);
    assert!(piped.text().contains(is_harmful), "the answer has nothing to clean: {:?}", piped.text());
    // What the program itself shows there may move it.
    let mut run = Terminal::run_apart(&args, Stdio::null());
    assert_eq!(run.ends(), 0);
    assert!(run.seen.len() > 100 && !run.seen.contains(is_harmful), "{:?}", run.seen);
}

#[test]
fn ctrl_c_leaves_whole_json_lines() {
    let mut args = long_answers("run");
    // Nobody waits for the end of these.
    args.extend(["--raw", "-n", "-1", "--format", "json", "a", "b", "c", "d"].map(str::to_owned));
    args.extend(["--batch-size", "1"].map(str::to_owned));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut run = Terminal::run(&args, "");
    run.shows("\"index\":0");
    run.types(CTRL_C);
    run.shows("tokens/s");
    let lines: Vec<serde_json::Value> = run
        .seen
        .lines()
        // The line may have held progress, or the echo of Ctrl-C.
        .filter_map(|line| line.find("{\"index\"").map(|at| &line[at..]))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}")))
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["finish_reason"], "cancelled");
    assert_eq!(run.ends(), 130);
}

#[test]
fn rows_of_bench_come_at_once_and_outlast_ctrl_c() {
    let model = golden("Q8_0");
    let flags = ["--batch", "1,2,4,8,16,32", "--prompt-len", "1,500", "--gen", "400", "--device", "cpu"];
    let bench = |format| {
        let args = [&["bench", &*model, "--format", format][..], &flags].concat();
        Terminal::run(&args, "")
    };
    let mut table = bench("table");
    table.shows("logits hash\r\n");
    table.shows("tiny-Q8_0.gguf");
    table.types(CTRL_C);
    assert_eq!(table.ends(), 130);
    let mut json = bench("json");
    json.shows("batch 1, prompt 1:");
    json.types(CTRL_C);
    json.shows("\"logits_hash\"");
    json.shows("\r\n");
    let line = json.seen.lines().find_map(|line| line.find('{').map(|at| &line[at..])).unwrap();
    let report: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let n_rows = report["rows"].as_array().unwrap().len();
    assert!((1..12).contains(&n_rows), "{n_rows} rows");
    assert_eq!(json.ends(), 130);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let args = ["run", "absent.gguf", "x"];
    let mut coloured = Terminal::run(&args, "");
    coloured.shows("\x1b[1m\x1b[31merror:\x1b[0m absent.gguf");
    assert_eq!(coloured.ends(), 2);
    let mut plain = Terminal::run_with(&args, &[("NO_COLOR", "1")]);
    plain.shows("error: absent.gguf");
    assert_eq!(plain.ends(), 2);
}

#[test]
fn progress_is_shown_only_at_a_terminal() {
    let folder = Folder::new();
    let (model, out) = (golden("F16"), folder.path("out.gguf"));
    let run = ["run", &*model, "--raw", "a", "-n", "1", "--device", "cpu"];
    let quantize = ["quantize", &*model, &*out, "Q8_0"];
    let mut seen = Terminal::run(&run, "");
    seen.shows("loading");
    seen.shows("reading the prompts");
    assert_eq!(seen.ends(), 0);
    let mut seen = Terminal::run(&quantize, "");
    seen.shows("MiB");
    seen.shows("left");
    assert_eq!(seen.ends(), 0);
    for args in [&run[..], &quantize] {
        let piped = recua(args).ok();
        assert!(!piped.stderr.contains("loading") && !piped.stderr.contains("left"), "{}", piped.stderr);
        assert!(!piped.stderr.contains('\x1b'), "{:?}", piped.stderr);
    }
}
