//! How a command fails: whose fault it was decides the exit code.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::output::{note, printable};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user's mistake: exit code 2.
    User(String),
    /// Anything else: exit code 1.
    Other(String),
    /// The command ran and its answer is no; it has already been printed. Exit code 1.
    Verdict,
    /// Whoever read our output has gone, which is their right: exit code 0 and no message.
    ClosedPipe,
}

/// What a command returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// The user's mistake.
    pub(crate) fn user(message: impl Display) -> Self {
        Self::User(message.to_string())
    }

    /// Anything else.
    pub(crate) fn other(message: impl Display) -> Self {
        Self::Other(message.to_string())
    }

    /// Says it in one line and turns it into an exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::User(message) => (message, 2),
            Self::Other(message) => (message, 1),
            Self::Verdict => return ExitCode::from(1),
            Self::ClosedPipe => return ExitCode::SUCCESS,
        };
        note!("error: {}", printable(&message));
        ExitCode::from(code)
    }
}

/// For writing to stdout only; errors of other files must say which file.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Other(format!("cannot write to standard output: {e}"))
        }
    }
}

/// Sorts the errors of libraries.
pub(crate) trait OrFail<T> {
    /// An error means that the user asked for something that cannot be.
    fn or_user(self) -> Result<T>;
    /// An error means that something went wrong.
    fn or_other(self) -> Result<T>;
}

impl<T, E: Display> OrFail<T> for std::result::Result<T, E> {
    fn or_user(self) -> Result<T> {
        self.map_err(Failure::user)
    }

    fn or_other(self) -> Result<T> {
        self.map_err(Failure::other)
    }
}
