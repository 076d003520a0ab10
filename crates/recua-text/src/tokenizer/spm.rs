//! SentencePiece as Llama uses it: characters are joined in the order of the joined pieces' scores, and characters
//! that the vocabulary lacks are spelled in bytes. The `tokenizers` crate does not do: its merges are an ordered
//! list, which cannot express "of equal scores, the leftmost first", and it joins only pieces that are tokens
//! themselves.

use std::collections::{HashMap, HashSet};

use super::error::TokenizerError;
use super::merge::{Merger, NONE};
use super::vocab::{SPACE, TokenType, Vocab};

const SPACE_CHAR: char = '\u{2581}';

pub(super) struct Spm {
    // Piece to (token, key): the lowest key is joined first.
    pieces: HashMap<Box<[u8]>, (u32, u32)>,
    // Characters that come before a space in some piece. After any other character no piece reaches across a space,
    // so the text can be cut there; that keeps the queue of pairs as short as a word.
    before_space: HashSet<char>,
    bytes: [u32; 256],
    unknown: Option<u32>,
    piece_bytes_max: u32,
    add_space_prefix: bool,
    // Mistral's vocabularies from version 2 on, in which [INST] is a control token. Their chat format writes the space
    // in front of a text out, as in "[INST] hello[/INST]", so it must not be put there a second time.
    writes_prefix_out: bool,
}

/// What comes before a stretch of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Special,
    Text,
}

impl Spm {
    pub(super) fn new(vocab: &Vocab, scores: &[f32], unknown: Option<u32>, add_space_prefix: bool) -> Spm {
        let writes_prefix_out =
            vocab.ids().any(|id| vocab.kind(id) == TokenType::Control && vocab.piece(id) == b"[INST]");
        let mut pieces: HashMap<Box<[u8]>, _> = HashMap::with_capacity(vocab.len());
        let mut bytes = [NONE; 256];
        for (token, &score) in (0u32..).zip(scores) {
            match vocab.kind(token) {
                TokenType::Byte => {
                    if let &[byte] = vocab.text(token) {
                        bytes[usize::from(byte)] = token;
                    }
                }
                // Joining plain text into a control token would let a text end its own turn.
                TokenType::Control | TokenType::Unknown => {}
                TokenType::Normal | TokenType::UserDefined | TokenType::Unused | TokenType::Undefined => {
                    pieces.insert(vocab.piece(token).into(), (token, descending(score)));
                }
            }
        }
        let before_space = pieces
            .keys()
            .filter_map(|piece| std::str::from_utf8(piece).ok())
            .flat_map(|piece| piece.chars().zip(piece.chars().skip(1)))
            .filter_map(|(ch, next)| (next == SPACE_CHAR).then_some(ch))
            .collect();
        let piece_bytes_max = pieces.keys().map(|piece| piece.len()).max().unwrap_or(0) as u32;
        Spm { pieces, before_space, bytes, unknown, piece_bytes_max, add_space_prefix, writes_prefix_out }
    }

    /// Encodes a stretch of text without special tokens.
    pub(super) fn encode(
        &self,
        text: &str,
        before: Before,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        let has_prefix = match before {
            Before::Nothing => true,
            Before::Special => !(self.writes_prefix_out && text.starts_with([' ', SPACE_CHAR])),
            Before::Text => false,
        };
        if has_prefix && self.add_space_prefix {
            escaped.push_str(SPACE);
        }
        for ch in text.chars() {
            if ch == ' ' { escaped.push_str(SPACE) } else { escaped.push(ch) }
        }
        if u32::try_from(escaped.len()).is_err() {
            return Err(TokenizerError::TextTooLong(text.len()));
        }
        let mut at = 0;
        let mut last = SPACE_CHAR;
        for (i, ch) in escaped.char_indices() {
            if ch == SPACE_CHAR && !self.before_space.contains(&last) {
                self.encode_stretch(&escaped[at..i], merger, out);
                at = i;
            }
            last = ch;
        }
        self.encode_stretch(&escaped[at..], merger, out);
        Ok(())
    }

    fn encode_stretch(&self, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.clear();
        for (start, ch) in text.char_indices() {
            let piece = &text.as_bytes()[start..start + ch.len_utf8()];
            let token = self.pieces.get(piece).map_or(NONE, |&(token, _)| token);
            merger.push(start as u32, piece.len() as u32, token);
        }
        merger.run(|left, right| {
            let len = left.len + right.len;
            if len > self.piece_bytes_max {
                return None;
            }
            let piece = &text.as_bytes()[left.start as usize..(left.start + len) as usize];
            self.pieces.get(piece).map(|&(token, key)| (key, token))
        });
        for symbol in merger.symbols() {
            if symbol.id != NONE {
                out.push(symbol.id);
                continue;
            }
            let piece = &text.as_bytes()[symbol.start as usize..(symbol.start + symbol.len) as usize];
            self.fall_back(piece, out);
        }
    }

    /// Spells a character that the vocabulary lacks in byte tokens, or if it lacks one of those too, as one unknown
    /// token. Without either the character is dropped.
    fn fall_back(&self, piece: &[u8], out: &mut Vec<u32>) {
        let bytes = piece.iter().map(|&byte| self.bytes[usize::from(byte)]);
        if bytes.clone().all(|token| token != NONE) {
            out.extend(bytes);
        } else {
            out.extend(self.unknown);
        }
    }
}

/// Maps a score to a key that is lower the higher the score; every bit pattern has its place, NaN too.
fn descending(score: f32) -> u32 {
    // -0 and 0 are one score.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::descending;

    #[test]
    fn keys_order_scores_descending() {
        let scores = [f32::INFINITY, 3.5, 0.0, -1.0, -31740.0, f32::NEG_INFINITY];
        assert!(scores.is_sorted_by_key(|&score| descending(score)));
        assert_eq!(descending(0.0), descending(-0.0));
    }
}
