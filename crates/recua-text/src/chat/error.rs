//! The errors of chat templates and of the prompts they make.

use crate::tokenizer::TokenizerError;

/// Why there is no template, or no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The file's metadata could not be read.
    #[error(transparent)]
    Metadata(#[from] recua_gguf::Error),
    /// The file has no chat template and its family is not known; a raw prompt works.
    #[error(
        "the file has no tokenizer.chat_template and its family (architecture \"{architecture}\") has none that is known; give a raw prompt"
    )]
    NoTemplate {
        /// The file's `general.architecture`.
        architecture: String,
    },
    /// The file has no template of this name.
    #[error("there is no chat template named {name}; there are: {known}")]
    NoSuchTemplate {
        /// The name that was asked for.
        name: String,
        /// Those that would work.
        known: String,
    },
    /// The conversation is not one.
    #[error("{0}")]
    Request(String),
    /// The last message cannot be continued.
    #[error("the last message cannot be continued: {0}")]
    CannotContinue(String),
    /// The template refuses these messages, in its own words.
    #[error("the chat template refuses the messages: {0}")]
    Refused(String),
    /// The template exceeded its limit of steps, memory or nesting.
    #[error("the chat template exceeds its limit of {0}")]
    Limit(&'static str),
    /// The template is wrong, or needs something that is not supported.
    #[error("tokenizer.chat_template, {}{message}", place(*line, *column))]
    Template {
        /// The line, from 1; 0 if the fault has no place.
        line: u32,
        /// The column, in characters from 1; 0 if the fault has no place.
        column: u32,
        /// What is wrong, and what would work.
        message: String,
    },
    /// The prompt could not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

fn place(line: u32, column: u32) -> String {
    if line == 0 { String::new() } else { format!("line {line}, column {column}: ") }
}

impl From<recua_template::Error> for ChatError {
    fn from(error: recua_template::Error) -> ChatError {
        use recua_template::Error;
        match error {
            Error::Raised(message) => ChatError::Refused(message),
            Error::Limit(what) => ChatError::Limit(what),
            Error::Failed { line, column, message } => ChatError::Template { line, column, message },
            other => ChatError::Template { line: 0, column: 0, message: other.to_string() },
        }
    }
}
