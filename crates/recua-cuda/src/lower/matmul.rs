//! Products: their launches, and what they read and write beside a weight.

mod config;

use self::config::{Arrange, Config, SIDE_COLUMNS, SLICES, Shape};
pub(crate) use self::config::{COLUMNS, columns};
use super::rows::{Activations, packed_at, packed_for, repack};
use crate::kernels::KernelKey;
use crate::launch::{Place, Recorder};
use crate::memory::{pointer, u32_of};
use crate::weight::{FORMATS, Packed, Segment, TILE_COLUMNS};
use bytemuck::{Pod, Zeroable};
use recua_compute::{Buffer, Matmul, MatmulGlu, Op, Result};

/// Rows up to which a GLU writes what the next product reads.
const PACKED_ROWS_MAX: usize = 16;

/// Which of several launches, of which none depends on another, one is: they run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Alone = 0,
    First = 1,
    Next = 2,
}

/// The parameters of `matmul`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct MatmulArgs {
    weight: u64,
    undo: u64,
    x: u64,
    x_undo: u64,
    bias: u64,
    add: u64,
    out: u64,
    partial: u64,
    tickets: u64,
    packed: u64,
    maxima: u64,
    n_rows: u32,
    n: u32,
    n_tiles: u32,
    k_tiles: u32,
    out_stride: u32,
    packed_columns: u32,
    packed_k_tiles: u32,
    turn: u32,
}

/// The parameters of `matmul_f32`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct MatmulF32Args {
    weight: u64,
    up: u64,
    x: u64,
    bias: u64,
    add: u64,
    out: u64,
    n_rows: u32,
    n: u32,
    k: u32,
    out_stride: u32,
}

/// What a product of a segment reads and writes, besides it. Pointers may be 0: there is none.
#[derive(Clone, Copy)]
struct Ends {
    op: &'static str,
    n_rows: usize,
    k: usize,
    /// f32 rows
    x: u64,
    bias: u64,
    add: u64,
    out: u64,
    out_stride: usize,
    /// A GLU writes its rows here, too, and the bits of their largest elements.
    next: Option<(Activations, u64)>,
    turn: Turn,
}

/// Whether a product needs x as the tensor cores read it.
pub(crate) fn reads_packed(weight: &recua_compute::Weight) -> Result<bool> {
    Ok(Packed::of(weight)?.segments.iter().any(|segment| segment.format.is_some()))
}

/// Appends the product of one segment.
fn product(
    recorder: &mut Recorder<'_>,
    segment: &Segment,
    x: Option<&Activations>,
    ends: &Ends,
) -> Result<()> {
    let Ends { op, n_rows, k, .. } = *ends;
    let (rows, n) = (u32_of(op, "a number of rows", n_rows)?, u32_of(op, "a number of outputs", segment.n)?);
    let out_stride = u32_of(op, "a row", ends.out_stride)?;
    let (Some(format), Some(x)) = (segment.format, x) else {
        return f32_product(recorder, (segment.memory.pointer(), 0), n, ends);
    };
    let shape =
        Shape { tile_bytes: format.tile_bytes, n_tiles: segment.n_tiles, k_tiles: segment.k_tiles, n_rows };
    let config = Config::new(recorder.gpu, shape);
    let column_blocks = n_rows.div_ceil(config.columns);
    let (mut partial, mut tickets) = (0, 0);
    if config.parts > 1 {
        let places = column_blocks * segment.n_tiles;
        let bytes = places * SLICES * config.columns.div_ceil(8) * 512;
        // Launches that run side by side have their own.
        let (slices, counts) = match ends.turn {
            Turn::Next => ("slices of second products", "tickets of second products"),
            Turn::Alone | Turn::First => ("slices of products", "tickets of products"),
        };
        partial = recorder.workspace(slices, bytes)?.pointer();
        tickets = recorder.workspace(counts, places * 4)?.pointer();
    }
    let args = MatmulArgs {
        weight: segment.memory.pointer(),
        undo: segment.undo(),
        x: x.packed,
        x_undo: x.undo,
        bias: ends.bias,
        add: ends.add,
        out: ends.out,
        partial,
        tickets,
        n_rows: rows,
        n,
        n_tiles: u32_of(op, "a number of tiles", segment.n_tiles)?,
        k_tiles: u32_of(op, "a number of tiles", k.div_ceil(TILE_COLUMNS))?,
        out_stride,
        packed: ends.next.map_or(0, |(next, _)| next.packed),
        maxima: ends.next.map_or(0, |(_, maxima)| maxima),
        packed_columns: ends.next.map_or(0, |(next, _)| next.columns as u32),
        packed_k_tiles: ends.next.map_or(0, |(next, _)| next.k_tiles as u32),
        turn: ends.turn as u32,
    };
    let grid = [config.grid as u32, u32_of(op, "a number of rows", column_blocks)?, 1];
    let kernel = config.kernel(format, segment.is_glu);
    recorder.launch(&kernel, grid, config.warps as u32 * 32, config.shared_bytes as u32, true, &args)
}

/// Appends a product of f32, or of a gate and an up matrix.
fn f32_product(recorder: &mut Recorder<'_>, (weight, up): (u64, u64), n: u32, ends: &Ends) -> Result<()> {
    let Ends { op, x, bias, add, out, .. } = *ends;
    let n_rows = u32_of(op, "a number of rows", ends.n_rows)?;
    let (k, out_stride) = (u32_of(op, "a row", ends.k)?, u32_of(op, "a row", ends.out_stride)?);
    let args = MatmulF32Args { weight, up, x, bias, add, out, n_rows, n, k, out_stride };
    recorder.launch(
        &KernelKey::new("f32").entry("matmul_f32"),
        [n.div_ceil(4), n_rows.div_ceil(8), 1],
        128,
        0,
        true,
        &args,
    )
}

fn pointer_or_none(buffer: Option<&Buffer>) -> Result<u64> {
    buffer.map_or(Ok(0), pointer)
}

/// See [`Matmul`].
pub(crate) fn matmul(op: &Matmul, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "matmul";
    let packed = Packed::of(&op.weight)?;
    let x = activations(recorder, NAME, &op.x, packed)?;
    let (bias, add) = (pointer_or_none(op.bias.as_ref())?, pointer_or_none(op.add.as_ref())?);
    let out = pointer(&op.out)?;
    for (segment, turn) in side_by_side(&packed.segments) {
        let from = |base: u64| if base == 0 { 0 } else { base + (segment.first * 4) as u64 };
        let ends = Ends {
            op: NAME,
            n_rows: op.x.n_rows(),
            k: op.x.n_cols(),
            x: pointer(&op.x)?,
            bias: from(bias),
            add: from(add),
            out: from(out),
            out_stride: op.out.n_cols(),
            next: None,
            turn,
        };
        product(recorder, segment, x.as_ref(), &ends)?;
    }
    Ok(())
}

/// The segments of a weight in the order they are launched in, and their turns: of two that the tensor cores multiply, the small one comes
/// first and leaves most of the card to the other.
fn side_by_side(segments: &[Segment]) -> Vec<(&Segment, Turn)> {
    match segments {
        [a, b] if a.format.is_some() && b.format.is_some() => {
            let (first, next) = if a.n_tiles <= b.n_tiles { (a, b) } else { (b, a) };
            vec![(first, Turn::First), (next, Turn::Next)]
        }
        _ => segments.iter().map(|segment| (segment, Turn::Alone)).collect(),
    }
}

/// The parameters of `glu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GluArgs {
    gate: u64,
    out: u64,
    n: u64,
}

/// See [`MatmulGlu`]; `reader` is the product that reads it next.
pub(crate) fn matmul_glu(op: &MatmulGlu, reader: Option<&Op>, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "matmul_glu";
    let packed = Packed::of(&op.gate_up)?;
    let x = activations(recorder, NAME, &op.x, packed)?;
    let ends = Ends {
        op: NAME,
        n_rows: op.x.n_rows(),
        k: op.x.n_cols(),
        x: pointer(&op.x)?,
        bias: 0,
        add: 0,
        out: pointer(&op.out)?,
        out_stride: op.out.n_cols(),
        next: None,
        turn: Turn::Alone,
    };
    match &packed.segments[..] {
        [both] => {
            // It reads rows of one place and writes those of the other. What lies behind a row's end has to be zero, and nobody here
            // writes it.
            let place = x.as_ref().map_or(Place::First, |x| x.place.other());
            let is_whole = op.out.n_cols().is_multiple_of(TILE_COLUMNS);
            // For many rows it takes longer than a launch that packs them.
            let is_few = op.x.n_rows() <= PACKED_ROWS_MAX;
            let reader = reader.filter(|_| is_whole && is_few);
            let Some(next) = packed_for(reader, &op.out, place, recorder)? else {
                return product(recorder, both, x.as_ref(), &ends);
            };
            let maxima = recorder.workspace("largest elements of rows", op.x.n_rows() * 4)?.pointer();
            product(recorder, both, x.as_ref(), &Ends { next: Some((next, maxima)), ..ends })?;
            repack(recorder, NAME, &op.out, &next, maxima)?;
            recorder.packed = Some((op.out.clone(), place));
            Ok(())
        }
        [gate, up] if gate.format.is_none() && up.format.is_none() => {
            let n = u32_of(NAME, "a number of outputs", gate.n)?;
            f32_product(recorder, (gate.memory.pointer(), up.memory.pointer()), n, &ends)
        }
        segments => {
            let gate = recorder.workspace("a gate", op.out.n_bytes())?.pointer();
            for (segment, out) in segments.iter().zip([gate, ends.out]) {
                product(recorder, segment, x.as_ref(), &Ends { out, ..ends })?;
            }
            let n = op.out.n_elements();
            let args = GluArgs { gate, out: ends.out, n: n as u64 };
            let blocks = n.div_ceil(super::rows::THREADS).min(recorder.gpu.n_sms as usize * 8);
            let kernel = super::rows::kernel("glu", 0);
            recorder.launch(&kernel, [blocks as u32, 1, 1], super::rows::THREADS as u32, 0, true, &args)
        }
    }
}

/// x as the tensor cores read it, if some segment does: of the op before, or packed now.
fn activations(
    recorder: &mut Recorder<'_>,
    op: &'static str,
    x: &Buffer,
    packed: &Packed,
) -> Result<Option<Activations>> {
    if packed.segments.iter().all(|segment| segment.format.is_none()) {
        return Ok(None);
    }
    if let Some(place) = packed_at(recorder, x) {
        return Activations::of(recorder, x, place).map(Some);
    }
    super::rows::pack(recorder, op, x).map(Some)
}

/// The kernels there may be: those of models' shapes, on cards of much and of little shared memory.
pub(crate) fn kernels() -> Vec<KernelKey> {
    let mut list = vec![KernelKey::new("f32").entry("matmul_f32")];
    for format in FORMATS {
        for (i, &columns) in COLUMNS.iter().enumerate() {
            let config = |arrange, warps, stages, x_stages, parts, blocks| Config {
                arrange,
                columns,
                warps,
                stages,
                x_stages,
                parts,
                is_early: arrange == Arrange::Side && i % 4 < 2,
                blocks,
                shared_bytes: 0,
                grid: 0,
            };
            let configs = if columns <= SIDE_COLUMNS {
                vec![config(Arrange::Side, SLICES, 3, SLICES, 1, 2), config(Arrange::Stream, 8, 3, 3, 8, 1)]
            } else {
                vec![config(Arrange::Stream, 16, 2, 3, 1, 1), config(Arrange::Stream, 12, 2, 4, 4, 1)]
            };
            // Not each with everything: a file has one epilogue or the other, whatever the rest.
            list.extend(configs.iter().map(|config| config.kernel(format, i % 2 == 0)));
        }
    }
    list
}
