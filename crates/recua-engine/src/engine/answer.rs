//! The state of an answer while it grows.

use recua_text::stop::{Passed, StopMatcher};
use recua_text::tokenizer::{Decoder, Tokenizer};

use crate::request::Usage;
use crate::sampler::{Draw, SamplingParams, Want};

/// A request that is being answered.
pub(super) struct Answer {
    pub(super) params: SamplingParams,
    // How much of the logits the next token is chosen from.
    pub(super) want: Want,
    pub(super) choice: u32,
    pub(super) ignore_end: bool,
    // The prompt, `[0, n_prompt)`, and the generated tokens.
    pub(super) tokens: Vec<u32>,
    pub(super) n_prompt: usize,
    // The place of the next token on the device, among those that the latest step chooses.
    pub(super) chosen_at: usize,
    pub(super) decoder: Decoder,
    pub(super) stop: StopMatcher,
}

impl Answer {
    /// Everything besides the logits that decides the next token.
    pub(super) fn draw(&self) -> Draw<'_> {
        Draw { params: &self.params, choice: self.choice, tokens: &self.tokens, n_prompt: self.n_prompt }
    }

    /// Whether this token ends the answer.
    pub(super) fn is_end(&self, tokenizer: &Tokenizer, token: u32) -> bool {
        tokenizer.is_end(token) && !self.ignore_end
    }

    /// The text that can be shown now that this token is known, and whether it ends the answer.
    pub(super) fn text_of(&mut self, tokenizer: &Tokenizer, token: u32) -> Passed {
        if self.is_end(tokenizer, token) {
            return Passed { text: String::new(), stopped: true };
        }
        let passed = self.stop.push(&self.decoder.push(tokenizer, token));
        if passed.stopped {
            // The stop string may be followed by an incomplete character.
            self.decoder.finish();
        }
        passed
    }

    /// The text that was held back.
    pub(super) fn finish(&mut self) -> String {
        let Passed { mut text, stopped } = self.stop.push(&self.decoder.finish());
        if !stopped {
            text.push_str(&self.stop.finish());
        }
        text
    }

    pub(super) fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.n_prompt, generated_tokens: self.tokens.len() - self.n_prompt }
    }
}
