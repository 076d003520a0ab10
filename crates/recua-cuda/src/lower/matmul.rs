//! Products: which arrangement of `kernels/matmul.cu` takes which matrix and how many rows. None of it changes a bit of a result.

use super::rows::{Activations, packed_at, packed_for, repack};
use crate::gpu::Gpu;
use crate::kernels::KernelKey;
use crate::launch::{Place, Recorder};
use crate::memory::{pointer, u32_of};
use crate::weight::{FORMATS, Format, Packed, Segment, TILE_COLUMNS};
use bytemuck::{Pod, Zeroable};
use recua_compute::{Buffer, Matmul, MatmulGlu, Op, Result};

/// Slices of the sum over K.
const SLICES: usize = 8;

/// Rows of x that a block takes at a time: the numbers there are kernels for.
pub(crate) const COLUMNS: &[usize] = &[1, 2, 4, 8, 16, 32, 64];

/// Bytes of a tile of x, for each row.
const X_ROW_BYTES: usize = 512;

/// Shared memory in front of x and the weights' rings: barriers.
const FRONT_BYTES: usize = 1024;

/// What a block takes of a multiprocessor's shared memory beside its own.
const RESERVED_BYTES: usize = 1024;

/// Copies that a multiprocessor may have under way, and bytes that are enough.
const COPIES_MAX: usize = 64;
const ENOUGH_BYTES: usize = 96 << 10;

/// Rows up to which a GLU writes what the next product reads.
const PACKED_ROWS_MAX: usize = 16;

/// Rows from which on four warps multiply together where the card can.
const GROUP_COLUMNS: usize = 32;

/// Up to how many rows all of x may lie in shared memory.
const SIDE_COLUMNS: usize = 8;

/// Who does what in a block; see the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrange {
    Side,
    Whole,
    Split,
}

impl Arrange {
    fn name(self) -> &'static str {
        match self {
            Arrange::Side => "SIDE",
            Arrange::Whole => "WHOLE",
            Arrange::Split => "SPLIT",
        }
    }
}

/// How a product runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Config {
    arrange: Arrange,
    columns: usize,
    warps: usize,
    stages: usize,
    x_stages: usize,
    /// Blocks of a multiprocessor that the compiler leaves registers for.
    blocks: usize,
    shared_bytes: usize,
    /// Blocks, for each block of columns.
    grid: usize,
}

/// The rows of x of a block, in a pass of so many.
pub(crate) fn columns(n_rows: usize) -> usize {
    COLUMNS.iter().copied().find(|columns| *columns >= n_rows).unwrap_or(COLUMNS[COLUMNS.len() - 1])
}

/// The shape of a product.
#[derive(Clone, Copy)]
struct Shape {
    tile_bytes: usize,
    n_tiles: usize,
    k_tiles: usize,
    n_rows: usize,
}

/// The rings of one warp, in which any card has room for any tile.
fn smallest(shape: Shape, columns: usize) -> (usize, usize, usize) {
    (1, 2, FRONT_BYTES + 2 * columns * X_ROW_BYTES + shape.tile_bytes)
}

impl Config {
    fn new(gpu: &Gpu, shape: Shape) -> Config {
        let Shape { n_tiles, n_rows, .. } = shape;
        let columns = columns(n_rows);
        let column_blocks = n_rows.div_ceil(columns);
        if columns <= SIDE_COLUMNS
            && let Some(config) = Config::side(gpu, shape, columns)
        {
            return config;
        }
        let n_sms = gpu.n_sms as usize;
        // Narrow: with a warp for each tile, most multiprocessors would have nothing to do.
        if n_tiles.div_ceil(8) * column_blocks <= n_sms / 2 {
            return Config::split(gpu, shape, columns, column_blocks);
        }
        Config::whole(gpu, shape, columns, column_blocks)
    }

    fn side(gpu: &Gpu, shape: Shape, columns: usize) -> Option<Config> {
        let Shape { tile_bytes, n_tiles, k_tiles, .. } = shape;
        let sums = 2 * SLICES * columns.div_ceil(8) * 512;
        let bytes = |stages: usize| {
            FRONT_BYTES + k_tiles * columns * X_ROW_BYTES + SLICES * stages * tile_bytes + sums
        };
        // Bytes under way make the speed, but too many copies at once break it.
        let fitting = |stages: usize| {
            let blocks =
                (gpu.shared_bytes_sm / (bytes(stages) + RESERVED_BYTES)).min(COPIES_MAX / (SLICES * stages));
            (bytes(stages) <= gpu.shared_bytes_max && blocks > 0).then_some((blocks, stages))
        };
        let (blocks, stages) = [3, 2, 1].into_iter().filter_map(fitting).max_by_key(|(blocks, stages)| {
            ((blocks * stages * SLICES * tile_bytes).min(ENOUGH_BYTES), *blocks)
        })?;
        // No more of them fit, so that the next kernel's, which come early, do not crowd some multiprocessors.
        let share = (gpu.shared_bytes_sm / blocks).saturating_sub(RESERVED_BYTES) / 128 * 128;
        let shared_bytes = share.min(gpu.shared_bytes_max).max(bytes(stages));
        let grid = n_tiles.min(gpu.n_sms as usize * blocks);
        let arrange = Arrange::Side;
        Some(Config {
            arrange,
            columns,
            warps: SLICES,
            stages,
            x_stages: SLICES,
            blocks: 2,
            shared_bytes,
            grid,
        })
    }

    /// The first of these stages of weights and of x that fit `limit` bytes with so many warps.
    fn rings(
        tile_bytes: usize,
        columns: usize,
        warps: usize,
        stages: &[(usize, usize)],
        limit: usize,
    ) -> Option<(usize, usize, usize)> {
        stages.iter().copied().find_map(|(stages, x_stages)| {
            let bytes = FRONT_BYTES + x_stages * columns * X_ROW_BYTES + warps * stages * tile_bytes;
            (bytes <= limit).then_some((stages, x_stages, bytes))
        })
    }

    fn whole(gpu: &Gpu, shape: Shape, columns: usize, column_blocks: usize) -> Config {
        let n_sms = gpu.n_sms as usize;
        // Tiles that the busiest multiprocessor has.
        let busiest = |warps: usize| (shape.n_tiles.div_ceil(warps) * column_blocks).div_ceil(n_sms) * warps;
        const STAGES: &[(usize, usize)] = &[(3, 6), (2, 6), (2, 3), (2, 2), (1, 2)];
        let fits = |warps: usize| {
            let rings = Config::rings(shape.tile_bytes, columns, warps, STAGES, gpu.shared_bytes_max);
            rings.map(|rings| (warps, rings))
        };
        // Groups of four warps multiply many rows.
        let many: &[usize] = if columns >= GROUP_COLUMNS { &[16, 12] } else { &[16, 14, 12] };
        let best = many.iter().copied().filter_map(fits).min_by_key(|(warps, _)| busiest(*warps));
        // A card of little shared memory has room for fewer.
        let (warps, (stages, x_stages, shared_bytes)) =
            best.or_else(|| [8, 4, 2].into_iter().find_map(fits)).unwrap_or((1, smallest(shape, columns)));
        let grid = shape.n_tiles.div_ceil(warps).min(n_sms);
        Config { arrange: Arrange::Whole, columns, warps, stages, x_stages, blocks: 1, shared_bytes, grid }
    }

    fn split(gpu: &Gpu, shape: Shape, columns: usize, column_blocks: usize) -> Config {
        const STAGES: &[(usize, usize)] = &[(2, 4), (2, 3), (2, 2), (1, 2)];
        let within = |limit: usize, warps: &[usize]| {
            warps.iter().copied().find_map(|warps| {
                let rings = Config::rings(shape.tile_bytes, columns, warps, STAGES, limit);
                rings.map(|rings| (warps, rings))
            })
        };
        // A block for each multiprocessor, if all of them have a place at once; else two, of which one hides what the other waits for.
        let is_one_wave = shape.n_tiles.div_ceil(16) * SLICES * column_blocks <= gpu.n_sms as usize;
        let all = gpu.shared_bytes_max;
        let half = (gpu.shared_bytes_sm / 2).saturating_sub(RESERVED_BYTES).min(all);
        let one_wave = if is_one_wave { within(all, &[16]) } else { None };
        let (warps, (stages, x_stages, shared_bytes)) = one_wave
            .or_else(|| within(half, &[8, 4, 2]))
            .or_else(|| within(all, &[8, 4, 2]))
            .unwrap_or((1, smallest(shape, columns)));
        let grid = shape.n_tiles.div_ceil(warps) * SLICES;
        Config { arrange: Arrange::Split, columns, warps, stages, x_stages, blocks: 1, shared_bytes, grid }
    }

    fn kernel(&self, format: &Format, is_glu: bool) -> KernelKey {
        let key = format.define(KernelKey::new("matmul"));
        let key = key.define("COLUMNS", self.columns).define("ARRANGE", self.arrange.name());
        let key = key.define("WARPS", self.warps).define("STAGES", self.stages);
        let key = key.define("X_STAGES", self.x_stages).define("BLOCKS", self.blocks);
        if is_glu { key.define("GLU", 1) } else { key }
    }
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
    unused: u32,
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
    if config.arrange == Arrange::Split {
        let places = column_blocks * segment.n_tiles;
        let bytes = places * SLICES * config.columns.div_ceil(8) * 512;
        partial = recorder.workspace("slices of products", bytes)?.pointer();
        tickets = recorder.workspace("tickets of products", places * 4)?.pointer();
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
        unused: 0,
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
    for segment in &packed.segments {
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
        };
        product(recorder, segment, x.as_ref(), &ends)?;
    }
    Ok(())
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
            let config = |arrange, warps, stages, x_stages, blocks| Config {
                arrange,
                columns,
                warps,
                stages,
                x_stages,
                blocks,
                shared_bytes: 0,
                grid: 0,
            };
            let configs = if columns <= SIDE_COLUMNS {
                vec![config(Arrange::Side, SLICES, 3, SLICES, 2), config(Arrange::Split, 8, 3, 3, 1)]
            } else {
                vec![config(Arrange::Whole, 16, 2, 3, 1), config(Arrange::Split, 8, 2, 3, 1)]
            };
            // Not each with everything: a file has one epilogue or the other, whatever the rest.
            list.extend(configs.iter().map(|config| config.kernel(format, i % 2 == 0)));
        }
    }
    list
}
