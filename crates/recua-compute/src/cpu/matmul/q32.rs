//! Products with weights whose blocks are 32 values with a float scale (Q4_0, Q8_0, IQ4_NL, MXFP4 and their like).
//!
//! For a group of 32 columns, a weight row gives `d`, codes `q` and, in some formats, a constant `m`; an activation row gives a scale
//! `a` and codes `x`. Exactly, in integers, `dot = Σ (q[k] − offset) · x[k]`; then in f32, group after group:
//! `acc = fma(d·a, dot, acc)`, and with a constant `acc = fma(m, a·sum(x), acc)`. As in [`super::q256`], nothing in it knows how many
//! rows share the pass.

use super::activations::{RECORD, Record32};
use super::float::half_to_f32;
use super::planes::{Codes, TILE, VECTOR, VECTORS_MAX, get, look_up, plane_bytes, prefetch, put_row, unpack};
use crate::cpu::Isa;
use half::{bf16, f16};

/// Columns of a group.
const GROUP: usize = 32;

/// One row's block, taken apart.
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
    /// What is taken from every unpacked code.
    const OFFSET: i16;
    /// The largest unpacked code; above 127 the offset is 128.
    const CODE_MAX: u8;
    /// What an index stands for, as an unpacked code.
    const TABLE: Option<&'static [u8; 16]> = None;
    /// Whether there is a constant.
    const HAS_MIN: bool;
    /// Whether scales are bf16 (the range of an exponent byte) and not f16.
    const WIDE_SCALE: bool = false;
    /// Takes a GGML block apart.
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

/// Lays 16 rows out. `rows` are the raw blocks of up to 16 rows of `k` columns; the missing ones become zero. `out` is zeroed.
pub(crate) fn pack_tile<F: Format>(rows: &[u8], k: usize, out: &mut [u8]) {
    let n_groups = k / GROUP;
    let (header, planes) = out.split_at_mut(header_bytes::<F>(n_groups));
    let halves = if F::HAS_MIN { 2 } else { 1 };
    let mut block = Block { codes: [0; GROUP], d: 0, m: 0 };
    let mut codes = [0u8; RECORD];
    for (row, raw) in rows.chunks_exact(n_groups * F::BLOCK_BYTES).enumerate() {
        for (record, raw) in raw.chunks(RECORD / GROUP * F::BLOCK_BYTES).enumerate() {
            let (first, groups) = record_of(record * RECORD / GROUP, n_groups);
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

/// One row of the weight as numbers: the definition of what the layout means, used by `embed`.
pub(crate) fn decode_row<F: Format>(tile: &[u8], row: usize, out: &mut [f32]) {
    let n_groups = out.len() / GROUP;
    let (header, planes) = tile.split_at(header_bytes::<F>(n_groups));
    for (g, out) in out.chunks_exact_mut(GROUP).enumerate() {
        let halves = if F::HAS_MIN { 2 } else { 1 };
        let half = |i: usize| {
            let at = ((g * halves + i) * TILE + row) * 2;
            scale::<F>([header[at], header[at + 1]])
        };
        let (first, groups) = record_of(g, n_groups);
        let planes = &planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
        let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, groups * 8));
        for (i, out) in out.iter_mut().enumerate() {
            let col = (g - first) * GROUP + i;
            let mut code = get(low, F::LOW_BITS, groups * 8, row, col);
            if F::HIGH_BITS > 0 {
                code |= get(high, F::HIGH_BITS, groups * 8, row, col) << F::LOW_BITS;
            }
            if let Some(table) = F::TABLE {
                code = table[usize::from(code)];
            }
            *out = half(0) * f32::from(i16::from(code) - F::OFFSET);
            if F::HAS_MIN {
                *out += half(1);
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

/// Unpacks the groups `[first, first + groups)`. With `SIGNED`, codes above 127 become signed bytes (their offset is 128, so it is
/// gone).
#[inline(always)]
fn unpack_groups<F: Format, const SIGNED: bool>(
    tile: &[u8],
    n_groups: usize,
    first: usize,
    groups: usize,
    out: &mut Unpacked,
) {
    let (header, planes) = tile.split_at(header_bytes::<F>(n_groups));
    let halves = if F::HAS_MIN { 2 } else { 1 };
    let header = &header[first * halves * TILE * 2..][..groups * halves * TILE * 2];
    for (g, header) in header.chunks_exact(halves * TILE * 2).enumerate() {
        for row in 0..TILE {
            let half = |i: usize| scale::<F>([header[2 * i], header[2 * i + 1]]);
            out.d[g][row] = half(row);
            if F::HAS_MIN {
                out.m[g][row] = half(TILE + row);
            }
        }
    }
    let planes = &planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
    prefetch(header);
    prefetch(planes);
    let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, groups * 8));
    if groups == 8 {
        // Said again with a constant, for the compiler.
        unpack(low, high, F::LOW_BITS, F::HIGH_BITS, VECTORS_MAX, &mut out.codes);
    } else {
        unpack(low, high, F::LOW_BITS, F::HIGH_BITS, groups * 8, &mut out.codes);
    }
    if let Some(table) = F::TABLE {
        look_up(table, &mut out.codes.0);
    }
    if SIGNED {
        for code in &mut out.codes.0 {
            *code ^= 0x80;
        }
    }
}

/// `acc[r] = ` products of the tile's 16 rows with activation row `r`, over `n_groups` groups. `records` are
/// `[records of a row][acc.len()]`.
pub(crate) fn tile<F: Format>(
    isa: Isa,
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    debug_assert_eq!(records.len(), acc.len() * n_groups.div_ceil(RECORD / GROUP));
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the device only holds an instruction set after `Isa::is_available`.
        Isa::Avx512 | Isa::Amx => unsafe { simd::tile_avx512::<F>(tile, n_groups, records, acc, scratch) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe {
            if F::CODE_MAX > 127 {
                simd::tile_avx2::<F, true>(tile, n_groups, records, acc, scratch);
            } else {
                simd::tile_avx2::<F, false>(tile, n_groups, records, acc, scratch);
            }
        },
        _ => tile_scalar::<F>(tile, n_groups, records, acc, scratch),
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
        let (first, groups) = record_of(b * 8, n_groups);
        unpack_groups::<F, false>(tile, n_groups, first, groups, scratch);
        for (record, acc) in records.iter().zip(&mut *acc) {
            dot_scalar::<F>(scratch, groups, record, acc);
        }
    }
}

fn dot_scalar<F: Format>(block: &Unpacked, groups: usize, record: &Record32, acc: &mut [f32; TILE]) {
    for row in 0..TILE {
        for g in 0..groups {
            let mut dot = -i32::from(F::OFFSET) * record.sums[g];
            for col in g * GROUP..(g + 1) * GROUP {
                let code = block.codes.0[col / 4 * VECTOR + row * 4 + col % 4];
                dot += i32::from(code) * i32::from(record.codes[col]);
            }
            acc[row] = (block.d[g][row] * record.scales[g]).mul_add(dot as f32, acc[row]);
            if F::HAS_MIN {
                acc[row] = block.m[g][row].mul_add(record.scaled_sums[g], acc[row]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod simd {
    use super::super::x86::*;
    use super::*;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) fn tile_avx512<F: Format>(
        tile: &[u8],
        n_groups: usize,
        records: &[Record32],
        acc: &mut [[f32; TILE]],
        scratch: &mut Unpacked,
    ) {
        acc.fill([0.0; TILE]);
        for (b, records) in records.chunks_exact(acc.len()).enumerate() {
            let (first, groups) = record_of(b * 8, n_groups);
            unpack_groups::<F, false>(tile, n_groups, first, groups, scratch);
            in_groups!(records, acc, [8, 4, 2, 1], |records, acc, N| dot_avx512::<F, N>(
                scratch, groups, records, acc
            ));
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn tile_avx2<F: Format, const SIGNED: bool>(
        tile: &[u8],
        n_groups: usize,
        records: &[Record32],
        acc: &mut [[f32; TILE]],
        scratch: &mut Unpacked,
    ) {
        acc.fill([0.0; TILE]);
        for (b, records) in records.chunks_exact(acc.len()).enumerate() {
            let (first, groups) = record_of(b * 8, n_groups);
            unpack_groups::<F, SIGNED>(tile, n_groups, first, groups, scratch);
            in_groups!(records, acc, [4, 2, 1], |records, acc, N| dot_avx2::<F, SIGNED, N>(
                scratch, groups, records, acc
            ));
        }
    }

    /// Up to 8 groups with `R` rows of activations, each vector of codes loaded once for all of them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    fn dot_avx512<F: Format, const R: usize>(
        block: &Unpacked,
        groups: usize,
        records: &[Record32; R],
        acc: &mut [[f32; TILE]; R],
    ) {
        let (vectors, _) = block.codes.0.as_chunks::<VECTOR>();
        let mut out = [_mm512_setzero_ps(); R];
        for r in 0..R {
            out[r] = load512_f32(&acc[r]);
        }
        // The offset as a 16-bit pair with 0, so that one instruction multiplies a sum by it.
        let offset = _mm512_set1_epi32(i32::from((-F::OFFSET) as u16));
        for g in 0..groups {
            let mut dot = [_mm512_setzero_si512(); R];
            if F::OFFSET != 0 {
                for r in 0..R {
                    let sum = _mm512_set1_epi32(records[r].sums[g]);
                    dot[r] = _mm512_dpwssd_epi32(dot[r], offset, sum);
                }
            }
            for j in g * 8..(g + 1) * 8 {
                let codes = load512(&vectors[j]);
                for r in 0..R {
                    let x = _mm512_set1_epi32(quad(&records[r].codes, j));
                    dot[r] = _mm512_dpbusd_epi32(dot[r], codes, x);
                }
            }
            let d = load512_f32(&block.d[g]);
            for r in 0..R {
                let scale = _mm512_mul_ps(d, _mm512_set1_ps(records[r].scales[g]));
                out[r] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot[r]), out[r]);
            }
            if F::HAS_MIN {
                let m = load512_f32(&block.m[g]);
                for r in 0..R {
                    out[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(records[r].scaled_sums[g]), out[r]);
                }
            }
        }
        for r in 0..R {
            store512_f32(&mut acc[r], out[r]);
        }
    }

    /// As `dot_avx512`, eight rows of the weight at a time.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot_avx2<F: Format, const SIGNED: bool, const R: usize>(
        block: &Unpacked,
        groups: usize,
        records: &[Record32; R],
        acc: &mut [[f32; TILE]; R],
    ) {
        let (vectors, _) = block.codes.0.as_chunks::<32>();
        let ones = _mm256_set1_epi16(1);
        let run = run(F::CODE_MAX);
        for half in 0..2 {
            let mut out = [_mm256_setzero_ps(); R];
            for r in 0..R {
                out[r] = load256_f32(&acc[r], half);
            }
            for g in 0..groups {
                let mut dot = [_mm256_setzero_si256(); R];
                for first in (g * 8..(g + 1) * 8).step_by(run) {
                    let mut sum = [_mm256_setzero_si256(); R];
                    for j in first..first + run {
                        let codes = load256(&vectors[2 * j + half]);
                        let magnitude = if SIGNED { _mm256_abs_epi8(codes) } else { codes };
                        for r in 0..R {
                            let x = _mm256_set1_epi32(quad(&records[r].codes, j));
                            let x = if SIGNED { _mm256_sign_epi8(x, codes) } else { x };
                            sum[r] = _mm256_add_epi16(sum[r], _mm256_maddubs_epi16(magnitude, x));
                        }
                    }
                    for r in 0..R {
                        dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(sum[r], ones));
                    }
                }
                let (d, m) = (load256_f32(&block.d[g], half), load256_f32(&block.m[g], half));
                for r in 0..R {
                    if F::OFFSET != 0 && !SIGNED {
                        let away = _mm256_set1_epi32(-i32::from(F::OFFSET) * records[r].sums[g]);
                        dot[r] = _mm256_add_epi32(dot[r], away);
                    }
                    let scale = _mm256_mul_ps(d, _mm256_set1_ps(records[r].scales[g]));
                    out[r] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot[r]), out[r]);
                    if F::HAS_MIN {
                        out[r] = _mm256_fmadd_ps(m, _mm256_set1_ps(records[r].scaled_sums[g]), out[r]);
                    }
                }
            }
            for r in 0..R {
                store256_f32(&mut acc[r], half, out[r]);
            }
        }
    }
}
