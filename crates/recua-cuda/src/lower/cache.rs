//! What writes the cache: `rope_store` and `copy_pages`.

use super::rows::{THREADS, kernel};
use crate::kernels::KernelKey;
use crate::kv::Kv;
use crate::launch::Recorder;
use crate::memory::{pointer, u32_of};
use bytemuck::{Pod, Zeroable};
use recua_compute::{CopyPages, KvPool, KvType, Result, RopeStore, RopeStyle, RowMap};

/// Where rows stand, as kernels take it: `Rows` in `kernels/cache.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Rows {
    positions: u64,
    sequences: u64,
    pages: u64,
    status: u64,
    n_sequences: u32,
    pages_max: u32,
    n_pages: u32,
    n_rows: u32,
}

impl Rows {
    pub(crate) fn new(
        recorder: &mut Recorder<'_>,
        op: &'static str,
        rows: &RowMap,
        cache: &KvPool,
    ) -> Result<Rows> {
        Ok(Rows {
            positions: pointer(&rows.positions)?,
            sequences: pointer(&rows.sequences)?,
            pages: pointer(&rows.pages)?,
            status: recorder.status(),
            n_sequences: u32_of(op, "a number of sequences", rows.pages.n_rows())?,
            pages_max: u32_of(op, "a number of pages", rows.pages.n_cols())?,
            n_pages: u32_of(op, "a number of pages", cache.shape().n_pages)?,
            n_rows: u32_of(op, "a number of rows", rows.positions.n_elements())?,
        })
    }
}

/// The parameters of `rope_store`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RopeStoreArgs {
    rows: Rows,
    q: u64,
    k: u64,
    v: u64,
    table: u64,
    q_norm: u64,
    k_norm: u64,
    k_cache: u64,
    v_cache: u64,
    q_stride: u32,
    k_stride: u32,
    v_stride: u32,
    n_heads: u32,
    n_kv_heads: u32,
    positions_max: u32,
    pairs: u32,
    eps: f32,
}

/// Threads of a block, a warp for each head.
const STORE_THREADS: usize = 128;

fn store_kernel(head_dim: usize, kv_type: KvType, has_norm: bool, style: RopeStyle) -> KernelKey {
    let mut key = KernelKey::new("rope_store").define("HEAD_DIM", head_dim);
    for (name, is_defined) in [
        ("CACHE_F16", kv_type == KvType::F16),
        ("HEAD_NORM", has_norm),
        ("HALVES", style == RopeStyle::Halves),
    ] {
        key = if is_defined { key.define(name, 1) } else { key };
    }
    key
}

/// See [`RopeStore`].
pub(crate) fn rope_store(op: &RopeStore, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "rope_store";
    let (cache, shape) = (Kv::of(NAME, &op.cache)?, op.cache.shape());
    let n_heads = op.q.n_cols() / shape.head_dim;
    let norm = |which: Option<&recua_compute::Buffer>| which.map_or(Ok(0), pointer);
    let stride = |buffer: &recua_compute::Buffer| u32_of(NAME, "a row", buffer.row_stride());
    let args = RopeStoreArgs {
        rows: Rows::new(recorder, NAME, &op.rows, &op.cache)?,
        q: pointer(&op.q)?,
        k: pointer(&op.k)?,
        v: pointer(&op.v)?,
        table: pointer(&op.table)?,
        q_norm: norm(op.norm.as_ref().map(|norm| &norm.q))?,
        k_norm: norm(op.norm.as_ref().map(|norm| &norm.k))?,
        k_cache: cache.k.pointer(),
        v_cache: cache.v.pointer(),
        q_stride: stride(&op.q)?,
        k_stride: stride(&op.k)?,
        v_stride: stride(&op.v)?,
        n_heads: u32_of(NAME, "a number of heads", n_heads)?,
        n_kv_heads: u32_of(NAME, "a number of heads", shape.n_kv_heads)?,
        positions_max: u32_of(NAME, "a number of positions", op.table.shape()[0])?,
        pairs: u32_of(NAME, "a number of pairs", op.table.shape()[1])?,
        eps: op.norm.as_ref().map_or(0.0, |norm| norm.eps),
    };
    let heads = op.q.n_rows() * (n_heads + shape.n_kv_heads);
    let blocks = u32_of(NAME, "a number of heads", heads.div_ceil(STORE_THREADS / 32))?;
    let kernel = store_kernel(shape.head_dim, shape.kv_type, op.norm.is_some(), op.style);
    recorder.launch(&kernel, [blocks, 1, 1], STORE_THREADS as u32, 0, true, &args)
}

/// The parameters of `copy_pages`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CopyPagesArgs {
    list: u64,
    from_k: u64,
    from_v: u64,
    to_k: u64,
    to_v: u64,
    status: u64,
    n_pairs: u32,
    n_from: u32,
    n_to: u32,
    page_vectors: u32,
}

/// See [`CopyPages`].
pub(crate) fn copy_pages(op: &CopyPages, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "copy_pages";
    let (from, to) = (Kv::of(NAME, &op.from)?, Kv::of(NAME, &op.to)?);
    let n_pairs = op.list.n_rows();
    let vectors = from.page_bytes / 16;
    let args = CopyPagesArgs {
        list: pointer(&op.list)?,
        from_k: from.k.pointer(),
        from_v: from.v.pointer(),
        to_k: to.k.pointer(),
        to_v: to.v.pointer(),
        status: recorder.status(),
        n_pairs: u32_of(NAME, "a number of pairs", n_pairs)?,
        n_from: u32_of(NAME, "a number of pages", op.from.shape().n_pages)?,
        n_to: u32_of(NAME, "a number of pages", op.to.shape().n_pages)?,
        page_vectors: u32_of(NAME, "a page", vectors)?,
    };
    let grid = [vectors.div_ceil(THREADS).min(16) as u32, n_pairs.min(65_535) as u32, 1];
    recorder.launch(&kernel(NAME, 1), grid, THREADS as u32, 0, true, &args)
}

/// The kernels there may be: those of models' heads.
pub(crate) fn kernels() -> Vec<KernelKey> {
    let mut list = vec![kernel("copy_pages", 1)];
    for head_dim in [16, 64, 80, 96, 128, 256] {
        for kv_type in [KvType::F16, KvType::F32] {
            list.push(store_kernel(head_dim, kv_type, false, RopeStyle::Interleaved));
            list.push(store_kernel(head_dim, kv_type, true, RopeStyle::Halves));
        }
    }
    list
}
