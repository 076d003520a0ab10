//! Many requests, one model: [`Engine::step`] is submit and collect, and every request's answer is what it would be alone.
//!
//! *Submit* schedules, fills a batch and launches it. *Collect* waits for it, chooses tokens and reports them as events. Between the two,
//! the device works by itself.
//!
//! [`Engine::step_ahead`] runs one step ahead: it submits the next step before it collects the one in flight, so that the device continues
//! without a gap while the host handles the tokens of the step before. This works if the device chooses the tokens (greedy requests): a row
//! of the next step names the place on the device where its token will be. If the host must choose a token, the next step waits for it. The
//! scheduler counts a token as present when its rows are launched. If the token turns out to end the answer (end token, stop string), or
//! the request is cancelled, the row that was launched after it is discarded. Slot and pages can go to other requests at once: a device is
//! one ordered queue, so their rows run after that row.
//!
//! The engine owns model, sequences and scheduler, on the one thread that calls it. It has no locks, threads or clocks, and never waits for
//! a client: the caller may do anything with the [`Event`]s.

mod answer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use recua_compute::TOP_K_MAX;
use recua_text::stop::{Passed, StopMatcher};
use recua_text::tokenizer::Tokenizer;

use crate::model::{Launched, WantedRows};
use crate::request::{Event, FinishReason, Request, RequestError, RequestId};
use crate::sampler::{LogitsError, Sampler, Want};
use crate::scheduler::{Schedule, Scheduled, Scheduler};
use crate::{Batch, Error, LlamaModel, LoadedModel, Logits, Outputs, Sequences};
use answer::Answer;

/// Runs requests, as many at once as the model's cache has slots.
pub struct Engine {
    model: LoadedModel,
    tokenizer: Arc<Tokenizer>,
    scheduler: Scheduler,
    sampler: Sampler,
    answers: BTreeMap<RequestId, Answer>,
    // In the order of their launches.
    in_flight: VecDeque<InFlight>,
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
    /// How many of these were prompt tokens.
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
    /// The requests that wait for a slot.
    pub waiting: usize,
}

/// The most steps in flight at once: more would only make new requests wait longer.
const IN_FLIGHT_MAX: usize = 2;

/// A step that was launched.
struct InFlight {
    launched: Launched,
    wanted: WantedRows,
    // In the order of `wanted`.
    complete: Vec<Complete>,
    stats: StepStats,
}

/// A request that gets a token from a step.
#[derive(Clone, Copy)]
struct Complete {
    id: RequestId,
    // Whether there is room for another token after this one.
    goes_on: bool,
}

/// A token chosen by a step, before its text is known.
struct Chosen {
    id: RequestId,
    token: Result<u32, LogitsError>,
    // Whether the request may get another token.
    goes_on: bool,
}

impl Engine {
    /// An engine for this model, whose cache is cleared.
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
            in_flight: VecDeque::new(),
            batch: Batch::new(),
            outputs: Outputs::default(),
            next_id: 0,
        }
    }

    /// Queues a request. Events of [`Engine::step`] will answer it.
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
        // Checked here, because in a step it would fail other requests too.
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
            chosen_at: 0,
            decoder: self.tokenizer.decoder(),
        };
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.scheduler.add(id, n_prompt, n_prompt.saturating_add(request.max_tokens).min(context));
        self.answers.insert(id, answer);
        Ok(id)
    }

    /// Drops a request: no more events for it follow, and its slot and pages are free at once. Returns whether it was still unfinished.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        self.remove(id).is_some()
    }

    /// Runs one pass over the model with the rows of every request whose turn it is, and appends the resulting events to `events`. Returns
    /// at once if there is nothing to do. It is [`submit`](Self::submit), unless a step is in flight, and then [`collect`](Self::collect).
    ///
    /// # Errors
    ///
    /// If the device or the model fails. Every request that held a slot has then failed, which `events` says too; those that wait keep
    /// waiting.
    pub fn step(&mut self, events: &mut Vec<Event>) -> Result<StepStats, Error> {
        if self.in_flight.is_empty() {
            self.submit(events)?;
        }
        self.collect(events)
    }

    /// [`step`](Self::step) with the same events, but it leaves the next step in flight: the device works while the host turns tokens into
    /// text, and while the caller handles the events. A request that is added meanwhile waits for the step after that one. If the device
    /// chooses all tokens, it does not even wait for the host between two steps; a request that ends otherwise than by its length then has
    /// one row too many in the step after its last. On a device that works only while it is called, this is [`step`](Self::step).
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn step_ahead(&mut self, events: &mut Vec<Event>) -> Result<StepStats, Error> {
        if self.model.device().info().runs_in_submit {
            return self.step(events);
        }
        // A second step is submitted only if the host chooses none of the first one's tokens.
        while self.submit(events)? {}
        let (chosen, stats) = self.receive(events)?;
        // If the device has nothing to do, submit before making text. Otherwise submit in the next call, which knows the requests that have
        // ended and those that were added.
        let ahead = if self.in_flight.is_empty() { self.submit(events) } else { Ok(false) };
        let stats = self.tell(chosen, stats, events);
        ahead.map(|_| stats)
    }

    /// Launches the next step, unless two are in flight or the host must see a token first. Returns whether it launched one; it does not if
    /// there is nothing to do.
    ///
    /// # Errors
    ///
    /// If the device or the model fails. Every request that held a slot has then failed, which `events` says too; those that wait keep
    /// waiting, and those that already left their slots still get their tokens from a step in flight.
    pub fn submit(&mut self, events: &mut Vec<Event>) -> Result<bool, Error> {
        if self.in_flight.len() == IN_FLIGHT_MAX || self.waits_for_tokens() {
            return Ok(false);
        }
        let schedule = self.scheduler.schedule();
        if schedule.sequences.is_empty() {
            return Ok(false);
        }
        let launched = self.launch(schedule);
        let step = launched.inspect_err(|error| self.fail(Vec::new(), error, events))?;
        self.in_flight.push_back(step);
        Ok(true)
    }

    /// Waits for the step that was submitted first, and appends the resulting events to `events`. Returns at once if none is in flight.
    ///
    /// # Errors
    ///
    /// If the device or the model fails. Every request that held a slot or had a token in flight has then failed, which `events` says too;
    /// those that wait keep waiting.
    pub fn collect(&mut self, events: &mut Vec<Event>) -> Result<StepStats, Error> {
        let (chosen, stats) = self.receive(events)?;
        Ok(self.tell(chosen, stats, events))
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

    /// Returns the model, with an empty cache, and drops the requests.
    pub fn into_model(self) -> LlamaModel {
        let mut model = LlamaModel::from_parts(self.model, self.scheduler.into_sequences());
        for slot in 0..model.kv_cache().batch_size() {
            model.kv_cache_mut().clear_batch(slot).expect("it is one of its slots");
        }
        model
    }

    /// Launches a schedule. If the parameters allow it, the device narrows down the choice, because the logits of a row are as large as the
    /// vocabulary.
    fn launch(&mut self, schedule: Schedule) -> Result<InFlight, Error> {
        let Schedule { sequences, changes } = schedule;
        // Sorted by what they want, so that rows that want the same are adjacent.
        let want = |scheduled: Scheduled| (self.answers[&scheduled.id].want, scheduled);
        let mut rows: Vec<(Want, Scheduled)> = sequences.into_iter().map(want).collect();
        rows.sort_by_key(|(want, _)| *want);
        let mut stats = StepStats { sequences: rows.len(), ..StepStats::default() };
        self.batch.clear();
        for (_, Scheduled { id, slot, start, n_new, completes }) in &rows {
            let answer = &self.answers[id];
            let end = start + n_new;
            let logits = if *completes { Logits::Last } else { Logits::None };
            if *start == answer.tokens.len() {
                // Its only row is a token that the host has not seen yet.
                self.batch.push_chosen(*slot, *start, answer.chosen_at, logits);
            } else {
                self.batch.push_sequence(*slot, *start, &answer.tokens[*start..end], logits);
            }
            stats.rows += n_new;
            stats.prompt_rows += end.min(answer.n_prompt).saturating_sub(*start);
        }
        rows.retain(|(_, scheduled)| scheduled.completes);
        let n_of = |kind: Want| rows.iter().filter(|(want, _)| *want == kind).count();
        let wanted = WantedRows::of(rows.len(), n_of(Want::Token), n_of(Want::TopK))?;
        self.model.spans(&self.batch, self.model.n_chosen())?;
        let launched = self.model.launch(&self.batch, &changes, wanted)?;
        let mut complete = Vec::with_capacity(rows.len());
        for (i, (_, Scheduled { id, .. })) in rows.into_iter().enumerate() {
            let goes_on = self.scheduler.append(id);
            if !goes_on {
                self.scheduler.remove(id);
            }
            if let Some(answer) = self.answers.get_mut(&id) {
                answer.chosen_at = i;
            }
            complete.push(Complete { id, goes_on });
        }
        Ok(InFlight { launched, wanted, complete, stats })
    }

    /// Whether a sequence cannot continue before the host has seen a token in flight: because the host chooses it, or because running ahead
    /// gains nothing on this device.
    fn waits_for_tokens(&self) -> bool {
        let runs_in_submit = self.model.device().info().runs_in_submit;
        let waits = |answer: &Answer| runs_in_submit || answer.want != Want::Token;
        let mut complete = self.in_flight.iter().flat_map(|step| &step.complete);
        complete.any(|Complete { id, goes_on }| *goes_on && self.answers.get(id).is_some_and(waits))
    }

    /// Waits for the step that was submitted first, and chooses the tokens of the requests that it completes. Requests that get their last
    /// token leave their slots.
    fn receive(&mut self, events: &mut Vec<Event>) -> Result<(Vec<Chosen>, StepStats), Error> {
        let Some(InFlight { launched, wanted, complete, stats }) = self.in_flight.pop_front() else {
            return Ok((Vec::new(), StepStats::default()));
        };
        let room = self.model.room(wanted, &mut self.outputs);
        let collected = room.and_then(|out| self.model.collect(launched, out));
        if let Err(error) = collected {
            // The steps launched after it do not count either.
            let after = self.in_flight.drain(..).flat_map(|step| step.complete);
            let lost = complete.into_iter().chain(after).map(|complete| complete.id).collect();
            self.fail(lost, &error, events);
            return Err(error);
        }
        let n_vocab = self.model.params().vocab;
        let Outputs { greedy, top, logits } = &mut self.outputs;
        let (of_greedy, others) = complete.split_at(wanted.n_greedy);
        let (of_top, of_logits) = others.split_at(wanted.n_top);
        let mut tokens: Vec<(Complete, Option<u32>)> = Vec::with_capacity(complete.len());
        for (complete, token) in of_greedy.iter().zip(greedy.iter()) {
            tokens.push((*complete, Some(*token).filter(|token| *token != u32::MAX)));
        }
        // A missing request has ended or was cancelled in the meantime.
        for (complete, candidates) in of_top.iter().zip(top.as_chunks().0.chunks_exact(TOP_K_MAX)) {
            let Some(answer) = self.answers.get(&complete.id) else { continue };
            tokens.push((*complete, self.sampler.sample_top(candidates, &answer.draw())));
        }
        for (complete, logits) in of_logits.iter().zip(logits.chunks_exact_mut(n_vocab)) {
            let Some(answer) = self.answers.get(&complete.id) else { continue };
            tokens.push((*complete, self.sampler.sample(logits, &answer.draw()).ok()));
        }
        let mut chosen = Vec::with_capacity(tokens.len());
        for (Complete { id, goes_on }, token) in tokens {
            let Some(answer) = self.answers.get_mut(&id) else { continue };
            let token = token.ok_or(LogitsError { n_vocab });
            answer.tokens.extend(token.as_ref().ok());
            if token.as_ref().map_or(true, |token| answer.is_end(&self.tokenizer, *token)) {
                self.scheduler.remove(id);
            }
            chosen.push(Chosen { id, token, goes_on });
        }
        Ok((chosen, stats))
    }

    /// Turns tokens into events, and finishes the requests that got their last token.
    fn tell(&mut self, chosen: Vec<Chosen>, stats: StepStats, events: &mut Vec<Event>) -> StepStats {
        let mut stats = stats;
        for Chosen { id, token, goes_on } in chosen {
            // The request may have failed with the step after this one.
            let Some(answer) = self.answers.get_mut(&id) else { continue };
            let token = match token {
                Ok(token) => token,
                Err(error) => {
                    self.remove(id);
                    stats.failed += 1;
                    events.push(Event::Failed { id, error: error.into() });
                    continue;
                }
            };
            stats.generated += 1;
            let Passed { text, stopped } = answer.text_of(&self.tokenizer, token);
            events.push(Event::Token { id, token, text });
            let reason = if stopped {
                FinishReason::Stop
            } else if !goes_on {
                FinishReason::Length
            } else {
                continue;
            };
            if let Some(mut answer) = self.remove(id) {
                stats.finished += 1;
                let text = answer.finish();
                events.push(Event::Finished { id, reason, usage: answer.usage(), text });
            }
        }
        stats.running = self.scheduler.n_running();
        stats.waiting = self.scheduler.n_waiting();
        stats
    }

    /// Drops a request and frees what it held.
    fn remove(&mut self, id: RequestId) -> Option<Answer> {
        self.scheduler.remove(id);
        self.answers.remove(&id)
    }

    /// Fails every request that holds a slot, because the contents of its cache are unknown, and `others`.
    fn fail(&mut self, others: Vec<RequestId>, error: &Error, events: &mut Vec<Event>) {
        let running: Vec<RequestId> = self.scheduler.running().collect();
        for id in running.into_iter().chain(others) {
            if self.remove(id).is_some() {
                events.push(Event::Failed { id, error: RequestError::Step(error.to_string()) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LlamaConfig;
    use recua_compute::cpu;
    use recua_gguf::Gguf;

    /// No accepted request can make the model fail, so the test damages this one inside the engine.
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
