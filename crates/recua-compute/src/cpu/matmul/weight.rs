//! A weight in the CPU device's layout, and the kernels for its types, selected once.

use super::activations::{RECORD, Record32, Record256};
use super::planes::TILE;
use super::{float, q32, q256};
use crate::cpu::Isa;
use crate::cpu::formats::*;
use crate::cpu::memory::Memory;
use crate::cpu::pool::{Pool, Worker};
use crate::error::{Error, Result};
use crate::weight::{Arrange, RawMatrix, RawRows, Weight};
use half::{bf16, f16};
use recua_gguf::GgmlType;
use std::sync::{Mutex, PoisonError};

/// A weight: its segments in order. Gate and up of a GLU are one segment each.
pub(crate) struct Packed {
    pub(crate) segments: Vec<Segment>,
}

/// Rows of one type, as consecutive tiles.
pub(crate) struct Segment {
    pub(crate) memory: Memory,
    pub(crate) tile_bytes: usize,
    pub(crate) n_tiles: usize,
    /// The index of the first row in the weight, and the number of rows.
    pub(crate) first: usize,
    pub(crate) n: usize,
    pub(crate) layout: Layout,
    /// Counts its bytes.
    pub(crate) counter: crate::cpu::Allocated,
}

/// The matrices of a weight, grouped into segments: neighbours of the same type are one segment, unless they are interleaved.
pub(crate) fn segments<'p, 'a>(
    parts: &'p [RawMatrix<'a>],
    arrange: Arrange,
) -> impl Iterator<Item = &'p [RawMatrix<'a>]> {
    parts.chunk_by(move |a, b| a.ty == b.ty && arrange == Arrange::Stacked)
}

/// Packs the tiles of a segment from its rows, on all threads of the pool. The rows are read a few tiles at a time, so that they are
/// packed while they are in the thread's own cache.
pub(crate) fn pack(pool: &mut Pool, segment: &Segment, rows: RawRows<'_, '_>, k: usize) -> Result<()> {
    let (row_bytes, failure) = (rows.row_bytes(), Mutex::new(Ok(())));
    pool.run(&|worker| {
        if let Err(e) = pack_claimed(worker, segment, rows, row_bytes, k) {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Err(e);
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Packs the tiles that this thread claims. After an error, the other threads do the rest, or fail as well.
fn pack_claimed(
    worker: &Worker<'_>,
    segment: &Segment,
    rows: RawRows<'_, '_>,
    row_bytes: usize,
    k: usize,
) -> Result<()> {
    let mut raw = Vec::new();
    while let Some(range) = worker.claim(segment.n_tiles, 4) {
        let first_row = range.start * TILE;
        let n_bytes = (segment.n.min(range.end * TILE) - first_row) * row_bytes;
        raw.try_reserve_exact(n_bytes.saturating_sub(raw.len())).map_err(|_| Error::OutOfMemory {
            device: "cpu".into(),
            what: "rows of a weight".into(),
            requested_bytes: n_bytes,
        })?;
        raw.resize(n_bytes, 0u8);
        rows.read(first_row, &mut raw)?;
        for (tile, raw) in range.zip(raw.chunks(TILE * row_bytes)) {
            // SAFETY: the tile lies inside the allocation and belongs to the thread that claimed it.
            let out = unsafe {
                let start = segment.memory.as_ptr().add(tile * segment.tile_bytes);
                std::slice::from_raw_parts_mut(start, segment.tile_bytes)
            };
            let mut of_tile: [&[u8]; TILE] = [&[]; TILE];
            let n_rows =
                of_tile.iter_mut().zip(raw.chunks_exact(row_bytes)).map(|(of, row)| *of = row).count();
            segment.layout.pack_tile(&of_tile[..n_rows], k, out);
        }
    }
    Ok(())
}

/// How a segment is stored, and the functions of its products.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// Integer scales within 256 columns.
    Q256(Functions256),
    /// Float scales of 32 columns.
    Q32(Functions32),
    /// Plain floats.
    Float(FunctionsFloat),
}

/// See [`q256::tiles`].
type Tiles256 = fn(Isa, &[u8], &[Record256], usize, &mut [[f32; TILE]], &mut q256::Scratch);
/// See [`q32::tile`].
type Tile32 = fn(Isa, &[u8], usize, &[Record32], &mut [[f32; TILE]], &mut q32::Scratch);
/// See [`float::tiles_f32`].
type TilesFloat = fn(Isa, &[u8], &[f32], usize, &mut [[f32; TILE]]);

#[derive(Clone, Copy)]
pub(crate) struct Functions256 {
    pub(crate) tiles: Tiles256,
    common: Common,
}

#[derive(Clone, Copy)]
pub(crate) struct Functions32 {
    pub(crate) tile: Tile32,
    common: Common,
}

#[derive(Clone, Copy)]
pub(crate) struct FunctionsFloat {
    pub(crate) tiles: TilesFloat,
    common: Common,
}

#[derive(Clone, Copy)]
struct Common {
    tile_bytes: fn(usize) -> usize,
    pack_tile: fn(&[&[u8]], usize, &mut [u8]),
    decode_row: fn(&[u8], usize, &mut [f32]),
}

fn layout256<F: q256::Format>() -> Layout {
    let common = Common {
        tile_bytes: q256::tile_bytes::<F>,
        pack_tile: q256::pack_tile::<F>,
        decode_row: q256::decode_row::<F>,
    };
    Layout::Q256(Functions256 { tiles: q256::tiles::<F>, common })
}

fn layout32<F: q32::Format>() -> Layout {
    let common = Common {
        tile_bytes: q32::tile_bytes::<F>,
        pack_tile: q32::pack_tile::<F>,
        decode_row: q32::decode_row::<F>,
    };
    Layout::Q32(Functions32 { tile: q32::tile::<F>, common })
}

fn layout_float<E: float::Element>(tiles: TilesFloat) -> Layout {
    let common = Common {
        tile_bytes: float::tile_bytes::<E>,
        pack_tile: float::pack_tile::<E>,
        decode_row: float::decode_row::<E>,
    };
    Layout::Float(FunctionsFloat { tiles, common })
}

impl Layout {
    /// The layout of a type; `None` if there are no kernels for it.
    pub(crate) fn of(ty: GgmlType) -> Option<Layout> {
        Some(match ty {
            GgmlType::F32 => layout_float::<f32>(float::tiles_f32),
            GgmlType::F16 => layout_float::<f16>(float::tiles_f16),
            GgmlType::BF16 => layout_float::<bf16>(float::tiles_bf16),
            GgmlType::Q4_0 => layout32::<Q4_0>(),
            GgmlType::Q4_1 => layout32::<Q4_1>(),
            GgmlType::Q5_0 => layout32::<Q5_0>(),
            GgmlType::Q5_1 => layout32::<Q5_1>(),
            GgmlType::Q8_0 => layout32::<Q8_0>(),
            GgmlType::IQ4_NL => layout32::<Iq4Nl>(),
            GgmlType::MXFP4 => layout32::<Mxfp4>(),
            GgmlType::Q2_K => layout256::<Q2K>(),
            GgmlType::Q3_K => layout256::<Q3K>(),
            GgmlType::Q4_K => layout256::<Q4K>(),
            GgmlType::Q5_K => layout256::<Q5K>(),
            GgmlType::Q6_K => layout256::<Q6K>(),
            GgmlType::IQ4_XS => layout256::<Iq4Xs>(),
            _ => return None,
        })
    }

    fn common(&self) -> &Common {
        match self {
            Layout::Q256(f) => &f.common,
            Layout::Q32(f) => &f.common,
            Layout::Float(f) => &f.common,
        }
    }

    /// Bytes of a tile of `k` columns.
    pub(crate) fn tile_bytes(&self, k: usize) -> usize {
        (self.common().tile_bytes)(k)
    }

    /// Packs up to 16 raw rows into a zeroed tile.
    pub(crate) fn pack_tile(&self, rows: &[&[u8]], k: usize, out: &mut [u8]) {
        (self.common().pack_tile)(rows, k, out);
    }
}

/// Records of a row of `k` values.
pub(crate) fn records_per_row(k: usize) -> usize {
    k.div_ceil(RECORD)
}

impl Packed {
    /// The tiles of an op's weight. Reserving the workspace has checked that it is of this device.
    pub(crate) fn of(weight: &Weight) -> &Packed {
        weight.storage_as().expect("checked when the workspace was reserved")
    }

    /// Row `row` as numbers.
    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let segment = self.segments.iter().find(|segment| row < segment.first + segment.n);
        segment.expect("an index below the number of rows").decode_row(row, out);
    }
}

impl Segment {
    /// The bytes of `n` tiles from `first` on.
    pub(crate) fn tiles(&self, first: usize, n: usize) -> &[u8] {
        assert!(first + n <= self.n_tiles, "tile outside the weight");
        // SAFETY: the tiles lie inside the allocation, were written before the weight was handed out, and never change.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(first * self.tile_bytes), n * self.tile_bytes)
        }
    }

    /// Row `row` of the weight as numbers.
    fn decode_row(&self, row: usize, out: &mut [f32]) {
        let row = row - self.first;
        (self.layout.common().decode_row)(self.tiles(row / TILE, 1), row % TILE, out);
    }
}
