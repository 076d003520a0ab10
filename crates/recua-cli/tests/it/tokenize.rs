//! `recua tokenize`: where the text comes from. The ids themselves are tested with the tokenizer.

use crate::{Folder, golden, recua, recua_with, refusal, refused};

// The synthetic vocabulary: 0 <unk>, 1 <s>, 2 </s>, 3.. bytes.

#[test]
fn text_file_and_stdin_give_the_same_line() {
    let model = golden("Q8_0");
    let text = "ab\n é\0\n";
    let argument = recua(&["tokenize", &model, "ab c"]).ok();
    let ids: Vec<u32> = argument.text().trim_end().split(' ').map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() > 1 && argument.text().ends_with('\n') && argument.stderr.is_empty());
    let folder = Folder::new();
    let file = folder.write("text", text.as_bytes());
    let from_file = recua(&["tokenize", &model, "--file", &file]).ok();
    let from_stdin = recua_with(&["tokenize", &model], text.as_bytes()).ok();
    assert_eq!(from_file.text(), from_stdin.text());
    // The byte of the last line feed is a token: nothing was trimmed.
    assert!(from_file.text().trim_end().ends_with(&(3 + 10).to_string()), "{}", from_file.text());
}

#[test]
fn an_empty_text_is_an_empty_line() {
    let model = golden("Q8_0");
    assert_eq!(recua(&["tokenize", &model, ""]).ok().text(), "\n");
    assert_eq!(recua(&["tokenize", &model]).ok().text(), "\n");
    assert_eq!(recua(&["tokenize", &model, "", "--bos"]).ok().text(), "1\n");
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    let model = golden("Q8_0");
    let plain = recua(&["tokenize", &model, "</s>"]).ok();
    assert!(!plain.text().trim_end().split(' ').any(|id| id == "2"), "{}", plain.text());
    assert_eq!(recua(&["tokenize", &model, "</s>", "--special"]).ok().text(), "2\n");
}

#[test]
fn a_text_may_look_like_a_flag() {
    let model = golden("Q8_0");
    assert!(recua(&["tokenize", &model, "-x"]).ok().text().len() > 2);
}

#[test]
fn unreadable_text_is_named() {
    let model = golden("Q8_0");
    let folder = Folder::new();
    let file = folder.write("latin1", b"caf\xe9");
    refused(&["tokenize", &model, "--file", &file], &["latin1", "UTF-8", "byte 3"]);
    refusal(recua_with(&["tokenize", &model], b"\xff"), &["standard input", "UTF-8"]);
    refused(&["tokenize", &model, "--file", &folder.path("missing")], &["missing"]);
}

#[test]
fn vocabularies_without_tensors_work() {
    let Some(folder) = std::env::var_os("RECUA_VOCAB_DIR") else {
        println!("skipped: RECUA_VOCAB_DIR is not set");
        return;
    };
    let model = std::path::Path::new(&folder).join("llama-spm.gguf");
    let model = model.to_str().unwrap();
    assert_eq!(recua(&["tokenize", model, "Hello world", "--bos"]).ok().text(), "1 15043 3186\n");
    let inspected = recua(&["inspect", model]).ok();
    assert!(inspected.text().contains("0 tensors"), "{}", inspected.text());
}
