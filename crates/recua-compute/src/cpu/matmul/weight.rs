//! A weight in the CPU device's layout, and the kernels that its type needs, chosen once.

use super::activations::{RECORD, Record32, Record256};
use super::planes::TILE;
use super::{float, q32, q256};
use crate::buffer::Weight;
use crate::cpu::Isa;
use crate::cpu::formats::*;
use crate::cpu::memory::Memory;
use half::{bf16, f16};
use recua_gguf::GgmlType;

/// The tiles of a weight, one after the other.
pub(crate) struct Packed {
    pub(crate) memory: Memory,
    pub(crate) tile_bytes: usize,
    pub(crate) n_tiles: usize,
    pub(crate) layout: Layout,
    /// What a device counts for it.
    pub(crate) counter: crate::cpu::Allocated,
}

/// What a weight's products read, and with which functions.
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
    pack_tile: fn(&[u8], usize, &mut [u8]),
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

    /// Lays up to 16 raw rows out into a zeroed tile.
    pub(crate) fn pack_tile(&self, rows: &[u8], k: usize, out: &mut [u8]) {
        (self.common().pack_tile)(rows, k, out);
    }
}

/// Records of a row of `k` values.
pub(crate) fn records_per_row(k: usize) -> usize {
    k.div_ceil(RECORD)
}

impl Packed {
    /// The weight's tiles; for weights of ops that the workspace was reserved for, which checks them.
    pub(crate) fn of(weight: &Weight) -> &Packed {
        weight.storage_as().expect("checked when the workspace was reserved")
    }

    /// The bytes of `n` tiles from `first` on.
    pub(crate) fn tiles(&self, first: usize, n: usize) -> &[u8] {
        assert!(first + n <= self.n_tiles, "tile outside the weight");
        // SAFETY: the tiles lie inside the allocation, were written before the weight was handed out, and never change.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(first * self.tile_bytes), n * self.tile_bytes)
        }
    }

    /// Row `row` as numbers.
    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        (self.layout.common().decode_row)(self.tiles(row / TILE, 1), row % TILE, out);
    }
}
