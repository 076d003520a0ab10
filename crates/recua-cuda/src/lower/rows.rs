//! The ops that work row by row, and what products read of rows.

use super::matmul::{columns, reads_packed};
use crate::kernels::KernelKey;
use crate::launch::{Place, Recorder};
use crate::memory::{pointer, u32_of};
use crate::weight::{FORMATS, Packed, TILE_COLUMNS};
use bytemuck::{Pod, Zeroable};
use recua_compute::{Argmax, Buffer, Embed, GatherRows, Op, Result, RmsNorm, TOP_K_MAX, TopK};

/// Threads of a block of `rows.cu`.
pub(crate) const THREADS: usize = 512;

/// Vectors of four elements that a thread may keep of a row.
const FOURS_MAX: usize = 8;

/// Threads of a block of `sample.cu`, and columns that a block is to look at, at least.
const SAMPLE_THREADS: usize = 256;
const PART_COLUMNS: usize = 2048;

/// A kernel of `rows.cu`, with so many vectors of a row in each thread.
pub(crate) fn kernel(entry: &'static str, fours: usize) -> KernelKey {
    KernelKey::new("rows").entry(entry).define("THREADS", THREADS).define("FOURS", fours.max(1))
}

fn fours(dim: usize) -> usize {
    dim.div_ceil(4 * THREADS).clamp(1, FOURS_MAX)
}

/// Rows as the tensor cores read them: `kernels/activations.cuh`. All products share the place.
#[derive(Clone, Copy)]
pub(crate) struct Activations {
    pub(crate) packed: u64,
    /// f32 `[rows]`: takes the rows' powers of two back
    pub(crate) undo: u64,
    pub(crate) columns: usize,
    pub(crate) k_tiles: usize,
    pub(crate) place: Place,
}

/// The place for rows that an op writes along for its reader, the product that comes next, if that reads such.
pub(crate) fn packed_for(
    reader: Option<&Op>,
    out: &Buffer,
    place: Place,
    recorder: &Recorder<'_>,
) -> Result<Option<Activations>> {
    let reads = match reader {
        Some(Op::Matmul(next)) => reads_packed(&next.weight)?,
        Some(Op::MatmulGlu(next)) => reads_packed(&next.gate_up)?,
        _ => false,
    };
    if reads { Activations::of(recorder, out, place).map(Some) } else { Ok(None) }
}

impl Activations {
    /// The place for those of `x`.
    pub(crate) fn of(recorder: &Recorder<'_>, x: &Buffer, place: Place) -> Result<Activations> {
        let (n_rows, k_tiles) = (x.n_rows(), x.n_cols().div_ceil(TILE_COLUMNS));
        let columns = columns(n_rows);
        let n_bytes = n_rows.next_multiple_of(columns) * k_tiles * TILE_COLUMNS * 2;
        let (rows, scales) = match place {
            Place::First => ("rows of a product", "scales of rows of a product"),
            Place::Second => ("rows of a second product", "scales of rows of a second product"),
        };
        Ok(Activations {
            packed: recorder.workspace(rows, n_bytes)?.pointer(),
            undo: recorder.workspace(scales, n_rows * 4)?.pointer(),
            columns,
            k_tiles,
            place,
        })
    }
}

/// Where the op before has written those of `x`, if it has.
pub(crate) fn packed_at(recorder: &mut Recorder<'_>, x: &Buffer) -> Option<Place> {
    recorder.packed.take().filter(|(packed, _)| packed.is_same(x)).map(|(_, place)| place)
}

/// The parameters of `rms_norm`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RmsNormArgs {
    x: u64,
    weight: u64,
    out: u64,
    packed: u64,
    undo: u64,
    dim: u32,
    columns: u32,
    k_tiles: u32,
    eps: f32,
}

/// See [`RmsNorm`]; `reader` is the product that reads it next.
pub(crate) fn rms_norm(op: &RmsNorm, reader: Option<&Op>, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "rms_norm";
    let to = packed_for(reader, &op.out, Place::First, recorder)?;
    let args = RmsNormArgs {
        x: pointer(&op.x)?,
        weight: pointer(&op.weight)?,
        out: pointer(&op.out)?,
        packed: to.map_or(0, |to| to.packed),
        undo: to.map_or(0, |to| to.undo),
        dim: u32_of(NAME, "a row", op.x.n_cols())?,
        columns: to.map_or(0, |to| to.columns as u32),
        k_tiles: to.map_or(0, |to| to.k_tiles as u32),
        eps: op.eps,
    };
    let rows = u32_of(NAME, "a number of rows", op.x.n_rows())?;
    let kernel = kernel(NAME, fours(op.x.n_cols()));
    recorder.launch(&kernel, [rows, 1, 1], THREADS as u32, 0, true, &args)?;
    recorder.packed = to.map(|_| (op.out.clone(), Place::First));
    Ok(())
}

/// The parameters of `pack`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PackArgs {
    x: u64,
    packed: u64,
    undo: u64,
    dim: u32,
    columns: u32,
    k_tiles: u32,
    unused: u32,
}

/// The parameters of `repack`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RepackArgs {
    pack: PackArgs,
    maxima: u64,
}

/// Writes those rows anew that a product has packed as they are, and that need a power of two. `maxima` are the bits of their largest
/// elements, zero afterwards.
pub(crate) fn repack(
    recorder: &mut Recorder<'_>,
    op: &'static str,
    x: &Buffer,
    to: &Activations,
    maxima: u64,
) -> Result<()> {
    let pack = PackArgs {
        x: pointer(x)?,
        packed: to.packed,
        undo: to.undo,
        dim: u32_of(op, "a row", x.n_cols())?,
        columns: to.columns as u32,
        k_tiles: to.k_tiles as u32,
        unused: 0,
    };
    let rows = u32_of(op, "a number of rows", x.n_rows())?;
    let kernel = kernel("repack", fours(x.n_cols()));
    recorder.launch(&kernel, [rows, 1, 1], THREADS as u32, 0, true, &RepackArgs { pack, maxima })
}

/// Writes rows as the tensor cores read them.
pub(crate) fn pack(recorder: &mut Recorder<'_>, op: &'static str, x: &Buffer) -> Result<Activations> {
    let to = Activations::of(recorder, x, Place::First)?;
    let args = PackArgs {
        x: pointer(x)?,
        packed: to.packed,
        undo: to.undo,
        dim: u32_of(op, "a row", x.n_cols())?,
        columns: to.columns as u32,
        k_tiles: to.k_tiles as u32,
        unused: 0,
    };
    let rows = u32_of(op, "a number of rows", x.n_rows())?;
    recorder.launch(&kernel("pack", fours(x.n_cols())), [rows, 1, 1], THREADS as u32, 0, true, &args)?;
    Ok(to)
}

/// Where the tokens of rows are, as kernels take it: `Tokens` in `kernels/status.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Tokens {
    words: u64,
    chosen: u64,
    status: u64,
    n_chosen: u32,
    n: u32,
}

/// The parameters of `embed`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EmbedArgs {
    table: u64,
    undo: u64,
    tokens: Tokens,
    out: u64,
    dim: u32,
    k_tiles: u32,
    first: u32,
    n_here: u32,
}

/// The parameters of `embed_f32`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EmbedF32Args {
    table: u64,
    tokens: Tokens,
    out: u64,
    dim: u32,
    first: u32,
    n_here: u32,
    unused: u32,
}

/// See [`Embed`].
pub(crate) fn embed(op: &Embed, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "embed";
    let tokens = Tokens {
        words: pointer(&op.tokens)?,
        chosen: op.chosen.as_ref().map_or(Ok(0), pointer)?,
        status: recorder.status(),
        n_chosen: op.chosen.as_ref().map_or(0, |chosen| chosen.n_elements() as u32),
        n: u32_of(NAME, "a vocabulary", op.table.n())?,
    };
    let (out, dim) = (pointer(&op.out)?, u32_of(NAME, "a row", op.table.k())?);
    let rows = u32_of(NAME, "a number of rows", op.tokens.n_elements())?;
    for segment in &Packed::of(&op.table)?.segments {
        let (table, first, n_here) = (segment.memory.pointer(), segment.first as u32, segment.n as u32);
        match segment.format {
            None => {
                let args = EmbedF32Args { table, tokens, out, dim, first, n_here, unused: 0 };
                let kernel = KernelKey::new("f32").entry("embed_f32");
                recorder.launch(&kernel, [rows, 1, 1], 128, 0, true, &args)?;
            }
            Some(format) => {
                let (undo, k_tiles) = (segment.undo(), segment.k_tiles as u32);
                let args = EmbedArgs { table, undo, tokens, out, dim, k_tiles, first, n_here };
                let kernel = format.define(KernelKey::new(NAME));
                recorder.launch(&kernel, [rows, 1, 1], 256, 0, true, &args)?;
            }
        }
    }
    Ok(())
}

/// The parameters of `gather_rows`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GatherRowsArgs {
    x: u64,
    indexes: u64,
    out: u64,
    status: u64,
    n_rows: u32,
    dim: u32,
}

/// See [`GatherRows`].
pub(crate) fn gather_rows(op: &GatherRows, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "gather_rows";
    let args = GatherRowsArgs {
        x: pointer(&op.x)?,
        indexes: pointer(&op.indexes)?,
        out: pointer(&op.out)?,
        status: recorder.status(),
        n_rows: u32_of(NAME, "a number of rows", op.x.n_rows())?,
        dim: u32_of(NAME, "a row", op.x.n_cols())?,
    };
    let rows = u32_of(NAME, "a number of rows", op.indexes.n_elements())?;
    if rows == 0 {
        return Ok(());
    }
    recorder.launch(&kernel(NAME, 1), [rows, 1, 1], THREADS as u32, 0, true, &args)
}

/// The parts that rows are cut into to choose from them, and their columns.
fn parts(recorder: &Recorder<'_>, n_rows: usize, n_columns: usize) -> (usize, usize) {
    let wanted = (2 * recorder.gpu.n_sms as usize).div_ceil(n_rows.max(1));
    let parts = wanted.clamp(1, n_columns.div_ceil(PART_COLUMNS).clamp(1, 64));
    let columns = n_columns.div_ceil(parts);
    (n_columns.div_ceil(columns), columns)
}

fn sample_kernel(entry: &'static str) -> KernelKey {
    KernelKey::new("sample").entry(entry).define("THREADS", SAMPLE_THREADS)
}

/// The parameters of `argmax`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ArgmaxArgs {
    x: u64,
    out: u64,
    found: u64,
    tickets: u64,
    columns: u32,
    parts: u32,
    part_columns: u32,
    unused: u32,
}

/// See [`Argmax`].
pub(crate) fn argmax(op: &Argmax, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "argmax";
    let (n_rows, n_columns) = (op.x.n_rows(), op.x.n_cols());
    let (parts, part_columns) = parts(recorder, n_rows, n_columns);
    let args = ArgmaxArgs {
        x: pointer(&op.x)?,
        out: pointer(&op.out)?,
        found: recorder.workspace("what was found in parts of rows", n_rows * parts * 8)?.pointer(),
        tickets: recorder.workspace("tickets of parts of rows", n_rows * 4)?.pointer(),
        columns: u32_of(NAME, "a row", n_columns)?,
        parts: parts as u32,
        part_columns: part_columns as u32,
        unused: 0,
    };
    let grid = [parts as u32, u32_of(NAME, "a number of rows", n_rows)?, 1];
    recorder.launch(&sample_kernel(NAME), grid, SAMPLE_THREADS as u32, 0, true, &args)
}

/// The parameters of `top_k`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TopKArgs {
    x: u64,
    out: u64,
    found: u64,
    tickets: u64,
    columns: u32,
    parts: u32,
    part_columns: u32,
    k: u32,
}

/// See [`TopK`].
pub(crate) fn top_k(op: &TopK, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "top_k";
    let (n_rows, n_columns) = (op.x.n_rows(), op.x.n_cols());
    let (parts, part_columns) = parts(recorder, n_rows, n_columns);
    let found = n_rows * parts * TOP_K_MAX * 8;
    let args = TopKArgs {
        x: pointer(&op.x)?,
        out: pointer(&op.out)?,
        found: recorder.workspace("what was found in parts of rows", found)?.pointer(),
        tickets: recorder.workspace("tickets of parts of rows", n_rows * 4)?.pointer(),
        columns: u32_of(NAME, "a row", n_columns)?,
        parts: parts as u32,
        part_columns: part_columns as u32,
        k: op.k() as u32,
    };
    let grid = [parts as u32, u32_of(NAME, "a number of rows", n_rows)?, 1];
    recorder.launch(&sample_kernel(NAME), grid, SAMPLE_THREADS as u32, 0, true, &args)
}

/// The kernels there are.
pub(crate) fn kernels() -> Vec<KernelKey> {
    let mut list: Vec<KernelKey> = (1..=FOURS_MAX).map(|fours| kernel("rms_norm", fours)).collect();
    list.extend(["argmax", "top_k"].map(sample_kernel));
    list.push(KernelKey::new("f32").entry("embed_f32"));
    list.extend(FORMATS.iter().map(|format| format.define(KernelKey::new("embed"))));
    list
}
