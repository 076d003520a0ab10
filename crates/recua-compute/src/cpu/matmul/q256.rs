//! Products with weights whose blocks are 256 values with integer scales inside (the K-quants and IQ4_XS).
//!
//! For a block of 256 columns, a weight row gives `d`, integer scales `s[g]` of groups of 16 or 32 columns, codes `q`, and, in some
//! formats, `dmin` and integer minima `m[g]`; an activation row gives a scale `a`, codes `x` and their sums. Exactly, in integers:
//!
//! ```text
//! dot  = Σ_g s[g] · Σ_{k in g} (q[k] − offset) · x[k]
//!      = Σ_g s[g] · Σ_{k in g} q[k] · x[k]  −  Σ_g offset · s[g] · sum(x in g)
//! mins = Σ_g m[g] · sum(x in g)
//! ```
//!
//! then in f32, block by block: `acc = fma(d·a, dot, acc)`, `acc = fma(−(dmin·a), mins, acc)`. This is the whole definition. The number of
//! rows that share the pass is not part of it, so no bit depends on that number.
//!
//! For few rows of activations, codes are unpacked into registers and multiplied there; for many, a block is unpacked once into bytes (4 KB,
//! which stay in the L1 cache). Scales and minima are stored for pairs of groups, because the sums `Σ s[g] · sum(x in g)` and
//! `Σ m[g] · sum(x in g)` are products of 16-bit pairs, for which the wider sets have an instruction.

use super::activations::{RECORDS_BEHIND, Record256};
use super::float::half_to_f32;
use super::planes::{Codes, TILE, VECTOR, VECTORS_MAX, get_row, look_up, plane_bytes, put_row, unpack};
use crate::cpu::isa::{Isa, Proof};
use half::f16;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod simd;

#[cfg(target_arch = "x86_64")]
use super::dot::{Avx512Vnni, Maddubs};
#[cfg(target_arch = "x86_64")]
use crate::cpu::isa::{HasAmx, HasAvx512};

/// The block of one row, unpacked.
pub(crate) struct Block {
    /// Unsigned codes in the order of the columns.
    pub(crate) codes: [u8; 256],
    /// The stored scales of the groups; see [`Scales`].
    pub(crate) scales: [u8; 16],
    /// Minima of the groups.
    pub(crate) mins: [u8; 16],
    /// f16 bits.
    pub(crate) d: u16,
    /// f16 bits.
    pub(crate) dmin: u16,
}

/// How the integer scales of 16 rows are stored: always `[pair of groups][row][2]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// 256 numbers of 6 bits in 192 bytes: scales, then minima if there is room.
    SixBits,
    /// One signed byte each.
    Bytes,
    /// The scale in the low four bits, the minimum in the high four.
    Nibbles,
}

/// A format, as constants.
pub(crate) trait Format: 'static {
    /// Bytes of a GGML block.
    const BLOCK_BYTES: usize;
    /// Bits of the low plane.
    const LOW_BITS: u32;
    /// Bits of the high plane, 0 for none.
    const HIGH_BITS: u32;
    /// Columns that share an integer scale.
    const GROUP: usize;
    /// What is subtracted from every unpacked code.
    const OFFSET: i16;
    /// The largest unpacked code.
    const CODE_MAX: u8;
    /// The unpacked code of each index, if codes are indexes.
    const TABLE: Option<&'static [u8; 16]> = None;
    /// How scales are stored.
    const SCALES: Scales;
    /// Added to every stored scale.
    const SCALE_OFFSET: i16 = 0;
    /// Whether there are minima.
    const HAS_MIN: bool;
    /// Unpacks a GGML block.
    fn split(block: &[u8], out: &mut Block);
}

const fn n_groups<F: Format>() -> usize {
    256 / F::GROUP
}

const fn scale_bytes<F: Format>() -> usize {
    match F::SCALES {
        Scales::SixBits => 192,
        Scales::Bytes | Scales::Nibbles => n_groups::<F>() * TILE,
    }
}

/// Bytes of the scales and planes of 16 rows and 256 columns.
const fn block_bytes<F: Format>() -> usize {
    scale_bytes::<F>() + plane_bytes(F::LOW_BITS, VECTORS_MAX) + plane_bytes(F::HIGH_BITS, VECTORS_MAX)
}

/// Bytes of `d` (and `dmin`) of all blocks of a tile, which come first.
const fn header_bytes<F: Format>(n_blocks: usize) -> usize {
    (n_blocks * TILE * if F::HAS_MIN { 4 } else { 2 }).next_multiple_of(VECTOR)
}

/// Bytes of a tile of `k` columns.
pub(crate) fn tile_bytes<F: Format>(k: usize) -> usize {
    header_bytes::<F>(k / 256) + k / 256 * block_bytes::<F>()
}

/// Packs a tile. `rows` are the raw blocks of up to 16 rows of `k` columns; missing rows become zero. `out` is zeroed.
pub(crate) fn pack_tile<F: Format>(rows: &[&[u8]], k: usize, out: &mut [u8]) {
    let n_blocks = k / 256;
    let (header, blocks) = out.split_at_mut(header_bytes::<F>(n_blocks));
    let mut block = Block { codes: [0; 256], scales: [0; 16], mins: [0; 16], d: 0, dmin: 0 };
    let low_len = plane_bytes(F::LOW_BITS, VECTORS_MAX);
    // Block by block: what is written of a block of 16 rows stays in the innermost cache.
    for b in 0..n_blocks {
        for (row, raw) in rows.iter().enumerate() {
            F::split(&raw[b * F::BLOCK_BYTES..][..F::BLOCK_BYTES], &mut block);
            let mut put_half = |plane: usize, bits: u16| {
                let at = ((b * if F::HAS_MIN { 2 } else { 1 } + plane) * TILE + row) * 2;
                header[at..at + 2].copy_from_slice(&bits.to_le_bytes());
            };
            put_half(0, block.d);
            if F::HAS_MIN {
                put_half(1, block.dmin);
            }
            let out = &mut blocks[b * block_bytes::<F>()..][..block_bytes::<F>()];
            let (scales, planes) = out.split_at_mut(scale_bytes::<F>());
            put_scales::<F>(&block, row, scales);
            let (low, high) = planes.split_at_mut(low_len);
            put_row(low, F::LOW_BITS, 0, row, &block.codes);
            if F::HIGH_BITS > 0 {
                put_row(high, F::HIGH_BITS, F::LOW_BITS, row, &block.codes);
            }
        }
    }
}

/// The index of group `g` and row `row` among scales or minima.
#[inline(always)]
fn place(g: usize, row: usize) -> usize {
    g / 2 * 2 * TILE + 2 * row + g % 2
}

fn put_scales<F: Format>(block: &Block, row: usize, out: &mut [u8]) {
    for g in 0..n_groups::<F>() {
        let (scale, min) = (block.scales[g], block.mins[g]);
        let at = place(g, row);
        match F::SCALES {
            Scales::Bytes => out[at] = scale,
            Scales::Nibbles => out[at] = scale | min << 4,
            Scales::SixBits => {
                put_six(out, at, scale);
                if F::HAS_MIN {
                    put_six(out, n_groups::<F>() * TILE + at, min);
                }
            }
        }
    }
}

/// Number `i` of 256: each of the first 192 is the low six bits of a byte; each of the last 64 is spread over the high two bits of three
/// bytes.
fn put_six(out: &mut [u8], i: usize, value: u8) {
    if i < 192 {
        out[i] |= value & 63;
    } else {
        for part in 0..3 {
            out[part * 64 + i - 192] |= (value >> (2 * part) & 3) << 6;
        }
    }
}

fn get_six(packed: &[u8], i: usize) -> u8 {
    if i < 192 {
        packed[i] & 63
    } else {
        (0..3).fold(0, |value, part| value | packed[part * 64 + i - 192] >> 6 << (2 * part))
    }
}

/// A tile's block as stored in memory.
#[derive(Clone, Copy)]
struct PackedBlock<'a> {
    /// The `d` of 16 rows as f16, then their `dmin` if there is one.
    header: &'a [u8],
    scales: &'a [u8],
    low: &'a [u8],
    high: &'a [u8],
}

impl PackedBlock<'_> {
    /// A float of the header.
    fn half(&self, i: usize) -> f32 {
        half_to_f32(f16::from_le_bytes([self.header[2 * i], self.header[2 * i + 1]]))
    }
}

#[inline(always)]
fn packed_block<F: Format>(tile: &[u8], n_blocks: usize, b: usize) -> PackedBlock<'_> {
    let (header, blocks) = tile.split_at(header_bytes::<F>(n_blocks));
    let header_len = TILE * if F::HAS_MIN { 4 } else { 2 };
    let block = &blocks[b * block_bytes::<F>()..][..block_bytes::<F>()];
    let (scales, planes) = block.split_at(scale_bytes::<F>());
    let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, VECTORS_MAX));
    PackedBlock { header: &header[b * header_len..][..header_len], scales, low, high }
}

/// A tile's block, ready for products.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Unpacked {
    codes: Codes,
    /// Scales of each pair of groups and each row.
    scales: [[i16; 2 * TILE]; 8],
    /// The minima, likewise.
    mins: [[i16; 2 * TILE]; 8],
    d: [f32; TILE],
    dmin: [f32; TILE],
}

impl Unpacked {
    fn scale(&self, g: usize, row: usize) -> i32 {
        self.scales[g / 2][2 * row + g % 2].into()
    }

    fn min(&self, g: usize, row: usize) -> i32 {
        self.mins[g / 2][2 * row + g % 2].into()
    }
}

/// Where a thread unpacks weights.
#[repr(C, align(64))]
pub(crate) struct Scratch {
    /// Two tiles side by side: of the current block and of the one before.
    tiles: [[Unpacked; 2]; 2],
    #[cfg(target_arch = "x86_64")]
    amx: amx::Scratch,
}

/// The scale and the minimum at an index; defines how they are stored.
#[inline(always)]
fn scale_and_min<F: Format>(packed: &[u8], at: usize) -> (i16, i16) {
    let (scale, min) = match F::SCALES {
        Scales::SixBits if F::HAS_MIN => {
            (get_six(packed, at).into(), get_six(packed, n_groups::<F>() * TILE + at))
        }
        Scales::SixBits => (get_six(packed, at).into(), 0),
        Scales::Bytes => (i16::from(packed[at] as i8), 0),
        Scales::Nibbles => ((packed[at] & 15).into(), packed[at] >> 4),
    };
    (scale + F::SCALE_OFFSET, min.into())
}

fn unpack_scalar<F: Format>(block: PackedBlock<'_>, out: &mut Unpacked) {
    for row in 0..TILE {
        out.d[row] = block.half(row);
        if F::HAS_MIN {
            out.dmin[row] = block.half(TILE + row);
        }
    }
    let (scales, mins) = (out.scales.as_flattened_mut(), out.mins.as_flattened_mut());
    for at in 0..n_groups::<F>() * TILE {
        (scales[at], mins[at]) = scale_and_min::<F>(block.scales, at);
    }
    unpack(block.low, block.high, F::LOW_BITS, F::HIGH_BITS, VECTORS_MAX, &mut out.codes);
    if let Some(table) = F::TABLE {
        look_up(table, &mut out.codes.0);
    }
}

/// One row of the weight as numbers, which defines what the layout means. Used by `embed`.
pub(crate) fn decode_row<F: Format>(tile: &[u8], row: usize, out: &mut [f32]) {
    let n_blocks = out.len() / 256;
    for (b, out) in out.chunks_exact_mut(256).enumerate() {
        let block = packed_block::<F>(tile, n_blocks, b);
        let mut codes = [0u8; 256];
        get_row(block.low, F::LOW_BITS, 0, row, &mut codes);
        if F::HIGH_BITS > 0 {
            get_row(block.high, F::HIGH_BITS, F::LOW_BITS, row, &mut codes);
        }
        if let Some(table) = F::TABLE {
            look_up(table, &mut codes);
        }
        let d = block.half(row);
        let dmin = if F::HAS_MIN { block.half(TILE + row) } else { 0.0 };
        for (g, (out, codes)) in out.chunks_exact_mut(F::GROUP).zip(codes.chunks_exact(F::GROUP)).enumerate()
        {
            let (scale, min) = scale_and_min::<F>(block.scales, place(g, row));
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            for (out, code) in out.iter_mut().zip(codes) {
                *out = scale * f32::from(i16::from(*code) - F::OFFSET);
                if F::HAS_MIN {
                    *out -= min;
                }
            }
        }
    }
}

/// `acc[t][r] = ` products of tile `t`'s 16 rows with activation row `r`, over all blocks. `records` are `[n_blocks][rows]`, followed by
/// [`RECORDS_BEHIND`](super::activations::RECORDS_BEHIND) more whose contents do not matter.
pub(crate) fn tiles<F: Format>(
    isa: Isa,
    tiles: &[u8],
    records: &[Record256],
    rows: usize,
    acc: &mut [[f32; TILE]],
    scratch: &mut Scratch,
) {
    let n_blocks = (records.len() - RECORDS_BEHIND) / rows;
    let tile_bytes = tile_bytes::<F>(n_blocks * 256);
    let two = 2 * tile_bytes;
    let proof = isa.proof();
    let of_rows = &records[..n_blocks * rows];
    for (tiles, acc) in tiles.chunks(two).zip(acc.chunks_mut(2 * rows)) {
        match proof {
            #[cfg(target_arch = "x86_64")]
            Proof::Amx(avx512, amx) if tiles.len() == two && rows >= amx::rows_min::<F>() => {
                amx::two_tiles::<F>(avx512, amx, tiles, records, rows, acc, scratch);
                continue;
            }
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512(proof) | Proof::Amx(proof, _)
                if tiles.len() == two && rows > simd::DIRECT_ROWS_MAX[1] =>
            {
                simd::two_tiles_avx512::<F>(Avx512Vnni(proof), tiles, of_rows, acc, &mut scratch.tiles[0]);
                continue;
            }
            _ => {}
        }
        let scratch = &mut scratch.tiles[0][0];
        for (tile, acc) in tiles.chunks_exact(tile_bytes).zip(acc.chunks_exact_mut(rows)) {
            match proof {
                #[cfg(target_arch = "x86_64")]
                Proof::Avx512(proof) | Proof::Amx(proof, _) => {
                    simd::tile_avx512::<F>(Avx512Vnni(proof), tile, of_rows, acc, scratch);
                }
                #[cfg(target_arch = "x86_64")]
                // AVX-VNNI would not help: multiplying its 32-bit sums by the scale is slower.
                Proof::Avx2(proof) | Proof::AvxVnni(proof, _) => {
                    simd::tile_avx2::<F>(Maddubs(proof), tile, of_rows, acc, scratch);
                }
                Proof::Scalar => tile_scalar::<F>(tile, of_rows, acc, scratch),
            }
        }
    }
}

fn tile_scalar<F: Format>(
    tile: &[u8],
    records: &[Record256],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    let n_blocks = records.len() / acc.len();
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        unpack_scalar::<F>(packed_block::<F>(tile, n_blocks, b), scratch);
        for (record, acc) in records.iter().zip(&mut *acc) {
            dot_scalar::<F>(scratch, record, acc);
        }
    }
}

/// The sums of groups `2p` and `2p + 1` as a 16-bit pair, in one load: the compiler would combine two in scalar registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sums<F: Format>(record: &Record256, p: usize) -> i32 {
    let sums: &[i16] = if F::GROUP == 16 { &record.sums16 } else { &record.sums32 };
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&sums[2 * p..2 * p + 2]))
}

fn dot_scalar<F: Format>(block: &Unpacked, record: &Record256, acc: &mut [f32; TILE]) {
    for row in 0..TILE {
        let (mut dot, mut mins) = (0i32, 0i32);
        for g in 0..n_groups::<F>() {
            let columns = g * F::GROUP..(g + 1) * F::GROUP;
            let product = |col: usize| i32::from(block.codes.at(row, col)) * i32::from(record.codes[col]);
            let x = i32::from(if F::GROUP == 16 { record.sums16[g] } else { record.sums32[g] });
            let sum = columns.map(product).sum::<i32>() - i32::from(F::OFFSET) * x;
            dot += block.scale(g, row) * sum;
            mins += block.min(g, row) * x;
        }
        acc[row] = (block.d[row] * record.scale).mul_add(dot as f32, acc[row]);
        if F::HAS_MIN {
            acc[row] = (-(block.dmin[row] * record.scale)).mul_add(mins as f32, acc[row]);
        }
    }
}
