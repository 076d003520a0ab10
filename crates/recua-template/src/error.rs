//! Why a template was refused, or failed.

use std::fmt;

use crate::tree::Position;

/// Why a template was refused, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The template itself refused its variables with `raise_exception`, in these words.
    Raised(String),
    /// Rendering would have cost too much: `steps`, `memory` or `nesting`.
    Limit(&'static str),
    /// The template is wrong, or uses something that is not supported.
    Failed {
        /// Counted from 1; 0 if the fault has no place.
        line: u32,
        /// Counted in characters from 1; 0 if the fault has no place.
        column: u32,
        /// What is wrong, and what would work.
        message: String,
    },
}

impl Error {
    /// A fault whose place [`Error::at`] adds later.
    pub(crate) fn new(message: impl Into<String>) -> Error {
        Error::Failed { line: 0, column: 0, message: message.into() }
    }

    /// Adds the place, unless a more precise one is there already.
    pub(crate) fn at(self, place: Position) -> Error {
        match self {
            Error::Failed { line: 0, message, .. } => {
                Error::Failed { line: place.line, column: place.column, message }
            }
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Raised(message) => write!(f, "the template refuses its input: {message}"),
            Error::Limit(what) => write!(f, "the template exceeds its limit of {what}"),
            Error::Failed { line: 0, message, .. } => write!(f, "{message}"),
            Error::Failed { line, column, message } => write!(f, "line {line}, column {column}: {message}"),
        }
    }
}

impl std::error::Error for Error {}
