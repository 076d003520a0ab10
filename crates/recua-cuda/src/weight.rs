//! A weight in this device's layout: tiles of 16 rows and 256 columns, which a kernel makes on the card from the blocks as they come
//! (`kernels/tile.cuh`). Weights of f32 stay as they are.
//!
//! Matrices of one format that follow each other are one *segment*: their rows lie one after the other, whatever their number. A gate and
//! an up matrix of one format are a segment, too, whose tiles have 8 rows of each: a lane of the tensor core then has what a GLU needs of
//! both. Of two formats, they are a segment each.

use crate::bundle;
use crate::kernels::KernelKey;
use crate::launch::Recorder;
use crate::memory::{Memory, u32_of};
use crate::shared::Shared;
use bytemuck::{Pod, Zeroable};
use recua_compute::{Arrange, Error, GgmlType, RawMatrix, RawRows, Result, Weight, fill_shares};
use std::sync::Arc;

/// Rows of a tile, and columns.
pub(crate) const TILE_ROWS: usize = 16;
pub(crate) const TILE_COLUMNS: usize = 256;

/// Rows of gate, and of up, in a tile of both.
const GLU_ROWS: usize = TILE_ROWS / 2;

/// Raw bytes that are laid out at once.
const STAGE_BYTES: usize = 64 << 20;

/// A format that tiles are made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Format {
    ty: GgmlType,
    /// Its include, without the ending.
    pub(crate) file: &'static str,
    /// Bytes of a tile: its planes and its header.
    pub(crate) tile_bytes: usize,
}

macro_rules! formats {
    ($($ty:ident $file:literal $tile_bytes:expr;)*) => {
        &[$(Format { ty: GgmlType::$ty, file: $file, tile_bytes: $tile_bytes },)*]
    };
}

/// Bytes of the planes of a tile for each bit of a code, and of the headers.
const BIT: usize = TILE_ROWS * TILE_COLUMNS / 8;
const HEADER_32: usize = 256;
const HEADER_32M: usize = 512;
const HEADER_K: usize = 256;
const HEADER_6: usize = 288;
const HEADER_2: usize = 320;

/// The formats there are, beside f32.
pub(crate) const FORMATS: &[Format] = formats! {
    F16 "f16" 16 * BIT;
    BF16 "bf16" 16 * BIT;
    Q8_0 "q8_0" 8 * BIT + HEADER_32;
    Q4_0 "q4_0" 4 * BIT + HEADER_32;
    Q4_1 "q4_1" 4 * BIT + HEADER_32M;
    Q5_0 "q5_0" 5 * BIT + HEADER_32;
    Q5_1 "q5_1" 5 * BIT + HEADER_32M;
    IQ4_NL "iq4_nl" 4 * BIT + HEADER_32;
    MXFP4 "mxfp4" 4 * BIT + HEADER_32;
    Q4_K "q4_k" 4 * BIT + HEADER_K;
    Q5_K "q5_k" 5 * BIT + HEADER_K;
    Q6_K "q6_k" 6 * BIT + HEADER_6;
    IQ4_XS "iq4_xs" 4 * BIT + HEADER_6;
    Q3_K "q3_k" 3 * BIT + HEADER_6;
    Q2_K "q2_k" 2 * BIT + HEADER_2;
};

impl Format {
    /// Names its include in a kernel that has one.
    pub(crate) fn define(&self, kernel: KernelKey) -> KernelKey {
        kernel.define("FORMAT_FILE", format!("\"{}.cuh\"", self.file))
    }
}

/// A weight on the device.
pub(crate) struct Packed {
    /// Of a GLU one, whose tiles have gate and up, or one of each.
    pub(crate) segments: Vec<Segment>,
}

/// Rows of one format.
pub(crate) struct Segment {
    pub(crate) memory: Memory,
    /// `None` for f32.
    pub(crate) format: Option<&'static Format>,
    /// What a product is multiplied with, after the bits of the largest value there can be.
    scales: Option<Memory>,
    /// The first output of the weight, and how many: rows, or in a GLU pairs of them.
    pub(crate) first: usize,
    pub(crate) n: usize,
    /// Tiles in the direction of the rows, and of K.
    pub(crate) n_tiles: usize,
    pub(crate) k_tiles: usize,
    /// Whether its tiles have gate and up.
    pub(crate) is_glu: bool,
}

impl Segment {
    /// Where the factor is that takes the weight's power of two back.
    pub(crate) fn undo(&self) -> u64 {
        self.scales.as_ref().map_or(0, |scales| scales.pointer() + 4)
    }
}

impl Packed {
    /// The layout of a weight; for weights of this device, which the plan has checked.
    pub(crate) fn of(weight: &Weight) -> Result<&Packed> {
        weight.storage_as().ok_or(Error::WrongDevice { op: "cuda", what: "a weight" })
    }
}

/// The parameters of `layout`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LayoutArgs {
    raw: u64,
    tiles: u64,
    largest: u64,
    row_bytes: u64,
    n_rows: u32,
    n_columns: u32,
    n_tiles: u32,
    k_tiles: u32,
}

/// The parameters of `settle`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SettleArgs {
    tiles: u64,
    largest: u64,
    undo: u64,
    n_tiles: u64,
}

fn layout_kernel(format: &Format) -> KernelKey {
    format.define(KernelKey::new("layout"))
}

/// The kernels there are.
pub(crate) fn kernels() -> Vec<KernelKey> {
    FORMATS.iter().flat_map(|format| [layout_kernel(format), layout_kernel(format).entry("settle")]).collect()
}

/// Re-lays matrices out, once.
pub(crate) fn upload(shared: &Shared, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
    let same_type = parts.windows(2).all(|pair| pair[0].ty == pair[1].ty);
    let is_glu = arrange == Arrange::Interleaved && same_type && parts[0].ty != GgmlType::F32;
    let (mut segments, mut first, mut n_bytes) = (Vec::new(), 0, 0);
    for parts in parts.chunk_by(|a, b| is_glu || arrange == Arrange::Stacked && a.ty == b.ty) {
        let segment = upload_segment(shared, parts, is_glu, first)?;
        n_bytes += segment.memory.n_bytes();
        first += if arrange == Arrange::Stacked { segment.n } else { 0 };
        segments.push(segment);
    }
    Ok(Weight::from_storage(Arc::new(Packed { segments }), shared.gpu.id, parts, arrange, n_bytes))
}

fn upload_segment(shared: &Shared, parts: &[RawMatrix<'_>], is_glu: bool, first: usize) -> Result<Segment> {
    const OP: &str = "upload_weight";
    let gpu = &shared.gpu;
    let (ty, k) = (parts[0].ty, parts[0].columns.len());
    let (rows, tile_outputs) = match is_glu {
        true => (RawRows::interleaved(parts, GLU_ROWS), GLU_ROWS),
        false => (RawRows::stacked(parts), TILE_ROWS),
    };
    let (n, row_bytes) = (rows.n_outputs(), rows.row_bytes());
    let (k_tiles, n_tiles) = (k.div_ceil(TILE_COLUMNS), n.div_ceil(tile_outputs));
    let too_large = || gpu.out_of_memory("a weight", usize::MAX);
    if ty == GgmlType::F32 {
        let n_bytes = n.checked_mul(row_bytes).ok_or_else(too_large)?;
        let memory = Memory::unfilled(gpu, n_bytes, "a weight")?;
        stage(rows, n, |at, bytes| shared.upload(&memory, at * row_bytes, bytes))?;
        return Ok(Segment { memory, format: None, scales: None, first, n, n_tiles, k_tiles, is_glu });
    }
    let unsupported = || Error::UnsupportedType { device: gpu.info.name.clone(), ty };
    let format = FORMATS.iter().find(|format| format.ty == ty).ok_or_else(unsupported)?;
    let n_all = n_tiles.checked_mul(k_tiles).ok_or_else(too_large)?;
    let n_bytes = n_all.checked_mul(format.tile_bytes).ok_or_else(too_large)?;
    let memory = Memory::unfilled(gpu, n_bytes, "a weight")?;
    let scales = Memory::new(gpu, 8, "the scale of a weight")?;
    let (kernel, n_rows) = (layout_kernel(format), n_tiles * TILE_ROWS);
    let stage_bytes = STAGE_BYTES.max(TILE_ROWS * row_bytes).min(n_rows * row_bytes);
    let raw = Memory::unfilled(gpu, stage_bytes, "staging of a weight")?;
    let launch = |at: usize, bytes: &[u8]| {
        shared.upload(&raw, 0, bytes)?;
        let here = bytes.len() / row_bytes;
        let tile = at / TILE_ROWS;
        let args = LayoutArgs {
            raw: raw.pointer(),
            tiles: memory.pointer() + (tile * k_tiles * format.tile_bytes) as u64,
            largest: scales.pointer(),
            row_bytes: row_bytes as u64,
            n_rows: u32_of(OP, "a number of rows", here)?,
            n_columns: u32_of(OP, "a number of columns", k)?,
            n_tiles: here.div_ceil(TILE_ROWS) as u32,
            k_tiles: k_tiles as u32,
        };
        let mut recorder = Recorder::new(shared);
        recorder.begin(OP);
        let blocks = u32_of(OP, "a number of tiles", here.div_ceil(TILE_ROWS) * k_tiles)?.div_ceil(4);
        recorder.launch(&kernel, [blocks, 1, 1], 128, 0, false, &args)?;
        bundle::run(shared, recorder.finish())
    };
    stage(rows, n_rows, launch)?;
    let args = SettleArgs {
        tiles: memory.pointer(),
        largest: scales.pointer(),
        undo: scales.pointer() + 4,
        n_tiles: n_all as u64,
    };
    let mut recorder = Recorder::new(shared);
    recorder.begin(OP);
    let blocks = n_all.min(gpu.n_sms as usize * 16) as u32;
    recorder.launch(&kernel.entry("settle"), [blocks, 1, 1], 256, 0, false, &args)?;
    bundle::run(shared, recorder.finish())?;
    Ok(Segment { memory, format: Some(format), scales: Some(scales), first, n, n_tiles, k_tiles, is_glu })
}

/// Reads rows, a stage of whole tiles at a time, and hands each stage on with its first row.
fn stage(
    rows: RawRows<'_, '_>,
    n_rows: usize,
    mut send: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let row_bytes = rows.row_bytes();
    let stage_rows =
        (STAGE_BYTES / row_bytes / TILE_ROWS * TILE_ROWS).clamp(TILE_ROWS, n_rows.max(TILE_ROWS));
    let n_bytes = stage_rows.min(n_rows) * row_bytes;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n_bytes).map_err(|_| Error::OutOfMemory {
        device: "host".into(),
        what: "staging".into(),
        requested_bytes: n_bytes,
    })?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    for first in (0..n_rows).step_by(stage_rows) {
        let here = stage_rows.min(n_rows - first);
        bytes.resize(here * row_bytes, 0u8);
        fill_shares(&mut bytes, row_bytes, cores, |row, out| rows.read(first + row, out))?;
        send(first, &bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decodable_type_has_tiles() {
        for ty in GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable() && *ty != GgmlType::F32) {
            let format = FORMATS.iter().find(|format| format.ty == ty);
            let format = format.unwrap_or_else(|| panic!("{ty} has no format"));
            assert!(format.tile_bytes.is_multiple_of(16), "{ty}: copies are of whole vectors");
        }
    }
}
