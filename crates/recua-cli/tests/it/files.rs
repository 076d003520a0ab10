//! `recua inspect`, `quantize` and `synth`, and the commands that only print.

use crate::{Folder, golden, recua, refused};

#[test]
fn inspect_json_describes_the_file() {
    let model = golden("Q4_K_M");
    let ran = recua(&["inspect", &model, "--json"]).ok();
    let json = ran.json();
    assert_eq!(json["version"], 3);
    assert_eq!(json["metadata"]["general.architecture"]["value"], "llama");
    assert_eq!(json["metadata"]["llama.block_count"]["type"], "u32");
    assert_eq!(json["metadata"]["tokenizer.ggml.tokens"]["len"], 512);
    let tensors = json["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 39);
    assert_eq!(tensors[0]["name"], "token_embd.weight");
    assert_eq!(tensors[0]["shape"], serde_json::json!([256, 512]));
    let bytes = |list: &serde_json::Value| -> u64 {
        list.as_array().unwrap().iter().map(|item| item["bytes"].as_u64().unwrap()).sum()
    };
    assert_eq!(bytes(&json["tensors"]), bytes(&json["types"]));
}

#[test]
fn inspect_is_readable() {
    let ran = recua(&["inspect", &golden("Q8_0"), "--strict"]).ok();
    for words in ["GGUF version 3", "llama.block_count", "token_embd.weight", "256 x 512", "512 items"] {
        assert!(ran.text().contains(words), "{words} is not in {}", ran.text());
    }
}

#[test]
fn text_from_a_file_does_not_reach_the_terminal_raw() {
    let folder = Folder::new();
    let original = std::fs::read(golden("Q8_0")).unwrap();
    let (from, to) = (b"synthetic tiny", b"\x1b[2J\x1b]0;oops\x07");
    let at = original.windows(from.len()).position(|w| w == from).unwrap();
    let mut bytes = original.clone();
    bytes[at..at + to.len()].copy_from_slice(to);
    let hostile = folder.write("hostile.gguf", &bytes);
    for args in [&["inspect", &hostile][..], &["inspect", &hostile, "--json"]] {
        let ran = recua(args).ok();
        assert!(!ran.stdout.contains(&0x1b) && !ran.stdout.contains(&0x07), "{}", ran.text());
        assert!(ran.text().contains("oops"));
    }
}

#[test]
fn quantize_changes_the_types_and_keeps_the_rest() {
    let folder = Folder::new();
    for (file_type, ty) in [("Q8_0", "Q8_0"), ("q4_k_m", "Q4_K"), ("F16", "F16")] {
        let out = folder.path(&format!("{file_type}.gguf"));
        let ran = recua(&["quantize", &golden("F16"), &out, file_type]).ok();
        assert!(ran.stdout.is_empty() && ran.stderr.contains(ty), "{}", ran.stderr);
        let before = recua(&["inspect", &golden("F16"), "--json"]).ok().json();
        let after = recua(&["inspect", &out, "--json"]).ok().json();
        assert_eq!(after["parameters"], before["parameters"]);
        assert_eq!(after["metadata"]["tokenizer.ggml.tokens"], before["metadata"]["tokenizer.ggml.tokens"]);
        assert!(after["types"].as_array().unwrap().iter().any(|t| t["type"] == ty), "{}", after["types"]);
    }
}

#[test]
fn quantize_refuses_impossible_requests() {
    let folder = Folder::new();
    let copy = folder.path("copy.gguf");
    std::fs::copy(golden("F16"), &copy).unwrap();
    refused(&["quantize", &copy, &copy, "Q8_0"], &["copy.gguf", "input"]);
    refused(&["quantize", &copy, &folder.path("out.gguf"), "Q9"], &["Q9", "Q4_K_M"]);
    refused(&["quantize", &copy, &folder.path("no/out.gguf"), "Q8_0"], &["no", "does not exist"]);
    refused(&["quantize", &folder.path("missing"), &folder.path("out.gguf"), "Q8_0"], &["missing"]);
    assert!(!std::path::Path::new(&folder.path("out.gguf")).exists());
}

#[test]
fn synth_is_reproducible() {
    let folder = Folder::new();
    let (a, b, c) = (folder.path("a"), folder.path("b"), folder.path("c"));
    let synth = |out: &str, seed: &str| {
        recua(&["synth", "--shape", "tiny", "--quant", "Q4_K_M", "--seed", seed, out]).ok();
        std::fs::read(out).unwrap()
    };
    assert_eq!(synth(&a, "1"), synth(&b, "1"));
    assert_ne!(synth(&a, "1"), synth(&c, "2"));
    refused(&["synth", "--shape", "9b", "--quant", "Q8_0", &a], &["9b", "tiny"]);
}

#[test]
fn completions_and_manual_page() {
    assert!(recua(&["completions", "bash"]).ok().text().contains("verify-batch"));
    assert!(recua(&["man"]).ok().text().starts_with(".ie"));
}

#[test]
fn every_command_has_a_manual_page_with_its_flags() {
    let folder = Folder::new();
    recua(&["man", "--out", &folder.path("man1")]).ok();
    let names: Vec<_> =
        std::fs::read_dir(folder.path("man1")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.len() >= 13, "{names:?}");
    assert!(!names.iter().any(|name| name == "recua-bench-memory.1"), "hidden commands have none");
    let page = |name: &str| std::fs::read_to_string(folder.path(&format!("man1/{name}.1"))).unwrap();
    assert!(page("recua").contains("recua\\-run(1)"));
    for (name, flag) in
        [("recua-run", "max\\-tokens"), ("recua-bench-ops", "depth"), ("recua-doctor", "device")]
    {
        assert!(page(name).contains(flag), "{name} lacks {flag}");
    }
    assert_eq!(recua(&["man", "bench", "ops"]).ok().text(), page("recua-bench-ops"));
    refused(&["man", "frobnicate"], &["frobnicate", "run, chat"]);
}

#[cfg(unix)]
mod unix {
    use crate::{Folder, golden, program, recua, refusal, refused};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    fn succeeds(program: &str, args: &[&str]) {
        assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
    }

    #[test]
    fn a_signal_during_synth_or_quantize_leaves_no_file() {
        let folder = Folder::new();
        for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
            let out = folder.path("out.gguf");
            let mut child = Command::new(program())
                .args(["synth", "--shape", "1b", "--quant", "F16", &out])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // It runs for seconds, so it is in the middle as soon as there is a file.
            while std::fs::read_dir(&folder.0).unwrap().next().is_none() {
                assert!(child.try_wait().unwrap().is_none(), "it has ended by itself");
                std::thread::yield_now();
            }
            succeeds("kill", &["-s", signal, &child.id().to_string()]);
            assert_eq!(child.wait().unwrap().signal(), Some(number), "it ends by the signal");
            assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none(), "{signal} leaves a file");
        }
    }

    #[test]
    fn a_signal_that_is_ignored_stays_ignored() {
        let folder = Folder::new();
        let pipe = folder.path("pipe");
        succeeds("mkfifo", &[&pipe]);
        // The program waits for the pipe's reader, which comes after the signal.
        let script = "trap '' HUP; exec \"$@\"";
        let mut child = Command::new("sh")
            .args(["-c", script, "sh", &program(), "synth", "--shape", "tiny", "--quant", "Q8_0", &pipe])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let handles = |child: &std::process::Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let mask =
                status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim).unwrap_or("0");
            u64::from_str_radix(mask, 16).unwrap_or(0) >> 1 & 1 == 1
        };
        // Until it has decided about its signals: it handles INT then. Only Linux tells.
        while cfg!(target_os = "linux") && !handles(&child) {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        if cfg!(target_os = "linux") {
            succeeds("kill", &["-s", "HUP", &child.id().to_string()]);
        }
        assert!(std::fs::read(&pipe).unwrap().starts_with(b"GGUF"));
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_pipe_is_no_model() {
        let folder = Folder::new();
        let pipe = folder.path("pipe.gguf");
        succeeds("mkfifo", &[&pipe]);
        for command in ["inspect", "tokenize", "run"] {
            refused(
                &[command, &pipe, "text"][..if command == "inspect" { 2 } else { 3 }],
                &["pipe.gguf: is a named pipe"],
            );
        }
    }

    #[test]
    fn quantize_through_a_link_writes_the_file_behind_it() {
        let folder = Folder::new();
        let (link, file) = (folder.path("link.gguf"), folder.path("file.gguf"));
        std::os::unix::fs::symlink("file.gguf", &link).unwrap();
        recua(&["quantize", &golden("F16"), &link, "Q8_0"]).ok();
        assert!(std::path::Path::new(&link).is_symlink());
        recua(&["inspect", &file]).ok();
        let message = refusal(recua(&["quantize", &file, &link, "Q4_0"]), &["link.gguf", "also the input"]);
        assert!(!message.contains("panicked"));
    }
}
