//! `attention`: over a cache of f16, cooperative matrices compute it where the adapter has them. Else rows alone go to one kernel, rows
//! with neighbours of the same sequence (prompts) to another, which reads the cache once for more of them. Where there are too few
//! rows to fill the device, chunks of each sequence run side by side, and a second dispatch merges them. All ways for a cache have the same bits, so the number of rows may choose.

use super::rope_store::{head_max, is_tensor, is_wide};
use super::rows::{Rows, page_windows};
use crate::launch::Recorder;
use crate::memory::{Binding, u32_of};
use crate::pipelines::KernelKey;
use bytemuck::cast_slice;
use recua_compute::{Attention, DType, Error, PAGE_TOKENS, Result};

/// Tokens of a chunk, as in the kernels, and queries of a workgroup of `attention`.
const CHUNK: usize = 128;
const QUERIES: usize = 4;

/// Workgroups from which on a sequence is not split: about as many as a large device has cores. On an H200, with 512 tokens, 8 workgroups
/// are 10 microseconds faster split, 128 are 2 slower and 512 are 25.
const ENOUGH: usize = 128;

/// Threads of a workgroup in teams, and the define that says so.
const TEAMS: [(usize, &str); 2] = [(4, "TEAMS_4"), (2, "TEAMS_2")];

/// Rows from which on prompts are worth a dispatch of their own, which costs a few microseconds if there are none.
const ROWS_MIN: usize = 65;

/// The most that the parts of split sequences may take.
const PARTS_BYTES: usize = 64 << 20;

/// Windows of a cache that no binding can hold, as in the kernels.
const WINDOWS_MAX: usize = 4;

const NAME: &str = "attention";

/// See [`Attention`].
pub(crate) fn attention(op: &Attention, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let head_dim = op.cache.head_dim();
    let head_max = head_max(NAME, gpu, head_dim)?;
    let n_rows = op.q.n_rows();
    let (n_heads, n_kv_heads) = (op.q.n_cols() / head_dim, op.cache.n_kv_heads());
    if is_tensor(gpu, &op.cache) {
        return tensor(op, recorder);
    }
    let group = n_heads / n_kv_heads;
    // Workgroups of a row, and of a block of rows.
    let block_heads = group.min(QUERIES);
    let workgroups = |block_heads| n_kv_heads * group.div_ceil(block_heads) * head_dim.div_ceil(128);
    let blocks = workgroups(block_heads);
    let has_room = |bytes| gpu.limits.max_compute_workgroup_storage_size as usize >= bytes;
    let has_two_quads = has_room(rows_bytes(head_max, 8));
    let rows_queries = if has_two_quads { 32 } else { 16 };
    let rows_heads = group.min(rows_queries);
    let block_rows = rows_queries / rows_heads;
    // Long heads leave no room for it.
    let has_rows = n_rows >= ROWS_MIN && block_rows > 1 && has_room(rows_bytes(head_max, 4));
    let n_chunks = (op.rows.pages.n_cols() * PAGE_TOKENS).div_ceil(CHUNK).max(1);

    // Rows of a dispatch: whole blocks.
    let row_parts_bytes = blocks * n_chunks * (CHUNK + 2) * 16;
    let is_split = n_chunks > 1 && n_rows.saturating_mul(blocks) < ENOUGH;
    let groups_max = gpu.limits.max_compute_workgroups_per_dimension as usize / 2;
    let split_max = (PARTS_BYTES / row_parts_bytes).clamp(1, groups_max);
    let rows_max = if is_split { split_max } else { groups_max };
    let window = (rows_max / block_rows * block_rows).max(block_rows);
    // As much as fewer rows than these will ever take, so that the largest pass allocates for all.
    let parts_rows = n_rows.min((ENOUGH - 1) / blocks).min(split_max.max(block_rows));
    let parts = recorder.workspace("the parts of attention", (parts_rows * row_parts_bytes).max(16))?;

    let rows = Rows::new(NAME, gpu, &op.rows)?;
    let (q, q_start) = Binding::read(gpu, &op.q)?;
    let (out, out_start) = Binding::write(gpu, &op.out)?;
    let windows = page_windows(gpu, &op.cache, false)?;
    let (Some(first_window), false) = (windows.first(), windows.len() > WINDOWS_MAX) else {
        let (k, n) = (&op.cache.k, windows.len());
        let problem = format!("the keys {k:?} are bound in {n} pieces on this device, at most {WINDOWS_MAX}");
        return Err(Error::Argument { op: NAME, problem });
    };
    let (k, v) = (first_window.k, first_window.v);
    let mut bindings = vec![recorder.status(), rows.positions, rows.sequences, rows.pages, q, k, v, out];
    bindings.push(Binding::all(&parts, true));
    // Vectors or words.
    let start_of = |words: u32| if is_wide(&op.cache) { words / 4 } else { words };
    let (mut k_starts, mut v_starts) = ([0; 3], [0; 3]);
    if windows.len() > 1 {
        for i in 1..WINDOWS_MAX {
            // Those that are not there are never read.
            let window = windows.get(i).unwrap_or(first_window);
            bindings.extend([window.k, window.v]);
            (k_starts[i - 1], v_starts[i - 1]) = (start_of(window.k_start), start_of(window.v_start));
        }
        let (n, limit) = (bindings.len(), gpu.limits.max_storage_buffers_per_shader_stage);
        if n > limit as usize {
            let problem = format!("{:?} in pieces takes {n} storage buffers, at most {limit}", op.cache.k);
            return Err(Error::Argument { op: NAME, problem });
        }
    }
    let kernel = |file| {
        KernelKey::new(file)
            .constant("HEAD_MAX", head_max as u32)
            .define_if(op.cache.k.dtype() == DType::F16, "CACHE_F16")
            .define_if(is_wide(&op.cache), "WIDE")
            .define_if(windows.len() > 1, "WINDOWS")
            .unchecked()
    };
    let mut alone = kernel(NAME).define_if(is_split, "SPLIT").define_if(has_rows, "ROWS");
    let fits = |teams| {
        let limits = &gpu.limits;
        let has_threads =
            limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x)
                >= (teams * CHUNK) as u32;
        has_threads && limits.max_compute_workgroup_storage_size as usize >= teams_bytes(head_max, teams)
    };
    let wanted = |teams| !is_split && n_chunks >= teams && n_rows * blocks * teams <= 8 * ENOUGH;
    if let Some((_, define)) = TEAMS.into_iter().find(|&(teams, _)| wanted(teams) && fits(teams)) {
        alone = alone.define(define);
    }
    let together = kernel("attention_rows").define_if(has_two_quads, "TWO_QUADS");
    let [positions_start, sequences_start, pages_start, n_sequences, pages_max] = rows.args;
    for first in (0..n_rows).step_by(window) {
        let n = window.min(n_rows - first) as u32;
        let args = |block_heads: usize| -> Result<[u32; 27]> {
            Ok([
                positions_start,
                sequences_start,
                pages_start,
                n_sequences,
                pages_max,
                u32_of(NAME, "a row", first)?,
                first as u32 + n,
                n_heads as u32,
                n_kv_heads as u32,
                u32_of(NAME, "a number of pages", op.cache.n_pages())?,
                head_dim as u32,
                op.scale.to_bits(),
                q_start,
                start_of(first_window.k_start),
                start_of(first_window.v_start),
                out_start,
                group as u32,
                block_heads as u32,
                block_rows as u32,
                n_chunks as u32,
                first_window.n_pages,
                k_starts[0],
                k_starts[1],
                k_starts[2],
                v_starts[0],
                v_starts[1],
                v_starts[2],
            ])
        };
        let used = if windows.len() > 1 { 27 } else { 20 };
        let mut dispatch = |kernel: &KernelKey, bindings: &[Binding<'_>], block_heads, groups| {
            recorder.dispatch(kernel, bindings, cast_slice(&args(block_heads)?[..used]), groups)
        };
        let z = if is_split { n_chunks as u32 } else { 1 };
        dispatch(&alone, &bindings, block_heads, [n, blocks as u32, z])?;
        if is_split {
            dispatch(&alone.clone().entry("attention_merge"), &bindings, block_heads, [n, blocks as u32, 1])?;
        }
        if has_rows {
            dispatch(&together, &bindings, rows_heads, [n, workgroups(rows_heads) as u32, 1])?;
        }
    }
    Ok(())
}

/// By cooperative matrices: `attention_tensor.wgsl`.
fn tensor(op: &Attention, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let head_dim = op.cache.head_dim();
    let n_rows = op.q.n_rows();
    let (n_heads, n_kv_heads) = (op.q.n_cols() / head_dim, op.cache.n_kv_heads());
    let group = n_heads / n_kv_heads;
    // Twice as many queries where some rows certainly have neighbours of the same sequence.
    let has_two_tiles = n_rows >= ROWS_MIN.max(2 * op.rows.pages.n_rows());
    let queries = if has_two_tiles { 32 } else { 16 };
    let heads = group.min(queries);
    // Workgroups of a row, or of a block of rows.
    let blocks = n_kv_heads * group.div_ceil(heads);
    let n_chunks = (op.rows.pages.n_cols() * PAGE_TOKENS).div_ceil(CHUNK).max(1);
    let is_split = n_chunks > 1 && n_rows.saturating_mul(blocks) < ENOUGH;
    // Rows of a dispatch: whole blocks.
    let row_parts_bytes = blocks * heads * n_chunks * (head_dim + 4) * 4;
    let block_rows = if is_split { 1 } else { queries / heads };
    let groups_max = gpu.limits.max_compute_workgroups_per_dimension as usize / 2;
    let split_max = (PARTS_BYTES / row_parts_bytes).clamp(1, groups_max);
    let rows_max = if is_split { split_max } else { groups_max };
    let window = (rows_max / block_rows * block_rows).max(block_rows);
    // As much as fewer rows than these will ever take, so that the largest pass allocates for all.
    let parts_rows = n_rows.min((ENOUGH - 1) / blocks).min(split_max);
    let parts = recorder.workspace("the parts of attention", (parts_rows * row_parts_bytes).max(16))?;
    let rows = Rows::new(NAME, gpu, &op.rows)?;
    let (q, q_start) = Binding::read(gpu, &op.q)?;
    let (out, out_start) = Binding::write(gpu, &op.out)?;
    let windows = page_windows(gpu, &op.cache, false)?;
    let cache = &windows[0];
    let bindings = vec![
        recorder.status(),
        rows.positions,
        rows.sequences,
        rows.pages,
        q,
        cache.k,
        cache.v,
        out,
        Binding::all(&parts, true),
    ];
    let kernel = KernelKey::new("attention_tensor")
        .constant("HEAD_DIM", head_dim as u32)
        .define_if(has_two_tiles, "TWO_TILES")
        .define_if(is_split, "SPLIT")
        .unchecked();
    let [positions_start, sequences_start, pages_start, n_sequences, pages_max] = rows.args;
    for first in (0..n_rows).step_by(window) {
        let n = window.min(n_rows - first) as u32;
        let args: [u32; 20] = [
            positions_start,
            sequences_start,
            pages_start,
            n_sequences,
            pages_max,
            u32_of(NAME, "a row", first)?,
            first as u32 + n,
            n_heads as u32,
            n_kv_heads as u32,
            u32_of(NAME, "a number of pages", op.cache.n_pages())?,
            head_dim as u32,
            op.scale.to_bits(),
            q_start,
            // In pieces of four f16.
            cache.k_start / 2,
            cache.v_start / 2,
            out_start,
            group as u32,
            heads as u32,
            block_rows as u32,
            n_chunks as u32,
        ];
        let z = if is_split { n_chunks as u32 } else { 1 };
        recorder.dispatch(&kernel, &bindings, cast_slice(&args), [n, blocks as u32, z])?;
        if is_split {
            let merge = kernel.clone().entry("attention_tensor_merge");
            recorder.dispatch(&merge, &bindings, cast_slice(&args), [n, blocks as u32, 1])?;
        }
    }
    Ok(())
}

/// What `attention` takes of a workgroup's memory, with room for a head of `head_max`; `rope_store` takes less.
pub(super) fn attention_bytes(head_max: usize) -> usize {
    16 * (head_max + CHUNK + 16) + 8 * 1024 + 64
}

/// What `attention_rows` takes of a workgroup's memory, with room for a head of `head_max` and so many quads of queries.
fn rows_bytes(head_max: usize, quads: usize) -> usize {
    16 * quads * (head_max + CHUNK + 2 * 16 + 1) + 64
}

/// What `attention` takes of a workgroup's memory.
fn teams_bytes(head_max: usize, teams: usize) -> usize {
    16 * head_max + teams * (16 * (CHUNK + 16 + 2) + 8 * 1024 + 4 * 8)
}
