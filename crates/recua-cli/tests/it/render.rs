//! `recua render`: where the conversation comes from, which template is used, and how the prompt ends.

use crate::{Folder, golden, recua, recua_with, refusal, refused};

const TALK: &str = r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes "}]"#;

fn rendered(flags: &[&str], conversation: &str) -> String {
    let model = golden("Q8_0");
    recua_with(&[&["render", &model], flags].concat(), conversation.as_bytes()).ok().text().to_owned()
}

#[test]
fn the_prompt_is_printed_as_it_is() {
    let folder = Folder::new();
    let file = folder.write("talk.json", TALK.as_bytes());
    let open = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes <|im_end|>\n";
    let chatml = ["--template", "chatml"];
    assert_eq!(rendered(&chatml, TALK), format!("{open}<|im_start|>assistant\n"));
    let model = golden("Q8_0");
    let from_file = recua(&["render", &model, &file, "--template", "chatml"]).ok();
    assert_eq!(from_file.text(), format!("{open}<|im_start|>assistant\n"));
    assert!(from_file.stderr.is_empty());
    assert_eq!(rendered(&[&chatml[..], &["--no-generation-prompt"]].concat(), TALK), open);
    let continued = rendered(&[&chatml[..], &["--continue-last"]].concat(), TALK);
    assert_eq!(continued, open.strip_suffix("<|im_end|>\n").unwrap());
    // Without a template of its own or a name, this file has none.
    refusal(recua_with(&["render", &model], TALK.as_bytes()), &["tiny-Q8_0", "tokenizer.chat_template"]);
}

#[test]
fn a_template_sees_tools_documents_and_variables() {
    let folder = Folder::new();
    let template = folder.write(
        "t.jinja",
        b"{{ tools | tojson }}{{ documents | length if documents }}{{ a is boolean }}{{ b }}{{ c | tojson }}{{ eos_token }}{{ messages[0].tool_calls[0].function.arguments | tojson }}",
    );
    let tools = folder.write("tools.json", br#"[{"type": "function"}]"#);
    let call =
        r#"{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]}"#;
    let body = format!(
        r#"{{"model": "m", "messages": [{call}], "documents": [1, 2], "chat_template_kwargs": {{"b": 1, "c": null}}}}"#
    );
    let flags = ["--template", &template, "--tools", &tools, "--var", "a=false", "--var", "b=x=y"];
    assert_eq!(rendered(&flags, &body), r#"[{"type": "function"}]2Truex=ynull</s>"{\"x\": 1}""#);
    let parsed = rendered(&[&flags[..], &["--parse-arguments"]].concat(), &body);
    assert!(parsed.ends_with(r#"{"x": 1}"#), "{parsed}");
}

/// The ids are those that the model would get: control tokens where the template writes them, none from messages.
#[test]
fn tokens_are_those_of_the_prompt() {
    let folder = Folder::new();
    let template = folder.write("t.jinja", b"{{ messages[0].content }}{{ eos_token }}");
    let ids = |text: &str| {
        let talk = serde_json::json!([{"role": "user", "content": text}]).to_string();
        let line = rendered(&["--template", &template, "--tokens"], &talk);
        line.trim_end().split(' ').map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let plain = ids("</s>");
    assert_eq!(plain.iter().filter(|&&id| id == 2).count(), 1, "{plain:?}");
    assert_eq!(plain.last(), Some(&2));
}

#[test]
fn what_is_no_conversation_is_refused() {
    let model = golden("Q8_0");
    let refuse = |conversation: &str, words: &[&str]| {
        let ran = recua_with(&["render", &model, "--template", "chatml"], conversation.as_bytes());
        refusal(ran, words);
    };
    refuse("[", &["standard input", "not JSON"]);
    refuse("1", &["neither a list of messages"]);
    refuse("{}", &["no list of messages"]);
    refuse(r#"[{"role": "user"}, "x"]"#, &["message 2", "a string, not an object"]);
    refuse(r#"{"messages": [], "tools": 1}"#, &["tools is not a list"]);
    refuse(&"[".repeat(300), &["not JSON"]);
    refused(&["render", &model, "--template", "nothing"], &["nothing", "no such file", "chatml"]);
    refused(&["render", &model, "missing.json", "--template", "chatml"], &["missing.json"]);
}

#[test]
fn a_run_shows_its_prompt() {
    let ran =
        recua(&["run", "demo", "What is 2 + 3?", "--verbose-prompt", "-n", "1", "--device", "cpu"]).ok();
    let line = |name: &str| ran.stderr.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    assert!(line("prompt: ").contains("What is 2 + 3?"), "{}", ran.stderr);
    let talk = r#"[{"role": "user", "content": "What is 2 + 3?"}]"#;
    let rendered = recua_with(&["render", "demo", "--tokens"], talk.as_bytes()).ok();
    assert_eq!(line("tokens: "), rendered.text().trim_end());
}
