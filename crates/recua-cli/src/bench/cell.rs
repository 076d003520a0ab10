//! One cell of the matrix: a batch size and a prompt length.

use std::time::Instant;

use recua::{Batch, LlamaModel, Logits};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::interrupt::UnderWay;
use crate::model;
use recua::gguf::Random;

/// Untimed steps between the prompt and the timed ones.
pub(super) const N_WARM_UP: usize = 2;

/// A prompt is timed again until this much time is spent, but not more often than [`PROMPTS_MAX`]: short ones vary.
const PROMPT_SECONDS: f64 = 0.5;
const PROMPTS_MAX: usize = 5;

/// What a cell measures, as DESIGN.md names it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) batch: usize,
    pub(super) prompt_len: usize,
    #[serde(rename = "gen")]
    pub(super) gen_len: usize,
    /// Prompt tokens a second, all sequences together.
    pub(super) prefill_tps: f64,
    /// Generated tokens a second, all sequences together, at the median step: one that ends in the likeliest token of each.
    pub(super) decode_tps: f64,
    /// The median step.
    pub(super) step_ms: f64,
    /// The mean step.
    pub(super) mean_step_ms: f64,
    /// The step's reads of weights and cache a second, as a part of the measured peak.
    pub(super) peak_fraction: f64,
    /// The device's time, by its own clock, in that of the timed steps.
    pub(super) gpu_utilisation: Option<f64>,
    /// Microseconds of the median step beyond the device's own time in it: what the host adds.
    pub(super) host_us: Option<f64>,
    /// All device memory: weights, cache of this batch size, workspace.
    pub(super) memory_bytes: u64,
    /// Of the first sequence's last logits, when its own tokens take the place of the generated ones.
    pub(super) logits_hash: String,
}

/// What a cell is about.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) batch: usize,
    pub(super) prompt_len: usize,
    pub(super) gen_len: usize,
}

/// Measures one cell on a model whose batch size is that of the cell. Ctrl-C ends it behind the step under way.
pub(super) fn measure(
    model: &mut LlamaModel,
    cell: Cell,
    peak_bytes_per_s: f64,
    under_way: &UnderWay,
) -> Result<Row> {
    let Cell { batch, prompt_len, gen_len } = cell;
    let vocab = model.params().vocab;
    // Each sequence's tokens are its own, whatever the batch size, so that the hashes of a column agree.
    let sequences: Vec<Vec<u32>> = (0..batch)
        .map(|slot| Random::new(slot as u64).indexes(prompt_len + N_WARM_UP + gen_len, vocab))
        .collect();
    // A step of this size, so that a device compiles its kernels before the prompt and not behind it: a GPU's clocks fall while the
    // processor works alone, and rise again only after hundreds of milliseconds of work.
    model.step_greedy(&step(&sequences, 0, 1)).map_err(|e| model::failure(e, ""))?;
    let prompt_s = prefill(model, &sequences, prompt_len, under_way)?;
    let Times { wall: mut times, device: device_times } = generate(model, &sequences, cell, under_way)?;
    let is_told = device_times.len() == times.len();
    let gpu_utilisation = is_told.then(|| device_times.iter().sum::<f64>() / times.iter().sum::<f64>());
    let mut host: Vec<f64> = times.iter().zip(&device_times).map(|(wall, device)| wall - device).collect();
    let host_us = is_told.then(|| median(&mut host) * 1e6);
    // Each sequence's own tokens behind the prompt, instead of those that were generated, for the logits.
    let end = prompt_len + N_WARM_UP + gen_len;
    let last = model.step(&step(&sequences, prompt_len, end)).map_err(|e| model::failure(e, ""))?;
    let memory_bytes = model.device().allocated_bytes();
    clear(model, batch)?;
    let mean_s = times.iter().sum::<f64>() / times.len() as f64;
    let step_s = median(&mut times);
    let bytes = step_bytes(model, batch, prompt_len + N_WARM_UP + gen_len / 2);
    Ok(Row {
        batch,
        prompt_len,
        gen_len,
        prefill_tps: (batch * prompt_len) as f64 / prompt_s,
        decode_tps: batch as f64 / step_s,
        step_ms: step_s * 1e3,
        mean_step_ms: mean_s * 1e3,
        peak_fraction: bytes as f64 / step_s / peak_bytes_per_s,
        gpu_utilisation,
        host_us,
        memory_bytes,
        logits_hash: hash(&last[..vocab.min(last.len())]),
    })
}

/// The timed steps, in seconds.
struct Times {
    wall: Vec<f64>,
    /// The device's own, where it tells them.
    device: Vec<f64>,
}

/// Generates behind the prompts, as an engine does for greedy requests: the device chooses the tokens, and where it works by itself it
/// is told of the next step before the host has seen those of this one. A step takes from when the host has the tokens of the
/// one before until it has its own.
fn generate(
    model: &mut LlamaModel,
    sequences: &[Vec<u32>],
    cell: Cell,
    under_way: &UnderWay,
) -> Result<Times> {
    let Cell { prompt_len, gen_len, .. } = cell;
    let goes_ahead = !model.device().info().runs_in_submit;
    let n_steps = N_WARM_UP + gen_len;
    let launch = |model: &mut LlamaModel, i: usize| {
        let position = prompt_len + i;
        let mut batch = step(sequences, position, position + 1);
        if i > 0 {
            batch.clear();
            (0..sequences.len()).for_each(|slot| batch.push_chosen(slot, position, slot, Logits::Last));
        }
        model.launch_greedy(&batch).map_err(|e| model::failure(e, ""))
    };
    let mut times = Times { wall: Vec::with_capacity(gen_len), device: Vec::with_capacity(gen_len) };
    let mut ahead = None;
    let mut start = Instant::now();
    for i in 0..n_steps {
        check(under_way)?;
        let step = match ahead.take() {
            Some(step) => step,
            None => launch(model, i)?,
        };
        if goes_ahead && i + 1 < n_steps {
            ahead = Some(launch(model, i + 1)?);
        }
        let device_before = model.device_time();
        model.collect_greedy(step).map_err(|e| model::failure(e, ""))?;
        let end = Instant::now();
        if i >= N_WARM_UP {
            times.wall.push((end - start).as_secs_f64());
            let before_and_after = device_before.zip(model.device_time());
            times.device.extend(before_and_after.map(|(before, after)| (after - before).as_secs_f64()));
        }
        start = end;
    }
    Ok(times)
}

/// Runs the prompts until their time is known; the median, in seconds. They stay in the cache.
fn prefill(
    model: &mut LlamaModel,
    sequences: &[Vec<u32>],
    prompt_len: usize,
    under_way: &UnderWay,
) -> Result<f64> {
    let prompts = step(sequences, 0, prompt_len);
    let mut times = Vec::new();
    // The first run records the plans of this shape; it counts only if there is no time for a second.
    let mut spent = 0.0;
    while times.is_empty() || (times.len() <= PROMPTS_MAX && spent < PROMPT_SECONDS) {
        check(under_way)?;
        clear(model, sequences.len())?;
        let start = Instant::now();
        model.step(&prompts).map_err(|e| model::failure(e, ""))?;
        times.push(start.elapsed().as_secs_f64());
        spent += times[times.len() - 1];
    }
    if times.len() > 1 {
        times.remove(0);
    }
    Ok(median(&mut times))
}

fn check(under_way: &UnderWay) -> Result {
    if under_way.is_to_end() { Err(Failure::Interrupted) } else { Ok(()) }
}

/// The tokens `[start, end)` of every sequence, and the logits of each one's last.
fn step(sequences: &[Vec<u32>], start: usize, end: usize) -> Batch {
    let mut batch = Batch::new();
    for (slot, tokens) in sequences.iter().enumerate() {
        batch.push_sequence(slot, start, &tokens[start..end], Logits::Last);
    }
    batch
}

fn clear(model: &mut LlamaModel, batch: usize) -> Result {
    (0..batch).try_for_each(|slot| model.kv_cache_mut().clear_batch(slot)).map_err(Failure::other)
}

/// Bytes that a step of one token a sequence must read: the weights once, and each sequence's keys and values.
fn step_bytes(model: &LlamaModel, batch: usize, n_tokens: usize) -> u64 {
    let (params, config) = (model.params(), model.config());
    let token_bytes = 2 * params.n_layers * params.kv_dim() * config.kv_type.dtype().size_of();
    model.weight_bytes_per_step() + (batch * n_tokens * token_bytes) as u64
}

/// The middle one of some times, of which there is at least one.
pub(super) fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 }
}

/// FNV-1a of the bits.
fn hash(logits: &[f32]) -> String {
    let bytes = logits.iter().flat_map(|v| v.to_bits().to_le_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn the_hash_sees_every_bit() {
        assert_eq!(hash(&[]), "cbf29ce484222325");
        assert_ne!(hash(&[0.0]), hash(&[-0.0]));
        assert_ne!(hash(&[1.0, 2.0]), hash(&[2.0, 1.0]));
    }
}
