//! `rope_store`: one dispatch, or one per allocation of a cache that is spread over several.

use super::attention::attention_bytes;
use super::rows::{Rows, grid};
use crate::args::RopeStoreArgs;
use crate::gpu::Gpu;
use crate::kv::{Kv, Layout};
use crate::launch::Recorder;
use crate::memory::{Binding, u32_of};
use crate::pipelines::KernelKey;
use bytemuck::bytes_of;
use recua_compute::{Error, KvShape, KvType, PAGE_TOKENS, Result, RopeStore, RopeStyle};

/// The room that kernels reserve for a head, their `HEAD_MAX`. Fails if a workgroup does not have that much memory.
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

/// See [`RopeStore`].
pub(crate) fn rope_store(op: &RopeStore, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "rope_store";
    let gpu = recorder.gpu;
    let (cache, shape) = (Kv::of(NAME, &op.cache)?, op.cache.shape());
    let KvShape { n_pages, n_kv_heads, head_dim, kv_type } = *shape;
    let head_max = head_max(NAME, gpu, head_dim)?;
    let n_rows = op.q.n_rows();
    let n_heads = op.q.n_cols() / head_dim;
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
        .define_if(kv_type == KvType::F16, "CACHE_F16")
        .define_if(cache.layout != Layout::Words, "WIDE")
        .define_if(cache.layout == Layout::Matrices, "TENSOR")
        .define_if(op.norm.is_some(), "HEAD_NORM")
        .define_if(op.style == RopeStyle::Halves, "HALVES")
        .unchecked();
    for allocation in cache.allocations(true) {
        let mut bindings =
            vec![recorder.status(), rows.positions, rows.sequences, rows.pages, q, k, v, table];
        bindings.extend([allocation.k, allocation.v]);
        bindings.extend(&norms);
        let args = RopeStoreArgs {
            positions_start: rows.positions_start,
            sequences_start: rows.sequences_start,
            pages_start: rows.pages_start,
            n_sequences: rows.n_sequences,
            pages_max: rows.pages_max,
            n_rows: u32_of(NAME, "a number of rows", n_rows)?,
            n_heads: n_heads as u32,
            n_kv_heads: n_kv_heads as u32,
            n_pages: n_pages as u32,
            positions_max: u32_of(NAME, "a number of positions", op.table.shape()[0])?,
            pairs: op.table.shape()[1] as u32,
            q_start,
            q_stride: u32_of(NAME, "a row", op.q.row_stride())?,
            k_start,
            k_stride: u32_of(NAME, "a row", op.k.row_stride())?,
            v_start,
            v_stride: u32_of(NAME, "a row", op.v.row_stride())?,
            table_start,
            q_norm_start: norm_starts[0],
            k_norm_start: norm_starts[1],
            eps,
            head_dim: head_dim as u32,
            page_tokens: PAGE_TOKENS as u32,
            first_page: allocation.first_page,
            allocation_pages: allocation.n_pages,
        };
        let groups = grid(gpu, n_rows as u64 * (n_heads + n_kv_heads) as u64);
        recorder.dispatch(&kernel, &bindings, bytes_of(&args), groups)?;
    }
    Ok(())
}
