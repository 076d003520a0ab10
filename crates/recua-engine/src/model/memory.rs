//! How much memory a model takes, computed before any is allocated, and the error if it is too much.

use super::config::{KvType, LlamaConfig};
use super::params::ModelParams;
use super::rope;
use super::workspace::{LogitsWorkspace, Workspace};
use crate::cache::StoreShape;
use crate::error::{Error, Result};
use crate::memory_report::MemoryReport;
use recua_compute::{Device, KvShape, PAGE_TOKENS, Tiling};

/// The memory that this model would take. Saturates, so that a hostile file's figures are merely too large.
pub(crate) fn estimate(
    p: &ModelParams,
    weights_bytes: u64,
    config: &LlamaConfig,
    tiling: &Tiling,
) -> MemoryReport {
    let rope = rope::dims(p, config.max_seq_len).iter().fold(4u64, |n, d| n.saturating_mul(*d as u64));
    let store = store_shape(p, config);
    let workspace_bytes = [
        Workspace::n_bytes(p, config, tiling),
        LogitsWorkspace::n_bytes(p, config),
        store.table_bytes(),
        rope,
    ];
    MemoryReport {
        weights_bytes,
        kv_bytes: store.kv_bytes(),
        workspace_bytes: workspace_bytes.iter().fold(0, |n, b| n.saturating_add(*b)),
    }
}

/// The cache of this model in this configuration; its figures saturate.
pub(crate) fn store_shape(p: &ModelParams, config: &LlamaConfig) -> StoreShape {
    let pages_max = config.max_seq_len.div_ceil(PAGE_TOKENS);
    StoreShape {
        n_layers: p.n_layers,
        kv: KvShape {
            n_pages: config.kv_pages.unwrap_or(config.batch_size.saturating_mul(pages_max)),
            n_kv_heads: p.n_kv_heads,
            head_dim: p.head_dim,
            kv_type: config.kv_type,
        },
        n_slots: config.batch_size,
        pages_max,
    }
}

/// How the device cuts the work of this model's attention.
pub(crate) fn tiling(device: &Device, p: &ModelParams, config: &LlamaConfig) -> Tiling {
    device.tiling(&store_shape(p, config).kv, p.n_heads)
}

/// Refuses a configuration that does not fit, and says which would. A device that does not report its memory is assumed to have enough.
pub(crate) fn check(
    device: &Device,
    p: &ModelParams,
    weights_bytes: u64,
    config: &LlamaConfig,
) -> Result<()> {
    let tiling = tiling(device, p, config);
    let needed = |config: &LlamaConfig| estimate(p, weights_bytes, config, &tiling);
    let Some(free_bytes) = free(device) else { return Ok(()) };
    if needed(config).total_bytes() <= free_bytes {
        return Ok(());
    }
    let fits = |config: LlamaConfig| needed(&config).total_bytes() <= free_bytes;
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
    Err(Error::OutOfMemory { device: device.info().name.clone(), needed: needed(config), free_bytes, advice })
}

/// Refuses another batch size whose cache does not fit beside the current one, and says which would.
pub(crate) fn check_resize(
    device: &Device,
    p: &ModelParams,
    old: &LlamaConfig,
    new: &LlamaConfig,
) -> Result<()> {
    let needed = |config: &LlamaConfig| {
        let head =
            if config.logits_rows() == old.logits_rows() { 0 } else { LogitsWorkspace::n_bytes(p, config) };
        MemoryReport { weights_bytes: 0, kv_bytes: store_shape(p, config).kv_bytes(), workspace_bytes: head }
    };
    let Some(free_bytes) = free(device) else { return Ok(()) };
    if needed(new).total_bytes() <= free_bytes {
        return Ok(());
    }
    let batch_size = largest(new.batch_size, |batch_size| {
        needed(&LlamaConfig { batch_size, ..new.clone() }).total_bytes() <= free_bytes
    });
    let advice = match batch_size {
        0 => " beside the present cache; load the model again".into(),
        n => format!(" beside the present cache; would fit: batch_size {n}"),
    };
    Err(Error::OutOfMemory { device: device.info().name.clone(), needed: needed(new), free_bytes, advice })
}

fn free(device: &Device) -> Option<u64> {
    Some(device.info().memory_bytes?.saturating_sub(device.allocated_bytes()))
}

/// The largest number up to `max` that fits; 0 if none does. Every number below one that fits must fit too.
fn largest(max: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, max);
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}
