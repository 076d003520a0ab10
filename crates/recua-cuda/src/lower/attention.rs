//! `attention`: a kernel for tiles of few queries and one for wide tiles. What each block does is in the work list, which the host writes
//! for every step; what is launched depends on nothing but the number of rows. Both give the same bits. A cache of f32 has a kernel of its own, which needs no list.

use super::cache::Rows;
use crate::gpu::Gpu;
use crate::kernels::KernelKey;
use crate::kv::{Kv, padded};
use crate::launch::Recorder;
use crate::memory::{pointer, u32_of};
use bytemuck::{Pod, Zeroable};
use recua_compute::{Attention, Error, KvShape, KvType, Result, RowMap, Tiling};

const NAME: &str = "attention";

/// As in the kernel: warps of a block, tokens of a run and of a chunk, and queries of a tile of them.
const WARPS: usize = 8;
const RUN: usize = 16;
const CHUNK: usize = 512;
const QUERY_TILE: usize = 8;

/// Tiles of queries that wide tiles of rows have, if there is room, and those of the head times those of queries whose sums fit the
/// registers.
const WIDE_QUERY_TILES: [usize; 2] = [4, 2];
const SUMS_MAX: usize = 32;

/// Rows of a pass from which on it has wide tiles.
const WIDE_FROM: usize = 33;

/// Blocks of a launch for each multiprocessor; where there are more tiles, a block takes several.
const WAVES_MAX: usize = 4;

/// Chunks from which on a split pays.
const SPLIT_FROM: usize = 3;

/// The most places, each for the piece of a row, and what they may take.
const PLACES_MAX: usize = 4096;
const PLACES_BYTES: usize = 128 << 20;

/// Shared memory that a kernel declares itself, at most.
const DECLARED_BYTES: usize = 4 << 10;

/// How tiles are cut.
#[derive(Clone, Copy)]
struct Cut {
    query_tiles: usize,
    /// Query heads of a KV head that a tile has, and its rows.
    heads: usize,
    rows: usize,
    /// Blocks that work on a tile side by side.
    groups: usize,
}

impl Cut {
    fn new(shape: &KvShape, n_heads: usize, query_tiles: usize) -> Cut {
        let group = (n_heads / shape.n_kv_heads).max(1);
        let queries = query_tiles * QUERY_TILE;
        let heads = group.min(queries);
        Cut { query_tiles, heads, rows: queries / heads, groups: shape.n_kv_heads * group.div_ceil(heads) }
    }

    /// That of wide tiles, if they have more rows.
    fn wide(gpu: &Gpu, shape: &KvShape, n_heads: usize) -> Option<Cut> {
        let fits = |query_tiles: &usize| {
            padded(shape) / 16 * query_tiles <= SUMS_MAX && has_room(gpu, shape, *query_tiles, 1)
        };
        let query_tiles = WIDE_QUERY_TILES.into_iter().find(fits)?;
        let (wide, narrow) = (Cut::new(shape, n_heads, query_tiles), Cut::new(shape, n_heads, 1));
        Some(wide).filter(|wide| wide.rows > narrow.rows)
    }
}

/// Shared memory of a block.
fn shared_bytes(shape: &KvShape, query_tiles: usize, stages: usize) -> usize {
    let (head, head_tiles) = (padded(shape), padded(shape) / 16);
    let ring = stages * 2 * RUN * head * 2;
    let sums = head_tiles * query_tiles * 512;
    512 + (query_tiles * head_tiles * 256).next_multiple_of(512) + WARPS * ring.max(sums)
}

fn has_room(gpu: &Gpu, shape: &KvShape, query_tiles: usize, stages: usize) -> bool {
    shared_bytes(shape, query_tiles, stages) + DECLARED_BYTES <= gpu.shared_bytes_max
}

fn places(shape: &KvShape, n_heads: usize) -> usize {
    (PLACES_BYTES / place_bytes(shape, n_heads)).clamp(1, PLACES_MAX)
}

fn place_bytes(shape: &KvShape, n_heads: usize) -> usize {
    n_heads * (padded(shape) + 2) * 4
}

/// See [`recua_compute::Device::tiling`].
pub(crate) fn tiling(gpu: &Gpu, shape: &KvShape, n_heads: usize) -> Tiling {
    if shape.kv_type == KvType::F32 {
        return Tiling::default();
    }
    let narrow = Cut::new(shape, n_heads, 1);
    Tiling {
        rows: narrow.rows,
        rows_wide: Cut::wide(gpu, shape, n_heads).map_or(0, |wide| wide.rows),
        wide_from: WIDE_FROM,
        chunk: CHUNK,
        groups: narrow.groups,
        // A block of a whole tile is quicker than two and what it takes to merge them.
        fill: gpu.n_sms as usize / 2,
        split_from: SPLIT_FROM,
        places: places(shape, n_heads),
    }
}

/// The parameters of `attention`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AttentionArgs {
    rows: Rows,
    work: u64,
    work_words: u32,
    n_places: u32,
    q: u64,
    k_cache: u64,
    v_cache: u64,
    out: u64,
    places: u64,
    tickets: u64,
    q_stride: u32,
    n_heads: u32,
    n_kv_heads: u32,
    heads: u32,
    rows_max: u32,
    scale: f32,
}

/// The parameters of `attention_f32`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AttentionF32Args {
    rows: Rows,
    q: u64,
    k_cache: u64,
    v_cache: u64,
    out: u64,
    q_stride: u32,
    n_heads: u32,
    n_kv_heads: u32,
    scale: f32,
}

fn kernel(head_dim: usize, query_tiles: usize, stages: usize, is_wide: bool) -> KernelKey {
    let key = KernelKey::new(NAME).define("HEAD_DIM", head_dim).define("QUERY_TILES", query_tiles);
    key.define("STAGES", stages).define("KIND", if is_wide { "WIDE" } else { "NARROW" })
}

fn f32_kernel(head_dim: usize) -> KernelKey {
    KernelKey::new("attention_f32").define("HEAD_DIM", head_dim)
}

/// See [`Attention`].
pub(crate) fn attention(op: &Attention, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let (cache, shape) = (Kv::of(NAME, &op.cache)?, op.cache.shape());
    let (n_rows, n_heads) = (op.q.n_rows(), op.q.n_cols() / shape.head_dim);
    let rows = Rows::new(recorder, NAME, &op.rows, &op.cache)?;
    let (q, out) = (pointer(&op.q)?, pointer(&op.out)?);
    let (k_cache, v_cache) = (cache.k.pointer(), cache.v.pointer());
    let q_stride = u32_of(NAME, "a row", op.q.row_stride())?;
    let heads = u32_of(NAME, "a number of heads", n_heads)?;
    let kv_heads = u32_of(NAME, "a number of heads", shape.n_kv_heads)?;
    let grid_rows = u32_of(NAME, "a number of rows", n_rows)?;
    if shape.kv_type == KvType::F32 {
        let args = AttentionF32Args {
            rows,
            q,
            k_cache,
            v_cache,
            out,
            q_stride,
            n_heads: heads,
            n_kv_heads: kv_heads,
            scale: op.scale,
        };
        let kernel = f32_kernel(shape.head_dim);
        return recorder.launch(&kernel, [grid_rows, heads, 1], 128, 0, true, &args);
    }
    let n_places = places(shape, n_heads);
    let places = recorder.workspace("pieces of attention", n_places * place_bytes(shape, n_heads))?;
    let narrow = Cut::new(shape, n_heads, 1);
    // A tile that is split has a place for each piece of each row.
    let tickets = recorder.workspace("tickets of attention", n_places * narrow.groups * 4)?;
    let args = |cut: &Cut| -> Result<AttentionArgs> {
        Ok(AttentionArgs {
            rows,
            work: pointer(&op.rows.work)?,
            work_words: u32_of(NAME, "a work list", op.rows.work.n_elements())?,
            n_places: n_places as u32,
            q,
            k_cache,
            v_cache,
            out,
            places: places.pointer(),
            tickets: tickets.pointer(),
            q_stride,
            n_heads: heads,
            n_kv_heads: kv_heads,
            heads: cut.heads as u32,
            rows_max: cut.rows as u32,
            scale: op.scale * std::f32::consts::LOG2_E,
        })
    };
    // It looks at them before its wait, unless they come from an op before.
    let RowMap { positions, sequences, pages, work } = &op.rows;
    let is_dependent = recorder.are_inputs(&[positions, sequences, pages, work]);
    let mut launch = |cut: &Cut, is_wide: bool, stages: usize, tiles: usize| {
        let grid = [u32_of(NAME, "a number of tiles", tiles)?, cut.groups as u32, 1];
        let bytes = shared_bytes(shape, cut.query_tiles, stages) as u32;
        let kernel = kernel(shape.head_dim, cut.query_tiles, stages, is_wide);
        recorder.launch(&kernel, grid, WARPS as u32 * 32, bytes, is_dependent, &args(cut)?)
    };
    if !has_room(gpu, shape, 1, 1) {
        let problem = format!("heads of {} take more shared memory than there is", shape.head_dim);
        return Err(Error::Argument { op: NAME, problem });
    }
    // As many blocks as there are tiles of whole rows, and enough for the pieces of few; no more than multiprocessors then, because those
    // without work would take the places of others.
    let wave = (gpu.n_sms as usize / narrow.groups).max(1);
    let tiles = n_rows.clamp(wave, WAVES_MAX * wave);
    // Few blocks have a multiprocessor each, with room for two stages.
    let is_few = n_rows * narrow.groups <= gpu.n_sms as usize;
    let stages = if is_few && has_room(gpu, shape, 1, 2) { 2 } else { 1 };
    launch(&narrow, false, stages, tiles)?;
    if n_rows >= WIDE_FROM
        && let Some(wide) = Cut::wide(gpu, shape, n_heads)
    {
        let stages = if has_room(gpu, shape, wide.query_tiles, 2) { 2 } else { 1 };
        launch(&wide, true, stages, n_rows.div_ceil(wide.rows))?;
    }
    Ok(())
}

/// The kernels there may be: those of models' heads.
pub(crate) fn kernels() -> Vec<KernelKey> {
    let mut list = Vec::new();
    for head_dim in [16, 64, 80, 96, 128, 256] {
        list.push(f32_kernel(head_dim));
        list.extend([1, 2].map(|stages| kernel(head_dim, 1, stages, false)));
        let wide = WIDE_QUERY_TILES.into_iter().find(|tiles| head_dim / 16 * tiles <= SUMS_MAX);
        list.extend(
            wide.into_iter().flat_map(|tiles| [1, 2].map(|stages| kernel(head_dim, tiles, stages, true))),
        );
    }
    list
}
