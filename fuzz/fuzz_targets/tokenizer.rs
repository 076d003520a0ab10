//! Makes a vocabulary of arbitrary bytes, and encodes a text whose control tokens count in some places and not in
//! others. No panic; every token exists; and where the vocabulary has all bytes, the tokens spell the text. Run with
//! `cargo +nightly fuzz run tokenizer -- -max_len=4096 -rss_limit_mb=512`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use recua_gguf::{Gguf, Header, Writer};
use recua_text::tokenizer::Tokenizer;

/// Pre-tokenizers of different families.
const PRES: [&str; 6] = ["default", "llama-bpe", COMPOSES, "gpt-2", "viking", "minicpm5"];

/// One that composes characters, so that its tokens need not spell the very bytes of the text.
const COMPOSES: &str = "qwen2";

fuzz_target!(|bytes: &[u8]| {
    // One byte of options, then pieces with a line feed after each, an empty line, and the text.
    let Some((&options, rest)) = bytes.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let Some((pieces, text)) = rest.split_once("\n\n") else { return };

    let is_spm = options & 1 == 0;
    let mut tokens: Vec<String> = Vec::new();
    let mut types: Vec<i32> = Vec::new();
    for byte in 0..=255u8 {
        tokens.push(if is_spm { format!("<0x{byte:02X}>") } else { byte_char(byte).to_string() });
        types.push(if is_spm { 6 } else { 1 });
    }
    for (i, piece) in pieces.split('\n').enumerate() {
        // Normal, control or user-defined.
        tokens.push(piece.to_owned());
        types.push([1, 1, 3, 4][i % 4]);
    }
    let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32 % 7.0)).collect();
    let merges: Vec<String> =
        pieces.split('\n').filter(|piece| piece.contains(' ')).map(str::to_owned).collect();

    let mut header = Header::new();
    let mut set = |key: &str, value: &str| header.set(key, value).expect("a new key");
    set("tokenizer.ggml.model", if is_spm { "llama" } else { "gpt2" });
    let pre = PRES[usize::from(options >> 1) % PRES.len()];
    set("tokenizer.ggml.pre", pre);
    set("general.name", if options & 0x80 == 0 { "x" } else { "phi-3" });
    header.set_strings("tokenizer.ggml.tokens", &tokens).expect("a new key");
    header.set_i32s("tokenizer.ggml.token_type", &types).expect("a new key");
    header.set_f32s("tokenizer.ggml.scores", &scores).expect("a new key");
    header.set_strings("tokenizer.ggml.merges", &merges).expect("a new key");
    let writer = Writer::new(Vec::new(), &header).expect("names are unique");
    let file =
        Gguf::from_vec(writer.finish().expect("there are no tensors")).expect("what was written can be read");
    let Ok(tokenizer) = Tokenizer::from_metadata(file.metadata()) else { return };

    let mut marked = Vec::new();
    let stride = usize::from(options >> 3) % 8 + 1;
    let _ = tokenizer.encode_marked(text, |range| range.start % stride == 0, &mut marked);
    assert!(marked.iter().all(|&token| (token as usize) < tokenizer.n_tokens()));

    // Without control tokens a message can only spell itself.
    let plain = tokenizer.encode(text, false, false).expect("the text is short");
    let spelled: Vec<u8> = plain
        .iter()
        .flat_map(|&token| tokenizer.token_bytes(token).expect("it exists").into_owned())
        .collect();
    if options & 0x80 == 0 && !is_spm && pre != COMPOSES {
        assert_eq!(spelled, text.as_bytes());
    }
    let _ = tokenizer.decode(&marked);
});

/// The character by which GPT-2 vocabularies write a byte.
fn byte_char(byte: u8) -> char {
    match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte.into(),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).expect("below the surrogates"),
        0x7F..=0xA0 => char::from_u32(0x121 + u32::from(byte) - 0x7F).expect("below the surrogates"),
        0xAD => '\u{143}',
    }
}
