//! Texts that the pre-tokenizers split differently.

use super::*;

fn words(name: &str, text: &str) -> Vec<String> {
    let mut words = Vec::new();
    Pre::new(name)
        .unwrap()
        .split(text, &mut |word| {
            words.push(word.to_owned());
            Ok::<_, ()>(())
        })
        .unwrap();
    assert_eq!(words.concat(), text, "{name}: the words are not the text");
    words
}

#[track_caller]
fn check(name: &str, text: &str, expected: &[&str]) {
    assert_eq!(words(name, text), expected, "{name}");
}

#[test]
fn white_space_gives_back_its_last_character() {
    for name in ["gpt-2", "llama-bpe", "qwen2", "tekken", "starcoder", "deepseek-v3"] {
        check(name, "a   b", &["a", "  ", " b"]);
        check(name, "a  ", &["a", "  "]);
        check(name, "a\u{3000}\u{3000} b", &["a", "\u{3000}\u{3000}", " b"]);
    }
    check("gpt-2", "a\t\tb", &["a", "\t", "\t", "b"]);
    check("llama-bpe", "a\t\tb", &["a", "\t", "\tb"]);
    check("gpt-2", "a \n\n b", &["a", " \n\n", " b"]);
    check("llama-bpe", "a \n\n b", &["a", " \n\n", " b"]);
    check("llama-bpe", "a \n\n  b", &["a", " \n\n", " ", " b"]);
}

#[test]
fn digits() {
    check("gpt-2", "x 12345", &["x", " 12345"]);
    check("llama-bpe", "x 12345", &["x", " ", "123", "45"]);
    check("qwen2", "x 123", &["x", " ", "1", "2", "3"]);
    check("starcoder", "x 123", &["x", " ", "1", "2", "3"]);
    check("smollm", "x12", &["x", "1", "2"]);
    check("tekken", "x 12", &["x", " ", "1", "2"]);
    check("deepseek-coder", "x 12", &["x", " ", "1", "2"]);
    check("deepseek-llm", "x 123", &["x", " ", "123"]);
    check("deepseek-v3", "x 1234", &["x", " ", "123", "4"]);
    check("falcon", "x 12345", &["x", " ", "123", "45"]);
    check("falcon", "12345", &["123", "45"]);
    check("mpt", "x 123", &["x", " 123"]);
    check("minicpm5", "x 1234", &["x", " ", "123", "4"]);
    check("minicpm5", "x  1", &["x", "  ", "1"]);
    check("joyai-llm", "x 1234", &["x", " ", "123", "4"]);
    check("viking", "x 12", &["x", " ", "1", "2"]);
    check("a.x-4.0", "x 123", &["x", " 123"]);
    for name in ["kormo", "f2llmv2", "seed-coder"] {
        check(name, "x 123", &["x", " ", "1", "2", "3"]);
    }
}

#[test]
fn contractions_and_case() {
    check("gpt-2", "I'm HE'LL", &["I", "'m", " HE", "'", "LL"]);
    check("llama-bpe", "I'm HE'LL", &["I", "'m", " HE", "'LL"]);
    check("tekken", "HelloWorld HTTPServer", &["Hello", "World", " HTTPServer"]);
    check("gpt-4o", "I'm HelloWorld", &["I'm", " Hello", "World"]);
}

#[test]
fn punctuation() {
    check("gpt-2", "a+=b !!", &["a", "+=", "b", " !!"]);
    check("qwen2", "x.y(\n\n)", &["x", ".y", "(\n\n", ")"]);
    // Here a line feed is no part of the punctuation before it.
    check("seed-coder", "x.y(\n\n)", &["x", ".y", "(", "\n\n", ")"]);
    check("viking", "a (b)|c, d。 e", &["a", " (", "b", ")|", "c", ",", " d", "。", " e"]);
    check("falcon", "a += b", &["a", " ", "+=", " b"]);
    check("deepseek-coder", "a += (b)", &["a", " +=", " (", "b", ")"]);
    check("deepseek-llm", "a, b。", &["a", ",", " b", "。"]);
    check("deepseek-llm", "a \n 中文b", &["a", " ", "\n", " ", "中文", "b"]);
}

#[test]
fn an_unknown_name_lists_the_known() {
    let error = Pre::new("klingon").err().unwrap().to_string();
    for name in
        ["llama-bpe", "qwen2", "gpt-2", "deepseek-llm", "starcoder", "refact", "smollm", "tekken", "mpt"]
    {
        assert!(error.contains(name), "{error}");
    }
    for name in known_names() {
        Pre::new(name).unwrap();
    }
}
