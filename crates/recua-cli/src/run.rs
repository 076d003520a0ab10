//! `recua run`: answers to prompts, all in one batch.

mod answers;
mod prompts;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use recua::chat::Message;
use recua::{Engine, Event, LlamaConfig, MAX_SEQ_LEN_DEFAULT, Request, RequestId};

use crate::args::{AnswerLimit, ChatArgs, Kept, RunArgs};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::model::{self, ModelFile};
use crate::output::{count, note};
use crate::progress::Progress;
use crate::prompt::{self, Form};
use answers::Answers;

/// The most sequences that run at the same time by default.
const BATCH_SIZE_MAX: usize = 64;

/// The longest answer by default, in tokens.
const MAX_TOKENS: usize = 512;

pub(crate) fn run(args: RunArgs) -> Result {
    if prompts::is_conversation(&args) {
        let RunArgs { model, system, sampling, size, kv, device, .. } = args;
        let (ctx_size, keep) = (size.ctx_size, Kept::Tokens(0));
        return crate::chat::run(ChatArgs { model, system, sampling, ctx_size, keep, kv, device });
    }
    let file = ModelFile::open(&args.model)?;
    let prompts = prompts::prompts(&args)?;
    let tokenizer = Arc::new(file.tokenizer()?);
    let form = Form::of(&file, &tokenizer, args.raw)?;
    if args.system.is_some() && matches!(form, Form::Raw { .. }) {
        return Err(Failure::user(format!(
            "{}: --system needs a chat template, which the file lacks",
            file.name
        )));
    }
    let params = prompt::sampling(&args.sampling, &prompt::defaults(&file)?)?;
    let limit = args.sampling.max_tokens.unwrap_or(AnswerLimit::Tokens(MAX_TOKENS));
    let mut encoded = Vec::new();
    for prompt in &prompts {
        let system = args.system.iter().map(|text| Message::new("system", text));
        let prompt = form.encode(&tokenizer, system.chain([Message::new("user", prompt)]))?;
        if args.verbose_prompt {
            prompt.show();
        }
        encoded.push(prompt.tokens);
    }
    let longest = encoded.iter().map(Vec::len).max().unwrap_or(0);
    let needed = match limit {
        AnswerLimit::Tokens(n) => longest.saturating_add(n),
        AnswerLimit::Context => longest.saturating_add(MAX_TOKENS).max(MAX_SEQ_LEN_DEFAULT),
    };
    let context = file.context(args.size.ctx_size, needed)?;
    check_lengths(&file, &encoded, context)?;
    let config = LlamaConfig {
        batch_size: args.batch_size.unwrap_or(BATCH_SIZE_MAX).min(prompts.len()),
        max_seq_len: context,
        kv_type: args.kv.kv_type,
        ..LlamaConfig::default()
    };
    let mut engine = Engine::new(file.load(model::open_device(&args.device)?, config)?, tokenizer);
    let max_tokens = limit.within(context);
    let lengths: Vec<usize> = encoded.iter().map(Vec::len).collect();
    let mut ids = Vec::new();
    for (i, prompt) in encoded.into_iter().enumerate() {
        let mut params = params.clone();
        if args.sampling.fixed_seed().is_none() {
            // Unrelated prompts must not draw the same random numbers. With a seed given by the user, each prompt
            // gets the answer it would get alone.
            params.seed = params.seed.wrapping_add(i as u64);
        }
        let stop = args.sampling.stop.clone();
        let request = Request { prompt, params, max_tokens, stop, ..Request::default() };
        ids.push(engine.add(request).map_err(|e| Failure::user(format!("prompt {}: {e}", i + 1)))?);
    }
    form.note_if_raw();
    interrupt::handle()?;
    generate(&mut engine, &ids, Answers::new(prompts.into_iter().zip(lengths), args.format))
}

/// A prompt must leave room for at least one token of an answer.
fn check_lengths(file: &ModelFile, prompts: &[Vec<u32>], context: usize) -> Result {
    let Some(i) = prompts.iter().position(|prompt| prompt.len() >= context) else { return Ok(()) };
    let (n, n_tokens, own) = (i + 1, prompts[i].len(), file.params.context_length);
    let remedy = if context < own {
        format!("raise --ctx-size (the model's context is {own})")
    } else {
        "shorten it; this is the model's whole context".to_owned()
    };
    Err(Failure::user(format!(
        "prompt {n} has {n_tokens} tokens, but the context holds {context}, answer included; {remedy}"
    )))
}

/// Runs steps until every answer is complete or Ctrl-C ends them, and prints the answers as they grow.
fn generate(engine: &mut Engine, ids: &[RequestId], mut answers: Answers) -> Result {
    let mut out = crate::output::stdout();
    let start = Instant::now();
    let mut events = Vec::new();
    let mut figures = Figures::default();
    let under_way = interrupt::under_way();
    // A GPU's kernels for a new shape of step are compiled before it.
    let mut waiting = Some(Progress::waiting("reading the prompts"));
    while !engine.is_idle() && !under_way.is_to_end() {
        let stats = engine.step_ahead(&mut events).map_err(|e| model::failure(e, ""))?;
        figures.step(&stats, start.elapsed());
        if !events.is_empty() {
            waiting = None;
        }
        for event in events.drain(..) {
            // Requests were added in the order of the prompts, so their ids ascend.
            if let Ok(i) = ids.binary_search(&event.id()) {
                answers.take(i, event);
            }
        }
        answers.write(&mut out)?;
        out.flush()?;
    }
    drop(waiting);
    if under_way.is_to_end() {
        answers.cancel();
        answers.write(&mut out)?;
        out.flush()?;
    }
    figures.print(ids.len(), start.elapsed());
    model::note_kv_cut(engine.model().device())?;
    if under_way.is_to_end() {
        return Err(Failure::Interrupted);
    }
    if answers.n_failed > 0 {
        return Err(Failure::other(format!("{} failed", count(answers.n_failed, "answer"))));
    }
    Ok(())
}

#[derive(Default)]
struct Figures {
    prompt_rows: usize,
    generated: usize,
    sequences_max: usize,
    // The time until the first token of any answer.
    first: Option<Duration>,
    // The tokens generated after that.
    generated_after_first: usize,
}

impl Figures {
    fn step(&mut self, stats: &recua::StepStats, now: Duration) {
        self.prompt_rows += stats.prompt_rows;
        self.generated += stats.generated;
        self.sequences_max = self.sequences_max.max(stats.sequences);
        if self.first.is_some() {
            self.generated_after_first += stats.generated;
        } else if stats.generated > 0 {
            self.first = Some(now);
        }
    }

    fn print(&self, n_prompts: usize, total: Duration) {
        let first = self.first.unwrap_or(total);
        let after = (total - first).as_secs_f64();
        // No rate without a second token.
        let rate = (self.generated_after_first > 0 && after > 0.0)
            .then(|| format!(", then {:.1} tokens/s in total", self.generated_after_first as f64 / after));
        note!(
            "{}, up to {} in a step; {} and {} in {:.2} s; first token after {:.0} ms{}",
            count(n_prompts, "prompt"),
            self.sequences_max,
            count(self.prompt_rows, "prompt token"),
            count(self.generated, "generated token"),
            total.as_secs_f64(),
            first.as_secs_f64() * 1e3,
            rate.unwrap_or_default(),
        );
    }
}

/// The text that an event adds to its answer.
pub(crate) fn text_of(event: &Event) -> &str {
    match event {
        Event::Token { text, .. } | Event::Finished { text, .. } => text,
        Event::Failed { .. } => "",
    }
}
