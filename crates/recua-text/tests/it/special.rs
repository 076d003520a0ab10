//! Where tokenizers of the same vocabulary differ: special tokens and the space around them, composed characters, and
//! text without a token. Expected are the ids of the model's own tokenizer.

use recua_text::tokenizer::Tokenizer;

use crate::tokenizer::{CONTROL, NORMAL, UNKNOWN, USER_DEFINED, bpe, gguf, set_bpe, set_spm, spm};

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false, true).unwrap()
}

#[test]
fn a_character_without_a_token_is_unknown_or_dropped() {
    let file = |first| {
        gguf(|header| {
            header.set("tokenizer.ggml.model", "llama").unwrap();
            header.set_strings("tokenizer.ggml.tokens", ["<unk>", "▁", "a"]).unwrap();
            header.set_i32s("tokenizer.ggml.token_type", &[first, NORMAL, NORMAL]).unwrap();
        })
    };
    for (first, expected) in [(UNKNOWN, &[1, 2, 0, 2][..]), (CONTROL, &[1, 2, 2])] {
        let tokenizer = Tokenizer::from_metadata(file(first).metadata()).unwrap();
        assert_eq!(ids(&tokenizer, "aéa"), expected);
    }
}

#[test]
fn a_byte_without_a_token_is_dropped_and_the_rest_is_kept() {
    let file = gguf(|header| {
        set_bpe(header, "gpt-2", &[], &[]);
        header.set_strings("tokenizer.ggml.tokens", ["a", "b", "Ã"]).unwrap();
        header.set_i32s("tokenizer.ggml.token_type", &[NORMAL; 3]).unwrap();
        // Joined, the two bytes are no token, and one of them is none either.
        header.set_strings("tokenizer.ggml.merges", ["b z"]).unwrap();
    });
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    assert_eq!(ids(&tokenizer, "abz\nbé"), [0, 1, 1, 2]);
    assert_eq!(ids(&tokenizer, "xyz"), [0u32; 0]);
}

#[test]
fn characters_are_composed_where_the_model_does_so() {
    // é as one character and as two; one Hangul syllable and its two letters; and Å as a sign of its own.
    let merges = ["Ã ©", "ê °", "ê° Ģ", "Ã ħ"];
    for (composed, other) in [("é", "e\u{301}"), ("가", "\u{1100}\u{1161}"), ("Å", "\u{212B}")] {
        for name in ["qwen2", "qwen35", "deepseek-r1-qwen", "f2llmv2", "command-r", "olmo", "mpt"] {
            let tokenizer = bpe(name, &merges, &[("<x>", CONTROL)]);
            let expected = ids(&tokenizer, composed);
            assert_eq!(expected.len(), 1, "{name} {composed}");
            assert_eq!(ids(&tokenizer, other), expected, "{name} {composed}");
            // Around special tokens too.
            let around = ids(&tokenizer, &format!("{other}<x>{other}"));
            assert_eq!(around, [expected[0], tokenizer.special_token("<x>").unwrap(), expected[0]], "{name}");
        }
        for name in ["llama-bpe", "gpt-2", "tekken", "starcoder", "gpt-4o", "kormo"] {
            assert_ne!(
                ids(&bpe(name, &merges, &[]), other),
                ids(&bpe(name, &merges, &[]), composed),
                "{name}"
            );
        }
    }
    // A mark belongs to the character before it only within a stretch of text.
    let tokenizer = bpe("qwen2", &merges, &[("<x>", CONTROL)]);
    assert_eq!(ids(&tokenizer, "e<x>\u{301}"), [u32::from(b'e'), 260, 0xCC, 0x81]);
}

#[test]
fn mistral_writes_the_space_behind_a_control_token_out() {
    let pieces = [("▁", -9.0, NORMAL), ("h", -8.0, NORMAL), ("▁h", -1.0, NORMAL), ("▁▁", -2.0, NORMAL)];
    let old = spm(&pieces);
    let inst = [("[INST]", 0.0, CONTROL), ("[/INST]", 0.0, CONTROL)];
    let new = spm(&[&pieces[..], &inst].concat());
    // `<s>[INST] hello[/INST]` in the vocabulary of Mistral 7B v0.3 is 1, 3, 7080, 29477, 4, with one space.
    assert_eq!(ids(&new, "<s>[INST] h[/INST]"), [1, 263, 261, 264]);
    assert_eq!(ids(&new, "<s>[INST]  h[/INST]"), [1, 263, 259, 261, 264]);
    assert_eq!(ids(&new, "<s>[INST]h[/INST] h</s>"), [1, 263, 261, 264, 261, 2]);
    // At the start of a text the space is put in front in any case, as SentencePiece does.
    assert_eq!(ids(&new, " h"), [259, 261]);
    // Where [INST] is text, as in version 1 and in Llama 2, so it is behind a control token.
    assert_eq!(ids(&old, "<s> h"), [1, 259, 261]);
    let never = gguf(|header| {
        set_spm(header, &[&pieces[..], &inst].concat());
        header.set("tokenizer.ggml.add_space_prefix", false).unwrap();
    });
    let never = Tokenizer::from_metadata(never.metadata()).unwrap();
    assert_eq!(ids(&never, "<s>[INST] h[/INST]h"), [1, 263, 261, 264, 260]);
}

#[test]
fn phi3_drops_white_space_only_after_the_tokens_that_say_so() {
    let file = gguf(|header| {
        let special =
            [("<|endoftext|>", 0.0, CONTROL), ("<|user|>", 0.0, CONTROL), ("<|x|>", 0.0, USER_DEFINED)];
        let pieces = [("▁", -9.0, NORMAL), ("a", -8.0, NORMAL)];
        set_spm(header, &[&pieces[..], &special].concat());
        header.set("general.name", "Phi-3 mini").unwrap();
    });
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    for (piece, token) in [("</s>", 2), ("<|user|>", 262), ("<|x|>", 263)] {
        for space in ["", "\n ", "\u{A0}\u{3000}\t"] {
            assert_eq!(
                ids(&tokenizer, &format!("{piece}{space}a")),
                [token, 259, 260],
                "{piece:?} {space:?}"
            );
        }
    }
    for (piece, token) in [("<unk>", 0), ("<s>", 1), ("<|endoftext|>", 261)] {
        assert_eq!(ids(&tokenizer, &format!("{piece} a")), [token, 259, 259, 260], "{piece}");
    }
}

#[test]
fn of_special_tokens_the_leftmost_and_then_the_longest_counts() {
    let special =
        [("<a>", CONTROL), ("<a><b>", USER_DEFINED), ("<a><b><c>", CONTROL), ("b><d", USER_DEFINED)];
    let tokenizer = bpe("gpt-2", &[], &special);
    let text = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    assert_eq!(ids(&tokenizer, "<a>"), [256]);
    assert_eq!(ids(&tokenizer, "<a><b>"), [257]);
    assert_eq!(ids(&tokenizer, "<a><b><c>"), [258]);
    // The longer one begins further right.
    assert_eq!(ids(&tokenizer, "<a><b><d"), [&[257][..], &text("<d")].concat());
    // Without control tokens the user-defined one within counts.
    assert_eq!(tokenizer.encode("<a><b><c>", false, false).unwrap(), [&[257][..], &text("<c>")].concat());
    // And where a control token is foreign, too.
    for foreign in [0..9, 8..9] {
        let mut out = Vec::new();
        let touches = |range: &std::ops::Range<usize>| range.start < foreign.end && foreign.start < range.end;
        tokenizer.encode_marked("<a><b><c><a>", touches, &mut out).unwrap();
        assert_eq!(out, [&[257][..], &text("<c>"), &[256]].concat(), "{foreign:?}");
    }
}
