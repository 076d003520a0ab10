//! Products with weights whose blocks are 32 values with a float scale (Q4_0, Q8_0, IQ4_NL, MXFP4 and others).
//!
//! For a group of 32 columns, a weight row gives `d`, codes `q` and, in some formats, a constant `m`; an activation row gives a scale
//! `a` and codes `x`. Exactly, in integers, `dot = Σ (q[k] − offset) · x[k]`; then in f32, group by group:
//! `acc = fma(d·a, dot, acc)`, and with a constant `acc = fma(m, a·sum(x), acc)`. As in [`super::q256`], nothing depends on how
//! many rows share the pass.

use super::activations::{RECORD, RECORDS_BEHIND, Record32};
use super::float::half_to_f32;
use super::planes::{Codes, TILE, VECTOR, get_row, look_up, plane_bytes, put_row, unpack};
use crate::cpu::isa::{Isa, Proof};
use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod simd;

#[cfg(target_arch = "x86_64")]
use super::dot::{Avx512Vnni, AvxVnni, Maddubs};
#[cfg(target_arch = "x86_64")]
use crate::cpu::isa::{HasAmx, HasAvx512};

/// Columns of a group.
const GROUP: usize = 32;

/// The block of one row, unpacked.
pub(crate) struct Block {
    /// Unsigned codes in the order of the columns.
    pub(crate) codes: [u8; GROUP],
    /// Bits of the scale.
    pub(crate) d: u16,
    /// Bits of the constant.
    pub(crate) m: u16,
}

/// A format, as constants.
pub(crate) trait Format: 'static {
    /// Bytes of a GGML block.
    const BLOCK_BYTES: usize;
    /// Bits of the low plane.
    const LOW_BITS: u32;
    /// Bits of the high plane, 0 for none.
    const HIGH_BITS: u32;
    /// What is subtracted from every unpacked code.
    const OFFSET: i16;
    /// The largest unpacked code; above 127 the offset is 128.
    const CODE_MAX: u8;
    /// The unpacked code of each index, if codes are indexes.
    const TABLE: Option<&'static [u8; 16]> = None;
    /// Whether there is a constant.
    const HAS_MIN: bool;
    /// Whether scales are bf16, which has the range of an exponent byte, rather than f16.
    const WIDE_SCALE: bool = false;
    /// Unpacks a GGML block.
    fn split(block: &[u8], out: &mut Block);
}

/// Bytes of the scales (and constants) of a tile, which come first.
const fn header_bytes<F: Format>(n_groups: usize) -> usize {
    (n_groups * TILE * if F::HAS_MIN { 4 } else { 2 }).next_multiple_of(VECTOR)
}

/// Bytes of the planes of 16 rows over `n_groups` groups.
const fn planes_bytes<F: Format>(n_groups: usize) -> usize {
    plane_bytes(F::LOW_BITS, n_groups * 8) + plane_bytes(F::HIGH_BITS, n_groups * 8)
}

/// Bytes of a tile of `k` columns.
pub(crate) fn tile_bytes<F: Format>(k: usize) -> usize {
    header_bytes::<F>(k / GROUP) + planes_bytes::<F>(k / GROUP)
}

/// Packs a tile. `rows` are the raw blocks of up to 16 rows of `k` columns; missing rows become zero. `out` is zeroed.
pub(crate) fn pack_tile<F: Format>(rows: &[&[u8]], k: usize, out: &mut [u8]) {
    let n_groups = k / GROUP;
    let (header, planes) = out.split_at_mut(header_bytes::<F>(n_groups));
    let halves = if F::HAS_MIN { 2 } else { 1 };
    let mut block = Block { codes: [0; GROUP], d: 0, m: 0 };
    let mut codes = [0u8; RECORD];
    // Record by record: what is written of a record of 16 rows stays in the innermost cache.
    for first in (0..n_groups).step_by(RECORD / GROUP) {
        let (_, groups) = record_of(first, n_groups);
        for (row, raw) in rows.iter().enumerate() {
            let raw = &raw[first * F::BLOCK_BYTES..][..groups * F::BLOCK_BYTES];
            for (g, raw) in raw.chunks_exact(F::BLOCK_BYTES).enumerate() {
                F::split(raw, &mut block);
                codes[g * GROUP..][..GROUP].copy_from_slice(&block.codes);
                for (i, bits) in [block.d, block.m].into_iter().take(halves).enumerate() {
                    let at = (((first + g) * halves + i) * TILE + row) * 2;
                    header[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                }
            }
            let planes = &mut planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
            let (low, high) = planes.split_at_mut(plane_bytes(F::LOW_BITS, groups * 8));
            put_row(low, F::LOW_BITS, 0, row, &codes[..groups * GROUP]);
            if F::HIGH_BITS > 0 {
                put_row(high, F::HIGH_BITS, F::LOW_BITS, row, &codes[..groups * GROUP]);
            }
        }
    }
}

/// The first group of the record that holds group `g`, and how many groups that record has (fewer at the end of a row).
fn record_of(g: usize, n_groups: usize) -> (usize, usize) {
    let first = g / 8 * 8;
    (first, (n_groups - first).min(8))
}

#[inline(always)]
fn scale<F: Format>(bits: [u8; 2]) -> f32 {
    if F::WIDE_SCALE { bf16::from_le_bytes(bits).to_f32() } else { half_to_f32(f16::from_le_bytes(bits)) }
}

/// One row of the weight as numbers, which defines what the layout means. Used by `embed`.
pub(crate) fn decode_row<F: Format>(tile: &[u8], row: usize, out: &mut [f32]) {
    let n_groups = out.len() / GROUP;
    let (header, planes) = tile.split_at(header_bytes::<F>(n_groups));
    let halves = if F::HAS_MIN { 2 } else { 1 };
    for (record, out) in out.chunks_mut(RECORD).enumerate() {
        let (first, groups) = record_of(record * RECORD / GROUP, n_groups);
        let planes = &planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
        let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, groups * 8));
        let mut codes = [0u8; RECORD];
        let codes = &mut codes[..groups * GROUP];
        get_row(low, F::LOW_BITS, 0, row, codes);
        if F::HIGH_BITS > 0 {
            get_row(high, F::HIGH_BITS, F::LOW_BITS, row, codes);
        }
        if let Some(table) = F::TABLE {
            look_up(table, codes);
        }
        for (g, (out, codes)) in out.chunks_exact_mut(GROUP).zip(codes.chunks_exact(GROUP)).enumerate() {
            let half = |i: usize| {
                let at = (((first + g) * halves + i) * TILE + row) * 2;
                scale::<F>([header[at], header[at + 1]])
            };
            let d = half(0);
            let m = if F::HAS_MIN { half(1) } else { 0.0 };
            for (out, code) in out.iter_mut().zip(codes) {
                *out = d * f32::from(i16::from(*code) - F::OFFSET);
                if F::HAS_MIN {
                    *out += m;
                }
            }
        }
    }
}

/// Up to 8 groups of a tile, ready for products.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Unpacked {
    pub(crate) codes: Codes,
    pub(crate) d: [[f32; TILE]; 8],
    pub(crate) m: [[f32; TILE]; 8],
}

/// Where a thread unpacks weights.
#[repr(C, align(64))]
pub(crate) struct Scratch {
    unpacked: Unpacked,
    #[cfg(target_arch = "x86_64")]
    amx: amx::Scratch,
}

/// Up to 8 groups of a tile as stored in memory.
#[derive(Clone, Copy)]
struct PackedBlock<'a> {
    groups: usize,
    /// For each group, the scales of 16 rows, then their constants if there are any.
    header: &'a [u8],
    low: &'a [u8],
    high: &'a [u8],
}

/// The groups that are multiplied with record `b`.
#[inline(always)]
fn packed_block<F: Format>(tile: &[u8], n_groups: usize, b: usize) -> PackedBlock<'_> {
    let (first, groups) = record_of(b * 8, n_groups);
    let (header, planes) = tile.split_at(header_bytes::<F>(n_groups));
    let group_bytes = TILE * if F::HAS_MIN { 4 } else { 2 };
    let planes = &planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
    let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, groups * 8));
    PackedBlock { groups, header: &header[first * group_bytes..][..groups * group_bytes], low, high }
}

fn unpack_scalar<F: Format>(block: PackedBlock<'_>, out: &mut Unpacked) {
    let halves = if F::HAS_MIN { 2 } else { 1 };
    for (g, header) in block.header.chunks_exact(halves * TILE * 2).enumerate() {
        for row in 0..TILE {
            let half = |i: usize| scale::<F>([header[2 * i], header[2 * i + 1]]);
            out.d[g][row] = half(row);
            if F::HAS_MIN {
                out.m[g][row] = half(TILE + row);
            }
        }
    }
    unpack(block.low, block.high, F::LOW_BITS, F::HIGH_BITS, block.groups * 8, &mut out.codes);
    if let Some(table) = F::TABLE {
        look_up(table, &mut out.codes.0);
    }
}

/// `acc[r] = ` products of the tile's 16 rows with activation row `r`, over `n_groups` groups. `records` are
/// `[records of a row][acc.len()]`, followed by [`RECORDS_BEHIND`] more whose contents do not matter.
pub(crate) fn tile<F: Format>(
    isa: Isa,
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Scratch,
) {
    debug_assert_eq!(records.len(), acc.len() * n_groups.div_ceil(RECORD / GROUP) + RECORDS_BEHIND);
    let n_rows = acc.len();
    let proof = isa.proof();
    #[cfg(target_arch = "x86_64")]
    if let Proof::Amx(avx512, amx) = proof
        && n_rows >= amx::ROWS_MIN
        && n_groups.is_multiple_of(RECORD / GROUP)
    {
        amx::tile::<F>(avx512, amx, tile, n_groups, records, acc, scratch);
        return;
    }
    let (records, scratch) = (&records[..records.len() - RECORDS_BEHIND], &mut scratch.unpacked);
    match proof {
        #[cfg(target_arch = "x86_64")]
        Proof::Avx512(proof) | Proof::Amx(proof, _) => {
            simd::tile_avx512::<F>(Avx512Vnni(proof), tile, n_groups, records, acc, scratch);
        }
        #[cfg(target_arch = "x86_64")]
        Proof::AvxVnni(avx2, vnni) => {
            simd::tile_avxvnni::<F>(AvxVnni(avx2, vnni), tile, n_groups, records, acc, scratch)
        }
        #[cfg(target_arch = "x86_64")]
        Proof::Avx2(proof) => simd::tile_avx2::<F>(Maddubs(proof), tile, n_groups, records, acc, scratch),
        Proof::Scalar => tile_scalar::<F>(tile, n_groups, records, acc, scratch),
    }
}

fn tile_scalar<F: Format>(
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let block = packed_block::<F>(tile, n_groups, b);
        unpack_scalar::<F>(block, scratch);
        for (record, acc) in records.iter().zip(&mut *acc) {
            dot_scalar::<F>(scratch, block.groups, record, acc);
        }
    }
}

fn dot_scalar<F: Format>(block: &Unpacked, groups: usize, record: &Record32, acc: &mut [f32; TILE]) {
    for row in 0..TILE {
        for g in 0..groups {
            let mut dot = -i32::from(F::OFFSET) * record.sums[g];
            for col in g * GROUP..(g + 1) * GROUP {
                let code = block.codes.at(row, col);
                dot += i32::from(code) * i32::from(record.codes[col]);
            }
            acc[row] = (block.d[g][row] * record.scales[g]).mul_add(dot as f32, acc[row]);
            if F::HAS_MIN {
                acc[row] = block.m[g][row].mul_add(record.scaled_sums[g], acc[row]);
            }
        }
    }
}
