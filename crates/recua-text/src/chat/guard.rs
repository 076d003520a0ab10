//! Keeps the texts of messages from writing control tokens.
//!
//! Where a message's text ends up in the prompt cannot be told from the prompt: templates trim, split and repeat it.
//! So the text itself is marked. Every control token has a character that is neither letter, digit nor white space,
//! the `<` of `<|im_end|>` say. In the texts given to the template each such character is replaced by a stand-in, a
//! private-use character that occurs nowhere else; the template may do with it what it likes, one character for one.
//! In the output the stand-ins turn back into what they were, and no control token is recognised that contains one.
//! A control token pieced together from several messages, or by cutting something out of one, contains them as well.
//!
//! Limits. A template that looks for such a character in a message does not find it, except within a literal of its
//! own such as `'</think>'`: what a literal spells in a text stays as it is, unless it could be a part of a control
//! token. And a control token of letters, digits and white space alone is not recognised anywhere in a chat.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::{ChatError, Message};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Literals of a template that are let through, and their longest. The rest are not.
const LITERALS_MAX: usize = 64;
const LITERAL_BYTES: std::ops::RangeInclusive<usize> = 3..=64;

pub(super) struct Guard {
    // The characters to hide.
    hidden: BTreeSet<char>,
    // The literals to leave alone.
    literals: Option<AhoCorasick>,
}

impl Guard {
    /// `literals` are the strings the template spells out.
    pub(super) fn new<'a>(
        tokenizer: &Tokenizer,
        literals: impl Iterator<Item = &'a str>,
    ) -> Result<Guard, ChatError> {
        let pieces: Vec<&str> =
            tokenizer.control_pieces().filter_map(|piece| std::str::from_utf8(piece).ok()).collect();
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
        Ok(Guard { hidden, literals })
    }

    /// The stand-ins for one rendering.
    pub(super) fn masks(&self, source: &str, messages: &[Message]) -> Masks<'_> {
        let texts =
            || messages.iter().flat_map(|message| [&message.role, &message.content]).map(String::as_str);
        let is_private = |ch: &char| *ch >= FIRST_STAND_IN;
        let taken: HashSet<char> = texts().chain([source]).flat_map(str::chars).filter(is_private).collect();
        let mut free = (FIRST_STAND_IN..=char::MAX).filter(|ch| !taken.contains(ch));
        let present: HashSet<char> =
            texts().flat_map(str::chars).filter(|ch| self.hidden.contains(ch)).collect();
        let present: BTreeSet<char> = present.into_iter().collect();
        let stand_ins = present.into_iter().filter_map(|ch| Some((ch, free.next()?))).collect();
        Masks { guard: self, stand_ins }
    }
}

/// The first of 131,068 characters for private use.
const FIRST_STAND_IN: char = '\u{F0000}';

/// The character by which a control token is kept out of messages.
fn marking_char(piece: &str) -> Option<char> {
    piece.chars().find(|ch| !ch.is_alphanumeric() && !ch.is_whitespace())
}

/// Whether a text that spells `literal` could be on the way to spelling `piece`.
fn could_be_part(literal: &str, piece: &str) -> bool {
    piece.contains(literal)
        || literal.contains(piece)
        || (1..literal.len()).filter(|&at| literal.is_char_boundary(at)).any(|at| {
            piece.starts_with(&literal[at..]) || piece.ends_with(&literal[..at]) && marked(&literal[..at])
        })
}

/// Whether any character of a text marks anything; letters at a token's end may be anyone's.
fn marked(text: &str) -> bool {
    marking_char(text).is_some()
}

/// The stand-ins of one rendering.
pub(super) struct Masks<'a> {
    guard: &'a Guard,
    stand_ins: HashMap<char, char>,
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

    /// Takes the stand-ins out of what was rendered, and remembers where they were.
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
    /// Whether a stretch of the text is none of the template's control tokens.
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
