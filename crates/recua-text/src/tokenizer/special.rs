//! Finds special tokens in a text, in one pass however many there are: the leftmost match, and of those the longest.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

use super::error::TokenizerError;
use super::vocab::Vocab;

/// A set of tokens to look for.
pub(super) struct Special {
    automaton: Option<AhoCorasick>,
    tokens: Vec<u32>,
}

impl Special {
    pub(super) fn new(vocab: &Vocab, wanted: impl Fn(u32) -> bool) -> Result<Special, TokenizerError> {
        let tokens: Vec<u32> =
            vocab.ids().filter(|&token| !vocab.piece(token).is_empty() && wanted(token)).collect();
        if tokens.is_empty() {
            return Ok(Special { automaton: None, tokens });
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // A DFA would take hundreds of bytes for each byte of a token, more than a file should be able to demand.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .dense_depth(1)
            .build(tokens.iter().map(|&token| vocab.piece(token)))
            .map_err(|error| TokenizerError::Index(error.to_string()))?;
        Ok(Special { automaton: Some(automaton), tokens })
    }

    /// The tokens found within a range of a text, in order.
    pub(super) fn find<'a>(
        &'a self,
        text: &'a str,
        range: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, u32)> + 'a {
        self.automaton
            .iter()
            .flat_map(move |automaton| automaton.find_iter(Input::new(text).range(range.clone())))
            .map(|found| (found.range(), self.tokens[found.pattern().as_usize()]))
            // A piece may be any bytes; only whole characters are cut out of a text.
            .filter(|(found, _)| text.is_char_boundary(found.start) && text.is_char_boundary(found.end))
    }
}
