//! The values of flags that are more than a number or a text, and how they are read.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use recua::KvType;

/// What `-ngl` asks for: recua knows only all layers or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GpuLayers {
    None,
    Some,
}

/// What stays at the beginning of a conversation that outgrows its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The first turns that fit in so many tokens.
    Tokens(usize),
    All,
}

/// A seed as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seed {
    Random,
    Fixed(u64),
}

/// How long an answer may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerLimit {
    Tokens(usize),
    /// As long as the context.
    Context,
}

impl AnswerLimit {
    /// The limit in tokens, in a context of so many.
    pub(crate) fn within(self, context: usize) -> usize {
        match self {
            AnswerLimit::Tokens(n) => n,
            AnswerLimit::Context => context,
        }
    }
}

/// The token ids of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenList(pub(crate) Vec<u32>);

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("is not a number".into()),
    }
}

/// `-1` is a seed from the operating system.
pub(super) fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed::Random),
        _ => text
            .parse()
            .map(Seed::Fixed)
            .map_err(|_| "is not a number from 0 on, or -1 for a random one".into()),
    }
}

/// `-1` is as many tokens as the context holds.
pub(super) fn answer_limit(text: &str) -> Result<AnswerLimit, String> {
    match text {
        "-1" => Ok(AnswerLimit::Context),
        _ => match positive(text) {
            Ok(n) => Ok(AnswerLimit::Tokens(n)),
            Err(problem) => Err(format!("{problem}; -1 is as many tokens as the context holds")),
        },
    }
}

/// `-1` is everything.
pub(super) fn kept(text: &str) -> Result<Kept, String> {
    match text {
        "-1" => Ok(Kept::All),
        _ => text.parse().map(Kept::Tokens).map_err(|_| "is not a number of tokens, or -1 for all".into()),
    }
}

/// A number of layers, negative for all, or one of llama.cpp's words.
pub(super) fn gpu_layers(text: &str) -> Result<GpuLayers, String> {
    match text {
        "auto" | "all" => Ok(GpuLayers::Some),
        _ => match text.parse::<i64>() {
            Ok(0) => Ok(GpuLayers::None),
            Ok(_) => Ok(GpuLayers::Some),
            Err(_) => Err("is not a number of layers".into()),
        },
    }
}

/// A length that can be cut in two.
pub(super) fn two_or_more(text: &str) -> Result<usize, String> {
    positive(text).and_then(|n| if n == 1 { Err("must be at least 2".into()) } else { Ok(n) })
}

/// A positive number that may end in `k` (1024) or `m` (1024²).
pub(super) fn with_suffix(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    positive(digits)?.checked_mul(unit).ok_or_else(|| "is too large".into())
}

/// `name=value`, the value JSON or else a string.
pub(super) fn variable(text: &str) -> Result<(String, serde_json::Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((name.to_owned(), value))
        }
        _ => Err("is not NAME=VALUE".into()),
    }
}

pub(super) fn token_list(text: &str) -> Result<TokenList, String> {
    let ids = text.split(',').map(|id| {
        let id = id.trim();
        id.parse().map_err(|_| format!("{id:?} is not a token id; give numbers separated by commas"))
    });
    ids.collect::<Result<_, String>>().map(TokenList)
}

/// The name of a type of the KV cache.
pub(super) fn kv_type() -> impl TypedValueParser<Value = KvType> {
    let names = KvType::ALL.map(|kv_type| kv_type.dtype().name());
    PossibleValuesParser::new(names)
        .map(|name| KvType::from_name(&name).expect("only names of types are accepted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_suffixes() {
        assert_eq!(with_suffix("4096"), Ok(4096));
        assert_eq!(with_suffix("4k"), Ok(4096));
        assert_eq!(with_suffix("1M"), Ok(1 << 20));
        for bad in ["", "k", "0", "0k", "-1", "1.5k", "99999999999999999999", "99999999999999999m"] {
            assert!(with_suffix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn token_lists() {
        assert_eq!(token_list("1, 2,3"), Ok(TokenList(vec![1, 2, 3])));
        for bad in ["", "1,,2", "1,x", "-1", "4294967296"] {
            assert!(token_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn minus_one_has_a_meaning() {
        assert_eq!((seed("-1"), seed("7")), (Ok(Seed::Random), Ok(Seed::Fixed(7))));
        assert_eq!(
            (answer_limit("-1"), answer_limit("7")),
            (Ok(AnswerLimit::Context), Ok(AnswerLimit::Tokens(7)))
        );
        assert_eq!((kept("-1"), kept("0")), (Ok(Kept::All), Ok(Kept::Tokens(0))));
        assert!(seed("-2").is_err() && answer_limit("0").is_err() && kept("x").is_err());
        let layers = ["0", "99", "-1", "all"].map(|text| gpu_layers(text).unwrap());
        assert_eq!(layers, [GpuLayers::None, GpuLayers::Some, GpuLayers::Some, GpuLayers::Some]);
    }
}
