//! The demo model answers held-out questions in one batch, and answers each as it does alone.

use crate::devices::devices;
use crate::testdata;
use recua::chat::{Chat, ChatTemplate, Message};
use recua::gguf::Gguf;
use recua::tokenizer::Tokenizer;
use recua::{DEMO_MODEL, Device, Engine, Event, LlamaConfig, LlamaModel, Request};
use std::collections::HashMap;
use std::sync::Arc;

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
    let gguf = Gguf::from_bytes(DEMO_MODEL).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let template = ChatTemplate::from_metadata(gguf.metadata(), &tokenizer).unwrap();
    let config = LlamaConfig { batch_size, max_seq_len: 256, ..LlamaConfig::default() };
    let model = LlamaModel::load(&gguf, device.clone(), config).unwrap();
    let mut engine = Engine::new(model, tokenizer.clone());
    let mut ids = Vec::new();
    for prompt in prompts {
        let prompt = template
            .encode(&tokenizer, &Chat::new([Message::new("user", *prompt)]), std::time::SystemTime::now())
            .unwrap();
        ids.push(engine.add(Request { prompt, max_tokens, ..Request::default() }).unwrap());
    }
    let (mut texts, mut events) = (HashMap::new(), Vec::new());
    while !engine.is_idle() {
        engine.step_ahead(&mut events).unwrap();
        for event in events.drain(..) {
            match event {
                Event::Token { id, text, .. } | Event::Finished { id, text, .. } => {
                    texts.entry(id).or_insert_with(String::new).push_str(&text);
                }
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    ids.iter().map(|id| texts[id].trim().to_string()).collect()
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
