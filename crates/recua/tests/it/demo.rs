//! The demo model answers held-out questions in one batch, and answers each as it does alone.

use crate::devices::devices;
use crate::testdata;
use recua::chat::Message;
use recua::gguf::Gguf;
use recua::{DEMO_MODEL, Device, LlamaConfig, Request, TextError, TextModel};

/// Prompt and answer of 32 items that training never saw, spread over all tasks. The model answers 4 of the 4800 held-out items
/// wrong (its README says in which tasks). None of these 32 is among them, so every answer must be right.
fn held_out() -> Vec<(String, String)> {
    let items: Vec<serde_json::Value> = std::fs::read_to_string(testdata("demo/heldout.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let text = |item: &serde_json::Value, key: &str| item[key].as_str().unwrap().to_string();
    let every = items.len() / 32;
    items
        .iter()
        .skip(5)
        .step_by(every)
        .take(32)
        .map(|item| (text(item, "prompt"), text(item, "answer")))
        .collect()
}

/// What the model answers, up to so many tokens each.
fn answers(device: &Device, batch_size: usize, prompts: &[&str], max_tokens: usize) -> Vec<String> {
    let config = LlamaConfig { batch_size, max_seq_len: 256, ..LlamaConfig::default() };
    let mut model = TextModel::load(&Gguf::from_bytes(DEMO_MODEL).unwrap(), device.clone(), config).unwrap();
    let request = |prompt: &&str| {
        let request = model.request(&[Message::new("user", *prompt)]).unwrap();
        Request { max_tokens, ..request }
    };
    let requests = prompts.iter().map(request).collect();
    let mut pieces = vec![String::new(); prompts.len()];
    let answers = model.run(requests, |i, text| pieces[i].push_str(text)).unwrap();
    assert_eq!(answers, pieces);
    answers.iter().map(|answer| answer.trim().to_string()).collect()
}

#[test]
fn a_batch_of_held_out_items_is_answered() {
    let items = held_out();
    assert_eq!(items.len(), 32);
    let prompts: Vec<&str> = items.iter().map(|(prompt, _)| prompt.as_str()).collect();
    for (name, device) in devices() {
        let together = answers(&device, 32, &prompts, 100);
        for ((prompt, answer), found) in items.iter().zip(&together) {
            assert_eq!(found, answer, "{name}: {prompt}");
        }
    }
}

#[test]
fn eight_prompts_together_are_eight_runs_alone() {
    const N_TOKENS: usize = 24;
    let prompts = [
        "What is 17 plus 25?",
        "Tell me a story about a fox.",
        "Hello!",
        "Spell the word garden.",
        "Sort pear, apple, fig.",
        "Who are you?",
        "Write 4096 in words.",
        "Reverse the word stone.",
    ];
    for (name, device) in devices() {
        // Some answers end before so many tokens and some do not, so slots come free one after the other.
        let together = answers(&device, 8, &prompts, N_TOKENS);
        // With one slot, each waits until the one before is done.
        let alone = answers(&device, 1, &prompts, N_TOKENS);
        for (prompt, (together, alone)) in prompts.iter().zip(together.iter().zip(&alone)) {
            assert_eq!(alone, together, "{name}: {prompt}");
        }
    }
}

/// A request that is refused leaves nothing behind.
#[test]
fn a_refused_request_does_not_spoil_the_next_call() {
    let device = recua::open_device("cpu").unwrap();
    let config = LlamaConfig { max_seq_len: 256, ..LlamaConfig::default() };
    let mut model = TextModel::load(&Gguf::from_bytes(DEMO_MODEL).unwrap(), device, config).unwrap();
    let question = [Message::new("user", "What is the sum of 5 and 18?")];
    let good = model.request(&question).unwrap();
    let bad = Request { max_tokens: 0, ..good.clone() };
    assert!(matches!(model.run(vec![good, bad], |_, _| {}), Err(TextError::Request(_))));
    let mut streamed = String::new();
    let answer = model.answer(&question, |text| streamed.push_str(text)).unwrap();
    assert_eq!((answer.trim(), streamed.trim()), ("23", "23"));
}
