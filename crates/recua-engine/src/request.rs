//! What the engine is asked, and what it answers.

use std::fmt;

use recua_text::stop::StopError;

use crate::sampler::{LogitsError, ParamError, SamplingParams};

/// One answer wanted to one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The tokens to continue; with BOS, if the model wants one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub params: SamplingParams,
    /// The most tokens to generate. The context may end the answer sooner.
    pub max_tokens: usize,
    /// Texts that end the answer. None of them, nor anything behind it, is shown.
    pub stop: Vec<String>,
    /// Which of several answers to the same question this is. Choices of one seed draw independently.
    pub choice: u32,
    /// Goes on behind tokens that end a generation; for measurements.
    pub ignore_end: bool,
}

/// Names a request to the engine that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// News of a request. A request has one `Token` for every token generated, then one `Finished`; or one `Failed`
/// at any time; and nothing more once it was cancelled.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A token was generated.
    Token {
        /// The request.
        id: RequestId,
        /// The token.
        token: u32,
        /// The text that can now be shown: empty while a character is incomplete or a stop string may have begun,
        /// and for a token that ends the generation.
        text: String,
    },
    /// The answer is complete.
    Finished {
        /// The request.
        id: RequestId,
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
        /// The text that was still held back: it ends the answer.
        text: String,
    },
    /// The request, and nobody else's, came to nothing.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: RequestError,
    },
}

impl Event {
    /// The request that this is about.
    pub fn id(&self) -> RequestId {
        match *self {
            Event::Token { id, .. } | Event::Finished { id, .. } | Event::Failed { id, .. } => id,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// It has as many tokens as were asked for, or as the context holds.
    Length,
}

/// The tokens a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The tokens of the prompt.
    pub prompt_tokens: usize,
    /// The tokens generated, the one that ended the answer included.
    pub generated_tokens: usize,
}

/// Why a request was refused, or failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A prompt without tokens: there is nothing to continue.
    #[error("the prompt is empty; it needs at least one token (BOS will do, if the model has one)")]
    EmptyPrompt,
    /// A prompt that leaves no room for an answer.
    #[error(
        "the prompt has {n_prompt} tokens, and the context holds {context}, the answer included; shorten the \
         prompt to {most} tokens or open the model with a context of {n_prompt} + max_tokens",
        most = context.saturating_sub(1)
    )]
    PromptTooLong {
        /// The tokens of the prompt.
        n_prompt: usize,
        /// The tokens a sequence may have.
        context: usize,
    },
    /// An answer without tokens.
    #[error("max_tokens is 0; at least 1 token must be asked for")]
    NoTokens,
    /// A prompt with a token that the model does not have.
    #[error(
        "token {token} at position {position} of the prompt is outside the vocabulary of {n_vocab} tokens"
    )]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Where it stands.
        position: usize,
        /// The size of the vocabulary.
        n_vocab: usize,
    },
    /// A sampling parameter outside its range.
    #[error(transparent)]
    Params(#[from] ParamError),
    /// A stop string that cannot be looked for.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// The model's output for this sequence was useless.
    #[error(transparent)]
    Logits(#[from] LogitsError),
    /// The device or the model failed in a step that this request was part of.
    #[error("the step failed: {0}")]
    Step(String),
}
