//! Steps that are launched before the tokens of the step before are known: the events stay the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use recua_engine::{
    Engine, Event, FinishReason, LlamaConfig, LlamaModel, Request, RequestError, RequestId, StepStats,
};
use recua_gguf::Gguf;
use recua_text::chat::{Chat, ChatTemplate, Message};
use recua_text::tokenizer::Tokenizer;

use crate::engine::{self, alone, config, golden, greedy, prompt, request};
use crate::faulty::{self, Faults};
use crate::overlap::BUCKETS;
use crate::support::Random;

/// The events of each request, in order.
#[derive(Default)]
struct Streams(BTreeMap<RequestId, Vec<Event>>);

impl Streams {
    fn file(&mut self, events: Vec<Event>) {
        for event in events {
            self.0.entry(event.id()).or_default().push(event);
        }
    }

    fn of(&self, id: RequestId) -> &[Event] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }

    fn step_ahead(&mut self, engine: &mut Engine) -> StepStats {
        let mut events = Vec::new();
        let stats = engine.step_ahead(&mut events).unwrap();
        self.file(events);
        engine.sequences().check().unwrap();
        stats
    }

    fn run(&mut self, engine: &mut Engine) {
        while !engine.is_idle() {
            assert!(self.step_ahead(engine).rows > 0, "stuck");
        }
        let sequences = engine.sequences();
        assert_eq!(sequences.free_pages(), sequences.n_pages(), "an idle engine holds pages");
    }
}

const PROMPTS: [&str; 12] = [
    "Tell me a story about a fox.",
    "Who are you?",
    "Write 4096 in words.",
    "Hello!",
    "Spell the word garden.",
    "Tell me a story about an owl.",
    "What is 17 plus 25?",
    "Reverse the word stone.",
    "Sort pear, apple, fig.",
    "Tell me a story about a bear.",
    "Write 77 in words.",
    "Tell me a story about a mouse.",
];

/// Requests, and the answers of a file to each alone, one step after the other.
struct Case {
    file: Vec<u8>,
    requests: Vec<Request>,
    expected: Vec<Vec<Event>>,
}

impl Case {
    fn new(file: Vec<u8>, requests: Vec<Request>) -> Case {
        let mut engine = engine::open(file.clone(), config(1, 512, 256));
        let mut expected = Vec::new();
        for request in &requests {
            let mut events = Vec::new();
            engine.add(request.clone()).unwrap();
            while !engine.is_idle() {
                engine.step(&mut events).unwrap();
            }
            expected.push(events);
        }
        Case { file, requests, expected }
    }

    /// Greedy requests to the demo model that end in every possible way: by their length, by a stop string, by the end token, and by logits
    /// that are NaN.
    fn of_every_end() -> Case {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../recua/demo/demo-Q8_0.gguf");
        let mut file = std::fs::read(path).unwrap();
        let gguf = Gguf::from_vec(file.clone()).unwrap();
        let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
        let template = ChatTemplate::from_metadata(gguf.metadata(), &tokenizer).unwrap();
        let requests = PROMPTS.iter().zip(0..).map(|(text, i)| {
            let prompt = template.encode(
                &tokenizer,
                &Chat::new([Message::new("user", *text)]),
                SystemTime::UNIX_EPOCH,
            );
            let stop = if i % 4 == 1 { vec![" and".into(), "er".into()] } else { Vec::new() };
            Request { stop, ..greedy(prompt.unwrap(), 9 + i * 7 % 23) }
        });
        let mut requests: Vec<Request> = requests.collect();
        // A token that occurs in no prompt; its own logit is NaN too, so it occurs in no answer.
        let is_new = |token: &u32| requests.iter().all(|request| !request.prompt.contains(token));
        let poisoned = (3..1024).rev().find(is_new).unwrap();
        engine::poison(&mut file, poisoned as usize);
        requests.insert(3, greedy(vec![5, poisoned, 6], 8));
        let case = Case::new(file, requests);
        let n_with = |is: fn(&Event) -> bool| {
            case.expected.iter().filter(|events| is(&events[events.len() - 1])).count()
        };
        assert!(n_with(|end| matches!(end, Event::Finished { reason: FinishReason::Length, .. })) >= 3);
        assert_eq!(n_with(|end| matches!(end, Event::Failed { error: RequestError::Logits(_), .. })), 1);
        let mut ended_by = [0, 0];
        for (events, request) in case.expected.iter().zip(&case.requests) {
            if let [.., Event::Token { token, .. }, Event::Finished { reason: FinishReason::Stop, .. }] =
                events[..]
            {
                let is_end = tokenizer.is_end(token);
                assert!(is_end || !request.stop.is_empty());
                ended_by[usize::from(is_end)] += 1;
            }
        }
        assert!(ended_by[0] >= 2 && ended_by[1] >= 2, "{ended_by:?}");
        case
    }

    /// Greedy requests whose logits become NaN after a token that every answer reaches, sooner or later.
    fn of_failing() -> Case {
        let request = |i: u64| greedy(prompt(300 + i, 1 + (i as usize * 7) % 23), 12);
        let requests: Vec<Request> = (0..16).map(request).collect();
        let mut file = golden();
        let common = alone([requests[0].clone()]).remove(0).tokens[0];
        engine::poison(&mut file, common as usize);
        let case = Case::new(file, requests);
        let n_behind = |n: usize| case.expected.iter().filter(|events| events.len() == n + 1).count();
        let failed = |events: &Vec<Event>| {
            matches!(events[..], [.., Event::Failed { error: RequestError::Logits(_), .. }])
        };
        assert!(
            case.expected.iter().all(failed) && n_behind(1) > 3 && n_behind(2) > 3,
            "{:?}",
            case.expected
        );
        case
    }

    fn open(&self, config: LlamaConfig) -> (Engine, Faults) {
        let gguf = Gguf::from_vec(self.file.clone()).unwrap();
        let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
        let (device, faults) = faulty::open_late(BUCKETS);
        (Engine::new(LlamaModel::load(&gguf, device, config).unwrap(), tokenizer), faults)
    }
}

#[test]
fn every_end_is_the_same_in_any_company() {
    check_company(&Case::of_every_end());
    check_company(&Case::of_failing());
}

fn check_company(case: &Case) {
    for (batch_size, step_tokens_max) in [(1, 512), (3, 2), (5, 16), (16, 512)] {
        let (mut engine, faults) = case.open(config(batch_size, step_tokens_max, 256));
        // Twice: the second time in pages that others have left full of NaN.
        for _ in 0..2 {
            let ids: Vec<RequestId> = case.requests.iter().map(|r| engine.add(r.clone()).unwrap()).collect();
            let mut streams = Streams::default();
            faults.in_flight_max();
            streams.run(&mut engine);
            assert_eq!(faults.in_flight_max(), 2);
            for (id, expected) in ids.iter().zip(&case.expected) {
                let events: Vec<Event> =
                    streams.of(*id).iter().map(|event| with_id(event, expected[0].id())).collect();
                assert_eq!(&events, expected, "{batch_size} slots, {step_tokens_max} rows");
            }
        }
    }
}

/// The same event of another request.
fn with_id(event: &Event, id: RequestId) -> Event {
    let mut event = event.clone();
    match &mut event {
        Event::Token { id: own, .. } | Event::Finished { id: own, .. } | Event::Failed { id: own, .. } => {
            *own = id
        }
    }
    event
}

/// Requests are added, are cancelled and end while rows of them are in flight, and the host chooses the tokens of some.
#[test]
fn random_scripts_change_no_event() {
    let greedy_only = Case::of_every_end();
    let mixed = (0..13).map(|i| if i % 3 == 2 { request(i as u64) } else { greedy_only.requests[i].clone() });
    let mixed = Case::new(greedy_only.file.clone(), mixed.collect());
    for seed in 0..12 {
        let case = if seed % 3 == 0 { &mixed } else { &greedy_only };
        let mut random = Random(seed);
        let (mut engine, _) = case.open(config(1 + random.below(6), [3, 16, 512][random.below(3)], 256));
        let (mut streams, mut ids, mut cancelled) = (Streams::default(), Vec::new(), Vec::new());
        for request in &case.requests {
            ids.push(engine.add(request.clone()).unwrap());
            for _ in 0..random.below(5) {
                streams.step_ahead(&mut engine);
            }
            let id = ids[random.below(ids.len())];
            if random.below(3) == 0 && engine.cancel(id) {
                cancelled.push(id);
            }
        }
        streams.run(&mut engine);
        for (id, expected) in ids.iter().zip(&case.expected) {
            if cancelled.contains(id) {
                assert!(expected.starts_with(streams.of(*id)), "{id} of script {seed}, cancelled");
            } else {
                assert_eq!(streams.of(*id), expected, "{id} of script {seed}");
            }
        }
    }
}

#[test]
fn a_request_can_be_cancelled_at_every_moment() {
    let case = Case::of_every_end();
    for moment in 0..12 {
        for slots in [1, 2] {
            let (mut engine, _) = case.open(config(slots, 16, 256));
            let mut streams = Streams::default();
            let ids: Vec<RequestId> =
                case.requests[..3].iter().map(|request| engine.add(request.clone()).unwrap()).collect();
            for _ in 0..moment {
                streams.step_ahead(&mut engine);
            }
            let is_over = streams.of(ids[0]).len() == case.expected[0].len();
            assert_eq!(engine.cancel(ids[0]), !is_over);
            streams.run(&mut engine);
            assert!(case.expected[0].starts_with(streams.of(ids[0])));
            assert!(streams.of(ids[0]).len() <= moment);
            (1..3).for_each(|i| assert_eq!(streams.of(ids[i]), case.expected[i], "cancelled at {moment}"));
        }
    }
}

/// Requests without rows in or after the failing step get their full answers. The others get the events before it, and an error.
#[test]
fn a_failure_fails_who_runs_and_nobody_else() {
    let case = Case::of_every_end();
    for (n_before, fails_late) in (0..20).flat_map(|n| [(n, false), (n, true)]) {
        let (mut engine, faults) = case.open(config(2, 16, 256));
        let ids: Vec<RequestId> =
            case.requests[..6].iter().map(|request| engine.add(request.clone()).unwrap()).collect();
        if fails_late {
            faults.fail_late_after(n_before)
        } else {
            faults.fail_after(n_before)
        }
        let (mut streams, mut n_errors) = (Streams::default(), 0);
        while !engine.is_idle() {
            let mut events = Vec::new();
            let stepped = engine.step_ahead(&mut events);
            match stepped {
                Ok(stats) => assert!(stats.rows > 0, "stuck"),
                Err(_) => n_errors += 1,
            }
            streams.file(events);
            engine.sequences().check().unwrap();
        }
        assert_eq!(n_errors, 1);
        let mut n_failed = 0;
        for (id, expected) in ids.iter().zip(&case.expected) {
            match streams.of(*id) {
                [before @ .., Event::Failed { error: RequestError::Step(_), .. }] => {
                    assert!(expected.starts_with(before));
                    n_failed += 1;
                }
                events => assert_eq!(events, expected, "{id}, failure {n_before}, late: {fails_late}"),
            }
        }
        // Two have slots; two more may have left theirs with a step that never came back.
        assert!((1..=if fails_late { 4 } else { 2 }).contains(&n_failed), "{n_failed} failed");
        assert_eq!(engine.sequences().free_pages(), engine.sequences().n_pages());
    }
}

/// The purpose of running ahead: between two steps the device never waits for the host, unless the host has to choose.
#[test]
fn the_next_step_is_launched_before_this_one_is_collected() {
    let story = Case::of_every_end();
    let requests = [0, 12].map(|i| Request { max_tokens: 9, ..story.requests[i].clone() });
    let n_prompts: usize = requests.iter().map(|request| request.prompt.len()).sum();
    let case = Case::new(story.file, requests.to_vec());
    let (mut engine, faults) = case.open(config(4, 64, 256));
    let mut streams = Streams::default();
    let add = |engine: &mut Engine, request: Request| engine.add(request).unwrap();
    for request in &case.requests {
        add(&mut engine, request.clone());
    }
    faults.in_flight_max();
    let mut rows = 0;
    for step in 0..9 {
        let stats = streams.step_ahead(&mut engine);
        assert_eq!(stats.generated, 2);
        rows += stats.rows;
        assert_eq!(faults.in_flight_max(), if step < 8 { 2 } else { 0 }, "step {step}");
    }
    assert_eq!(
        (engine.is_idle(), rows),
        (true, n_prompts + 2 * 8),
        "no row too many, because lengths are known"
    );
    // A stop string is found while the row after it is in flight, and only that one.
    let text: String = case.expected[0]
        .iter()
        .map(|event| match event {
            Event::Token { text, .. } | Event::Finished { text, .. } => text.as_str(),
            Event::Failed { .. } => "",
        })
        .collect();
    let stop: String = text.chars().skip(text.chars().count() / 2).take(2).collect();
    let id = add(&mut engine, Request { stop: vec![stop], ..case.requests[0].clone() });
    let mut rows = 0;
    while !engine.is_idle() {
        rows += streams.step_ahead(&mut engine).rows;
    }
    let generated = streams.of(id).len() - 1;
    assert!((2..9).contains(&generated));
    assert_eq!(rows, case.requests[0].prompt.len() + generated - 1, "the row too many is still in flight");
    assert_eq!(streams.step_ahead(&mut engine).rows, 1);
    assert_eq!(streams.step_ahead(&mut engine), StepStats::default());
    // One request whose tokens the host chooses, and then another.
    faults.in_flight_max();
    add(&mut engine, Request { max_tokens: 5, ..request(1) });
    for _ in 0..4 {
        streams.step_ahead(&mut engine);
        assert_eq!(faults.in_flight_max(), 1);
    }
    add(&mut engine, greedy(prompt(3, 4), 6));
    streams.step_ahead(&mut engine);
    // The first has all its tokens, and the other continues alone.
    streams.run(&mut engine);
    assert_eq!(faults.in_flight_max(), 2);
}
