//! `attention`: one dispatch where there are enough rows to fill the device, else two: chunks of each sequence side by side, and
//! their merge. Either way has the same bits, so the number of rows may choose.

use super::rope_store::check_head;
use super::{Rows, page_windows, u32_of};
use crate::memory::Binding;
use crate::pipelines::KernelKey;
use crate::record::Recorder;
use bytemuck::cast_slice;
use recua_compute::{Attention, DType, Error, PAGE_TOKENS, Result};

/// Tokens of a chunk, and queries of a workgroup, as in the kernel.
const CHUNK: usize = 128;
const QUERIES: usize = 8;

/// Workgroups that fill a device without splitting.
const ENOUGH: usize = 2048;

/// The most that the parts of split sequences may take.
const PARTS_BYTES: usize = 64 << 20;

/// Windows of a cache that no binding can hold, as in the kernel.
const WINDOWS_MAX: usize = 4;

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
    let windows = page_windows(gpu, &op.cache, false)?;
    let (Some(first_window), false) = (windows.first(), windows.len() > WINDOWS_MAX) else {
        let problem = format!("{:?} takes {} bindings, at most {WINDOWS_MAX}", op.cache.k, windows.len());
        return Err(Error::Argument { op: NAME, problem });
    };
    let (k, v) = (first_window.k, first_window.v);
    let mut bindings = vec![recorder.status(), rows.positions, rows.sequences, rows.pages, q, k, v, out];
    let unused = recorder.workspace("nothing", 16)?;
    if let Some(parts) = &parts {
        bindings.push(Binding::all(parts, true));
    } else if windows.len() > 1 {
        bindings.push(Binding::all(&unused, true));
    }
    let (mut k_starts, mut v_starts) = ([0; 3], [0; 3]);
    if windows.len() > 1 {
        for i in 1..WINDOWS_MAX {
            // Those that are not there are never read.
            let window = windows.get(i).unwrap_or(first_window);
            bindings.extend([window.k, window.v]);
            (k_starts[i - 1], v_starts[i - 1]) = (window.k_start, window.v_start);
        }
    }
    let kernel = KernelKey::new(NAME)
        .constant("HEAD_MAX", (head_dim as u32).next_power_of_two().max(64))
        .define_if(op.cache.k.dtype() == DType::F16, "CACHE_F16")
        .define_if(is_split, "SPLIT")
        .define_if(windows.len() > 1, "WINDOWS");
    let [positions_start, sequences_start, pages_start, n_sequences, pages_max] = rows.args;
    for first in (0..n_rows).step_by(window) {
        let n = window.min(n_rows - first) as u32;
        let args: [u32; 27] = [
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
            first_window.k_start,
            first_window.v_start,
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
        ];
        let args = if windows.len() > 1 { &args[..] } else { &args[..20] };
        let z = if is_split { n_chunks as u32 } else { 1 };
        recorder.dispatch(&kernel, &bindings, cast_slice(args), [n, blocks as u32, z])?;
        if is_split {
            let merge = kernel.clone().entry("attention_merge");
            recorder.dispatch(&merge, &bindings, cast_slice(args), [n, n_heads as u32, 1])?;
        }
    }
    Ok(())
}
