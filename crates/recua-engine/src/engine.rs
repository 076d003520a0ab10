//! Many requests, one model: [`Engine::step`] is schedule, run, process, and every request's answer is what it would
//! be alone.
//!
//! The engine owns model, sequences and scheduler, on the one thread that calls it. It has no locks, threads or clocks, and
//! never waits for a client: whoever takes the [`Event`]s may do with them what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;

use recua_compute::TOP_K_MAX;
use recua_text::stop::{Passed, StopMatcher};
use recua_text::tokenizer::{Decoder, Tokenizer};

use crate::request::{Event, FinishReason, Request, RequestError, RequestId, Usage};
use crate::sampler::{Draw, LogitsError, Sampler, SamplingParams, Want};
use crate::scheduler::{Schedule, Scheduled, Scheduler};
use crate::{Batch, Changes, Error, LlamaModel, LoadedModel, Logits, Outputs, Sequences};

/// Runs requests, as many at once as the model's cache has slots.
pub struct Engine {
    model: LoadedModel,
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
    // What the next token is chosen from.
    want: Want,
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
        let (model, sequences) = model.into_parts();
        let scheduler = Scheduler::new(sequences, model.config().step_tokens_max);
        Engine {
            context: scheduler.sequence_tokens_max(),
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
            want: request.params.want(),
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
        let Schedule { sequences, changes } = self.scheduler.schedule();
        // In the order of what they want, so that it lies together.
        let want = |scheduled: Scheduled| (self.answers[&scheduled.id].want, scheduled);
        let mut rows: Vec<(Want, Scheduled)> = sequences.into_iter().map(want).collect();
        rows.sort_by_key(|(want, _)| *want);
        let mut stats = self.fill_batch(&rows);
        if !rows.is_empty() {
            rows.retain(|(_, scheduled)| scheduled.completes);
            let run = self.run(&rows, &changes);
            let tokens = run.inspect_err(|error| self.fail_running(error, events))?;
            for ((_, Scheduled { id, .. }), token) in rows.into_iter().zip(tokens) {
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
    pub fn model(&self) -> &LoadedModel {
        &self.model
    }

    /// The sequences in the model's cache.
    pub fn sequences(&self) -> &Sequences {
        self.scheduler.sequences()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Gives the model back, with an empty cache; the requests are forgotten.
    pub fn into_model(self) -> LlamaModel {
        let mut model = LlamaModel::from_parts(self.model, self.scheduler.into_sequences());
        for slot in 0..model.kv_cache().batch_size() {
            model.kv_cache_mut().clear_batch(slot).expect("it is one of its slots");
        }
        model
    }

    fn fill_batch(&mut self, rows: &[(Want, Scheduled)]) -> StepStats {
        let mut stats = StepStats { sequences: rows.len(), ..StepStats::default() };
        self.batch.clear();
        for (_, Scheduled { id, slot, start, n_new, completes }) in rows {
            let answer = &self.answers[id];
            let end = start + n_new;
            let logits = if *completes { Logits::Last } else { Logits::None };
            self.batch.push_sequence(*slot, *start, &answer.tokens[*start..end], logits);
            stats.rows += n_new;
            stats.prompt_rows += end.min(answer.n_prompt).saturating_sub(*start);
        }
        stats
    }

    /// Runs the batch and chooses the next token of the requests that are complete with it. The device narrows down what there is to
    /// choose from, where the parameters allow it: the logits of a row are a vocabulary.
    fn run(
        &mut self,
        complete: &[(Want, Scheduled)],
        changes: &Changes,
    ) -> Result<Vec<Result<u32, LogitsError>>, Error> {
        let n_vocab = self.model.params().vocab;
        let (_, others) = complete.split_at(complete.partition_point(|(want, _)| *want == Want::Token));
        let (top, all) = others.split_at(others.partition_point(|(want, _)| *want == Want::TopK));
        self.model.spans(&self.batch)?;
        let n_greedy = complete.len() - others.len();
        let out = self.model.room(&self.batch, n_greedy, top.len(), &mut self.outputs)?;
        self.model.run(&self.batch, changes, out)?;
        let Outputs { greedy, top: candidates, logits } = &mut self.outputs;
        let mut chosen = Vec::with_capacity(complete.len());
        for &token in greedy.iter() {
            chosen.push(if token == u32::MAX { Err(LogitsError { n_vocab }) } else { Ok(token) });
        }
        for ((_, top), candidates) in top.iter().zip(candidates.as_chunks().0.chunks_exact(TOP_K_MAX)) {
            let token = self.sampler.sample_top(candidates, &self.answers[&top.id].draw());
            chosen.push(token.ok_or(LogitsError { n_vocab }));
        }
        for ((_, all), logits) in all.iter().zip(logits.chunks_exact_mut(n_vocab)) {
            chosen.push(self.sampler.sample(logits, &self.answers[&all.id].draw()));
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
        self.scheduler.remove(id);
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
            // The stop string may be followed by half a character.
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
        let sequences = engine.sequences();
        sequences.check().unwrap();
        assert_eq!(sequences.free_pages(), sequences.n_pages());
    }
}
