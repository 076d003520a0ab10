//! The laboratory: experiments that decided how the product works, and benches of single kernels for those who change one. `recua bench`
//! belongs to the product; `bench/record` has the results of both.
#![forbid(unsafe_code)]

mod attention;
mod encoding;
mod matmul;
mod table;

use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Why an experiment failed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// A mistake in the arguments that clap cannot detect: exit code 2.
#[derive(Debug)]
pub(crate) struct Mistake(pub(crate) String);

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

/// Experiments and benches of single kernels
#[derive(Parser)]
#[command(name = "recua-bench")]
enum Cli {
    Encoding(encoding::args::EncodingArgs),
    Matmul(matmul::MatmulArgs),
    Attention(attention::AttentionArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Encoding(args) => encoding::run(args),
        Cli::Matmul(args) => matmul::run(&args),
        Cli::Attention(args) => attention::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is::<Mistake>() => {
            Cli::command().error(clap::error::ErrorKind::ValueValidation, e).exit();
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
