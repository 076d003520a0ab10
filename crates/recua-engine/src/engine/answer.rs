//! What is known of an answer while it grows.

use recua_text::stop::{Passed, StopMatcher};
use recua_text::tokenizer::{Decoder, Tokenizer};

use crate::request::Usage;
use crate::sampler::{Draw, SamplingParams, Want};

/// A request on its way to being answered.
pub(super) struct Answer {
    pub(super) params: SamplingParams,
    // What the next token is chosen from.
    pub(super) want: Want,
    pub(super) choice: u32,
    pub(super) ignore_end: bool,
    // The prompt, [0, n_prompt), and what was generated.
    pub(super) tokens: Vec<u32>,
    pub(super) n_prompt: usize,
    // Where the token after those will be on the device, among those chosen by the step launched last.
    pub(super) chosen_at: usize,
    pub(super) decoder: Decoder,
    pub(super) stop: StopMatcher,
}

impl Answer {
    /// What decides the next token, besides the logits.
    pub(super) fn draw(&self) -> Draw<'_> {
        Draw { params: &self.params, choice: self.choice, tokens: &self.tokens, n_prompt: self.n_prompt }
    }

    /// Whether this token ends the answer.
    pub(super) fn is_end(&self, tokenizer: &Tokenizer, token: u32) -> bool {
        tokenizer.is_end(token) && !self.ignore_end
    }

    /// The text that can be shown now that this token has come, and whether it ends the answer.
    pub(super) fn text_of(&mut self, tokenizer: &Tokenizer, token: u32) -> Passed {
        if self.is_end(tokenizer, token) {
            return Passed { text: String::new(), stopped: true };
        }
        let passed = self.stop.push(&self.decoder.push(tokenizer, token));
        if passed.stopped {
            // The stop string may be followed by half a character.
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
