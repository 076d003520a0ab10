//! Mistakes of the user: one clear sentence, exit code 2, nothing on stdout.

use crate::{Folder, golden, recua, refused};

/// Every command that opens a model, with its other arguments.
const COMMANDS: &[(&str, &[&str])] = &[
    ("inspect", &[]),
    ("tokenize", &["text"]),
    ("run", &["prompt"]),
    ("chat", &[]),
    ("logits", &["--tokens", "1", "--out", "unwritten.f32"]),
    ("verify-batch", &[]),
    ("bench", &[]),
    ("quantize", &["unwritten.gguf", "Q8_0"]),
];

/// The commands that run the model.
fn running_commands() -> impl Iterator<Item = &'static (&'static str, &'static [&'static str])> {
    COMMANDS.iter().filter(|(name, _)| !["inspect", "tokenize", "quantize"].contains(name))
}

/// Runs every command on `model`, which must be refused with these words.
fn refused_everywhere(model: &str, words: &[&str]) {
    for (command, rest) in COMMANDS {
        let args: Vec<&str> = [*command, model].into_iter().chain(rest.iter().copied()).collect();
        refused(&args, words);
    }
}

#[test]
fn no_such_file() {
    let folder = Folder::new();
    refused_everywhere(&folder.path("absent.gguf"), &["absent.gguf", "No such file"]);
    refused_everywhere(&folder.path(""), &["folder"]);
}

#[test]
fn not_a_gguf() {
    let folder = Folder::new();
    refused_everywhere(&folder.write("letter.txt", b"Dear Sir or Madam, ..."), &["letter.txt", "not a GGUF"]);
    refused_everywhere(&folder.write("empty.gguf", b""), &["empty.gguf"]);
}

#[test]
fn truncated() {
    let folder = Folder::new();
    let whole = std::fs::read(golden("Q8_0")).unwrap();
    for n in [4, 20, 3000, whole.len() / 2, whole.len() - 1] {
        refused_everywhere(&folder.write("short.gguf", &whole[..n]), &["short.gguf"]);
    }
}

/// The golden file with one string of it replaced by another of the same length.
fn changed(folder: &Folder, from: &[u8], to: &[u8]) -> String {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(golden("Q8_0")).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from).expect("the string is in the file");
    bytes[at..at + to.len()].copy_from_slice(to);
    folder.write("changed.gguf", &bytes)
}

#[test]
fn unknown_architecture() {
    let folder = Folder::new();
    // Changes only the value of `general.architecture`, which the message must name; the keys keep their prefix
    // `llama.`.
    let model = changed(&folder, b"\x05\0\0\0\0\0\0\0llama\x0c", b"\x05\0\0\0\0\0\0\0lamma\x0c");
    for (command, rest) in running_commands() {
        let args: Vec<&str> = [*command, &*model].into_iter().chain(rest.iter().copied()).collect();
        refused(&args, &["changed.gguf", "lamma", "llama, qwen2"]);
    }
    assert_eq!(recua(&["inspect", &model]).code, 0);
    let strict = recua(&["inspect", &model, "--strict"]);
    assert!(strict.code == 2 && strict.stderr.contains("lamma") && !strict.stdout.is_empty());
    assert_eq!(recua(&["tokenize", &model, "text"]).code, 0);
}

#[test]
fn a_missing_tensor_is_named() {
    let folder = Folder::new();
    let model = changed(&folder, b"blk.1.ffn_up.weight", b"blk.1.ffn_uq.weight");
    refused(&["run", &model, "x"], &["changed.gguf", "blk.1.ffn_up.weight"]);
}

#[test]
fn devices_that_are_not_there() {
    for device in ["wgpu", "cuda", "cuda:1"] {
        // A build with the device opens it, or fails with another message if the machine lacks it.
        if recua(&["doctor", "--device", device]).stderr.contains("not in this build") {
            refused(&["run", &golden("Q8_0"), "x", "--device", device], &[device, "not in this build yet"]);
        }
    }
    refused(&["run", &golden("Q8_0"), "x", "--device", "abacus"], &["abacus", "cpu"]);
}

#[test]
fn a_prompt_longer_than_the_context() {
    let model = golden("Q8_0");
    let long = "x".repeat(3000);
    refused(&["run", &model, "--raw", "a", &long], &["prompt 2", "2048", "shorten"]);
    refused(&["run", &model, "--raw", &long[..100], "-c", "64"], &["prompt 1", "64", "--ctx-size", "2048"]);
    refused(&["run", &model, "--raw", "a", "-c", "4k"], &["4096", "2048"]);
}

#[test]
fn numbers_out_of_range() {
    let model = golden("Q8_0");
    refused(&["run", &model, "--raw", "a", "--temp", "-1"], &["--temp is -1", "from 0"]);
    refused(&["run", &model, "--raw", "a", "--top-p", "nan"], &["--top-p is NaN"]);
    refused(&["run", &model, "--raw", "a", "--stop", ""], &["stop"]);
    refused(&["run", &model], &["no prompt"]);
    refused(&["logits", &model, "--tokens", "1,512", "-o", "x.f32"], &["512", "position 1", "sequence 1"]);
    refused(
        &["logits", &model, "--tokens", "1,2,3", "-o", "x.f32", "-c", "2"],
        &["sequence 1", "3 tokens", "2048"],
    );
    refused(&["bench", &model, "--prompt-len", "4000"], &["2048", "--prompt-len"]);
    let most = usize::MAX.to_string();
    refused(&["bench", &model, "--prompt-len", "1", "--gen", &most], &["2048", "--prompt-len"]);
    assert_eq!(recua(&["run", &model, "a", "--max-tokens", "0"]).code, 2);
    assert_eq!(recua(&["logits", &model, "--tokens", "1,x", "-o", "x.f32"]).code, 2);
}

#[test]
fn a_length_beyond_the_context_is_said() {
    let args = ["verify-batch", &golden("Q8_0"), "--len", "3000"];
    refused(&args, &["--len 3000", "context of 2048"]);
}

#[test]
fn usage_errors_are_exit_code_2() {
    let too_short = ["verify-batch", "demo", "--len", "1"];
    for args in
        [&[][..], &["frobnicate"], &["inspect"], &["inspect", "a", "--nope"], &["tokenize"], &too_short]
    {
        let ran = recua(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty());
    }
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let ran = recua(args);
        assert_eq!(ran.code, 0, "{args:?}");
        assert!(ran.stderr.is_empty());
    }
}
