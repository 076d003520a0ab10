//! How a command fails. Whose fault it was decides the exit code.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::interrupt;
use crate::output::{abbreviated, note};

/// The longest message: several sentences and lists. Names from files are cut where the message is made; this is for what was forgotten.
const MESSAGE_CHARS_MAX: usize = 4000;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user's mistake: exit code 2.
    User(String),
    /// Anything else: exit code 1.
    Other(String),
    /// The command ran, but its result is negative and has already been printed: exit code 1.
    Verdict,
    /// Ctrl-C ended the command, which has printed what it had: exit code 130.
    Interrupted,
    /// The reader of our output closed the pipe, which is no error: exit code 0 and no message.
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

    /// Prints the message on one line and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::User(message) => (message, 2),
            Self::Other(message) => (message, 1),
            Self::Verdict => return ExitCode::from(1),
            Self::Interrupted => return ExitCode::from(interrupt::EXIT_CODE),
            Self::ClosedPipe => return ExitCode::SUCCESS,
        };
        note!("error: {}", abbreviated(&message, MESSAGE_CHARS_MAX));
        ExitCode::from(code)
    }
}

/// For errors on stdout only; errors on other files must name the file.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Other(format!("cannot write to standard output: {e}"))
        }
    }
}

/// Sorts library errors by whose fault they are.
pub(crate) trait OrFail<T> {
    /// An error is the user's mistake.
    fn or_user(self) -> Result<T>;
    /// An error is not the user's mistake.
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
