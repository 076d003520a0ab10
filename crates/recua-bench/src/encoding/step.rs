//! The ops of a real model's decode step: those of [`LlamaModel`] over a synthetic file.

use recua::compute::hazards::writes;
use recua::gguf::{FileType, Gguf, Random, Shape, synth_in_memory};
use recua::{Batch, Device, LlamaConfig, LlamaModel, Logits};

use super::work::{About, Work};
use crate::Result;

/// The number of tokens that each sequence already holds.
const DEPTH: usize = 128;
/// The mix of types that most files of these models have.
const FILE_TYPE: FileType = FileType::Q4_K_M;

/// A step of one token for each of `rows` sequences.
pub(super) fn work(device: &Device, shape: Shape, rows: usize) -> Result<Work> {
    let gguf = Gguf::from_vec(synth_in_memory(shape, FILE_TYPE, 0)?)?;
    let config = LlamaConfig { batch_size: rows, max_seq_len: DEPTH + 1, ..LlamaConfig::default() };
    let mut model = LlamaModel::load(&gguf, device.clone(), config)?;
    drop(gguf);
    let mut random = Random::new(1);
    let tokens = random.indexes(rows * (DEPTH + 1), model.params().vocab);
    // The second pass leaves the positions and page tables of the step on the device.
    for (start, end, logits) in [(0, DEPTH, Logits::None), (DEPTH, DEPTH + 1, Logits::Last)] {
        let mut batch = Batch::new();
        for (slot, tokens) in tokens.chunks(DEPTH + 1).enumerate() {
            batch.push_sequence(slot, start, &tokens[start..end], logits);
        }
        model.step(&batch)?;
    }
    let plan = model.plan(rows, rows)?;
    let last = plan.ops().last().ok_or("a step without ops")?;
    let logits = writes(last).into_iter().cloned().collect();
    let about = About {
        name: format!("step {shape}"),
        description: format!(
            "decode step of the {shape} shape, {FILE_TYPE}, {rows} row(s) at position {DEPTH}"
        ),
        n_ops: 0,
        n_groups: 0,
        weight_bytes: model.weight_bytes_per_step(),
    };
    Ok(Work::step(about, plan, logits))
}
