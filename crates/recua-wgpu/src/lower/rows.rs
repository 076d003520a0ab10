//! The ops over whole rows, and what ops over rows share: grids and row maps.

use super::matmul;
use crate::gpu::Gpu;
use crate::launch::Recorder;
use crate::memory::{Binding, u32_of, windows};
use crate::pipelines::KernelKey;
use bytemuck::{Pod, bytes_of};
use recua_compute::{Argmax, GatherRows, Op, Result, RmsNorm, RowMap, TopK};

/// Workgroups for `n` pieces of work, in two dimensions: a kernel computes `y * num_workgroups.x + x` and skips numbers from `n` on.
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
        // Both kernels sum in the same order.
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

/// Columns per workgroup of `argmax` and of `top_k`.
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

/// The bindings of a row map, and its share of the arguments (`row_map.wgsl`).
pub(super) struct Rows<'a> {
    pub(super) positions: Binding<'a>,
    pub(super) sequences: Binding<'a>,
    pub(super) pages: Binding<'a>,
    pub(super) positions_start: u32,
    pub(super) sequences_start: u32,
    pub(super) pages_start: u32,
    pub(super) n_sequences: u32,
    pub(super) pages_max: u32,
}

impl<'a> Rows<'a> {
    pub(super) fn new(op: &'static str, gpu: &Gpu, map: &'a RowMap) -> Result<Rows<'a>> {
        let (positions, positions_start) = Binding::read(gpu, &map.positions)?;
        let (sequences, sequences_start) = Binding::read(gpu, &map.sequences)?;
        let (pages, pages_start) = Binding::read(gpu, &map.pages)?;
        let n_sequences = u32_of(op, "a number of sequences", map.pages.n_rows())?;
        let pages_max = u32_of(op, "a number of pages", map.pages.n_cols())?;
        Ok(Rows {
            positions,
            sequences,
            pages,
            positions_start,
            sequences_start,
            pages_start,
            n_sequences,
            pages_max,
        })
    }
}
