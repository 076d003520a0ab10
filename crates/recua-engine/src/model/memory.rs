//! How much memory a model takes, known before any is allocated, and what to say when it is too much.

use super::rope;
use super::workspace::{Head, Workspace};
use crate::config::{KvType, LlamaConfig, ModelParams};
use crate::error::{Error, Result};
use crate::kv_cache::KvShape;
use recua_compute::{Device, PAGE_TOKENS};

/// Bytes of device memory, by what they are for: weights do not depend on the configuration, the cache is linear in
/// `batch_size * max_seq_len`, the workspace is bounded by `step_tokens_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// The model's tensors.
    pub weights_bytes: u64,
    /// The key-value cache.
    pub kv_bytes: u64,
    /// Everything else: activations, logits, tables, the device's own.
    pub workspace_bytes: u64,
}

impl MemoryReport {
    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.workspace_bytes)
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "{} (weights {}, KV cache {}, workspace {})",
            bytes_text(self.total_bytes()),
            bytes_text(self.weights_bytes),
            bytes_text(self.kv_bytes),
            bytes_text(self.workspace_bytes)
        )
    }

    /// What this model would take. Saturates, so that a hostile file's figures are merely too large.
    pub(crate) fn estimate(p: &ModelParams, weights_bytes: u64, config: &LlamaConfig) -> MemoryReport {
        let table = config.batch_size as u64 * config.max_seq_len.div_ceil(PAGE_TOKENS) as u64;
        let rope = rope::dims(p, config.max_seq_len).iter().fold(4u64, |n, d| n.saturating_mul(*d as u64));
        let workspace_bytes =
            [Workspace::n_bytes(p, config), Head::n_bytes(p, config), table.saturating_mul(4), rope];
        MemoryReport {
            weights_bytes,
            kv_bytes: KvShape::new(p, config).n_bytes(),
            workspace_bytes: workspace_bytes.iter().fold(0, |n, b| n.saturating_add(*b)),
        }
    }
}

/// A size as a person reads it.
pub(crate) fn bytes_text(n: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| n >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", n as f64 / (1u64 << shift) as f64),
        None => format!("{n} bytes"),
    }
}

/// Refuses a configuration that does not fit, and says which would. A device that does not know its memory is believed to have it.
pub(crate) fn check(
    device: &Device,
    p: &ModelParams,
    weights_bytes: u64,
    config: &LlamaConfig,
) -> Result<()> {
    let estimate = |config: &LlamaConfig| MemoryReport::estimate(p, weights_bytes, config);
    let Some(free_bytes) = free(device) else { return Ok(()) };
    let needed = estimate(config);
    if needed.total_bytes() <= free_bytes {
        return Ok(());
    }
    let fits = |config: LlamaConfig| estimate(&config).total_bytes() <= free_bytes;
    let mut would_fit = Vec::new();
    let pages = largest(config.max_seq_len.div_ceil(PAGE_TOKENS), |pages| {
        fits(LlamaConfig { max_seq_len: pages * PAGE_TOKENS, ..config.clone() })
    });
    if pages > 0 {
        would_fit.push(format!("max_seq_len {}", (pages * PAGE_TOKENS).min(config.max_seq_len)));
    }
    let batch_size =
        largest(config.batch_size, |batch_size| fits(LlamaConfig { batch_size, ..config.clone() }));
    if batch_size > 0 {
        would_fit.push(format!("batch_size {batch_size}"));
    }
    if config.kv_type == KvType::F32 && fits(LlamaConfig { kv_type: KvType::F16, ..config.clone() }) {
        would_fit.push("kv_type f16".into());
    }
    let advice = if would_fit.is_empty() {
        "; the weights need a device with more memory".into()
    } else {
        format!("; would fit: {}", would_fit.join(", or "))
    };
    Err(Error::OutOfMemory { device: device.info().name.clone(), needed, free_bytes, advice })
}

/// Refuses another batch size whose cache does not fit beside the present one, and says which would.
pub(crate) fn check_resize(
    device: &Device,
    p: &ModelParams,
    old: &LlamaConfig,
    new: &LlamaConfig,
) -> Result<()> {
    let needed = |config: &LlamaConfig| {
        let head = if config.logits_rows() == old.logits_rows() { 0 } else { Head::n_bytes(p, config) };
        MemoryReport { weights_bytes: 0, kv_bytes: KvShape::new(p, config).n_bytes(), workspace_bytes: head }
    };
    let Some(free_bytes) = free(device) else { return Ok(()) };
    if needed(new).total_bytes() <= free_bytes {
        return Ok(());
    }
    let batch_size = largest(new.batch_size, |batch_size| {
        needed(&LlamaConfig { batch_size, ..new.clone() }).total_bytes() <= free_bytes
    });
    let advice = match batch_size {
        0 => " beside the present cache; load the model anew".into(),
        n => format!(" beside the present cache; would fit: batch_size {n}"),
    };
    Err(Error::OutOfMemory { device: device.info().name.clone(), needed: needed(new), free_bytes, advice })
}

fn free(device: &Device) -> Option<u64> {
    Some(device.info().memory_bytes?.saturating_sub(device.allocated_bytes()))
}

/// The largest number of at most `max` that fits; 0 if none does. What is smaller than a number that fits, fits.
fn largest(max: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, max);
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}
