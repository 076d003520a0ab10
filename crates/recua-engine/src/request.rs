//! Requests to the engine, and the events it answers with.

use std::fmt;

use recua_text::stop::StopError;

use crate::sampler::{LogitsError, ParamError, SamplingParams};

/// A request for one answer to one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The tokens to continue, including BOS if the model needs one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub params: SamplingParams,
    /// The most tokens to generate. The context may end the answer earlier.
    pub max_tokens: usize,
    /// Texts that end the answer. Neither the text that ends it nor anything after it is part of the answer.
    pub stop: Vec<String>,
    /// Which of several answers to the same prompt this is. Different choices draw independently, even with the same
    /// seed.
    pub choice: u32,
    /// Continues after tokens that end a generation; for measurements.
    pub ignore_end: bool,
}

/// Identifies a request within its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happened to a request. A request gets one `Token` for every token generated, then one `Finished`. A `Failed`
/// may come at any time instead and is the last. A cancelled request gets no more events.
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
        /// The tokens it took.
        usage: Usage,
        /// The text that was still held back; it is the end of the answer.
        text: String,
    },
    /// The request failed; no other request is affected.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: RequestError,
    },
}

impl Event {
    /// The request that the event is about.
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
    /// It reached `max_tokens` or the end of the context.
    Length,
}

/// The number of tokens that a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The tokens of the prompt.
    pub prompt_tokens: usize,
    /// The tokens generated, including the one that ended the answer.
    pub generated_tokens: usize,
}

/// Why a request was refused or failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A prompt without tokens: there is nothing to continue.
    #[error("the prompt is empty; it needs at least one token (BOS is enough, if the model has one)")]
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
    #[error("max_tokens is 0; at least 1 is needed")]
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
    /// A stop string that cannot be matched.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// The model's logits for this sequence contain no finite number.
    #[error(transparent)]
    Logits(#[from] LogitsError),
    /// The device or the model failed in a step that this request was part of.
    #[error("the step failed: {0}")]
    Step(String),
}
