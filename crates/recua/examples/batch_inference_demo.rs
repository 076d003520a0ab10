//! Several sequences in one pass: `cargo run --release -p recua --example batch_inference_demo -- [MODEL.gguf]`.
//!
//! Runs four prompts of different lengths alone and as a batch, compares the logits bit by bit, and then generates one token per
//! sequence and pass. The weights are read once a pass, so a batch of four takes far less than four times as long as one
//! sequence.

use recua::gguf::Gguf;
use recua::{Batch, LlamaConfig, LlamaModel, Logits, Report, Result, open_device};
use std::time::Instant;

const SEQUENCES: usize = 4;
const NEW_TOKENS: usize = 32;

fn main() -> Result<(), Report> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/tiny-Q4_K_M.gguf");
    let path = std::env::args().nth(1).unwrap_or_else(|| default.into());
    let config = LlamaConfig { batch_size: SEQUENCES, ..LlamaConfig::default() };
    let mut model = LlamaModel::load(&Gguf::open(path)?, open_device("auto")?, config)?;
    println!("{model:?}, {} slots", model.kv_cache().batch_size());

    // Prompts of 5, 9, 13 and 17 tokens.
    let vocab = model.params().vocab as u32;
    let prompt = |i: u32| (0..5 + 4 * i).map(|t| (37 * t + 11 * i + 1) % vocab).collect::<Vec<u32>>();
    let prompts: Vec<Vec<u32>> = (0..SEQUENCES as u32).map(prompt).collect();
    let batch: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();

    let alone = batch.iter().map(|tokens| model.forward(tokens)).collect::<Result<Vec<_>>>()?;
    let together = model.forward_batch(&batch)?;
    for (i, (a, b)) in alone.iter().zip(&together).enumerate() {
        let same = a.data().iter().zip(b.data()).all(|(a, b)| a.to_bits() == b.to_bits());
        println!("sequence {i}: logits {:?}, the same bits alone and in the batch: {same}", b.shape());
    }

    let mut answers: Vec<Vec<u32>> = together.iter().map(|t| vec![argmax(t.last_row())]).collect();
    let start = Instant::now();
    for _ in 1..NEW_TOKENS {
        step(&mut model, &mut answers, 0..SEQUENCES)?;
    }
    let batched = start.elapsed();

    // The same again, one sequence after another.
    model.forward_batch(&batch)?;
    let mut again: Vec<Vec<u32>> = together.iter().map(|t| vec![argmax(t.last_row())]).collect();
    let start = Instant::now();
    for slot in 0..SEQUENCES {
        for _ in 1..NEW_TOKENS {
            step(&mut model, &mut again, slot..slot + 1)?;
        }
    }
    let one_by_one = start.elapsed();

    assert_eq!(answers, again, "batching must not change an answer");
    let n = (SEQUENCES * (NEW_TOKENS - 1)) as f64;
    println!("{:.0} tokens/s as a batch", n / batched.as_secs_f64());
    println!("{:.0} tokens/s one by one, the same tokens", n / one_by_one.as_secs_f64());
    Ok(())
}

/// Runs the last token of each slot's answer through the model and appends the greedy next token to the answer.
fn step(model: &mut LlamaModel, answers: &mut [Vec<u32>], slots: std::ops::Range<usize>) -> Result<()> {
    let mut batch = Batch::new();
    for slot in slots.clone() {
        let last = answers[slot].last().copied().unwrap_or_default();
        batch.push_sequence(slot, model.kv_cache().cached_tokens(slot)?, &[last], Logits::Last);
    }
    let logits = model.step(&batch)?;
    for (slot, row) in slots.zip(logits.chunks_exact(model.params().vocab)) {
        answers[slot].push(argmax(row));
    }
    Ok(())
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as u32)
}
