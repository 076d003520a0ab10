//! `recua run` and `recua chat`.

use crate::{Folder, golden, program, recua, recua_with, refused};

#[test]
fn the_demo_answers_its_own_prompts() {
    let ran = recua(&["run", "demo"]).ok();
    let answers: Vec<&str> = ran.text().trim_end().split("\n\n").collect();
    assert_eq!(answers.len(), 8, "{}", ran.text());
    assert_eq!(answers[0], "251");
    assert_eq!(answers[4], "yekrut");
    assert!(ran.stderr.contains("up to 8 in a step") && ran.stderr.contains("tokens/s"), "{}", ran.stderr);
}

#[test]
fn prompts_come_from_standard_input_too() {
    let question = "What is the sum of 5 and 18?";
    let argument = recua(&["run", "demo", question]).ok();
    assert_eq!(argument.text(), "23\n");
    let piped = recua_with(&["run", "demo"], format!("{question}\n\nSpell forest.\n").as_bytes()).ok();
    assert_eq!(piped.text(), "23\n\nf-o-r-e-s-t\n");
}

#[test]
fn json_lines() {
    let ran = recua(&["run", &golden("Q8_0"), "--raw", "one", "two", "--format", "json", "-n", "5"]).ok();
    let lines: Vec<serde_json::Value> =
        ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], i);
        assert_eq!(line["prompt"], ["one", "two"][i]);
        assert!(line["text"].is_string() && line["prompt_tokens"].as_u64() > Some(0));
        let generated = line["generated_tokens"].as_u64().unwrap();
        match line["finish_reason"].as_str().unwrap() {
            "length" => assert_eq!(generated, 5),
            reason => assert_eq!(reason, "stop"),
        }
    }
}

/// The same seed gives the same text, whatever shares the batch, in every place of it, and with every batch size.
#[test]
fn neighbours_change_nothing() {
    let model = golden("Q4_K_M");
    let texts = |prompts: &[&str], rest: &[&str]| -> Vec<String> {
        let args =
            [&["run", &*model, "--raw", "--format", "json", "--seed", "7", "-n", "12"][..], rest, prompts];
        let ran = recua(&args.concat()).ok();
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].to_string();
        ran.text().lines().map(line).collect()
    };
    let hot = &["--temp", "1.5", "--top-k", "0", "--min-p", "0"];
    let alone = texts(&["abc"], hot);
    let among = texts(&["x", "hello there", "abc", "zz"], hot);
    assert_eq!(among[2], alone[0]);
    assert_eq!(
        texts(&["x", "hello there", "abc", "zz"], &[&hot[..], &["--batch-size", "2"]].concat()),
        among
    );
    assert_ne!(texts(&["abc"], &["--temp", "0"]), alone);
}

#[test]
fn stop_strings_and_lengths() {
    let all = recua(&["run", "demo", "Spell forest."]).ok();
    assert_eq!(all.text(), "f-o-r-e-s-t\n");
    let stopped = recua(&["run", "demo", "Spell forest.", "--stop", "-e", "--format", "json"]).ok().json();
    assert_eq!((&stopped["text"], &stopped["finish_reason"]), (&"f-o-r".into(), &"stop".into()));
    let cut = recua(&["run", "demo", "Spell forest.", "--max-tokens", "2", "--format", "json"]).ok().json();
    assert_eq!((&cut["generated_tokens"], &cut["finish_reason"]), (&2.into(), &"length".into()));
}

#[test]
fn every_sampling_flag_is_taken() {
    let flags = "--temp 0.9 --top-k 10 --top-p 0.9 --min-p 0.1 --repeat-penalty 1.1 --frequency-penalty -0.5 \
                 --presence-penalty 0.5 --seed 3 --max-tokens 4 --stop zz --stop yy --threads 1 --device cpu \
                 --ctx-size 1k --batch-size 1";
    let args: Vec<&str> = ["run", "demo", "hello"].into_iter().chain(flags.split_whitespace()).collect();
    assert_eq!(recua(&args).ok().text(), recua(&args).ok().text());
}

/// The golden model with these keys below `general.sampling`.
fn recommending(folder: &Folder, keys: &[(&str, f32)]) -> String {
    let model = recua::gguf::Gguf::open(golden("Q8_0")).unwrap();
    let mut header = recua::gguf::Header::new();
    header.copy_metadata(model.metadata(), |_| true).unwrap();
    for &(key, value) in keys {
        header.set(&format!("general.sampling.{key}"), value).unwrap();
    }
    for tensor in model.tensors() {
        header.tensor(&tensor.name, tensor.ty, tensor.dims()).unwrap();
    }
    let mut writer = recua::gguf::Writer::new(Vec::new(), &header).unwrap();
    for tensor in model.tensors() {
        writer.write(&tensor.name, &model.data(tensor).to_vec().unwrap()).unwrap();
    }
    folder.write("recommending.gguf", &writer.finish().unwrap())
}

#[test]
fn what_a_file_recommends_holds_where_no_flag_is_given() {
    let folder = Folder::new();
    let run = |model: &str, flags: &[&str]| {
        recua(&[&["run", model, "--raw", "abc", "-n", "12", "--seed", "7"], flags].concat())
            .ok()
            .text()
            .to_owned()
    };
    let model =
        recommending(&folder, &[("temp", 1.5), ("top_p", 1.0), ("min_p", 0.0), ("penalty_repeat", 1.3)]);
    let flags = ["--temp", "1.5", "--top-p", "1", "--min-p", "0", "--repeat-penalty", "1.3"];
    assert_eq!(run(&model, &[]), run(&golden("Q8_0"), &flags));
    assert_ne!(run(&model, &[]), run(&golden("Q8_0"), &[]));
    let others = ["--temp", "0.9", "--top-p", "0.5", "--min-p", "0.1", "--repeat-penalty", "1"];
    assert_eq!(run(&model, &others), run(&golden("Q8_0"), &others));
    assert!(recua(&["inspect", &model]).ok().text().contains("general.sampling.temp"));

    let wrong = recommending(&folder, &[("temp", f32::NAN)]);
    refused(&["run", &wrong, "x"], &["recommending.gguf", "general.sampling.temp is NaN", "from 0 to 100"]);
    assert_eq!(recua(&["inspect", &wrong, "--strict"]).code, 2);
}

#[test]
fn a_system_message_needs_a_template() {
    let ran = recua(&["run", &golden("Q8_0"), "x", "--system", "y"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("--system needs a chat template"), "{}", ran.stderr);
}

#[test]
fn a_chat_through_a_pipe() {
    let lines = "What is the sum of 5 and 18?\n/help\n/nonsense\n/clear\nSpell forest.\n/bye\nSpell sun.\n";
    let ran = recua_with(&["chat", "demo"], lines.as_bytes()).ok();
    assert_eq!(ran.text(), "23\nf-o-r-e-s-t\n");
    assert!(ran.stderr.contains("/system TEXT") && ran.stderr.contains("no command /nonsense"));
}

#[test]
fn a_conversation_that_outgrows_its_context_is_refused() {
    let ran = recua_with(&["chat", "demo", "-c", "32"], "x y z ".repeat(40).as_bytes());
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("context of 32") && ran.stderr.contains("--ctx-size"), "{}", ran.stderr);
}

#[test]
fn a_full_context_goes_on_without_the_oldest_turns() {
    let question = "What is the sum of 5 and 18?\n";
    let lines = question.repeat(6);
    let ran = recua_with(&["chat", "demo", "-c", "64"], lines.as_bytes()).ok();
    assert_eq!(ran.text(), "23\n".repeat(6));
    assert!(
        ran.stderr.contains("[the context of 64 tokens is full: 1 turn, the oldest, left out]"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("full: 2 turns"), "{}", ran.stderr);
    let ran = recua_with(&["chat", "demo", "-c", "64", "--keep", "-1"], lines.as_bytes());
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("context of 64") && ran.stderr.contains("/clear"), "{}", ran.stderr);
    let ran = recua_with(&["chat", "demo", "-c", "80", "--keep", "30"], lines.as_bytes()).ok();
    assert!(ran.stderr.contains("the oldest after those of --keep"), "{}", ran.stderr);
}

#[test]
fn an_answer_that_is_cut_says_by_what() {
    let ran = recua_with(&["chat", "demo", "-n", "2"], b"Spell forest.\n").ok();
    assert!(ran.stderr.contains("ends here after 2 tokens; /set max-tokens"), "{}", ran.stderr);
}

#[test]
fn settings_change_and_conversations_are_saved() {
    let folder = Folder::new();
    let file = folder.path("saved.json");
    let lines = format!(
        "/set max-tokens 2\nSpell forest.\n/system Be kind.\n/set max-tokens -1\nSpell forest.\n/save {file}\n"
    );
    let ran = recua_with(&["chat", "demo"], lines.as_bytes()).ok();
    let (cut, whole) = ran.text().split_once('\n').unwrap();
    assert!("f-o-r-e-s-t".starts_with(cut) && whole == "f-o-r-e-s-t\n", "{}", ran.text());
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let roles: Vec<_> =
        saved["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    let ran = recua_with(&["chat", "demo"], format!("/load {file}\n/system\n").as_bytes()).ok();
    assert!(ran.stderr.contains("loaded 1 turn") && ran.stderr.contains("Be kind."), "{}", ran.stderr);
    // A script learns of a mistake by the exit code.
    for bad in ["/load absent.json\n", "/set temp warm\n", "/set colour red\n", "/save\n"] {
        assert_eq!(recua_with(&["chat", "demo"], bad.as_bytes()).code, 2, "{bad}");
    }
}

#[test]
fn a_line_is_bounded() {
    let ran = recua_with(&["chat", "demo"], "x".repeat(3 << 20).as_bytes());
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("longer than 1.00 MiB"), "{}", ran.stderr);
}

/// A reader that closes the pipe has read enough: no panic and no error.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::{Command, Stdio};
    for args in [&["man"][..], &["run", "demo"], &["inspect", "demo"], &["completions", "zsh"]] {
        let mut child = Command::new(program())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}
