//! Byte-level BPE: words from the pre-tokenizer, joined by the rank of the merge rules. The vocabulary writes each
//! byte as a printable character; here everything is raw bytes, and a symbol is an id.
//!
//! The `tokenizers` crate does not do for untrusted text. It splits with a backtracking matcher that gives up on a
//! long run of spaces (1 MiB of them overflow its stack) and then skips the split without an error: a hostile text
//! would be encoded wrongly, and as slowly as one huge word.

use std::collections::HashMap;

use super::error::TokenizerError;
use super::merge::{Merger, NONE};
use super::pre::Pre;
use super::vocab::{TokenType, Vocab};

pub(super) struct Bpe {
    pre: Pre,
    // Tokens by their whole text; filled only if the pre-tokenizer says that whole words take precedence over merges.
    words: HashMap<Box<[u8]>, u32>,
    // (left, right) to (rank, joined).
    merges: HashMap<(u32, u32), (u32, u32)>,
    bytes: [u32; 256],
    n_tokens: u32,
    // The number of symbols that merges mention and the vocabulary lacks; their ids begin at `n_tokens`.
    n_extra: u32,
}

impl Bpe {
    pub(super) fn new<'a>(
        vocab: &Vocab,
        pre: Pre,
        merges: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Bpe, TokenizerError> {
        let n_tokens = vocab.len() as u32;
        // Each merge can add three symbols, and ids must stay below NONE.
        if merges.len() > 1 << 29 {
            return Err(TokenizerError::TooMany(merges.len()));
        }
        let mut symbols: HashMap<Box<[u8]>, u32> = HashMap::with_capacity(vocab.len());
        for token in 0..n_tokens {
            // A control token is not text, so no merge may produce one.
            if !matches!(vocab.kind(token), TokenType::Control | TokenType::Unknown)
                && let Some(raw) = super::vocab::raw_bytes(vocab.piece(token))
            {
                symbols.insert(raw.into(), token);
            }
        }
        let bytes = std::array::from_fn(|byte| symbols.get(&[byte as u8][..]).copied().unwrap_or(NONE));
        let mut bpe = Bpe { pre, words: HashMap::new(), merges: HashMap::new(), bytes, n_tokens, n_extra: 0 };
        if bpe.pre.whole_words_first {
            bpe.words = symbols.clone();
        }
        bpe.merges.reserve(merges.len());
        for (rank, merge) in (0u32..).zip(merges) {
            let (left, right) = split_merge(merge).ok_or(TokenizerError::Merge { index: rank as usize })?;
            let joined = [&left[..], &right[..]].concat();
            let [left, right, joined] = [left, right, joined].map(|raw| bpe.intern(&mut symbols, raw));
            bpe.merges.entry((left, right)).or_insert((rank, joined));
        }
        Ok(bpe)
    }

    /// Encodes a stretch of text without special tokens.
    pub(super) fn encode(
        &self,
        text: &str,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        // Before anything is copied, and again because composed text can be longer.
        let text = fits(text).map(|text| self.pre.normalize(text))?;
        self.pre.split(fits(&text)?, &mut |word| {
            self.encode_word(word.as_bytes(), merger, out);
            Ok(())
        })
    }

    fn encode_word(&self, word: &[u8], merger: &mut Merger, out: &mut Vec<u32>) {
        if self.pre.whole_words_first
            && let Some(&token) = self.words.get(word)
        {
            out.push(token);
            return;
        }
        merger.clear();
        for (start, &byte) in (0u32..).zip(word) {
            merger.push(start, 1, self.bytes[usize::from(byte)]);
        }
        merger.run(|left, right| self.merges.get(&(left.id, right.id)).copied());
        for symbol in merger.symbols() {
            if symbol.id < self.n_tokens {
                out.push(symbol.id);
                continue;
            }
            // A byte that the vocabulary lacks is dropped, as it is by llama.cpp and by Hugging Face's tokenizers.
            let bytes = &word[symbol.start as usize..(symbol.start + symbol.len) as usize];
            let tokens = bytes.iter().map(|&byte| self.bytes[usize::from(byte)]);
            out.extend(tokens.filter(|&token| token < self.n_tokens));
        }
    }

    fn intern(&mut self, symbols: &mut HashMap<Box<[u8]>, u32>, raw: Vec<u8>) -> u32 {
        if let Some(&id) = symbols.get(&raw[..]) {
            return id;
        }
        let id = self.n_tokens + self.n_extra;
        self.n_extra += 1;
        if let &[byte] = &raw[..] {
            self.bytes[usize::from(byte)] = id;
        }
        symbols.insert(raw.into(), id);
        id
    }
}

/// The text, if its positions fit 32 bits.
fn fits(text: &str) -> Result<&str, TokenizerError> {
    u32::try_from(text.len()).map(|_| text).map_err(|_| TokenizerError::TextTooLong(text.len()))
}

/// The two sides of a merge rule, in raw bytes. A side may contain a space only at its start.
fn split_merge(merge: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let space = 1 + merge.get(1..)?.iter().position(|&byte| byte == b' ')?;
    let (left, right) = (&merge[..space], &merge[space + 1..]);
    if right.is_empty() {
        return None;
    }
    Some((super::vocab::raw_bytes(left)?, super::vocab::raw_bytes(right)?))
}
