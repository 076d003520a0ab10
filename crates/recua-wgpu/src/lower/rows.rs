//! The ops of whole rows, and what ops over rows share: grids, row maps, windows of a cache.

use super::matmul;
use crate::gpu::Gpu;
use crate::launch::Recorder;
use crate::memory::{Binding, Memory, u32_of, windows};
use crate::pipelines::KernelKey;
use bytemuck::{Pod, bytes_of};
use recua_compute::{Argmax, Buffer, Error, GatherRows, KvLayer, Op, Result, RmsNorm, RowMap, TopK};

/// Workgroups for `n` pieces of work, in two dimensions: a kernel computes `y * num_workgroups.x + x` and skips what is too much.
pub(super) fn grid(gpu: &Gpu, n: u64) -> [u32; 3] {
    let x_max = u64::from(gpu.limits.max_compute_workgroups_per_dimension);
    let y = n.div_ceil(x_max).max(1);
    [n.div_ceil(y) as u32, y as u32, 1]
}

/// Several words as immediates.
pub(super) fn words<const N: usize>(words: &[u32; N]) -> &[u8]
where
    [u32; N]: Pod,
{
    bytes_of(words)
}

/// See [`RmsNorm`].
pub(super) fn rms_norm(op: &RmsNorm, reader: Option<&Op>, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let dim = u32_of("rms_norm", "a row", op.x.n_cols())?;
    let (weight, weight_start) = Binding::read(gpu, &op.weight)?;
    let in_place = op.x.is_same(&op.out);
    let xs = windows(gpu, &op.x, usize::MAX, false)?;
    let activations = matmul::activations_of(reader, &op.out, recorder)?;
    for (x, out) in xs.iter().zip(windows(gpu, &op.out, usize::MAX, true)?) {
        // Either way has the same order of sums.
        let starts = [dim, x.start, weight_start, out.start];
        let is_wide = starts.iter().all(|start| start.is_multiple_of(4));
        let [_, x_start, weight_start, out_start] = if is_wide { starts.map(|n| n / 4) } else { starts };
        let activations = activations.as_ref().filter(|_| is_wide && xs.len() == 1);
        let kernel = KernelKey::new("rms_norm")
            .define_if(in_place, "IN_PLACE")
            .define_if(is_wide, "WIDE")
            .define_if(activations.is_some(), "ACTIVATIONS")
            .unchecked();
        let runs = activations.map_or(0, |activations| activations.runs as u32);
        let args = [x.n_rows, dim, x_start, weight_start, out_start, op.eps.to_bits(), runs];
        let mut bindings = vec![weight, out.binding];
        bindings.extend((!in_place).then_some(x.binding));
        bindings.extend(activations.map(|activations| Binding::all(&activations.memory, true)));
        recorder.dispatch(&kernel, &bindings, words(&args), grid(gpu, x.n_rows.into()))?;
        if activations.is_some() {
            recorder.set_converted(&op.out);
        }
    }
    Ok(())
}

/// See [`GatherRows`].
pub(super) fn gather_rows(op: &GatherRows, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let dim = u32_of("gather_rows", "a row", op.x.n_cols())?;
    let n_rows = u32_of("gather_rows", "a number of rows", op.x.n_rows())?;
    if op.indexes.n_elements() == 0 {
        return Ok(());
    }
    let (indexes, indexes_start) = Binding::read(gpu, &op.indexes)?;
    for x in windows(gpu, &op.x, usize::MAX, false)? {
        for out in windows(gpu, &op.out, usize::MAX, true)? {
            let start = indexes_start + out.first_row;
            let args = [out.n_rows, dim, n_rows, x.first_row, x.n_rows, x.start, start, out.start];
            let bindings = [recorder.status(), indexes, x.binding, out.binding];
            let groups = grid(gpu, out.n_rows.into());
            recorder.dispatch(&KernelKey::new("gather_rows"), &bindings, words(&args), groups)?;
        }
    }
    Ok(())
}

/// Columns that one workgroup of `argmax` and of `top_k` looks at.
const ARGMAX_COLUMNS: u32 = 8192;

/// See [`Argmax`].
pub(super) fn argmax(op: &Argmax, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let columns = u32_of("argmax", "a row", op.x.n_cols())?;
    let parts = columns.div_ceil(ARGMAX_COLUMNS);
    let n_rows = op.x.n_rows();
    let found = recorder.workspace("the parts of argmax", n_rows * parts as usize * 8)?;
    let (out, out_start) = Binding::write(gpu, &op.out)?;
    for x in windows(gpu, &op.x, usize::MAX, false)? {
        let args = [x.n_rows, columns, parts, ARGMAX_COLUMNS, x.start, out_start + x.first_row];
        let kernel = |entry| KernelKey::new("argmax").entry(entry);
        let bindings = [x.binding, Binding::all(&found, true), out];
        let groups = grid(gpu, u64::from(x.n_rows) * u64::from(parts));
        let entry = if parts == 1 { "argmax" } else { "argmax_part" };
        recorder.dispatch(&kernel(entry), &bindings, words(&args), groups)?;
        if parts > 1 {
            let groups = grid(gpu, u64::from(x.n_rows).div_ceil(64));
            recorder.dispatch(&kernel("argmax_merge"), &bindings, words(&args), groups)?;
        }
    }
    Ok(())
}

/// See [`TopK`].
pub(super) fn top_k(op: &TopK, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let columns = u32_of("top_k", "a row", op.x.n_cols())?;
    let (k, parts) = (op.k(), columns.div_ceil(ARGMAX_COLUMNS));
    let found = recorder.workspace("the parts of top_k", op.x.n_rows() * parts as usize * k * 8)?;
    let (out, out_start) = Binding::write(gpu, &op.out)?;
    for x in windows(gpu, &op.x, usize::MAX, false)? {
        let out_first = u32_of("top_k", "an output", x.first_row as usize * k * 2)?;
        let args = [x.n_rows, columns, parts, ARGMAX_COLUMNS, k as u32, x.start, out_start + out_first];
        let bindings = [x.binding, Binding::all(&found, true), out];
        let groups = grid(gpu, u64::from(x.n_rows) * u64::from(parts));
        recorder.dispatch(&KernelKey::new("top_k"), &bindings, words(&args), groups)?;
        if parts > 1 {
            let merge = KernelKey::new("top_k").define("MERGE");
            recorder.dispatch(&merge, &bindings, words(&args), grid(gpu, x.n_rows.into()))?;
        }
    }
    Ok(())
}

/// The bindings of a row map, and its part of the arguments (`row_map.wgsl`).
pub(super) struct Rows<'a> {
    pub(super) positions: Binding<'a>,
    pub(super) sequences: Binding<'a>,
    pub(super) pages: Binding<'a>,
    /// `positions_start, sequences_start, pages_start, n_sequences, pages_max`
    pub(super) args: [u32; 5],
}

impl<'a> Rows<'a> {
    pub(super) fn new(op: &'static str, gpu: &Gpu, map: &'a RowMap) -> Result<Rows<'a>> {
        let (positions, positions_start) = Binding::read(gpu, &map.positions)?;
        let (sequences, sequences_start) = Binding::read(gpu, &map.sequences)?;
        let (pages, pages_start) = Binding::read(gpu, &map.pages)?;
        let n_sequences = u32_of(op, "a number of sequences", map.pages.n_rows())?;
        let pages_max = u32_of(op, "a number of pages", map.pages.n_cols())?;
        let args = [positions_start, sequences_start, pages_start, n_sequences, pages_max];
        Ok(Rows { positions, sequences, pages, args })
    }
}

/// Pages of a cache that can be bound at once.
pub(super) struct PageWindow<'a> {
    pub(super) first_page: u32,
    pub(super) n_pages: u32,
    pub(super) k: Binding<'a>,
    pub(super) v: Binding<'a>,
    /// Where the window's first page begins in the binding, in words.
    pub(super) k_start: u32,
    pub(super) v_start: u32,
}

/// Cuts a cache into windows of equally many pages, one if it can be bound at once.
pub(super) fn page_windows<'a>(gpu: &Gpu, cache: &'a KvLayer, write: bool) -> Result<Vec<PageWindow<'a>>> {
    let n_pages = cache.n_pages();
    let page_bytes = cache.k.n_bytes() / n_pages.max(1);
    let slack = gpu.limits.min_storage_buffer_offset_alignment as usize + 32;
    let limit = (gpu.limits.max_storage_buffer_binding_size as usize).saturating_sub(slack);
    let step = (limit / page_bytes.max(1)).clamp(1, n_pages.max(1));
    let mut list = Vec::new();
    for first in (0..n_pages).step_by(step) {
        let n = step.min(n_pages - first);
        let part = |buffer: &'a Buffer| {
            let start = (buffer.offset_bytes() + first * page_bytes) as u64;
            if !start.is_multiple_of(4) || !page_bytes.is_multiple_of(4) {
                let problem = format!("{buffer:?} begins at byte {start}, a multiple of four is needed");
                return Err(Error::Argument { op: "attention", problem });
            }
            let end = start + (n * page_bytes) as u64;
            let (binding, rest) = Binding::part(gpu, Memory::of(buffer)?, start, end, write)?;
            Ok((binding, rest / 4))
        };
        let ((k, k_start), (v, v_start)) = (part(&cache.k)?, part(&cache.v)?);
        let (first_page, n_pages) = (u32_of("attention", "a page", first)?, n as u32);
        list.push(PageWindow { first_page, n_pages, k, v, k_start, v_start });
    }
    Ok(list)
}
