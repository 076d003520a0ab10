//! Many requests, one model: [`Engine::step`] is schedule, run, process, and every request's answer is what it would
//! be alone.
//!
//! The engine owns model, cache and books, on the one thread that calls it. It has no locks, threads or clocks, and
//! never waits for a client: whoever takes the [`Event`]s may do with them what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;

use recua_compute::{PAGE_TOKENS, TOP_K_MAX};
use recua_text::stop::{Passed, StopMatcher};
use recua_text::tokenizer::{Decoder, Tokenizer};

use crate::request::{Event, FinishReason, Request, RequestError, RequestId, Usage};
use crate::sampler::{Draw, LogitsError, Needed, Sampler, SamplingParams};
use crate::scheduler::{Scheduler, SchedulerConfig, Share};
use crate::{Batch, Error, LlamaModel, Logits, Outputs};

/// Runs requests, as many at once as the model's cache has slots.
pub struct Engine {
    model: LlamaModel,
    tokenizer: Arc<Tokenizer>,
    scheduler: Scheduler,
    sampler: Sampler,
    answers: BTreeMap<RequestId, Answer>,
    batch: Batch,
    outputs: Outputs,
    context: usize,
    next_id: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepStats {
    /// The rows that went through the model; 0 if there was nothing to do.
    pub rows: usize,
    /// How many of them were tokens of prompts.
    pub prompt_rows: usize,
    /// The sequences that had rows.
    pub sequences: usize,
    /// The tokens generated.
    pub generated: usize,
    /// The requests whose answers were completed.
    pub finished: usize,
    /// The requests that failed.
    pub failed: usize,
    /// The requests that hold a slot after the step.
    pub running: usize,
    /// The requests that wait for one.
    pub waiting: usize,
}

/// A request on its way to being answered.
struct Answer {
    params: SamplingParams,
    choice: u32,
    ignore_end: bool,
    // The prompt, [0, n_prompt), and what was generated.
    tokens: Vec<u32>,
    n_prompt: usize,
    decoder: Decoder,
    stop: StopMatcher,
}

impl Engine {
    /// An engine for this model, whose cache it empties.
    pub fn new(model: LlamaModel, tokenizer: Arc<Tokenizer>) -> Engine {
        let mut model = model;
        let n_slots = model.kv_cache().batch_size();
        for slot in 0..n_slots {
            clear(&mut model, slot);
        }
        let kv_cache = model.kv_cache();
        let scheduler = Scheduler::new(SchedulerConfig {
            n_slots,
            n_pages: kv_cache.free_pages(),
            page_tokens: PAGE_TOKENS,
            step_rows_max: model.config().step_tokens_max,
        });
        Engine {
            context: kv_cache.max_seq_len().min(scheduler.sequence_tokens_max()),
            model,
            tokenizer,
            scheduler,
            sampler: Sampler::new(),
            answers: BTreeMap::new(),
            batch: Batch::new(),
            outputs: Outputs::default(),
            next_id: 0,
        }
    }

    /// Queues a request. It is answered by events of [`Engine::step`].
    ///
    /// # Errors
    ///
    /// If the request could never be answered; the error says why, and nothing was queued.
    pub fn add(&mut self, request: Request) -> Result<RequestId, RequestError> {
        let n_prompt = request.prompt.len();
        let context = self.context;
        if n_prompt == 0 {
            return Err(RequestError::EmptyPrompt);
        }
        if n_prompt >= context {
            return Err(RequestError::PromptTooLong { n_prompt, context });
        }
        if request.max_tokens == 0 {
            return Err(RequestError::NoTokens);
        }
        // Here, because in a step it would fail the neighbours too.
        let n_vocab = self.model.params().vocab;
        let outside = |&token: &u32| token as usize >= n_vocab;
        if let Some(position) = request.prompt.iter().position(outside) {
            return Err(RequestError::TokenOutOfRange { token: request.prompt[position], position, n_vocab });
        }
        request.params.validate()?;
        let answer = Answer {
            stop: StopMatcher::new(&request.stop)?,
            params: request.params,
            choice: request.choice,
            ignore_end: request.ignore_end,
            tokens: request.prompt,
            n_prompt,
            decoder: self.tokenizer.decoder(),
        };
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.scheduler.add(id, n_prompt, n_prompt.saturating_add(request.max_tokens).min(context));
        self.answers.insert(id, answer);
        Ok(id)
    }

    /// Forgets a request: no event of it follows, and its slot and pages are free at once. Returns whether it was
    /// still on its way.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        self.remove(id).is_some()
    }

    /// Runs one pass over the model with the rows of every request whose turn it is, and appends what came of it to
    /// `events`. Returns at once if there is nothing to do.
    ///
    /// # Errors
    ///
    /// If the device or the model fails. Every request that held a slot has then failed, which `events` says too;
    /// those that wait still do.
    pub fn step(&mut self, events: &mut Vec<Event>) -> Result<StepStats, Error> {
        let shares = self.scheduler.schedule();
        // In the order of what they need, so that it lies together.
        let mut rows = shares.clone();
        rows.sort_by_key(|share| self.needed(share.id));
        let mut stats = self.fill_batch(&rows);
        if !shares.is_empty() {
            let complete: Vec<RequestId> = rows.iter().filter(|s| s.completes).map(|s| s.id).collect();
            let run = self.run(&complete);
            let tokens = run.inspect_err(|error| self.fail_running(error, events))?;
            self.scheduler.commit(&shares);
            for (id, token) in complete.into_iter().zip(tokens) {
                self.process(id, token, events, &mut stats);
            }
        }
        stats.running = self.scheduler.n_running();
        stats.waiting = self.scheduler.n_waiting();
        Ok(stats)
    }

    /// Whether there is nothing to do until a request is added.
    pub fn is_idle(&self) -> bool {
        self.answers.is_empty()
    }

    /// The most tokens a sequence can have, prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The model.
    pub fn model(&self) -> &LlamaModel {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Gives the model back; the requests are forgotten.
    pub fn into_model(self) -> LlamaModel {
        self.model
    }

    fn fill_batch(&mut self, shares: &[Share]) -> StepStats {
        let mut stats = StepStats { sequences: shares.len(), ..StepStats::default() };
        self.batch.clear();
        for share in shares {
            let answer = &self.answers[&share.id];
            let end = share.start + share.n_new;
            let logits = if share.completes { Logits::Last } else { Logits::None };
            self.batch.push_sequence(share.slot, share.start, &answer.tokens[share.start..end], logits);
            stats.rows += share.n_new;
            stats.prompt_rows += end.min(answer.n_prompt).saturating_sub(share.start);
        }
        stats
    }

    fn needed(&self, id: RequestId) -> Needed {
        self.answers[&id].params.needed()
    }

    /// Runs the batch and chooses the next token of the requests that are complete with it. The device narrows down what there is to
    /// choose from, where the parameters allow it: the logits of a row are a vocabulary.
    fn run(&mut self, complete: &[RequestId]) -> Result<Vec<Result<u32, LogitsError>>, Error> {
        let n_vocab = self.model.params().vocab;
        let n_likeliest = complete.partition_point(|id| self.needed(*id) == Needed::Likeliest);
        let (likeliest, others) = complete.split_at(n_likeliest);
        let (top, all) = others.split_at(others.partition_point(|id| self.needed(*id) == Needed::Top));
        self.model.step_mixed(&self.batch, likeliest.len(), top.len(), &mut self.outputs)?;
        let Outputs { likeliest: tokens, top: candidates, logits } = &mut self.outputs;
        let mut chosen = Vec::with_capacity(complete.len());
        for &token in tokens.iter() {
            chosen.push(if token == u32::MAX { Err(LogitsError { n_vocab }) } else { Ok(token) });
        }
        for (id, candidates) in top.iter().zip(candidates.as_chunks().0.chunks_exact(TOP_K_MAX)) {
            let token = self.sampler.sample_top(candidates, &self.answers[id].draw());
            chosen.push(token.ok_or(LogitsError { n_vocab }));
        }
        for (id, logits) in all.iter().zip(logits.chunks_exact_mut(n_vocab)) {
            chosen.push(self.sampler.sample(logits, &self.answers[id].draw()));
        }
        Ok(chosen)
    }

    /// Takes a request's next token, and finishes the request if that was its last.
    fn process(
        &mut self,
        id: RequestId,
        token: Result<u32, LogitsError>,
        events: &mut Vec<Event>,
        stats: &mut StepStats,
    ) {
        let Some(answer) = self.answers.get_mut(&id) else { return };
        let token = match token {
            Ok(token) => token,
            Err(error) => {
                self.remove(id);
                stats.failed += 1;
                events.push(Event::Failed { id, error: error.into() });
                return;
            }
        };
        stats.generated += 1;
        let goes_on = self.scheduler.append(id);
        let Passed { text, stopped } = answer.push_token(&self.tokenizer, token);
        events.push(Event::Token { id, token, text });

        let reason = if stopped {
            FinishReason::Stop
        } else if !goes_on {
            FinishReason::Length
        } else {
            return;
        };
        if let Some(mut answer) = self.remove(id) {
            stats.finished += 1;
            let text = answer.finish();
            events.push(Event::Finished { id, reason, usage: answer.usage(), text });
        }
    }

    /// Forgets a request and frees what it had.
    fn remove(&mut self, id: RequestId) -> Option<Answer> {
        if let Some(slot) = self.scheduler.remove(id) {
            clear(&mut self.model, slot);
        }
        self.answers.remove(&id)
    }

    /// Fails every request that holds a slot: what the cache has of it is not known.
    fn fail_running(&mut self, error: &Error, events: &mut Vec<Event>) {
        let ids: Vec<RequestId> = self.scheduler.running().collect();
        for id in ids {
            self.remove(id);
            events.push(Event::Failed { id, error: RequestError::Step(error.to_string()) });
        }
    }
}

impl Answer {
    /// What decides the next token, besides the logits.
    fn draw(&self) -> Draw<'_> {
        Draw { params: &self.params, choice: self.choice, tokens: &self.tokens, n_prompt: self.n_prompt }
    }

    /// Appends a token. Gives the text that can be shown now, and whether it ends the answer.
    fn push_token(&mut self, tokenizer: &Tokenizer, token: u32) -> Passed {
        self.tokens.push(token);
        if tokenizer.is_end(token) && !self.ignore_end {
            return Passed { text: String::new(), stopped: true };
        }
        let passed = self.stop.push(&self.decoder.push(tokenizer, token));
        if passed.stopped {
            // Half a character behind the stop string.
            self.decoder.finish();
        }
        passed
    }

    /// The text that was held back.
    fn finish(&mut self) -> String {
        let Passed { mut text, stopped } = self.stop.push(&self.decoder.finish());
        if !stopped {
            text.push_str(&self.stop.finish());
        }
        text
    }

    fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.n_prompt, generated_tokens: self.tokens.len() - self.n_prompt }
    }
}

/// Empties a slot that the scheduler knows.
fn clear(model: &mut LlamaModel, slot: usize) {
    model.kv_cache_mut().clear_batch(slot).expect("the cache has as many slots as the scheduler knows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LlamaConfig;
    use recua_compute::cpu;
    use recua_gguf::Gguf;

    /// No request that was accepted can make the model fail, so this one is spoilt behind the engine's back.
    #[test]
    fn a_failed_step_fails_who_runs_and_nobody_else() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/tiny-Q4_0.gguf");
        let gguf = Gguf::open(path).unwrap();
        let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
        let device = cpu::open(cpu::Options { threads: Some(1), ..cpu::Options::default() }).unwrap();
        let config = LlamaConfig { batch_size: 2, max_seq_len: 64, ..LlamaConfig::default() };
        let mut engine = Engine::new(LlamaModel::load(&gguf, device, config).unwrap(), tokenizer);

        let request = Request { prompt: vec![1, 5, 6], max_tokens: 3, ..Request::default() };
        let ids: Vec<RequestId> = (0..3).map(|_| engine.add(request.clone()).unwrap()).collect();
        let mut events = Vec::new();
        engine.step(&mut events).unwrap();
        assert_eq!(events.len(), 2, "two slots");
        events.clear();
        *engine.answers.get_mut(&ids[1]).unwrap().tokens.last_mut().unwrap() = 512;
        let error = engine.step(&mut events).unwrap_err();
        let failed = |id| Event::Failed { id, error: RequestError::Step(error.to_string()) };
        assert_eq!(events, [failed(ids[0]), failed(ids[1])]);
        assert!(error.to_string().contains("token 512 at position 3"), "{error}");

        events.clear();
        while !engine.is_idle() {
            engine.step(&mut events).unwrap();
        }
        assert!(events.iter().all(|event| event.id() == ids[2]));
        assert!(matches!(events[..], [_, _, _, Event::Finished { reason: FinishReason::Length, .. }]));
        let kv_cache = engine.model().kv_cache();
        kv_cache.check().unwrap();
        assert_eq!(kv_cache.free_pages(), kv_cache.n_pages());
    }
}
