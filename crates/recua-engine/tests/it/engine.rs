//! The engine on a tiny model: above all, no answer depends on company.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use recua_compute::{PAGE_TOKENS, TOP_K_MAX, cpu};
use recua_engine::sampler::philox::uniform;
use recua_engine::{
    Engine, Event, FinishReason, LlamaConfig, LlamaModel, Request, RequestError, RequestId, SamplingParams,
    StepStats, Usage,
};
use recua_gguf::Gguf;
use recua_text::tokenizer::Tokenizer;

use crate::faulty;

pub(crate) fn golden() -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/tiny-Q4_0.gguf");
    std::fs::read(path).unwrap()
}

/// An engine on the bytes of a file.
pub(crate) fn open(bytes: Vec<u8>, config: LlamaConfig) -> Engine {
    let gguf = Gguf::from_vec(bytes).unwrap();
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
    let device = cpu::open(cpu::Options { threads: Some(1), ..cpu::Options::default() }).unwrap();
    Engine::new(LlamaModel::load(&gguf, device, config).unwrap(), Arc::new(tokenizer))
}

pub(crate) fn config(batch_size: usize, step_tokens_max: usize, max_seq_len: usize) -> LlamaConfig {
    LlamaConfig { batch_size, step_tokens_max, max_seq_len, ..LlamaConfig::default() }
}

fn engine(batch_size: usize, step_tokens_max: usize) -> Engine {
    open(golden(), config(batch_size, step_tokens_max, 256))
}

pub(crate) fn prompt(seed: u64, len: usize) -> Vec<u32> {
    (0..len as u64).map(|i| 3 + (uniform(seed, 0, i) * 509.0) as u32).collect()
}

pub(crate) fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request { prompt, max_tokens, ..Request::default() }
}

/// Requests of many kinds: greedy and sampled, long and short.
pub(crate) fn request(i: u64) -> Request {
    let params = match i % 4 {
        0 => SamplingParams::default(),
        1 => SamplingParams {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            seed: i,
            ..Default::default()
        },
        2 => SamplingParams { temperature: 1.5, repeat_penalty: 1.2, seed: 7, ..Default::default() },
        _ => SamplingParams {
            temperature: 1.0,
            top_p: 0.8,
            frequency_penalty: 0.4,
            seed: 7,
            ..Default::default()
        },
    };
    let prompt = prompt(100 + i, 1 + (i as usize * 11) % 40);
    Request {
        prompt,
        params,
        max_tokens: 5 + (i as usize * 5) % 13,
        choice: i as u32 % 3,
        ..Request::default()
    }
}

/// The result of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) end: Option<(FinishReason, Usage)>,
    pub(crate) error: Option<RequestError>,
}

#[derive(Default)]
pub(crate) struct Answers(pub(crate) BTreeMap<RequestId, Answer>);

impl Answers {
    /// Collects the events, and checks that each is allowed when it comes.
    pub(crate) fn file(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let answer = self.0.entry(event.id()).or_default();
            assert!(answer.end.is_none() && answer.error.is_none(), "{event:?} after the end");
            match event {
                Event::Token { token, text, .. } => {
                    answer.tokens.push(token);
                    answer.text += &text;
                }
                Event::Finished { reason, usage, text, .. } => {
                    answer.text += &text;
                    answer.end = Some((reason, usage));
                    assert_eq!(usage.generated_tokens, answer.tokens.len());
                }
                Event::Failed { error, .. } => answer.error = Some(error),
            }
        }
    }

    fn step(&mut self, engine: &mut Engine) -> StepStats {
        let mut events = Vec::new();
        let stats = engine.step(&mut events).unwrap();
        let count = |f: fn(&Event) -> bool| events.iter().filter(|event| f(event)).count();
        assert_eq!(stats.generated, count(|event| matches!(event, Event::Token { .. })));
        assert_eq!(stats.finished, count(|event| matches!(event, Event::Finished { .. })));
        assert_eq!(stats.failed, count(|event| matches!(event, Event::Failed { .. })));
        assert!(stats.rows <= engine.model().config().step_tokens_max);
        assert!(stats.prompt_rows <= stats.rows && stats.sequences <= stats.rows);
        self.file(events);
        engine.sequences().check().unwrap();
        stats
    }

    fn run(&mut self, engine: &mut Engine) {
        while !engine.is_idle() {
            assert!(self.step(engine).rows > 0, "stuck");
        }
        let sequences = engine.sequences();
        assert_eq!(sequences.free_pages(), sequences.n_pages(), "an idle engine holds pages");
    }
}

fn answer_all(engine: &mut Engine, requests: Vec<Request>) -> Vec<Answer> {
    let ids: Vec<RequestId> = requests.into_iter().map(|request| engine.add(request).unwrap()).collect();
    let mut answers = Answers::default();
    answers.run(engine);
    ids.iter().map(|id| answers.0[id].clone()).collect()
}

fn answer(engine: &mut Engine, request: Request) -> Answer {
    answer_all(engine, vec![request]).remove(0)
}

/// Each request alone, in an engine of its own size.
pub(crate) fn alone(requests: impl IntoIterator<Item = Request>) -> Vec<Answer> {
    let mut engine = engine(1, 512);
    requests.into_iter().map(|request| answer(&mut engine, request)).collect()
}

#[test]
fn an_answer_does_not_depend_on_company() {
    let expected = alone((0..16).map(request));
    for (i, answer) in expected.iter().enumerate() {
        let (reason, usage) = answer.end.unwrap();
        assert_eq!(usage.prompt_tokens, request(i as u64).prompt.len());
        if reason == FinishReason::Length {
            assert_eq!(usage.generated_tokens, request(i as u64).max_tokens);
        }
    }
    for n in [1, 3, 8, 16] {
        for step_tokens_max in [1, 7, 512] {
            // With as many slots as requests, and with too few.
            for batch_size in [n, n.min(3)] {
                let mut engine = engine(batch_size, step_tokens_max);
                let got = answer_all(&mut engine, (0..n as u64).map(request).collect());
                assert_eq!(got, expected[..n], "{n} requests, {batch_size} slots, {step_tokens_max} rows");
                if n == 16 {
                    // Again in another order, and so in other slots, after other sequences.
                    let mut got = answer_all(&mut engine, (0..16).rev().map(request).collect());
                    got.reverse();
                    assert_eq!(got, expected, "reversed: {batch_size} slots, {step_tokens_max} rows");
                }
            }
        }
    }
}

/// Greedy requests, requests with a top-k, and others that sample: a step brings back one token, a few, or the logits of only the last
/// kind.
#[test]
fn only_what_a_request_chooses_from_is_brought_back() {
    let (device, faults) = faulty::open(None, u64::MAX);
    let gguf = Gguf::from_vec(golden()).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let mut engine = Engine::new(LlamaModel::load(&gguf, device, config(5, 64, 128)).unwrap(), tokenizer);
    let n_vocab = engine.model().params().vocab as i64;
    let sampled = |seed, top_k| {
        let params = SamplingParams { temperature: 1.0, top_k, seed, ..SamplingParams::default() };
        Request { params, ..greedy(prompt(seed, 5), 8) }
    };
    let others = [greedy(prompt(2, 5), 8), greedy(prompt(4, 5), 8)];
    for request in [sampled(1, 0), sampled(3, 40)].into_iter().chain(others).chain([sampled(5, 65)]) {
        engine.add(request).unwrap();
    }
    let mut events = Vec::new();
    for _ in 0..2 {
        faults.bytes_read();
        assert_eq!(engine.step(&mut events).unwrap().generated, 5);
        assert_eq!(faults.bytes_read(), 2 * 4 + TOP_K_MAX as i64 * 8 + 2 * n_vocab * 4);
    }
}

#[test]
fn coming_and_going_disturbs_nobody() {
    let expected = alone((0..12).map(request));
    for (batch_size, step_tokens_max) in [(2, 5), (4, 16), (12, 512)] {
        let mut engine = engine(batch_size, step_tokens_max);
        let mut answers = Answers::default();
        let mut ids = Vec::new();
        for i in 0..12 {
            ids.push(engine.add(request(i)).unwrap());
            answers.step(&mut engine);
            // Number 3 is cancelled while it runs or waits, 5 before its first turn.
            if i == 5 {
                assert!(engine.cancel(ids[3]));
                ids.push(engine.add(request(5)).unwrap());
                assert!(engine.cancel(ids.pop().unwrap()));
            }
        }
        assert!(!engine.cancel(ids[3]), "it is gone");
        answers.run(&mut engine);
        for (i, id) in ids.iter().enumerate() {
            let got = answers.0.get(id).cloned().unwrap_or_default();
            if i == 3 {
                assert!(got.end.is_none());
                assert!(expected[3].tokens.starts_with(&got.tokens));
            } else {
                assert_eq!(got, expected[i], "request {i}, {batch_size} slots, {step_tokens_max} rows");
            }
        }
        assert!(!engine.cancel(ids[0]), "it is done");
    }
}

/// More slots than pages: requests wait for pages, and a running one never lacks any.
#[test]
fn nobody_runs_out_of_pages() {
    let expected = alone((0..16).map(request));
    let longest =
        (0..16).map(request).map(|request| request.prompt.len() + request.max_tokens).max().unwrap();
    let n_pages = longest.div_ceil(PAGE_TOKENS) + 1;
    let mut engine = open(golden(), LlamaConfig { kv_pages: Some(n_pages), ..config(16, 64, 256) });
    assert_eq!(engine.context(), (n_pages * PAGE_TOKENS).min(256));
    assert_eq!(answer_all(&mut engine, (0..16).map(request).collect()), expected);
}

#[test]
fn a_long_prompt_holds_up_nobody() {
    let mut engine = engine(4, 8);
    let mut answers = Answers::default();
    let first = engine.add(greedy(prompt(1, 4), 40)).unwrap();
    let stats = answers.step(&mut engine);
    assert_eq!((stats.rows, stats.prompt_rows, stats.generated), (4, 4, 1));
    let long = engine.add(greedy(prompt(2, 100), 3)).unwrap();
    // 7 rows of each step are left for the prompt of 100.
    for step in 0..15 {
        let stats = answers.step(&mut engine);
        assert_eq!(stats.sequences, 2);
        assert_eq!(stats.prompt_rows, if step < 14 { 7 } else { 2 });
        assert_eq!(answers.0[&first].tokens.len(), 2 + step);
    }
    assert_eq!(answers.0[&long].tokens.len(), 1);
    answers.run(&mut engine);
    assert_eq!(answers.step(&mut engine), StepStats::default());
}

#[test]
fn the_text_is_that_of_the_tokens() {
    for (request, answer) in (0..8).map(request).zip(alone((0..8).map(request))) {
        let tokenizer = engine(1, 512).tokenizer().clone();
        assert_eq!(answer.text, tokenizer.decode(&answer.tokens), "{request:?}");
    }
}

#[test]
fn stop_strings_end_the_answer_before_them() {
    let base = Request { max_tokens: 40, ..request(2) };
    let mut engine = engine(2, 512);
    let whole = answer(&mut engine, base.clone());
    let chars: Vec<char> = whole.text.chars().collect();
    assert!(chars.len() > 12, "{:?}", whole.text);
    // Any two to four characters of the text, and some that never occur.
    for (start, len) in [(0, 2), (5, 2), (6, 3), (8, 4)] {
        let stop: String = chars[start..start + len].iter().collect();
        let never = format!("{stop}\u{10FFFF}");
        let got = answer(&mut engine, Request { stop: vec![never, stop.clone()], ..base.clone() });
        assert_eq!(got.text, whole.text.split(&stop).next().unwrap(), "{stop:?} in {:?}", whole.text);
        assert_eq!(got.end.unwrap().0, FinishReason::Stop);
        assert!(whole.tokens.starts_with(&got.tokens) && got.tokens.len() < whole.tokens.len());
    }
    // Text held back until the end is not lost.
    let last: String = chars[chars.len() - 3..].iter().collect();
    let got = answer(&mut engine, Request { stop: vec![last + "\u{10FFFF}"], ..base });
    assert_eq!(got, whole);
}

/// Makes a token end answers.
pub(crate) fn set_end(bytes: &mut [u8], token: u32) {
    let key = b"tokenizer.ggml.eos_token_id";
    // The key is followed by the type, four bytes, and then the id.
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&token.to_le_bytes());
}

#[test]
fn an_end_token_ends_the_answer() {
    let params = SamplingParams { temperature: 1.0, seed: 1, ..SamplingParams::default() };
    let asked = Request { params, ..greedy(prompt(9, 10), 12) };
    let whole = alone([asked.clone()]).remove(0);
    // A token that first occurs in the middle becomes the model's EOS.
    let position = (3..12).find(|&i| !whole.tokens[..i].contains(&whole.tokens[i])).unwrap();
    let mut bytes = golden();
    set_end(&mut bytes, whole.tokens[position]);
    let mut engine = open(bytes, config(2, 512, 256));

    let ended = answer(&mut engine, asked.clone());
    assert_eq!(ended.tokens, whole.tokens[..=position]);
    assert_eq!(ended.text, engine.tokenizer().decode(&whole.tokens[..position]), "the end has no text");
    let usage = Usage { prompt_tokens: 10, generated_tokens: position + 1 };
    assert_eq!(ended.end, Some((FinishReason::Stop, usage)));

    let ignored = answer(&mut engine, Request { ignore_end: true, ..asked });
    assert_eq!(ignored.tokens, whole.tokens);
    assert_eq!(ignored.end.unwrap().0, FinishReason::Length);
}

#[test]
fn choices_differ_and_seeds_reproduce() {
    let params = SamplingParams { temperature: 1.0, seed: 5, ..SamplingParams::default() };
    let base = Request { params, max_tokens: 12, ..request(1) };
    let choices: Vec<Request> = (0..4).map(|choice| Request { choice, ..base.clone() }).collect();
    let mut engine = engine(4, 512);
    let first = answer_all(&mut engine, choices.clone());
    assert_eq!(answer_all(&mut engine, choices), first);
    for i in 0..4 {
        for j in 0..i {
            assert_ne!(first[i].tokens, first[j].tokens, "choices {j} and {i}");
        }
    }
}

/// The token at position n of a sequence is drawn the same, whether the tokens before it were prompt or answer.
#[test]
fn an_answer_can_be_taken_up_again() {
    let params = SamplingParams { temperature: 1.0, top_k: 50, seed: 5, ..SamplingParams::default() };
    let base = Request { params, max_tokens: 12, ..request(6) };
    let mut engine = engine(1, 512);
    let whole = answer(&mut engine, base.clone());
    let mut longer = base.prompt.clone();
    longer.extend(&whole.tokens[..5]);
    let rest = answer(&mut engine, Request { prompt: longer, max_tokens: 7, ..base });
    assert_eq!(rest.tokens, whole.tokens[5..]);
}

#[test]
fn the_context_ends_an_answer() {
    let mut engine = open(golden(), config(2, 512, 20));
    assert_eq!(engine.context(), 20);
    for n_prompt in [1, 15, 19] {
        let got =
            answer(&mut engine, Request { ignore_end: true, ..greedy(prompt(3, n_prompt), usize::MAX) });
        let usage = Usage { prompt_tokens: n_prompt, generated_tokens: 20 - n_prompt };
        assert_eq!(got.end, Some((FinishReason::Length, usage)));
    }
}

/// Replaces the scale of the first block of a token's embedding by NaN.
pub(crate) fn poison(bytes: &mut [u8], token: usize) {
    let gguf = Gguf::from_vec(bytes.to_vec()).unwrap();
    let table = gguf.tensor("token_embd.weight").unwrap();
    let mut row = vec![0; table.row_bytes()];
    gguf.data(table).read(token * row.len(), &mut row).unwrap();
    let at = bytes.windows(row.len()).position(|window| window == row).unwrap();
    bytes[at..at + 2].copy_from_slice(&0x7E00u16.to_le_bytes());
}

#[test]
fn a_failure_is_ones_own() {
    let expected = alone((0..12).map(request));
    // A token that occurs in no other prompt or answer.
    let has =
        |i: usize, token| request(i as u64).prompt.contains(&token) || expected[i].tokens.contains(&token);
    let token = (3..512).find(|&token| (0..12).all(|i| !has(i, token))).unwrap();
    let mut bytes = golden();
    poison(&mut bytes, token as usize);
    let mut poisoned = prompt(4, 20);
    poisoned[12] = token;
    for (batch_size, step_tokens_max) in [(1, 512), (3, 7), (16, 512)] {
        let mut engine = open(bytes.clone(), config(batch_size, step_tokens_max, 256));
        // Twice: the second time in pages that the failed sequence has left full of NaN.
        for _ in 0..2 {
            let mut requests: Vec<Request> = (0..12).map(request).collect();
            requests.insert(1, greedy(poisoned.clone(), 10));
            let mut got = answer_all(&mut engine, requests);
            let failed = got.remove(1);
            assert!(matches!(failed.error, Some(RequestError::Logits(_))), "{failed:?}");
            assert!(failed.tokens.is_empty());
            assert_eq!(got, expected, "{batch_size} slots, {step_tokens_max} rows");
        }
    }
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let mut engine = open(golden(), config(1, 512, 20));
    let mut check = |request: Request, expected: &str| {
        assert_eq!(engine.add(request).unwrap_err().to_string(), expected);
        assert!(engine.is_idle());
    };
    let fine = || greedy(vec![1, 5, 6], 4);
    check(
        Request { prompt: vec![], ..fine() },
        "the prompt is empty; it needs at least one token (BOS is enough, if the model has one)",
    );
    check(
        Request { prompt: vec![5; 20], ..fine() },
        "the prompt has 20 tokens, and the context holds 20, the answer included; shorten the prompt to 19 tokens or \
         open the model with a context of 20 + max_tokens",
    );
    check(Request { max_tokens: 0, ..fine() }, "max_tokens is 0; at least 1 is needed");
    check(
        Request { prompt: vec![1, 512], ..fine() },
        "token 512 at position 1 of the prompt is outside the vocabulary of 512 tokens",
    );
    check(
        Request { params: SamplingParams { top_p: 2.0, ..SamplingParams::default() }, ..fine() },
        "top_p is 2; it must be a number from 0 to 1",
    );
    check(
        Request { stop: vec!["a".into(), String::new()], ..fine() },
        "stop string 1 is empty; leave it out",
    );
}

#[test]
fn an_engine_can_move_to_its_own_thread() {
    fn check<T: Send>() {}
    check::<Engine>();
}
