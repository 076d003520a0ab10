//! `rope_store`: one dispatch, or one a window of a cache that no binding can hold.

use super::attention::attention_bytes;
use super::rows::{Rows, grid, page_windows};
use crate::gpu::Gpu;
use crate::launch::Recorder;
use crate::memory::{Binding, u32_of};
use crate::pipelines::KernelKey;
use bytemuck::bytes_of;
use recua_compute::{DType, Error, KvLayer, PAGE_TOKENS, Result, RopeStore, RopeStyle};

/// The room that kernels make for a head, their `HEAD_MAX`. Fails if a workgroup has no memory for it.
pub(super) fn head_max(op: &'static str, gpu: &Gpu, head_dim: usize) -> Result<usize> {
    let head_max = head_dim.next_power_of_two().max(64);
    let (needed, limit) = (attention_bytes(head_max), gpu.limits.max_compute_workgroup_storage_size as usize);
    if needed <= limit {
        return Ok(head_max);
    }
    let problem =
        format!("heads of {head_dim} take {needed} bytes of a workgroup's memory, and there are {limit}");
    Err(Error::Argument { op, problem })
}

/// Whether a cache is written and read 16 bytes at a time. Its layout depends on it, so every op must say the same of a cache.
pub(super) fn is_wide(cache: &KvLayer) -> bool {
    let starts = [&cache.k, &cache.v].map(|buffer| buffer.offset_bytes());
    cache.head_dim().is_multiple_of(8) && starts.iter().all(|start| start.is_multiple_of(16))
}

/// Whether a cache lies in matrices of 16x16, and cooperative matrices compute attention over it. Its layout depends on it, so it may
/// depend on nothing but the device and the cache.
pub(super) fn is_tensor(gpu: &Gpu, cache: &KvLayer) -> bool {
    let fits = || page_windows(gpu, cache, false).is_ok_and(|windows| windows.len() == 1);
    gpu.has_matrices()
        && is_wide(cache)
        && cache.k.dtype() == DType::F16
        && cache.head_dim().is_multiple_of(16)
        && cache.head_dim() <= 128
        && fits()
}

/// See [`RopeStore`].
pub(crate) fn rope_store(op: &RopeStore, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "rope_store";
    let gpu = recorder.gpu;
    let head_dim = op.cache.head_dim();
    let head_max = head_max(NAME, gpu, head_dim)?;
    let n_rows = op.q.n_rows();
    let (n_heads, n_kv_heads) = (op.q.n_cols() / head_dim, op.cache.n_kv_heads());
    let rows = Rows::new(NAME, gpu, &op.rows)?;
    let (q, q_start) = Binding::write(gpu, &op.q)?;
    let (k, k_start) = Binding::read(gpu, &op.k)?;
    let (v, v_start) = Binding::read(gpu, &op.v)?;
    let (table, table_start) = Binding::read(gpu, &op.table)?;
    let (mut norms, mut norm_starts, mut eps) = (Vec::new(), [0, 0], 0.0);
    if let Some(norm) = &op.norm {
        let (q_norm, q_norm_start) = Binding::read(gpu, &norm.q)?;
        let (k_norm, k_norm_start) = Binding::read(gpu, &norm.k)?;
        norms.extend([q_norm, k_norm]);
        (norm_starts, eps) = ([q_norm_start, k_norm_start], norm.eps);
    }
    let kernel = KernelKey::new(NAME)
        .constant("HEAD_MAX", head_max as u32)
        .define_if(op.cache.k.dtype() == DType::F16, "CACHE_F16")
        .define_if(is_wide(&op.cache), "WIDE")
        .define_if(is_tensor(gpu, &op.cache), "TENSOR")
        .define_if(op.norm.is_some(), "HEAD_NORM")
        .define_if(op.style == RopeStyle::Halves, "HALVES")
        .unchecked();
    let start_of = |words: u32| if is_wide(&op.cache) { words / 4 } else { words };
    let [positions_start, sequences_start, pages_start, n_sequences, pages_max] = rows.args;
    for window in page_windows(gpu, &op.cache, true)? {
        let mut bindings =
            vec![recorder.status(), rows.positions, rows.sequences, rows.pages, q, k, v, table];
        bindings.extend([window.k, window.v]);
        bindings.extend(&norms);
        let args: [u32; 24] = [
            positions_start,
            sequences_start,
            pages_start,
            n_sequences,
            pages_max,
            u32_of(NAME, "a number of rows", n_rows)?,
            n_heads as u32,
            n_kv_heads as u32,
            u32_of(NAME, "a number of pages", op.cache.n_pages())?,
            u32_of(NAME, "a number of positions", op.table.shape()[0])?,
            op.table.shape()[1] as u32,
            q_start,
            k_start,
            v_start,
            table_start,
            start_of(window.k_start),
            start_of(window.v_start),
            norm_starts[0],
            norm_starts[1],
            eps.to_bits(),
            head_dim as u32,
            PAGE_TOKENS as u32,
            window.first_page,
            window.n_pages,
        ];
        let groups = grid(gpu, n_rows as u64 * (n_heads + n_kv_heads) as u64);
        recorder.dispatch(&kernel, &bindings, bytes_of(&args), groups)?;
    }
    Ok(())
}
