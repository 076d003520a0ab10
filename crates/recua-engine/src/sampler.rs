//! From logits to a token: penalties, filters, temperature and one draw.
//!
//! A sampler is a pure function of the logits, the parameters, the choice and the tokens so far. From one token to
//! the next it keeps only its workspace. So preempting a sequence, moving it to another slot or recomputing it does
//! not change its tokens, and one sampler serves all sequences of an engine.
//!
//! The order is that of llama.cpp's default chain, which users know: repeat, frequency and presence penalties, top-k,
//! top-p, min-p, temperature. The filters thus see the distribution at temperature 1. A high temperature flattens
//! what they keep, and never lets in what they cut.
//!
//! Randomness comes from [`philox`], a counter-based generator: the draw for a token depends only on the seed, the
//! choice and the token's position, never on neighbours or the order of arrival.

mod defaults;
mod filter;
pub mod philox;

use std::ops::RangeInclusive;

pub use defaults::SamplingDefaults;
use filter::Candidates;
use recua_compute::TOP_K_MAX;

/// The highest temperature accepted; far below it, the distribution is already almost uniform.
pub const TEMPERATURE_MAX: f32 = 100.0;
/// The highest repeat penalty accepted.
pub const REPEAT_PENALTY_MAX: f32 = 100.0;
/// The largest frequency and presence penalty accepted, either sign; OpenAI's limit.
pub const PENALTY_MAX: f32 = 2.0;

/// The ranges of the parameters that a file can set too.
const TEMPERATURE: RangeInclusive<f32> = 0.0..=TEMPERATURE_MAX;
const TOP_P: RangeInclusive<f32> = 0.0..=1.0;
const MIN_P: RangeInclusive<f32> = 0.0..=1.0;
const REPEAT_PENALTY: RangeInclusive<f32> = 0.01..=REPEAT_PENALTY_MAX;

/// How the next token of a request is chosen. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits after the filters; 0 is greedy: it always takes the most probable token.
    pub temperature: f32,
    /// Keeps this many of the most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens until their probabilities reach this sum; 1 keeps all, 0 only the first.
    pub top_p: f32,
    /// Keeps the tokens whose probability is at least this fraction of the highest; 0 keeps all.
    pub min_p: f32,
    /// Applies once to every token that occurs among the last `repeat_last_n` tokens of prompt and answer: divides a
    /// positive logit, multiplies a negative one (as llama.cpp does). 1 changes nothing.
    pub repeat_penalty: f32,
    /// How many tokens back the repeat penalty looks; 0 disables it.
    pub repeat_last_n: usize,
    /// Subtracted from a token's logit for each time it occurs in the answer so far (as OpenAI does).
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of each token that occurs in the answer so far (as OpenAI does).
    pub presence_penalty: f32,
    /// The same seed and request give the same answer. Different requests with the same seed draw the same random
    /// numbers, so give unrelated requests different seeds.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Checks that every field is a number within its range.
    ///
    /// # Errors
    ///
    /// The first field that is not, with its range.
    pub fn validate(&self) -> Result<(), ParamError> {
        let check = ParamError::check;
        check("temperature", self.temperature, TEMPERATURE)?;
        check("top_p", self.top_p, TOP_P)?;
        check("min_p", self.min_p, MIN_P)?;
        check("repeat_penalty", self.repeat_penalty, REPEAT_PENALTY)?;
        check("frequency_penalty", self.frequency_penalty, -PENALTY_MAX..=PENALTY_MAX)?;
        check("presence_penalty", self.presence_penalty, -PENALTY_MAX..=PENALTY_MAX)
    }

    /// How much of a row of logits the next token is chosen from.
    pub fn want(&self) -> Want {
        let repeats = self.repeat_penalty != 1.0 && self.repeat_last_n > 0;
        let has_penalties = repeats || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0;
        match self.top_k {
            _ if has_penalties => Want::Logits,
            _ if self.is_greedy() => Want::Token,
            1..=TOP_K_MAX => Want::TopK,
            _ => Want::Logits,
        }
    }

    /// Whether only the most probable token can be chosen. Every filter keeps that one.
    fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1 || self.top_p == 0.0
    }
}

/// How much of a row of logits a sampler needs to choose the same token that it would choose from the whole row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The token with the largest logit.
    Token,
    /// The [`TOP_K_MAX`] largest logits with their tokens.
    TopK,
    /// All logits.
    Logits,
}

/// A sampling parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}; it must be a number from {min} to {max}")]
pub struct ParamError {
    /// The name of the field, or the metadata key.
    pub field: &'static str,
    /// What it was set to.
    pub value: f32,
    /// The smallest value that works.
    pub min: f32,
    /// The largest value that works.
    pub max: f32,
}

impl ParamError {
    fn check(field: &'static str, value: f32, range: RangeInclusive<f32>) -> Result<(), ParamError> {
        // A NaN is in no range.
        if range.contains(&value) {
            return Ok(());
        }
        let (min, max) = range.into_inner();
        Err(ParamError { field, value, min, max })
    }
}

/// Logits from which nothing can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of the {n_vocab} logits is a finite number; the model's weights may be damaged")]
pub struct LogitsError {
    /// How many logits there were.
    pub n_vocab: usize,
}

/// Everything besides the logits that decides a draw.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The request's parameters, validated.
    pub params: &'a SamplingParams,
    /// Which of a request's several answers this is.
    pub choice: u32,
    /// The prompt and the answer so far. The draw is for position `tokens.len()`.
    pub tokens: &'a [u32],
    /// How many of the tokens are the prompt.
    pub n_prompt: usize,
}

/// Chooses tokens; holds only the workspace for it.
#[derive(Debug, Default)]
pub struct Sampler {
    candidates: Candidates,
    // One count per vocabulary entry; all zero between calls.
    counts: Vec<u32>,
}

impl Sampler {
    /// A sampler with an empty workspace.
    pub fn new() -> Sampler {
        Sampler::default()
    }

    /// Chooses the next token. Logits that are NaN or -inf are never chosen; ties go to the lowest token id.
    /// Penalties are applied to `logits` in place.
    ///
    /// # Errors
    ///
    /// If no logit is left to choose.
    pub fn sample(&mut self, logits: &mut [f32], draw: &Draw<'_>) -> Result<u32, LogitsError> {
        self.penalize(logits, draw);
        let params = draw.params;
        if params.is_greedy() {
            return filter::argmax(logits).ok_or(LogitsError { n_vocab: logits.len() });
        }
        self.candidates.read(logits, params.top_k);
        self.choose(draw).ok_or(LogitsError { n_vocab: logits.len() })
    }

    /// As [`Sampler::sample`], for parameters for which [`Want::TopK`] is enough. `top` is the output of
    /// [`recua_compute::TopK`]: pairs of the logit's bits and the token, the largest logit first. Returns `None` if
    /// no logit is left to choose.
    pub fn sample_top(&mut self, top: &[[u32; 2]], draw: &Draw<'_>) -> Option<u32> {
        self.candidates.read_top(top, draw.params.top_k);
        self.choose(draw)
    }

    fn choose(&mut self, draw: &Draw<'_>) -> Option<u32> {
        let (params, candidates) = (draw.params, &mut self.candidates);
        candidates.keep_top_p(params.top_p);
        candidates.keep_min_p(params.min_p);
        let point = philox::uniform(params.seed, draw.choice, draw.tokens.len() as u64);
        candidates.draw(params.temperature, point)
    }

    fn penalize(&mut self, logits: &mut [f32], draw: &Draw<'_>) {
        let &Draw { params, tokens, n_prompt, .. } = draw;
        if params.repeat_penalty != 1.0 {
            let recent = &tokens[tokens.len().saturating_sub(params.repeat_last_n)..];
            self.for_each_distinct(recent, logits, |logit, _| {
                if *logit > 0.0 {
                    *logit /= params.repeat_penalty;
                } else {
                    *logit *= params.repeat_penalty;
                }
            });
        }
        if params.frequency_penalty != 0.0 || params.presence_penalty != 0.0 {
            let generated = tokens.get(n_prompt..).unwrap_or_default();
            self.for_each_distinct(generated, logits, |logit, count| {
                *logit -= params.frequency_penalty * count as f32 + params.presence_penalty;
            });
        }
    }

    /// Calls `change` once for each distinct token, with its logit and the number of times it occurs.
    fn for_each_distinct(
        &mut self,
        tokens: &[u32],
        logits: &mut [f32],
        mut change: impl FnMut(&mut f32, u32),
    ) {
        if self.counts.len() < logits.len() {
            self.counts.resize(logits.len(), 0);
        }
        let n_vocab = logits.len();
        let tokens = || tokens.iter().map(|&token| token as usize).filter(|&token| token < n_vocab);
        for token in tokens() {
            self.counts[token] += 1;
        }
        for token in tokens() {
            let count = std::mem::take(&mut self.counts[token]);
            if count > 0 {
                change(&mut logits[token], count);
            }
        }
    }
}
