//! Keeps the texts of messages from writing control tokens.
//!
//! The prompt does not show where a message's text ended up, because templates trim, split and repeat texts. So the
//! text itself is marked. Every control token has a character that is neither letter, digit nor white space, such as
//! the `<` of `<|im_end|>`. Before the template sees a text, or the name of a field, each such character is replaced by a stand-in, a
//! private-use character that occurs nowhere else; it remains one character, whatever the template does with it. In
//! the output each stand-in turns back into the original, and a stretch that contained one is never taken for a
//! control token. A control token pieced together from several messages, or by cutting something out of one, contains
//! stand-ins as well.
//!
//! Limits. A template that searches a message for such a character does not find it, and a filter that would rewrite
//! it (`escape`, `urlencode`) leaves it as it is. The exception is text that equals a string literal of the template,
//! such as `'</think>'`: it stays visible, unless it could be part of a control token. And a control token of
//! letters, digits and white space alone is not recognised anywhere in a chat.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use serde_json::Value;

use super::convert::each_string;
use super::error::ChatError;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// How many literals of a template stay visible, and how long they may be. Others do not.
const LITERALS_MAX: usize = 64;
const LITERAL_BYTES: std::ops::RangeInclusive<usize> = 3..=64;

pub(super) struct Guard {
    // The characters to hide.
    hidden: BTreeSet<char>,
    // The literals that stay visible.
    literals: Option<AhoCorasick>,
    pieces: Vec<String>,
}

impl Guard {
    /// `literals` are the strings that the template spells out.
    pub(super) fn new<'a>(
        tokenizer: &Tokenizer,
        literals: impl Iterator<Item = &'a str>,
    ) -> Result<Guard, ChatError> {
        let pieces: Vec<String> = tokenizer
            .control_pieces()
            .filter_map(|piece| std::str::from_utf8(piece).ok().map(str::to_owned))
            .collect();
        let hidden: BTreeSet<char> = pieces.iter().filter_map(|piece| marking_char(piece)).collect();
        let literals: Vec<&str> = literals
            .filter(|literal| {
                LITERAL_BYTES.contains(&literal.len()) && literal.contains(|ch| hidden.contains(&ch))
            })
            .take(LITERALS_MAX)
            .filter(|literal| !pieces.iter().any(|piece| could_be_part(literal, piece)))
            .collect();
        let literals = if literals.is_empty() {
            None
        } else {
            let automaton = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(literals)
                .map_err(|error| TokenizerError::Index(error.to_string()))?;
            Some(automaton)
        };
        Ok(Guard { hidden, literals, pieces })
    }

    /// The stand-ins for one rendering.
    pub(super) fn masks<'a, 'v>(
        &'a self,
        source: &'a str,
        values: impl Iterator<Item = &'v Value>,
    ) -> Masks<'a> {
        let mut strings = Vec::new();
        values.for_each(|value| each_string(value, &mut |text| strings.push(text)));
        let texts = || strings.iter().copied();
        let is_private = |ch: &char| *ch >= FIRST_STAND_IN;
        let taken: HashSet<char> = texts().chain([source]).flat_map(str::chars).filter(is_private).collect();
        let mut free = (FIRST_STAND_IN..=char::MAX).filter(|ch| !taken.contains(ch));
        let present: HashSet<char> =
            texts().flat_map(str::chars).filter(|ch| self.hidden.contains(ch)).collect();
        let present: BTreeSet<char> = present.into_iter().collect();
        // No text has all of them.
        let mark = free.next().unwrap_or(char::MAX);
        let stand_ins = present.into_iter().filter_map(|ch| Some((ch, free.next()?))).collect();
        Masks { guard: self, source, stand_ins, mark }
    }
}

/// The first of 131,068 characters for private use.
const FIRST_STAND_IN: char = '\u{F0000}';

/// The character by which a control token is kept out of messages.
fn marking_char(piece: &str) -> Option<char> {
    piece.chars().find(|ch| !ch.is_alphanumeric() && !ch.is_whitespace())
}

/// Whether a text that contains `literal` could be part of one that spells `piece`.
fn could_be_part(literal: &str, piece: &str) -> bool {
    piece.contains(literal)
        || literal.contains(piece)
        || (1..literal.len()).filter(|&at| literal.is_char_boundary(at)).any(|at| {
            piece.starts_with(&literal[at..]) || piece.ends_with(&literal[..at]) && marked(&literal[..at])
        })
}

/// Whether a text has a marking character. Letters alone, as at the end of a token, may be anybody's.
fn marked(text: &str) -> bool {
    marking_char(text).is_some()
}

/// The stand-ins of one rendering.
pub(super) struct Masks<'a> {
    guard: &'a Guard,
    // That of the template.
    source: &'a str,
    stand_ins: HashMap<char, char>,
    /// A character that occurs nowhere.
    pub(super) mark: char,
}

impl Masks<'_> {
    /// Puts the stand-ins into a text of a message.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.stand_ins.is_empty() {
            return text.to_owned();
        }
        let hide = |text: &str| -> String {
            text.chars().map(|ch| self.stand_ins.get(&ch).copied().unwrap_or(ch)).collect()
        };
        let mut hidden = String::with_capacity(text.len());
        let mut at = 0;
        for found in self.guard.literals.iter().flat_map(|literals| literals.find_iter(text)) {
            hidden.push_str(&hide(&text[at..found.start()]));
            hidden.push_str(&text[found.range()]);
            at = found.end();
        }
        hidden.push_str(&hide(&text[at..]));
        hidden
    }

    /// Puts the stand-ins into the name of a field. A name that the template asks for stays as it is, unless it could be
    /// part of a control token.
    pub(super) fn hide_name(&self, name: &str) -> String {
        if !name.contains(|ch| self.stand_ins.contains_key(&ch)) {
            return name.to_owned();
        }
        let is_plain = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        let asked_for = is_plain && self.source.contains(name);
        if asked_for && !self.guard.pieces.iter().any(|piece| could_be_part(name, piece)) {
            return name.to_owned();
        }
        self.hide(name)
    }

    /// Turns the stand-ins in the rendered text back, and remembers where they were.
    pub(super) fn reveal(&self, text: &str) -> (String, Foreign) {
        let originals: HashMap<char, char> =
            self.stand_ins.iter().map(|(&ch, &stand_in)| (stand_in, ch)).collect();
        let mut revealed = String::with_capacity(text.len());
        let mut places = Vec::new();
        for ch in text.chars() {
            match originals.get(&ch) {
                Some(&original) => {
                    places.push(revealed.len());
                    revealed.push(original);
                }
                None => revealed.push(ch),
            }
        }
        (revealed, Foreign { places })
    }
}

/// Which characters of a prompt came from messages and could be part of a control token.
pub(super) struct Foreign {
    // Byte offsets, ascending.
    places: Vec<usize>,
}

impl Foreign {
    /// Whether a stretch of the text cannot be a control token that the template wrote.
    pub(super) fn touches(&self, text: &str, range: &Range<usize>) -> bool {
        let next = self.places.partition_point(|&place| place < range.start);
        self.places.get(next).is_some_and(|&place| place < range.end)
            || marking_char(&text[range.clone()]).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_on_the_way_to_a_token() {
        for (literal, piece, expected) in [
            ("</think>", "<|im_end|>", false),
            ("</think>", "</s>", false),
            ("<think>", "<think>", true),
            ("<|im", "<|im_end|>", true),
            ("end|>", "<|im_end|>", true),
            ("x<|", "<|im_end|>", true),
            ("|>\n\n", "<|im_end|>", true),
            ("[TOOL_CALLS] ", "[TOOL_CALLS]", true),
        ] {
            assert_eq!(could_be_part(literal, piece), expected, "{literal} {piece}");
        }
    }
}
