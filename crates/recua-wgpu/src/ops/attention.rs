//! `attention`: one dispatch where there are enough rows to fill the device, else two: chunks of each sequence side by side, and
//! their merge. Either way has the same bits, so the number of rows may choose.

use super::rope_store::check_head;
use super::{Rows, cache, u32_of};
use crate::memory::Binding;
use crate::pipelines::KernelKey;
use crate::record::Recorder;
use bytemuck::bytes_of;
use recua_compute::{Attention, DType, PAGE_TOKENS, Result};

/// Tokens of a chunk, and queries of a workgroup, as in the kernel.
const CHUNK: usize = 128;
const QUERIES: usize = 8;

/// Workgroups that fill a device without splitting.
const ENOUGH: usize = 512;

/// The most that the parts of split sequences may take.
const PARTS_BYTES: usize = 64 << 20;

/// See [`Attention`].
pub(crate) fn attention(op: &Attention, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "attention";
    let gpu = recorder.gpu;
    let head_dim = op.cache.head_dim();
    check_head(NAME, head_dim)?;
    let n_rows = op.q.n_rows();
    let (n_heads, n_kv_heads) = (op.q.n_cols() / head_dim, op.cache.n_kv_heads());
    let group = n_heads / n_kv_heads;
    let block_heads = group.min(QUERIES);
    let block_rows = QUERIES / block_heads;
    let blocks = n_kv_heads * group.div_ceil(block_heads);
    let n_chunks = (op.rows.pages.n_cols() * PAGE_TOKENS).div_ceil(CHUNK).max(1);

    // Rows that go together: whole blocks.
    let row_parts_bytes = n_heads * n_chunks * (head_dim + 2) * 4;
    let is_split = n_chunks > 1 && n_rows.saturating_mul(blocks) < ENOUGH;
    let groups_max = gpu.limits.max_compute_workgroups_per_dimension as usize / 2;
    let rows_max = if is_split { (PARTS_BYTES / row_parts_bytes).clamp(1, groups_max) } else { groups_max };
    let window = (rows_max / block_rows * block_rows).max(block_rows);
    let parts = if is_split {
        Some(recorder.workspace("the parts of attention", window.min(n_rows) * row_parts_bytes)?)
    } else {
        None
    };

    let rows = Rows::new(NAME, gpu, &op.rows)?;
    let (q, q_start) = Binding::read(gpu, &op.q)?;
    let (out, out_start) = Binding::write(gpu, &op.out)?;
    let (k, k_start) = cache(gpu, &op.cache.k, false)?;
    let (v, v_start) = cache(gpu, &op.cache.v, false)?;
    let mut bindings = vec![recorder.status(), rows.positions, rows.sequences, rows.pages, q, k, v, out];
    bindings.extend(parts.as_ref().map(|parts| Binding::all(parts, true)));
    let kernel = KernelKey::new(NAME)
        .constant("HEAD_MAX", (head_dim as u32).next_power_of_two().max(64))
        .define_if(op.cache.k.dtype() == DType::F16, "CACHE_F16")
        .define_if(is_split, "SPLIT");
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
            k_start,
            v_start,
            out_start,
            group as u32,
            block_heads as u32,
            block_rows as u32,
            n_chunks as u32,
        ];
        let z = if is_split { n_chunks as u32 } else { 1 };
        recorder.dispatch(&kernel, &bindings, bytes_of(&args), [n, blocks as u32, z])?;
        if is_split {
            let merge = kernel.clone().entry("attention_merge");
            recorder.dispatch(&merge, &bindings, bytes_of(&args), [n, n_heads as u32, 1])?;
        }
    }
    Ok(())
}
