//! Vocabularies: real ones against llama.cpp's vectors, small ones written here, and hostile ones.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use recua_gguf::{Gguf, Header, Writer};
use recua_text::tokenizer::{Tokenizer, TokenizerError};

/// Token types of the format.
pub(crate) const NORMAL: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const CONTROL: i32 = 3;
pub(crate) const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A file that has metadata only.
pub(crate) fn gguf(fill: impl FnOnce(&mut Header)) -> Gguf {
    let mut header = Header::new();
    fill(&mut header);
    Gguf::from_vec(Writer::new(Vec::new(), &header).unwrap().finish().unwrap()).unwrap()
}

/// A SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, all bytes, then the given pieces.
pub(crate) fn set_spm(header: &mut Header, pieces: &[(&str, f32, i32)]) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut types = vec![UNKNOWN, CONTROL, CONTROL];
    let mut scores = vec![0.0; 3];
    for byte in 0..=255u8 {
        tokens.push(format!("<0x{byte:02X}>"));
        types.push(BYTE);
        scores.push(0.0);
    }
    for &(piece, score, kind) in pieces {
        tokens.push(piece.to_owned());
        types.push(kind);
        scores.push(score);
    }
    header.set("tokenizer.ggml.model", "llama").unwrap();
    header.set_strings("tokenizer.ggml.tokens", &tokens).unwrap();
    header.set_f32s("tokenizer.ggml.scores", &scores).unwrap();
    header.set_i32s("tokenizer.ggml.token_type", &types).unwrap();
    header.set("tokenizer.ggml.bos_token_id", 1u32).unwrap();
    header.set("tokenizer.ggml.eos_token_id", 2u32).unwrap();
}

fn byte_char(byte: u8) -> char {
    match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte.into(),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7F..=0xA0 => char::from_u32(0x121 + u32::from(byte) - 0x7F).unwrap(),
        0xAD => '\u{143}',
    }
}

/// A byte-level vocabulary: token i is byte i, then the products of the merges, then the special tokens.
pub(crate) fn set_bpe(header: &mut Header, pre: &str, merges: &[&str], special: &[(&str, i32)]) {
    let mut tokens: Vec<String> = (0..=255u8).map(|byte| byte_char(byte).to_string()).collect();
    tokens.extend(merges.iter().map(|merge| merge.replacen(' ', "", 1)));
    let mut types = vec![NORMAL; tokens.len()];
    for &(piece, kind) in special {
        tokens.push(piece.to_owned());
        types.push(kind);
    }
    header.set("tokenizer.ggml.model", "gpt2").unwrap();
    header.set("tokenizer.ggml.pre", pre).unwrap();
    header.set_strings("tokenizer.ggml.tokens", &tokens).unwrap();
    header.set_i32s("tokenizer.ggml.token_type", &types).unwrap();
    header.set_strings("tokenizer.ggml.merges", merges).unwrap();
}

pub(crate) fn spm(pieces: &[(&str, f32, i32)]) -> Tokenizer {
    Tokenizer::from_metadata(gguf(|header| set_spm(header, pieces)).metadata()).unwrap()
}

pub(crate) fn bpe(pre: &str, merges: &[&str], special: &[(&str, i32)]) -> Tokenizer {
    Tokenizer::from_metadata(gguf(|header| set_bpe(header, pre, merges, special)).metadata()).unwrap()
}

/// The folder with real vocabularies, which are too large to keep here.
fn vocab_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("RECUA_VOCAB_DIR").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: RECUA_VOCAB_DIR is not set");
    }
    dir
}

fn real_vocabularies() -> Vec<(String, PathBuf, Tokenizer)> {
    let Some(dir) = vocab_dir() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            let tokenizer = Tokenizer::from_metadata(Gguf::open(&path).unwrap().metadata()).unwrap();
            found.push((path.file_stem().unwrap().to_string_lossy().into_owned(), path, tokenizer));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn vectors() {
    for (name, path, tokenizer) in real_vocabularies() {
        let texts = std::fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let expected = std::fs::read_to_string(path.with_extension("gguf.out")).unwrap();
        let expected: Vec<Vec<u32>> = expected
            .lines()
            .map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect())
            .collect();
        assert!(texts.len() >= expected.len() && texts.len() <= expected.len() + 1, "{name}");
        let wrong: Vec<_> = texts
            .iter()
            .zip(&expected)
            .map(|(text, expected)| (text, tokenizer.encode(text, false, false).unwrap(), expected))
            .filter(|(_, got, expected)| got != *expected)
            .collect();
        assert!(wrong.is_empty(), "{name}: {} of {} wrong: {wrong:?}", wrong.len(), expected.len());
        eprintln!("{name}: {} vectors", expected.len());
    }
}

#[test]
fn real_vocabularies_give_the_text_back() {
    for (name, _, tokenizer) in real_vocabularies() {
        for text in [
            "Hello, world!",
            " leading",
            "tabs\tand\r\nlines\n\n\n",
            "🦙 нещо 中文 ½ é",
            "a     b      c  ",
            "<s> [INST]",
        ] {
            let tokens = tokenizer.encode(text, false, false).unwrap();
            let decoded = tokenizer.decode(&tokens);
            assert_eq!(
                decoded
                    .strip_prefix(if name.contains("gpt") { "" } else { " " })
                    .filter(|rest| *rest == text)
                    .unwrap_or(&decoded),
                text,
                "{name}"
            );
        }
        assert!(tokenizer.is_end(tokenizer.eos().unwrap()), "{name}");
    }
}

#[test]
fn spm_joins_by_score_then_place() {
    // Tokens 259.. in this order.
    let tokenizer = spm(&[
        ("▁", -9.0, NORMAL),
        ("a", -8.0, NORMAL),
        ("b", -8.0, NORMAL),
        ("ab", -2.0, NORMAL),
        ("ba", -2.0, NORMAL),
        ("aba", -3.0, NORMAL),
        ("▁a", -1.0, NORMAL),
    ]);
    // The prefix takes the first a; of equal scores the leftmost goes first.
    assert_eq!(tokenizer.encode("aba", false, false).unwrap(), [265, 263]);
    assert_eq!(tokenizer.encode("bab", false, false).unwrap(), [259, 263, 261]);
    assert_eq!(tokenizer.encode("abab", true, false).unwrap(), [1, 265, 263, 261]);
    assert_eq!(tokenizer.encode("", true, false).unwrap(), [1]);
    assert_eq!(tokenizer.encode("", false, false).unwrap(), [0u32; 0]);
    assert!(tokenizer.adds_bos());
    // Characters that the vocabulary lacks are spelled in bytes.
    assert_eq!(tokenizer.encode("é", false, false).unwrap(), [259, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(tokenizer.decode(&[265, 3 + 0xC3, 3 + 0xA9, 1, 263]), " aéba");
}

#[test]
fn spm_special_tokens() {
    let tokenizer = spm(&[
        ("▁", -9.0, NORMAL),
        ("<", -8.0, NORMAL),
        ("s", -8.0, NORMAL),
        (">", -8.0, NORMAL),
        ("<s", -1.0, NORMAL),
        ("[x]", 0.0, USER_DEFINED),
    ]);
    // Not even merges may build a control token from plain text.
    assert_eq!(tokenizer.encode("<s>", false, false).unwrap(), [259, 263, 262]);
    assert_eq!(tokenizer.encode("<s>", false, true).unwrap(), [1]);
    assert_eq!(tokenizer.encode("<s>s", false, true).unwrap(), [1, 259, 261]);
    assert_eq!(tokenizer.encode("s[x]s", false, false).unwrap(), [259, 261, 264, 259, 261]);
    assert_eq!(tokenizer.token_bytes(1).unwrap(), &b""[..]);
    assert_eq!(tokenizer.token_piece(1).unwrap(), b"<s>");
    assert_eq!(tokenizer.token_bytes(264).unwrap(), &b"[x]"[..]);
    assert_eq!(tokenizer.token_bytes(265), None);
    assert!(tokenizer.is_end(2) && !tokenizer.is_end(1));
}

#[test]
fn spm_without_scores_or_types() {
    // All bytes, as files have them, and "é" is spelled in them.
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let pieces = || bytes.iter().map(String::as_str).chain(["▁", "a", "▁a"]);
    let n = bytes.len() + 3;
    for scores in [None, Some(true), Some(false)] {
        let file = gguf(|header| {
            header.set("tokenizer.ggml.model", "llama").unwrap();
            header.set_strings("tokenizer.ggml.tokens", pieces()).unwrap();
            match scores {
                None => {}
                Some(true) => header.set_f32s("tokenizer.ggml.scores", &vec![0.0; n]).unwrap(),
                Some(false) => header.set_i32s("tokenizer.ggml.scores", &vec![0; n]).unwrap(),
            }
        });
        let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
        let tokens = tokenizer.encode("aé", false, false).unwrap();
        assert_eq!(tokens, [258, 0xC3, 0xA9], "{scores:?}");
        assert_eq!(tokenizer.decode(&tokens).trim_start(), "aé", "{scores:?}");
    }
}

#[test]
fn bpe_merges_by_rank() {
    let tokenizer = bpe("gpt-2", &["h e", "l l", "he ll", "hell o", "Ġ w"], &[("<|im_end|>", USER_DEFINED)]);
    assert_eq!(tokenizer.encode("hello w", false, false).unwrap(), [259, 260]);
    assert_eq!(tokenizer.encode("hhell", false, false).unwrap(), [u32::from(b'h'), 258]);
    assert!(!tokenizer.adds_bos());
    // Mislabelled in the file, but known to end a turn: control.
    assert_eq!(tokenizer.encode("<|im_end|>", false, true).unwrap(), [261]);
    assert_eq!(tokenizer.encode("<|im_end|>", false, false).unwrap().len(), 10);
    assert_eq!(tokenizer.eot(), Some(261));
    assert!(tokenizer.is_end(261));
}

#[test]
fn bpe_whole_words_go_first_where_the_kind_says_so() {
    let merges = ["l o", "h e"];
    let special = [("hello", NORMAL), ("Hi", CONTROL)];
    assert_eq!(bpe("llama-bpe", &merges, &special).encode("hello", false, false).unwrap(), [258]);
    assert_eq!(bpe("llama-bpe", &merges, &special).encode("Hi", false, false).unwrap().len(), 2);
    assert_eq!(bpe("smaug-bpe", &merges, &special).encode("hello", false, false).unwrap(), [258]);
    assert_eq!(bpe("qwen2", &merges, &special).encode("hello", false, false).unwrap().len(), 3);
    assert!(bpe("llama-bpe", &merges, &special).adds_bos());
}

#[test]
fn bpe_merges_may_pass_through_what_is_no_token() {
    let file = gguf(|header| {
        set_bpe(header, "gpt-2", &["a b"], &[("abc", NORMAL)]);
        header.set_strings("tokenizer.ggml.merges", ["b c", "a bc", "x y"]).unwrap();
    });
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    assert_eq!(tokenizer.encode("abc", false, false).unwrap(), [257]);
    assert_eq!(tokenizer.encode("xy", false, false).unwrap(), [u32::from(b'x'), u32::from(b'y')]);
}

#[test]
fn decoding_never_shows_half_a_character() {
    let tokenizer = bpe("gpt-2", &[], &[]);
    let text = "aé🦙\u{FFFD}z";
    let mut decoder = tokenizer.decoder();
    let mut shown = String::new();
    for (at, byte) in text.bytes().enumerate() {
        shown.push_str(&decoder.push(&tokenizer, byte.into()));
        let complete = (0..=at + 1).rev().find(|&end| text.is_char_boundary(end)).unwrap();
        assert_eq!(shown, text[..complete]);
    }
    assert_eq!(decoder.finish(), "");
    // Bytes that can no longer become a character are shown at once; those that still can are held back.
    for (bytes, pushed, finished) in [
        (&[0xF0, 0x9F, 0xA6][..], "", "\u{FFFD}"),
        (&[0xC3, 0x41], "\u{FFFD}A", ""),
        (&[0x80, 0xFF], "\u{FFFD}\u{FFFD}", ""),
        (&[0xE2, 0x28, 0xA1], "\u{FFFD}(\u{FFFD}", ""),
        (&[0xF0, 0x9F, 0xC3], "\u{FFFD}", "\u{FFFD}"),
    ] {
        let tokens: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
        let text: String = tokens.iter().map(|&token| decoder.push(&tokenizer, token)).collect();
        assert_eq!((&text[..], &decoder.finish()[..]), (pushed, finished), "{bytes:x?}");
        assert_eq!(tokenizer.decode(&tokens), String::from_utf8_lossy(bytes), "{bytes:x?}");
    }
}

#[test]
fn metadata_decides_about_bos() {
    let file = gguf(|header| {
        set_spm(header, &[]);
        header.set("tokenizer.ggml.add_bos_token", false).unwrap();
        header.set("tokenizer.ggml.eot_token_id", 100u32).unwrap();
        header.set("tokenizer.ggml.unknown_token_id", -1i32).unwrap();
    });
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    assert!(!tokenizer.adds_bos());
    assert_eq!(tokenizer.eot(), Some(100));
    assert!(tokenizer.is_end(100) && tokenizer.is_end(2));
}

#[test]
fn ends_are_known_by_name() {
    let special = [("<|end|>", CONTROL), ("</s>", NORMAL), ("<|eot_id|>", NORMAL), ("<eos>", CONTROL)];
    let tokenizer = bpe("gpt-2", &[], &special);
    // </s> is HTML where it is not special; <|eot_id|> never is.
    assert_eq!(tokenizer.ends().collect::<Vec<_>>(), [256, 258, 259]);
    assert_eq!(tokenizer.eot(), Some(258));
    let parts = [("<|end|>", CONTROL), ("<|return|>", CONTROL), ("<|call|>", CONTROL)];
    assert_eq!(bpe("gpt-4o", &[], &parts).ends().collect::<Vec<_>>(), [257, 258]);
}

#[test]
fn tokenizers_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
    shared::<recua_text::chat::ChatTemplate>();
}

#[track_caller]
fn refused(wanted: &str, fill: impl FnOnce(&mut Header)) -> TokenizerError {
    let error = Tokenizer::from_metadata(gguf(fill).metadata()).unwrap_err();
    assert!(error.to_string().contains(wanted), "{error}");
    error
}

#[test]
fn contradictory_vocabularies_are_refused() {
    refused("tokenizer.ggml.model", |_| {});
    refused("\"bert\"", |header| header.set("tokenizer.ggml.model", "bert").unwrap());
    refused("tokenizer.ggml.tokens", |header| header.set("tokenizer.ggml.model", "llama").unwrap());
    refused("tokenizer.ggml.tokens", |header| {
        header.set("tokenizer.ggml.model", "llama").unwrap();
        header.set_strings("tokenizer.ggml.tokens", [""; 0]).unwrap();
    });
    refused("3 entries for 259", |header| {
        set_spm(header, &[]);
        header.set_f32s("tokenizer.ggml.scores", &[0.0; 3]).unwrap();
    });
    refused("1 entries for 259", |header| {
        set_spm(header, &[]);
        header.set_i32s("tokenizer.ggml.token_type", &[1]).unwrap();
    });
    refused("token 0 is 77", |header| {
        set_spm(header, &[]);
        header.set_i32s("tokenizer.ggml.token_type", &[77; 259]).unwrap();
    });
    refused("tokenizer.ggml.eos_token_id is 259", |header| {
        set_spm(header, &[]);
        header.set("tokenizer.ggml.eos_token_id", 259u32).unwrap();
    });
    refused("tokenizer.ggml.bos_token_id", |header| {
        set_spm(header, &[]);
        header.set("tokenizer.ggml.bos_token_id", "two").unwrap();
    });
    refused("5000 bytes", |header| set_spm(header, &[(&"x".repeat(5000), 0.0, NORMAL)]));
    let error = refused("deepseek-coder", |header| set_bpe(header, "klingon", &[], &[]));
    assert!(matches!(error, TokenizerError::UnknownPre { .. }));
    for merge in ["", " ", "ab", "a ", "\u{1F999} a"] {
        refused("merges entry 1", |header| set_bpe_merges(header, &["a b", merge]));
    }
}

fn set_bpe_merges(header: &mut Header, merges: &[&str]) {
    set_bpe(header, "gpt-2", &[], &[]);
    header.set_strings("tokenizer.ggml.merges", merges).unwrap();
}

#[test]
fn odd_pieces_do_no_harm() {
    let file = gguf(|header| {
        header.set("tokenizer.ggml.model", "llama").unwrap();
        let pieces: [&[u8]; 8] =
            [b"", b"\xFF\xFE", b"a", b"a", b"\x96\x81", b"<0xGG>", b"\xF0\x9F", "▁".as_bytes()];
        header.set_strings("tokenizer.ggml.tokens", pieces).unwrap();
        header
            .set_f32s(
                "tokenizer.ggml.scores",
                &[f32::NAN, 0.0, f32::INFINITY, -0.0, f32::NAN, 1e38, 0.0, 0.0],
            )
            .unwrap();
        header.set_i32s("tokenizer.ggml.token_type", &[3, 4, 4, 1, 4, 6, 3, 1]).unwrap();
        header.set("tokenizer.ggml.unknown_token_id", 5u32).unwrap();
    });
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    for text in ["", "aaa", "▁a▁", "🦙a", "\0\u{10FFFF}"] {
        for special in [false, true] {
            let tokens = tokenizer.encode(text, true, special).unwrap();
            tokenizer.decode(&tokens);
        }
    }
}

/// Long texts that make careless tokenisers quadratic.
fn long_texts() -> Vec<(&'static str, String)> {
    let mib = 1 << 20;
    let n = mib / 8;
    vec![
        ("a", "a".repeat(mib)),
        ("spaces", " ".repeat(mib)),
        ("emoji", "🦙".repeat(mib / 4)),
        ("spaces, then text", " ".repeat(n) + "x"),
        ("lines", "\n".repeat(n)),
        ("spaces and lines", " \n".repeat(n / 2)),
        ("capitals", "A".repeat(n)),
        ("digits", "7".repeat(n)),
        ("marks", "e\u{301}".repeat(n / 3)),
        ("marks out of order", "\u{301}\u{316}".repeat(n / 4)),
        ("apostrophes", "'".repeat(n)),
        ("almost special", "<|im_".repeat(n / 5)),
        ("zeros", "\0".repeat(n)),
    ]
}

#[track_caller]
fn check_long_texts(name: &str, tokenizer: &Tokenizer) {
    for (what, text) in long_texts() {
        let start = Instant::now();
        let tokens = tokenizer.encode(&text, false, true).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "{name}: {what}: {:?}", start.elapsed());
        assert!(tokens.len() <= text.len() + 1);
    }
}

#[test]
fn time_is_near_linear() {
    let pieces: Vec<String> = (1..=11).map(|power| "a".repeat(1 << power)).collect();
    let pieces: Vec<_> = ["a", " ", "▁", "▁▁", "🦙", "🦙🦙"]
        .into_iter()
        .chain(pieces.iter().map(String::as_str))
        .map(|piece| (piece, 0.0, NORMAL))
        .collect();
    check_long_texts("spm", &spm(&pieces));

    let mut merges = Vec::new();
    for symbol in ["a", "Ġ", "A", "7", "'"] {
        for power in 0..8 {
            let half = symbol.repeat(1 << power);
            merges.push(format!("{half} {half}"));
        }
    }
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    for pre in [
        "gpt-2",
        "llama-bpe",
        "qwen2",
        "tekken",
        "deepseek-llm",
        "deepseek-v3",
        "deepseek-coder",
        "falcon",
        "viking",
        "default",
    ] {
        check_long_texts(pre, &bpe(pre, &merges, &[("<|im_end|>", CONTROL), ("   ", USER_DEFINED)]));
    }
    for (name, _, tokenizer) in real_vocabularies() {
        check_long_texts(&name, &tokenizer);
    }
}

#[test]
fn many_nested_special_tokens_stay_cheap() {
    let names: Vec<String> = (1..600).map(|n| "a".repeat(n)).collect();
    let special: Vec<(&str, i32)> = names.iter().map(|name| (name.as_str(), USER_DEFINED)).collect();
    let tokenizer = bpe("gpt-2", &[], &special);
    let start = Instant::now();
    assert_eq!(tokenizer.encode(&"a".repeat(599 * 1000), false, false).unwrap(), vec![256 + 598; 1000]);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Prints the speed on ordinary text; only the run asks for it.
#[test]
fn speed() {
    if std::env::var_os("RECUA_SPEED").is_none() {
        return;
    }
    let text = include_str!("tokenizer.rs").repeat(60);
    for (name, _, tokenizer) in real_vocabularies() {
        let start = Instant::now();
        let tokens = tokenizer.encode(&text, false, false).unwrap().len();
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{name}: {:.1} MB/s, {tokens} tokens", text.len() as f64 / 1e6 / seconds);
    }
}
