//! `attention`: cooperative matrices compute it if the cache is laid out as matrices. For any other cache, one kernel takes single rows,
//! and another takes wide tiles, reading the cache once for several rows. The work list, which the host writes for every step, says what
//! each workgroup does; the dispatches depend only on the number of rows. All kernels for a cache give the same bits.

use super::rope_store::head_max;
use super::rows::Rows;
use crate::args::AttentionArgs;
use crate::gpu::Gpu;
use crate::kv::{Kv, Layout, layout};
use crate::launch::Recorder;
use crate::memory::{Binding, u32_of};
use crate::pipelines::KernelKey;
use bytemuck::bytes_of;
use recua_compute::{Attention, Error, KvShape, KvType, Result, Tiling};

/// Tokens in a chunk, as in the kernels, and queries per workgroup of `attention`.
const CHUNK: usize = 128;
const QUERIES: usize = 4;

/// Workgroups that keep a device busy: about as many as a large one has cores. On an H200 with 512 tokens, splitting makes 8 workgroups 10
/// microseconds faster, 128 workgroups 2 slower and 512 workgroups 25 slower. A software adapter has only a few threads.
const FILL: usize = 128;
const FILL_SOFTWARE: usize = 16;

/// The number of chunks from which splitting pays: with fewer, the merge costs what it saves.
const SPLIT_FROM: usize = 3;

/// Dispatched workgroups per workgroup that keeps the device busy: several fit on a core at once. A workgroup without a tile ends at once,
/// and if there are more tiles than workgroups, each takes several. A software adapter runs no more at once, and there a workgroup without
/// a tile still starts as many threads as one that works.
const WAVES: usize = 4;
const WAVES_SOFTWARE: usize = 1;

/// Threads of a workgroup with teams, and the define that selects it.
const TEAMS: [(usize, &str); 2] = [(4, "TEAMS_4"), (2, "TEAMS_2")];

/// The number of rows from which wide tiles are worth a dispatch of their own, which costs a few microseconds even if there are none:
/// without matrices, where single rows are much slower, and with them.
const WIDE_FROM: usize = 65;
const WIDE_FROM_MATRICES: usize = 129;

/// The most places for pieces of split tiles, each for the piece of a row, and the most bytes for all. With more pieces than places, first
/// pieces fold several chunks (see `work.rs` in recua-compute).
const PLACES_MAX: usize = 4096;
const PIECES_BYTES: usize = 128 << 20;

const NAME: &str = "attention";

/// How tiles are cut for these heads and this cache. It does not depend on rows, and on pages only by whether one allocation holds them.
struct Cut {
    layout: Layout,
    /// Query heads per KV head.
    group: usize,
    /// Heads and rows of a tile, and the number of workgroups that work on it.
    narrow: Block,
    /// The same for wide tiles, if there are any.
    wide: Option<Block>,
    /// Whether a wide tile keeps sums for two quads (groups of four) of queries.
    has_two_quads: bool,
    /// The number of places for pieces, and the bytes of each.
    places: usize,
    place_bytes: usize,
}

#[derive(Clone, Copy)]
struct Block {
    heads: usize,
    rows: usize,
    groups: usize,
}

impl Cut {
    fn new(gpu: &Gpu, shape: &KvShape, n_heads: usize) -> Cut {
        let KvShape { n_kv_heads, head_dim, .. } = *shape;
        let group = (n_heads / n_kv_heads).max(1);
        let layout = layout(gpu, shape);
        // Without matrices a workgroup computes 128 elements of the weighted sum.
        let dim_parts = if layout == Layout::Matrices { 1 } else { head_dim.div_ceil(128) };
        let block = |queries: usize, rows_max: usize| {
            let heads = group.min(queries);
            let groups = n_kv_heads * group.div_ceil(heads) * dim_parts;
            Block { heads, rows: (queries / heads).min(rows_max), groups }
        };
        let binding_max = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size);
        let places = |bytes: usize| (PIECES_BYTES.min(binding_max as usize) / bytes).min(PLACES_MAX);
        if layout == Layout::Matrices {
            let narrow = block(16, usize::MAX);
            let place_bytes = narrow.groups * narrow.heads * (head_dim / 4 + 1) * 16;
            let wide = Some(block(32, usize::MAX));
            return Cut {
                layout,
                group,
                narrow,
                wide,
                has_two_quads: false,
                places: places(place_bytes),
                place_bytes,
            };
        }
        let has_room = |bytes| gpu.limits.max_compute_workgroup_storage_size as usize >= bytes;
        let head_max = head_dim.next_power_of_two().max(64);
        let has_two_quads = has_room(prefill_bytes(head_max, 8));
        let wide = block(if has_two_quads { 32 } else { 16 }, usize::MAX);
        // Long heads leave no workgroup memory for it.
        let wide = Some(wide).filter(|wide| wide.rows > 1 && has_room(prefill_bytes(head_max, 4)));
        let narrow = block(QUERIES, 1);
        let place_bytes = narrow.groups * (CHUNK + 2) * 16;
        Cut { layout, group, narrow, wide, has_two_quads, places: places(place_bytes), place_bytes }
    }

    fn wide_from(&self) -> usize {
        if self.layout == Layout::Matrices { WIDE_FROM_MATRICES } else { WIDE_FROM }
    }
}

fn fill(gpu: &Gpu) -> usize {
    if gpu.is_software { FILL_SOFTWARE } else { FILL }
}

/// See [`recua_compute::Device::tiling`].
pub(crate) fn tiling(gpu: &Gpu, shape: &KvShape, n_heads: usize) -> Tiling {
    let cut = Cut::new(gpu, shape, n_heads);
    Tiling {
        rows: cut.narrow.rows,
        rows_wide: cut.wide.map_or(0, |wide| wide.rows),
        wide_from: cut.wide_from(),
        chunk: CHUNK,
        groups: cut.narrow.groups,
        fill: fill(gpu),
        split_from: SPLIT_FROM,
        places: cut.places,
    }
}

/// See [`Attention`].
pub(crate) fn attention(op: &Attention, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let (cache, shape) = (Kv::of(NAME, &op.cache)?, op.cache.shape());
    let KvShape { n_pages, n_kv_heads, head_dim, kv_type } = *shape;
    let (n_rows, n_heads) = (op.q.n_rows(), op.q.n_cols() / head_dim);
    let head_max = head_max(NAME, gpu, head_dim)?;
    let cut = Cut::new(gpu, shape, n_heads);
    let pieces = recorder.workspace("the pieces of attention", (cut.places * cut.place_bytes).max(16))?;

    let rows = Rows::new(NAME, gpu, &op.rows)?;
    let (work, work_start) = Binding::read(gpu, &op.rows.work)?;
    let (q, q_start) = Binding::read(gpu, &op.q)?;
    let (out, out_start) = Binding::write(gpu, &op.out)?;
    let mut bindings = vec![recorder.status(), rows.positions, rows.sequences, rows.pages, work, q, out];
    bindings.push(Binding::all(&pieces, true));
    bindings.extend(cache.bindings());
    let (n, limit) = (bindings.len(), gpu.limits.max_storage_buffers_per_shader_stage);
    if n > limit as usize {
        let problem =
            format!("{shape} in several allocations needs {n} storage buffers; the limit is {limit}");
        return Err(Error::Argument { op: NAME, problem });
    }
    let mut dispatch = |kernel: KernelKey, block: Block, tiles_max: usize| {
        let args = AttentionArgs {
            positions_start: rows.positions_start,
            sequences_start: rows.sequences_start,
            pages_start: rows.pages_start,
            n_sequences: rows.n_sequences,
            pages_max: rows.pages_max,
            work_start,
            work_words: u32_of(NAME, "a work list", op.rows.work.n_elements())?,
            n_rows: u32_of(NAME, "a number of rows", n_rows)?,
            n_heads: n_heads as u32,
            n_kv_heads: n_kv_heads as u32,
            n_pages: n_pages as u32,
            head_dim: head_dim as u32,
            scale: op.scale,
            q_start,
            q_stride: u32_of(NAME, "a row", op.q.row_stride())?,
            out_start,
            group: cut.group as u32,
            block_heads: block.heads as u32,
            block_rows: block.rows as u32,
            places: cut.places as u32,
            allocation_pages: cache.pages_each,
        };
        let groups_max = gpu.limits.max_compute_workgroups_per_dimension;
        let groups = [tiles_max.min(groups_max as usize) as u32, block.groups as u32, 1];
        let kernel = kernel.define_if(cache.is_spread(), "SPREAD").unchecked();
        recorder.dispatch(&kernel, &bindings, bytes_of(&args), groups)
    };
    let portable = |file| {
        KernelKey::new(file)
            .constant("HEAD_MAX", head_max as u32)
            .define_if(kv_type == KvType::F16, "CACHE_F16")
            .define_if(cache.layout == Layout::Vectors, "WIDE")
    };
    let matrices = || KernelKey::new("attention_tensor").constant("HEAD_DIM", head_dim as u32);
    let is_matrices = cache.layout == Layout::Matrices;

    let (narrow, busy) = (cut.narrow, fill(gpu));
    // As many tiles at a time as keep the device busy, and as many as there are rows up to the number that surely fills it.
    let each = |groups: usize, waves: usize| (busy * waves).div_ceil(groups);
    let waves = if gpu.is_software { WAVES_SOFTWARE } else { WAVES };
    let tiles_max = n_rows.clamp(each(narrow.groups, waves), each(narrow.groups, 4 * waves));
    let alone = if is_matrices {
        matrices()
    } else {
        with_teams(gpu, portable(NAME), head_max, n_rows * narrow.groups)
    };
    dispatch(alone, narrow, tiles_max)?;
    // Split rows are fewer than the rows that would keep the device busy unsplit.
    let merge = if is_matrices {
        matrices().entry("attention_tensor_merge")
    } else {
        portable(NAME).entry("attention_merge")
    };
    dispatch(merge, narrow, n_rows.min(each(narrow.groups, 1)))?;
    if let Some(wide) = cut.wide.filter(|wide| wide.rows > narrow.rows && n_rows >= cut.wide_from()) {
        let kernel = if is_matrices {
            matrices().define("TWO_TILES")
        } else {
            portable("attention_prefill").define_if(cut.has_two_quads, "TWO_QUADS")
        };
        dispatch(kernel, wide, n_rows.div_ceil(wide.rows))?;
    }
    Ok(())
}

/// Lets a workgroup take several chunks at a time if the rows alone nearly fill the device and are therefore rarely split.
fn with_teams(gpu: &Gpu, kernel: KernelKey, head_max: usize, workgroups: usize) -> KernelKey {
    let limits = &gpu.limits;
    let threads_max = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x);
    let fits = |teams: usize| {
        threads_max as usize >= teams * CHUNK
            && limits.max_compute_workgroup_storage_size as usize >= teams_bytes(head_max, teams)
    };
    let wanted = |teams| workgroups >= fill(gpu) && workgroups * teams <= 8 * fill(gpu);
    match TEAMS.into_iter().find(|&(teams, _)| wanted(teams) && fits(teams)) {
        Some((_, define)) => kernel.define(define),
        None => kernel,
    }
}

/// The workgroup memory of `attention` with room for heads of `head_max`, in bytes; `rope_store` takes less.
pub(super) fn attention_bytes(head_max: usize) -> usize {
    16 * (head_max + CHUNK + 16) + 8 * 1024 + 64
}

/// The workgroup memory of `attention_prefill` with room for heads of `head_max` and this many quads of queries, in bytes.
fn prefill_bytes(head_max: usize, quads: usize) -> usize {
    16 * quads * (head_max + CHUNK + 2 * 16 + 1) + 64
}

/// The workgroup memory of `attention` with teams, in bytes.
fn teams_bytes(head_max: usize, teams: usize) -> usize {
    16 * head_max + teams * (16 * (CHUNK + 16 + 2) + 8 * 1024 + 4 * 8)
}
