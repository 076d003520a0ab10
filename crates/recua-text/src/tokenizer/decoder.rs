//! Decoding token by token: a character may be spread over several tokens, and half a character is never shown.

use super::Tokenizer;

/// Turns tokens into text as they come.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    // The first bytes of a character that is not complete yet; at most three.
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes a token and returns the text that is complete now, which may be empty. Bytes that can never become a character turn
    /// into U+FFFD. A token outside the vocabulary adds nothing.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        if let Some(bytes) = tokenizer.token_bytes(token) {
            self.pending.extend_from_slice(&bytes);
        }
        let mut text = String::new();
        let mut kept = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            kept += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            if kept + invalid.len() == self.pending.len() && is_beginning(invalid) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            kept += invalid.len();
        }
        self.pending.drain(..kept);
        text
    }

    /// Returns what is held back, as U+FFFD, and starts anew.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether more bytes could make these a character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}
