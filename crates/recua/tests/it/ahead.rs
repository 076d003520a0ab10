//! Steps that are launched before the tokens of the step before are known: on every device the events are those of one step after
//! the other.

use crate::devices::devices;
use recua::chat::{Chat, ChatTemplate, Message};
use recua::gguf::Gguf;
use recua::tokenizer::Tokenizer;
use recua::{
    Batch, DEMO_MODEL, Device, Engine, Event, LlamaConfig, LlamaModel, Logits, Request, RequestId,
    SamplingParams,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

fn model(device: &Device, config: LlamaConfig) -> LlamaModel {
    LlamaModel::load(&Gguf::from_bytes(DEMO_MODEL).unwrap(), device.clone(), config).unwrap()
}

const PROMPTS: [&str; 10] = [
    "Tell me a story about a fox.",
    "Who are you?",
    "Write 4096 in words.",
    "Hello!",
    "Spell the word garden.",
    "Tell me a story about an owl.",
    "What is 17 plus 25?",
    "Reverse the word stone.",
    "Sort pear, apple, fig.",
    "Write 77 in words.",
];

/// Greedy ones, of which some end in a stop string, and some whose tokens the host chooses.
fn request(i: usize, prompt: Vec<u32>, samples: bool) -> Request {
    let params = SamplingParams { temperature: 0.9, top_k: 40, seed: 3, ..SamplingParams::default() };
    Request {
        prompt,
        params: if samples && i % 4 == 3 { params } else { SamplingParams::default() },
        max_tokens: 6 + i * 5 % 17,
        stop: if i % 3 == 1 { vec![" and".into(), "er".into()] } else { Vec::new() },
        ..Request::default()
    }
}

/// The events of each request. Some are cancelled when they have had so many events: those are cut there.
fn streams(device: &Device, samples: bool, goes_ahead: bool) -> BTreeMap<RequestId, Vec<Event>> {
    const CANCELLED_AT: [(usize, usize); 3] = [(2, 1), (6, 2), (9, 4)];
    let gguf = Gguf::from_bytes(DEMO_MODEL).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let template = ChatTemplate::from_metadata(gguf.metadata(), &tokenizer).unwrap();
    let encode = |text: &str| {
        template.encode(&tokenizer, &Chat::new([Message::new("user", text)]), SystemTime::UNIX_EPOCH).unwrap()
    };
    let config =
        LlamaConfig { batch_size: 5, step_tokens_max: 24, max_seq_len: 64, ..LlamaConfig::default() };
    let mut engine = Engine::new(model(device, config), tokenizer.clone());
    let mut streams: BTreeMap<RequestId, Vec<Event>> = BTreeMap::new();
    let (mut ids, mut events) = (Vec::new(), Vec::new());
    while ids.len() < PROMPTS.len() || !engine.is_idle() {
        if let Some(text) = PROMPTS.get(ids.len()) {
            ids.push(engine.add(request(ids.len(), encode(text), samples)).unwrap());
        }
        if goes_ahead { engine.step_ahead(&mut events) } else { engine.step(&mut events) }.unwrap();
        for event in events.drain(..) {
            streams.entry(event.id()).or_default().push(event);
        }
        for (i, n_events) in CANCELLED_AT {
            if ids.get(i).is_some_and(|id| streams.get(id).is_some_and(|events| events.len() == n_events)) {
                engine.cancel(ids[i]);
            }
        }
    }
    assert_eq!(engine.sequences().free_pages(), engine.sequences().n_pages());
    streams
}

#[test]
fn running_ahead_changes_no_event() {
    for (name, device) in devices() {
        for samples in [false, true] {
            let expected = streams(&device, samples, false);
            assert_eq!(expected.len(), PROMPTS.len());
            assert_eq!(streams(&device, samples, true), expected, "{name}");
        }
    }
}

/// In programs of several shapes: two of the four sequences end before the others.
#[test]
fn generated_tokens_are_those_of_single_steps() {
    let batch = |step: usize, before: Option<&[Option<u32>]>| {
        let mut batch = Batch::new();
        let n_slots = |step: usize| if step < 6 { 4 } else { 2 };
        for slot in 0..n_slots(step) {
            let prompt: [u32; 5] = std::array::from_fn(|i| (40 + slot * 37 + i * 11) as u32);
            match before {
                _ if step == 0 => batch.push_sequence(slot, 0, &prompt, Logits::Last),
                None => batch.push_chosen(slot, 4 + step, slot, Logits::Last),
                Some(before) => batch.push_sequence(slot, 4 + step, &[before[slot].unwrap()], Logits::Last),
            }
        }
        batch
    };
    let config = || LlamaConfig { batch_size: 4, max_seq_len: 64, ..LlamaConfig::default() };
    for (name, device) in devices() {
        let mut one = model(&device, config());
        let mut expected: Vec<Vec<Option<u32>>> = Vec::new();
        for step in 0..14 {
            let tokens =
                one.step_greedy(&batch(step, Some(expected.last().map_or(&[], Vec::as_slice)))).unwrap();
            expected.push(tokens);
        }
        let distinct: BTreeSet<_> = expected.iter().flatten().collect();
        assert!(distinct.len() >= 8, "a wrong token would not show: {expected:?}");
        let mut ahead = model(&device, config());
        let mut under_way = Vec::new();
        // All at once: the host is as far ahead as it can be.
        for step in 0..14 {
            under_way.push(ahead.launch_greedy(&batch(step, None)).unwrap());
        }
        let found: Vec<_> = under_way.into_iter().map(|step| ahead.collect_greedy(step).unwrap()).collect();
        assert_eq!(found, expected, "{name}");
    }
}
