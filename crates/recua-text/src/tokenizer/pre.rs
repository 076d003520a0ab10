//! Pre-tokenizers: how byte-level BPE cuts a text into words before it merges, by the name in `tokenizer.ggml.pre`.
//!
//! Each pre-tokenizer is a list of steps, and each step cuts the words of the step before it into the matches of its
//! pattern and the text between them. The patterns are those that the models were trained with, without the
//! look-ahead `\s+(?!\S)`, which means "a run of white space, less its last character if text follows". The matcher
//! used here takes linear time and has no look-ahead, so a run of white space that nothing else matches is matched
//! whole, and then its last character is given back.

use std::borrow::Cow;

use regex_automata::Input;
use regex_automata::meta::Regex;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::error::TokenizerError;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";

const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";

/// Digits come in runs here, because the step before has already cut them into threes.
const MINICPM5: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";

const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+";

/// BLOOM's: a word ends at white space, brackets, bars, and the commas and full stops of several scripts.
const BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+";

const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+";

const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+";

const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+";

const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+"##;

/// The letters with case that the DeepSeek LLM tokenizer lists; by code point, because some of them turn into
/// others when a source file is normalised.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}",
    r"\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}",
    r"\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}",
    r"\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}",
    r"\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}",
    r"\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}",
    r"\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}",
    r"\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}",
    r"\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}",
    r"\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}",
    r"\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}",
    r"\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}",
    r"\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+",
);

const DEEPSEEK_PUNCTUATION: &str =
    r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+";

const DEEPSEEK_CJK: &str = r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+";

/// One step of a pre-tokenizer.
enum Step {
    /// The matches of a pattern, and the text between them.
    Pattern(&'static str),
    /// The same, but a run of white space gives back its last character.
    Words(&'static str),
}

use Step::{Pattern, Words};

struct Entry {
    names: &'static [&'static str],
    steps: &'static [Step],
    whole_words_first: bool,
    adds_bos: bool,
    nfc: bool,
}

/// What most pre-tokenizers have in common.
const PLAIN: Entry = Entry { names: &[], steps: &[], whole_words_first: false, adds_bos: false, nfc: false };

const KNOWN: &[Entry] = &[
    Entry {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        steps: &[Words(LLAMA3)],
        whole_words_first: true,
        adds_bos: true,
        ..PLAIN
    },
    Entry { names: &["tekken"], steps: &[Words(TEKKEN)], whole_words_first: true, adds_bos: true, ..PLAIN },
    Entry { names: &["dbrx"], steps: &[Words(LLAMA3)], ..PLAIN },
    Entry { names: &["smaug-bpe"], steps: &[Words(LLAMA3)], whole_words_first: true, ..PLAIN },
    Entry {
        names: &["minicpm5"],
        steps: &[Pattern(r"\p{N}{1,3}"), Words(MINICPM5)],
        whole_words_first: true,
        ..PLAIN
    },
    Entry { names: &["qwen2", "deepseek-r1-qwen", "f2llmv2"], steps: &[Words(QWEN2)], nfc: true, ..PLAIN },
    Entry {
        names: &["kormo", "megrez", "stablelm2", "hunyuan", "solar-open"],
        steps: &[Words(QWEN2)],
        ..PLAIN
    },
    Entry { names: &["qwen35"], steps: &[Words(QWEN35)], nfc: true, ..PLAIN },
    Entry { names: &["seed-coder"], steps: &[Words(SEED_CODER)], ..PLAIN },
    Entry {
        names: &["gpt-2", "phi-2", "jais", "trillion", "a.x-4.0", "mellum", "granite-docling"],
        steps: &[Words(GPT2)],
        ..PLAIN
    },
    // The tokenizer of GPT-NeoX.
    Entry { names: &["mpt", "olmo"], steps: &[Words(GPT2)], nfc: true, ..PLAIN },
    Entry {
        names: &["starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b"],
        steps: &[Pattern(r"\p{N}"), Words(GPT2)],
        ..PLAIN
    },
    Entry { names: &["command-r"], steps: &[Pattern(r"\p{N}"), Words(GPT2)], nfc: true, ..PLAIN },
    Entry { names: &["gpt-4o", "llama4"], steps: &[Words(GPT_4O)], ..PLAIN },
    Entry { names: &["viking"], steps: &[Pattern(BLOOM), Pattern(r"\p{N}")], ..PLAIN },
    Entry {
        names: &["deepseek-llm"],
        steps: &[
            Pattern(r"[\r\n]"),
            Pattern(DEEPSEEK_LETTERS),
            Pattern(DEEPSEEK_PUNCTUATION),
            Pattern(r"\s+$"),
            Pattern(DEEPSEEK_CJK),
            Pattern(r"\p{N}+"),
        ],
        ..PLAIN
    },
    Entry {
        names: &["deepseek-coder"],
        steps: &[
            Pattern(r"[\r\n]"),
            Pattern(r"\s?\p{L}+"),
            Pattern(r"\s?\p{P}+"),
            Pattern(DEEPSEEK_CJK),
            Pattern(r"\p{N}"),
        ],
        ..PLAIN
    },
    Entry {
        names: &["deepseek-v3", "joyai-llm"],
        steps: &[
            Pattern(r"\p{N}{1,3}"),
            Pattern(r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"),
            Words(DEEPSEEK_V3),
        ],
        ..PLAIN
    },
    Entry {
        names: &["falcon"],
        steps: &[Pattern(r"[\p{P}\$\+<=>\^~\|`]+"), Words(GPT2), Pattern("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    Entry {
        names: &["default"],
        steps: &[
            Pattern(r"[\p{P}\$\+<=>\^~\|]+"),
            Words(GPT2),
            Pattern(r"\p{N}+"),
            Pattern("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
];

/// A pre-tokenizer, ready to split.
pub(super) struct Pre {
    steps: Vec<Regex>,
    /// A word that is a token is taken as that token, even if merges would give others.
    pub(super) whole_words_first: bool,
    /// Whether models of this kind expect a BOS when the file does not say.
    pub(super) adds_bos: bool,
    // The model's own tokenizer composes characters (NFC) before it splits.
    nfc: bool,
}

impl Pre {
    pub(super) fn new(name: &str) -> Result<Pre, TokenizerError> {
        let entry = KNOWN.iter().find(|entry| entry.names.contains(&name)).ok_or_else(|| {
            TokenizerError::UnknownPre { name: name.to_owned(), known: known_names().join(", ") }
        })?;
        let steps = entry.steps.iter().map(|step| {
            match step {
                Pattern(pattern) => Regex::new(pattern),
                // The second pattern is tried where the first does not match.
                Words(pattern) => Regex::new_many(&[pattern, r"\s+"]),
            }
            .map_err(|error| TokenizerError::Index(error.to_string()))
        });
        Ok(Pre {
            steps: steps.collect::<Result<_, _>>()?,
            whole_words_first: entry.whole_words_first,
            adds_bos: entry.adds_bos,
            nfc: entry.nfc,
        })
    }

    /// The text in the form in which it is split: its characters composed, if the model's own tokenizer does so.
    pub(super) fn normalize<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // ASCII is composed already, and so is most other text; only the rest is copied.
        if !self.nfc || text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.nfc().collect())
    }

    /// Passes the words of a text to `emit` in order; joined, they are the text.
    pub(super) fn split<E>(&self, text: &str, emit: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        split(&self.steps, text, emit)
    }
}

/// Every name that [`Pre::new`] accepts.
pub(super) fn known_names() -> Vec<&'static str> {
    KNOWN.iter().flat_map(|entry| entry.names).copied().collect()
}

fn split<E>(steps: &[Regex], text: &str, emit: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    let Some((step, rest)) = steps.split_first() else {
        return if text.is_empty() { Ok(()) } else { emit(text) };
    };
    let mut at = 0;
    while let Some(found) = step.search(&Input::new(text).range(at..)) {
        let mut end = found.end();
        if found.pattern().as_usize() == 1
            && end < text.len()
            && let Some((last, _)) = text[found.start()..end].char_indices().next_back()
            && last > 0
        {
            end = found.start() + last;
        }
        split(rest, &text[at..found.start()], emit)?;
        split(rest, &text[found.start()..end], emit)?;
        at = end;
    }
    split(rest, &text[at..], emit)
}

#[cfg(test)]
mod tests;
