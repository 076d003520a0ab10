//! Steps in flight while the host continues: the answers are the same, whatever is cancelled, added or fails meanwhile.

use std::sync::Arc;

use recua_engine::{Engine, Event, LlamaConfig, LlamaModel, RequestError, RequestId, StepStats};
use recua_gguf::Gguf;
use recua_text::tokenizer::Tokenizer;

use crate::engine::{Answer, Answers, alone, config, golden, greedy, prompt, request};
use crate::faulty::{self, Faults};
use crate::support::{Random, Tiny, bits, load};

pub(crate) const BUCKETS: &[usize] = &[1, 2, 4, 8, 16, 24, 32, 48, 64];

fn open(config: LlamaConfig) -> (Engine, Faults) {
    let gguf = Gguf::from_vec(golden()).unwrap();
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
    let (device, faults) = faulty::open_late(BUCKETS);
    (Engine::new(LlamaModel::load(&gguf, device, config).unwrap(), Arc::new(tokenizer)), faults)
}

fn step_ahead(engine: &mut Engine, answers: &mut Answers) -> StepStats {
    let mut events = Vec::new();
    let stats = engine.step_ahead(&mut events).unwrap();
    answers.file(events);
    engine.sequences().check().unwrap();
    stats
}

fn run(engine: &mut Engine, answers: &mut Answers) {
    while !engine.is_idle() {
        assert!(step_ahead(engine, answers).rows > 0, "stuck");
    }
    assert_eq!(engine.sequences().free_pages(), engine.sequences().n_pages(), "an idle engine holds pages");
}

#[test]
fn answers_are_those_of_one_step_after_the_other() {
    let expected = alone((0..16).map(request));
    for (batch_size, step_tokens_max) in [(1, 512), (3, 7), (16, 40), (16, 512)] {
        let (mut engine, faults) = open(config(batch_size, step_tokens_max, 256));
        let ids: Vec<RequestId> = (0..16).map(|i| engine.add(request(i)).unwrap()).collect();
        let mut answers = Answers::default();
        faults.in_flight_max();
        run(&mut engine, &mut answers);
        assert!(faults.in_flight_max() <= 2);
        let got: Vec<Answer> = ids.iter().map(|id| answers.0[id].clone()).collect();
        assert_eq!(got, expected, "{batch_size} slots, {step_tokens_max} rows");
        // The model comes back intact, whatever was in flight.
        let mut model = engine.into_model();
        let logits = model.forward(&[1, 2, 3]).unwrap();
        let gguf = Gguf::from_vec(golden()).unwrap();
        assert_eq!(
            bits(logits.data()),
            bits(load(&gguf, config(1, 512, 256)).forward(&[1, 2, 3]).unwrap().data())
        );
    }
}

#[test]
fn coming_and_going_while_steps_are_in_flight_disturbs_nobody() {
    let expected = alone((0..24).map(|i| request(i % 16)));
    for seed in 0..6 {
        let mut random = Random(seed);
        let (mut engine, _) = open(config(3, [5, 16, 512][seed as usize % 3], 256));
        let (mut answers, mut ids, mut cancelled) = (Answers::default(), Vec::new(), Vec::new());
        for i in 0..24 {
            ids.push(engine.add(request(i % 16)).unwrap());
            for _ in 0..random.below(4) {
                step_ahead(&mut engine, &mut answers);
            }
            // The rows of a running request may be in flight.
            if random.below(3) == 0 {
                let id = ids[random.below(ids.len())];
                if engine.cancel(id) {
                    cancelled.push(id);
                    assert!(!engine.cancel(id), "it is gone");
                }
            }
        }
        run(&mut engine, &mut answers);
        assert!(!cancelled.is_empty());
        for (i, id) in ids.iter().enumerate() {
            let got = answers.0.get(id).cloned().unwrap_or_default();
            if cancelled.contains(id) {
                assert!(got.end.is_none() && expected[i].tokens.starts_with(&got.tokens));
            } else {
                assert_eq!(got, expected[i], "request {i} of walk {seed}");
            }
        }
    }
}

/// The rows of a prompt that takes several steps depend on no token, so the next step is launched before the one before has finished.
#[test]
fn a_long_prompt_is_launched_ahead() {
    let (mut engine, faults) = open(config(2, 8, 256));
    let mut answers = Answers::default();
    let id = engine.add(greedy(prompt(3, 30), 4)).unwrap();
    faults.in_flight_max();
    let stats = step_ahead(&mut engine, &mut answers);
    assert_eq!((stats.rows, stats.generated, faults.in_flight_max()), (8, 0, 2));
    run(&mut engine, &mut answers);
    assert_eq!(answers.0[&id], alone([greedy(prompt(3, 30), 4)])[0]);
    // Submit and collect are the parts of a step, and may be called directly.
    let mut events = Vec::new();
    engine.add(greedy(prompt(3, 12), 2)).unwrap();
    assert!(engine.submit(&mut events).unwrap(), "rows 0 to 7");
    assert!(engine.submit(&mut events).unwrap(), "rows 8 to 11");
    assert!(!engine.submit(&mut events).unwrap(), "two are in flight");
    assert_eq!(engine.collect(&mut events).unwrap().generated, 0);
    assert!(engine.submit(&mut events).unwrap(), "the row of a token that is in flight");
    assert!(!engine.submit(&mut events).unwrap());
    assert_eq!(engine.collect(&mut events).unwrap().generated, 1);
    assert!(!engine.submit(&mut events).unwrap(), "its last token is in flight");
    assert_eq!(engine.collect(&mut events).unwrap().finished, 1);
    assert_eq!(engine.collect(&mut events).unwrap(), StepStats::default());
}

#[test]
fn a_launch_that_fails_fails_who_ran_and_nobody_else() {
    let expected = alone((0..5).map(request));
    for n_before in 0..12 {
        let (mut engine, faults) = open(config(2, 16, 256));
        let ids: Vec<RequestId> = (0..5).map(|i| engine.add(request(i)).unwrap()).collect();
        let mut answers = Answers::default();
        faults.fail_after(n_before);
        let mut n_failed = 0;
        while !engine.is_idle() {
            let mut events = Vec::new();
            let result = engine.step_ahead(&mut events);
            engine.sequences().check().unwrap();
            if let Err(error) = result {
                assert_eq!(error.to_string(), "faulty is lost: as told");
                n_failed = events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
                assert!((1..=2).contains(&n_failed), "two slots: {events:?}");
            }
            answers.file(events);
        }
        let failed: Vec<usize> =
            (0..5).filter(|i| matches!(answers.0[&ids[*i]].error, Some(RequestError::Step(_)))).collect();
        assert_eq!(failed.len(), n_failed);
        for i in (0..5).filter(|i| !failed.contains(i)) {
            assert_eq!(answers.0[&ids[i]], expected[i], "request {i}, failure {n_before}");
        }
    }
}

/// Spare rows change no bit of the others, and nothing in the cache.
#[test]
fn buckets_change_nothing() {
    let gguf = Tiny::new("llama").gguf();
    let exact = |config| load(&gguf, config);
    let bucketed = |config| LlamaModel::load(&gguf, faulty::open_late(BUCKETS).0, config).unwrap();
    for step_tokens_max in [5, 37, 100] {
        let config = LlamaConfig { logits_rows_max: 6, ..config(4, step_tokens_max, 128) };
        let (mut exact, mut bucketed) = (exact(config.clone()), bucketed(config));
        let mut random = Random(1);
        for _ in 0..12 {
            let batch: Vec<Vec<u32>> = (0..1 + random.below(4))
                .map(|_| {
                    let n = 1 + random.below(45);
                    random.tokens(n, 80)
                })
                .collect();
            let batch: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
            let expected = exact.forward_batch(&batch).unwrap();
            for (expected, found) in expected.iter().zip(bucketed.forward_batch(&batch).unwrap()) {
                assert!(bits(expected.data()) == bits(found.data()), "passes of {step_tokens_max} rows");
            }
        }
    }
}
