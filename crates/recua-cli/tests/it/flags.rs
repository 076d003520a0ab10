//! Flags as they are known from other programs, and where prompts come from.

use crate::{Folder, golden, recua, recua_with, refused};

const SUM: &str = "What is the sum of 5 and 18?";

#[test]
fn a_model_and_prompts_by_flags() {
    let folder = Folder::new();
    let file = folder.write("prompt.txt", b"Spell forest.\n");
    assert_eq!(recua(&["run", "-m", "demo", "-p", SUM]).ok().text(), "23\n");
    assert_eq!(recua(&["run", "--model", "demo", "-f", &file, "-p", SUM]).ok().text(), "23\n\nf-o-r-e-s-t\n");
    let (model, hyphen) = (golden("Q8_0"), "- a list");
    let ran = recua(&["run", &model, "--raw", "-p", hyphen, "-n", "1", "--format", "json"]).ok().json();
    assert_eq!(ran["prompt"], hyphen);
    let absent = folder.path("absent.txt");
    refused(&["run", "demo", "-f", &absent], &["absent.txt", "No such file"]);
    refused(&["run", "demo", "-f", &folder.write("blank.txt", b" \n")], &["blank.txt", "is empty"]);
}

#[test]
fn a_file_is_one_prompt_and_a_line_of_standard_input_is_one() {
    let model = golden("Q8_0");
    let prompts = |rest: &[&str], stdin: &str| -> Vec<String> {
        let args = [&["run", &*model, "--raw", "-n", "1", "--format", "json"][..], rest].concat();
        let ran = recua_with(&args, stdin.as_bytes()).ok();
        let lines = ran.text().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["prompt"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(prompts(&[], "one\n\ntwo\n"), ["one", "two"]);
    assert_eq!(prompts(&["-f", "-"], "one\n\ntwo\n"), ["one\n\ntwo"]);
    assert_eq!(prompts(&["a", "b"], "one\ntwo\n"), ["a\n\none\ntwo", "b\n\none\ntwo"]);
    assert_eq!(prompts(&["a", "-f", "-"], "one\n"), ["a", "one"]);
    assert_eq!(prompts(&["a"], " \n"), ["a"]);
}

#[test]
fn minus_one_is_the_end_and_a_random_seed() {
    let model = golden("Q8_0");
    let run =
        |rest: &[&str]| recua(&[&["run", &*model, "--raw", "a", "--format", "json"][..], rest].concat());
    // So small a context is filled.
    let full = run(&["-n", "-1", "-c", "40", "--seed", "1"]).ok().json();
    let total = full["prompt_tokens"].as_u64().unwrap() + full["generated_tokens"].as_u64().unwrap();
    assert!(full["finish_reason"] == "stop" || total == 40, "{full}");
    let random = || run(&["-n", "20", "--seed", "-1", "--temp", "2"]).ok().json()["text"].clone();
    let texts = [random(), random(), random()];
    assert!(texts.iter().any(|text| *text != texts[0]), "{texts:?}");
    assert!(run(&["-n", "-2"]).stderr.contains("-1 is as many tokens as the context holds"));
    assert!(run(&["--seed", "-2"]).stderr.contains("-1 for a random one"));
}

#[test]
fn gpu_layers_are_explained_once() {
    let ran = recua(&["run", "demo", SUM, "-ngl", "0"]).ok();
    assert_eq!(ran.text(), "23\n");
    assert_eq!(ran.stderr.matches("-ngl").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("which is cpu; --device"), "{}", ran.stderr);
    let ran = recua(&["run", "demo", SUM, "-ngl", "-1", "--device", "cpu"]).ok();
    assert_eq!(ran.text(), "23\n");
    assert_eq!(recua(&["run", "demo", SUM, "-ngl", "many"]).code, 2);
}

#[test]
fn a_system_message_by_its_short_name() {
    let args = |flag| ["run", "demo", SUM, flag, "You are a llama.", "--format", "json"];
    let with = |flag| recua(&args(flag)).ok().json()["prompt_tokens"].clone();
    assert_eq!(with("-sys"), with("--system"));
    assert!(
        with("-sys").as_u64()
            > recua(&["run", "demo", SUM, "--format", "json"]).json()["prompt_tokens"].as_u64()
    );
}

#[test]
fn threads_beyond_the_cores_are_cut() {
    let ran = recua(&["run", "demo", SUM, "--device", "cpu", "-t", "100000"]).ok();
    assert_eq!(ran.text(), "23\n");
    assert!(ran.stderr.contains("note: --threads 100000 is more than the"), "{}", ran.stderr);
}

#[test]
fn one_token_has_no_rate() {
    let ran = recua(&["run", "demo", SUM, "-n", "1"]).ok();
    assert!(
        ran.stderr.contains("1 generated token in") && !ran.stderr.contains("tokens/s"),
        "{}",
        ran.stderr
    );
}
