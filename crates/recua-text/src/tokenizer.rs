//! Text to tokens and back, by the vocabulary inside a GGUF file: SentencePiece as Llama uses it (`llama`) and
//! byte-level BPE (`gpt2`) with the pre-tokenizer that `tokenizer.ggml.pre` names.
//!
//! A text is first cut at special tokens: user-defined tokens always, control tokens if the caller asks for them. Of
//! tokens that overlap the leftmost counts, and of those that begin at one place the longest, as in Hugging Face's
//! tokenizers; llama.cpp looks for one token after the other, the longest first, so that of `ab` and `bcd` it finds the
//! second in "abcd". The stretches between them are encoded by the vocabulary's own method. Vocabulary and text are
//! both untrusted: encoding takes n log n time in the text's length and a fixed number of bytes of memory for each byte
//! of text. Text for which the vocabulary has no token, not even one for unknown text, is dropped.
//!
//! Merging, splitting and the search for special tokens are our own; `bpe` and `spm` say why the `tokenizers` crate
//! does not do for untrusted text.

mod bpe;
mod decoder;
mod ends;
mod error;
mod merge;
mod pre;
mod special;
mod spm;
mod vocab;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use recua_gguf::Metadata;

pub use decoder::Decoder;
pub use error::{TOKEN_BYTES_MAX, TokenizerError};
pub use vocab::TokenType;

use bpe::Bpe;
use merge::Merger;
use pre::Pre;
use special::Special;
use spm::{Before, Spm};
use vocab::{Spelling, Vocab};

/// The special tokens of Phi-3 after which white space counts (`rstrip` is false in its own tokenizer).
const PHI3_KEEPS_SPACE: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];

/// A vocabulary and its rules.
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    // Control and user-defined tokens.
    special: Special,
    user_defined: Special,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    ends: BTreeSet<u32>,
    adds_bos: bool,
    adds_eos: bool,
    // Phi-3 drops the white space after most special tokens.
    strips_right: bool,
}

enum Model {
    Spm(Spm),
    Bpe(Bpe),
}

/// Reads the ids of BOS, EOS and the like from the metadata.
struct Ids<'a> {
    meta: &'a Metadata,
    n_tokens: usize,
}

impl Ids<'_> {
    fn get(&self, key: &'static str) -> Result<Option<u32>, TokenizerError> {
        // Converters write "none" as -1, signed or not.
        match self.meta.get(key).and_then(|value| value.as_integer()) {
            Some(-1) => return Ok(None),
            Some(id) if id == i128::from(u32::MAX) => return Ok(None),
            _ => {}
        }
        match self.meta.u32(key)? {
            Some(id) if id as usize >= self.n_tokens => {
                Err(TokenizerError::IdOutOfRange { key, id, n_tokens: self.n_tokens })
            }
            id => Ok(id),
        }
    }
}

impl Tokenizer {
    /// Builds the tokenizer of a file.
    ///
    /// # Errors
    ///
    /// If the vocabulary is of an unknown kind or contradicts itself.
    pub fn from_metadata(meta: &Metadata) -> Result<Tokenizer, TokenizerError> {
        let name = meta.require_str("tokenizer.ggml.model")?;
        let spelling = match name {
            "llama" => Spelling::SentencePiece,
            "gpt2" => Spelling::ByteLevel,
            other => return Err(TokenizerError::UnknownModel(other.to_owned())),
        };
        let missing = |key| TokenizerError::Missing { key, model: name.to_owned() };

        const TOKENS: &str = "tokenizer.ggml.tokens";
        let pieces =
            meta.strings(TOKENS)?.filter(|pieces| !pieces.is_empty()).ok_or_else(|| missing(TOKENS))?;
        let n_tokens = pieces.len();
        let same_length = |key, got| {
            if got == n_tokens { Ok(()) } else { Err(TokenizerError::LengthMismatch { key, got, n_tokens }) }
        };
        let types = meta.i32s("tokenizer.ggml.token_type")?;
        if let Some(types) = &types {
            same_length("tokenizer.ggml.token_type", types.len())?;
        }
        let vocab = Vocab::new(pieces.iter(), types.as_deref(), spelling)?;

        let ids = Ids { meta, n_tokens };
        let bos = ids.get("tokenizer.ggml.bos_token_id")?;
        let eos = ids.get("tokenizer.ggml.eos_token_id")?;
        let eot = ids.get("tokenizer.ggml.eot_token_id")?;
        let eom = ids.get("tokenizer.ggml.eom_token_id")?;
        let unknown = ids.get("tokenizer.ggml.unknown_token_id")?;

        let (model, adds_bos) = match spelling {
            Spelling::SentencePiece => {
                const SCORES: &str = "tokenizer.ggml.scores";
                // Some converters write whole numbers. Without scores all pieces are joined as readily.
                let scores = match (meta.f32s(SCORES), meta.i32s(SCORES)) {
                    (Ok(scores), _) => scores,
                    (Err(_), Ok(Some(numbers))) => Some(numbers.iter().map(|&n| n as f32).collect()),
                    (Err(error), _) => return Err(error.into()),
                };
                let scores = scores.unwrap_or_else(|| vec![0.0; n_tokens]);
                same_length(SCORES, scores.len())?;
                let unknown =
                    unknown.or_else(|| vocab.ids().find(|&id| vocab.kind(id) == TokenType::Unknown));
                let space_prefix = meta.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
                (Model::Spm(Spm::new(&vocab, &scores, unknown, space_prefix)), true)
            }
            Spelling::ByteLevel => {
                const MERGES: &str = "tokenizer.ggml.merges";
                let pre = Pre::new(meta.str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
                let adds_bos = pre.adds_bos;
                let merges = meta.strings(MERGES)?.ok_or_else(|| missing(MERGES))?;
                (Model::Bpe(Bpe::new(&vocab, pre, merges.iter())?), adds_bos)
            }
        };

        let is_special =
            |id| matches!(vocab.kind(id), TokenType::Control | TokenType::Unknown | TokenType::UserDefined);
        let with_text = |text: &str| {
            vocab.ids().find(|&id| vocab.kind(id) == TokenType::Control && vocab.piece(id) == text.as_bytes())
        };
        // In vocabularies that end a turn with these two, <|end|> only ends one message within it.
        let end_is_no_end = with_text("<|return|>").is_some() && with_text("<|call|>").is_some();
        let ends = vocab
            .ids()
            .filter(|&id| is_special(id) && ends::is_end_text(vocab.piece(id)))
            .filter(|&id| !(end_is_no_end && vocab.piece(id) == b"<|end|>"))
            .chain([eos, eot, eom].into_iter().flatten())
            .collect();
        let eot = eot.or_else(|| ends::END_OF_TURN.iter().find_map(|text| with_text(text)));

        Ok(Tokenizer {
            special: Special::new(&vocab, is_special)?,
            user_defined: Special::new(&vocab, |id| vocab.kind(id) == TokenType::UserDefined)?,
            adds_bos: meta.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos),
            adds_eos: meta.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            strips_right: meta.str("general.name")?.is_some_and(|name| {
                let name = name.to_lowercase();
                name.contains("phi-3") || name.contains("phi3")
            }),
            vocab,
            model,
            bos,
            eos,
            eot,
            ends,
        })
    }

    /// Encodes a text. `add_bos` puts the BOS token in front, if the model has one; [`Tokenizer::adds_bos`] is the
    /// file's own rule. Control tokens written out in the text count only if `special`; otherwise they are text.
    ///
    /// # Errors
    ///
    /// If the text has 4 GiB.
    pub fn encode(&self, text: &str, add_bos: bool, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::new();
        if let (true, Some(bos)) = (add_bos, self.bos) {
            out.push(bos);
        }
        let mut plain = Plain::new(self);
        if special {
            self.encode_special(text, |_| false, &mut plain, &mut out)?;
        } else {
            self.encode_between(text, 0..text.len(), |_| false, &mut plain, &mut out)?;
        }
        Ok(out)
    }

    /// Encodes a text in which control tokens count, except in the byte ranges for which `is_foreign` returns true:
    /// text from somebody who may not write any. The tokens are appended to `out`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_marked(
        &self,
        text: &str,
        is_foreign: impl Fn(&Range<usize>) -> bool,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        self.encode_special(text, is_foreign, &mut Plain::new(self), out)
    }

    /// Encodes a text in which both control and user-defined tokens count.
    fn encode_special(
        &self,
        text: &str,
        is_foreign: impl Fn(&Range<usize>) -> bool,
        plain: &mut Plain<'_>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut at = 0;
        // Where a token was refused, a user-defined token that it covers may still count.
        let mut refused = false;
        for (found, token) in self.special.find(text, 0..text.len()) {
            // White space dropped after the last token may reach into this one.
            if found.start < at {
                continue;
            }
            if self.looks_like_control(token) && is_foreign(&found) {
                refused = true;
                continue;
            }
            if std::mem::take(&mut refused) {
                self.encode_between(text, at..found.start, &is_foreign, plain, out)?;
            } else {
                plain.text(&text[at..found.start], out)?;
            }
            plain.token(token, out);
            at = self.past_special(text, token, found.end);
        }
        if refused {
            return self.encode_between(text, at..text.len(), &is_foreign, plain, out);
        }
        plain.text(&text[at..], out)
    }

    /// Encodes a stretch in which only user-defined tokens count.
    fn encode_between(
        &self,
        text: &str,
        range: Range<usize>,
        is_foreign: impl Fn(&Range<usize>) -> bool,
        plain: &mut Plain<'_>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let end = range.end;
        let mut at = range.start;
        for (found, token) in self.user_defined.find(text, range) {
            if found.start < at || (self.looks_like_control(token) && is_foreign(&found)) {
                continue;
            }
            plain.text(&text[at..found.start], out)?;
            plain.token(token, out);
            at = self.past_special(text, token, found.end).min(end);
        }
        plain.text(&text[at..end], out)
    }

    /// Where the text goes on after a special token that ended at `end`.
    fn past_special(&self, text: &str, token: u32, end: usize) -> usize {
        if !self.strips_right || PHI3_KEEPS_SPACE.contains(&self.vocab.piece(token)) {
            return end;
        }
        let rest = &text[end..];
        end + rest.len() - rest.trim_start().len()
    }

    /// Whether a token is, or looks like, the mark of a turn, which the text of a message must not contain.
    pub(crate) fn looks_like_control(&self, token: u32) -> bool {
        match self.vocab.kind(token) {
            TokenType::Control | TokenType::Unknown => true,
            TokenType::UserDefined => ends::looks_like_control(self.vocab.piece(token)),
            TokenType::Normal | TokenType::Byte | TokenType::Unused | TokenType::Undefined => false,
        }
    }

    /// Whether the file wants a BOS before a text: `tokenizer.ggml.add_bos_token`, or else what is usual for its
    /// kind.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Whether the file wants an EOS after a text. [`Tokenizer::encode`] never adds one, because a prompt is meant to
    /// go on.
    pub fn adds_eos(&self) -> bool {
        self.adds_eos
    }

    /// The text of some tokens: their [`Tokenizer::token_bytes`] joined, with U+FFFD in place of bytes that are not
    /// UTF-8. It may begin with a space that the encoded text did not have, because the tokens do.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut decoder = self.decoder();
        let mut text: String = tokens.iter().map(|&token| decoder.push(self, token)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The bytes that a token adds to a text: none for control tokens; they may be half a character. `None` if there
    /// is no such token.
    pub fn token_bytes(&self, token: u32) -> Option<Cow<'_, [u8]>> {
        ((token as usize) < self.vocab.len()).then(|| Cow::Borrowed(self.vocab.text(token)))
    }

    /// A token as it is written in the file, including control tokens. `None` if there is no such token.
    pub fn token_piece(&self, token: u32) -> Option<&[u8]> {
        ((token as usize) < self.vocab.len()).then(|| self.vocab.piece(token))
    }

    /// The type of a token. `None` if there is no such token.
    pub fn token_type(&self, token: u32) -> Option<TokenType> {
        ((token as usize) < self.vocab.len()).then(|| self.vocab.kind(token))
    }

    /// The first special token written like this.
    pub fn special_token(&self, piece: &str) -> Option<u32> {
        self.vocab.ids().find(|&id| {
            matches!(self.vocab.kind(id), TokenType::Control | TokenType::UserDefined)
                && self.vocab.piece(id) == piece.as_bytes()
        })
    }

    /// The size of the vocabulary.
    pub fn n_tokens(&self) -> usize {
        self.vocab.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that ends a turn of a chat.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// Whether a generation is over when this token comes.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// Every token that ends a generation, in ascending order.
    pub fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.ends.iter().copied()
    }

    /// Starts decoding token by token.
    pub fn decoder(&self) -> Decoder {
        Decoder::default()
    }

    /// The pieces of all tokens that a message must not write, for [`crate::chat`].
    pub(crate) fn control_pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.vocab.ids().filter(|&id| self.looks_like_control(id)).map(|id| self.vocab.piece(id))
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("n_tokens", &self.n_tokens())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("eot", &self.eot)
            .finish_non_exhaustive()
    }
}

/// The stretches of plain text of one encoding.
struct Plain<'a> {
    tokenizer: &'a Tokenizer,
    merger: Merger,
    // SentencePiece puts a space before every text, and a new text begins after each special token.
    before: Before,
}

impl Plain<'_> {
    fn new(tokenizer: &Tokenizer) -> Plain<'_> {
        Plain { tokenizer, merger: Merger::default(), before: Before::Nothing }
    }

    fn token(&mut self, token: u32, out: &mut Vec<u32>) {
        out.push(token);
        self.before = Before::Special;
    }

    fn text(&mut self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        match &self.tokenizer.model {
            Model::Spm(spm) => spm.encode(text, self.before, &mut self.merger, out)?,
            Model::Bpe(bpe) => bpe.encode(text, &mut self.merger, out)?,
        }
        self.before = Before::Text;
        Ok(())
    }
}
