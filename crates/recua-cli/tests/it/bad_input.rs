//! Mistakes of the user: one clear sentence, exit code 2, nothing on stdout.

use crate::{Folder, golden, recua, refused};

/// Every command that opens a model, with what else it needs.
const COMMANDS: &[(&str, &[&str])] = &[("inspect", &[]), ("tokenize", &["text"])];

/// Runs each of them on `model`, which must be refused with these words.
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
    refused_everywhere("hf:somebody/something:Q4_K_M", &["hf:somebody/something:Q4_K_M", "download"]);
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

#[test]
fn usage_errors_are_exit_code_2() {
    for args in [&[][..], &["frobnicate"], &["inspect"], &["inspect", "a", "--nope"], &["tokenize"]] {
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
