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
//! then in f32, block after block: `acc = fma(d·a, dot, acc)`, `acc = fma(−(dmin·a), mins, acc)`. That is the whole definition: it does
//! not know how many rows share the pass, so neither do the bits.
//!
//! A tile's block is unpacked once into bytes (4 KB, which stay in the first cache) and then meets every row of activations. The sums
//! over pairs of groups (`offset · s`, `m`) are products of 16-bit pairs, which the wider sets have an instruction for.

use super::activations::Record256;
use super::float::half_to_f32;
use super::planes::{Codes, TILE, VECTOR, VECTORS_MAX, get, look_up, plane_bytes, prefetch, put_row, unpack};
use crate::cpu::Isa;
use half::f16;

#[cfg(target_arch = "x86_64")]
mod amx;

/// One row's block, taken apart.
pub(crate) struct Block {
    /// Unsigned codes in the order of the columns.
    pub(crate) codes: [u8; 256],
    /// Scales of the groups as they are stored, see [`Scales`].
    pub(crate) scales: [u8; 16],
    /// Minima of the groups.
    pub(crate) mins: [u8; 16],
    /// f16 bits.
    pub(crate) d: u16,
    /// f16 bits.
    pub(crate) dmin: u16,
}

/// How the integer scales of 16 rows are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// 256 numbers of 6 bits in 192 bytes: scales `[group][row]`, then minima `[group][row]` if there is room.
    SixBits,
    /// One signed byte each, `[group][row]`.
    Bytes,
    /// Scale in the low, minimum in the high four bits, `[group][row]`.
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
    /// What is taken from every unpacked code.
    const OFFSET: i16;
    /// The largest unpacked code.
    const CODE_MAX: u8;
    /// What an index stands for, as an unpacked code.
    const TABLE: Option<&'static [u8; 16]> = None;
    /// How scales are stored.
    const SCALES: Scales;
    /// Added to every stored scale.
    const SCALE_OFFSET: i16 = 0;
    /// Whether there are minima.
    const HAS_MIN: bool;
    /// Takes a GGML block apart.
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

/// Lays 16 rows out. `rows` are the raw blocks of up to 16 rows of `k` columns; the missing ones become zero. `out` is zeroed.
pub(crate) fn pack_tile<F: Format>(rows: &[u8], k: usize, out: &mut [u8]) {
    let n_blocks = k / 256;
    let (header, blocks) = out.split_at_mut(header_bytes::<F>(n_blocks));
    let mut block = Block { codes: [0; 256], scales: [0; 16], mins: [0; 16], d: 0, dmin: 0 };
    let low_len = plane_bytes(F::LOW_BITS, VECTORS_MAX);
    for (row, raw) in rows.chunks_exact(n_blocks * F::BLOCK_BYTES).enumerate() {
        for (b, raw) in raw.chunks_exact(F::BLOCK_BYTES).enumerate() {
            F::split(raw, &mut block);
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

fn put_scales<F: Format>(block: &Block, row: usize, out: &mut [u8]) {
    for g in 0..n_groups::<F>() {
        let (scale, min) = (block.scales[g], block.mins[g]);
        match F::SCALES {
            Scales::Bytes => out[g * TILE + row] = scale,
            Scales::Nibbles => out[g * TILE + row] = scale | min << 4,
            Scales::SixBits => {
                put_six(out, g * TILE + row, scale);
                if F::HAS_MIN {
                    put_six(out, (n_groups::<F>() + g) * TILE + row, min);
                }
            }
        }
    }
}

/// Number `i` of 256: the first 192 are the low six bits of a byte each; the last 64 are spread over the high two bits of three.
fn put_six(out: &mut [u8], i: usize, value: u8) {
    if i < 192 {
        out[i] |= value & 63;
    } else {
        for part in 0..3 {
            out[part * 64 + i - 192] |= (value >> (2 * part) & 3) << 6;
        }
    }
}

#[inline(always)]
fn unpack_six(packed: &[u8; 192], out: &mut [u8; 256]) {
    for i in 0..192 {
        out[i] = packed[i] & 63;
    }
    for i in 0..64 {
        out[192 + i] = packed[i] >> 6 | packed[64 + i] >> 6 << 2 | packed[128 + i] >> 6 << 4;
    }
}

/// A tile's block, ready for products.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Unpacked {
    pub(crate) codes: Codes,
    /// Scales of each group and row.
    pub(crate) scales: [[i32; TILE]; 16],
    /// For each pair of groups and each row, two 16-bit factors of the groups' sums: minima, or `−offset · scale`.
    pub(crate) pairs: [[i16; 2 * TILE]; 8],
    pub(crate) d: [f32; TILE],
    pub(crate) dmin: [f32; TILE],
    /// For AMX: the codes times their scales, low and high part.
    folded: [Codes; 2],
    /// For AMX: the two parts' integer sums of up to 32 rows, of the group at work and the one before.
    sums: [[[[i32; TILE]; 32]; 2]; 2],
}

impl Unpacked {
    pub(crate) fn zeroed() -> Unpacked {
        Unpacked {
            codes: Codes([0; VECTORS_MAX * VECTOR]),
            scales: [[0; TILE]; 16],
            pairs: [[0; 2 * TILE]; 8],
            d: [0.0; TILE],
            dmin: [0.0; TILE],
            folded: [const { Codes([0; VECTORS_MAX * VECTOR]) }; 2],
            sums: [[[[0; TILE]; 32]; 2]; 2],
        }
    }
}

/// Unpacks block `b` of a tile. With `SIGNED`, codes above 127 become signed bytes (their offset is 128, so it is gone).
#[inline(always)]
fn unpack_block<F: Format, const SIGNED: bool>(tile: &[u8], n_blocks: usize, b: usize, out: &mut Unpacked) {
    let (header, blocks) = tile.split_at(header_bytes::<F>(n_blocks));
    let halves = if F::HAS_MIN { 2 } else { 1 };
    let header: &[u8] = &header[b * halves * TILE * 2..][..halves * TILE * 2];
    for row in 0..TILE {
        let half = |i: usize| half_to_f32(f16::from_le_bytes([header[2 * i], header[2 * i + 1]]));
        out.d[row] = half(row);
        if F::HAS_MIN {
            out.dmin[row] = half(TILE + row);
        }
    }
    let (scales, planes) =
        blocks[b * block_bytes::<F>()..][..block_bytes::<F>()].split_at(scale_bytes::<F>());
    prefetch(scales);
    prefetch(planes);
    unpack_scales::<F, SIGNED>(scales, out);
    unpack(planes, F::LOW_BITS, F::HIGH_BITS, VECTORS_MAX, &mut out.codes);
    if let Some(table) = F::TABLE {
        look_up(table, &mut out.codes.0);
    }
    if SIGNED {
        for code in &mut out.codes.0 {
            *code ^= 0x80;
        }
    }
}

#[inline(always)]
fn unpack_scales<F: Format, const SIGNED: bool>(packed: &[u8], out: &mut Unpacked) {
    let n = n_groups::<F>();
    let mut bytes = [0u8; 256];
    match F::SCALES {
        Scales::SixBits => unpack_six(packed.try_into().expect("192 bytes"), &mut bytes),
        Scales::Bytes | Scales::Nibbles => bytes[..n * TILE].copy_from_slice(&packed[..n * TILE]),
    }
    let scale = |i: usize| -> i32 {
        let stored = match F::SCALES {
            Scales::SixBits => i32::from(bytes[i]),
            Scales::Bytes => i32::from(bytes[i] as i8),
            Scales::Nibbles => i32::from(bytes[i] & 15),
        };
        stored + i32::from(F::SCALE_OFFSET)
    };
    for g in 0..n {
        for row in 0..TILE {
            out.scales[g][row] = scale(g * TILE + row);
        }
    }
    for p in 0..n / 2 {
        for row in 0..TILE {
            for e in 0..2 {
                let i = (2 * p + e) * TILE + row;
                out.pairs[p][2 * row + e] = if !F::HAS_MIN {
                    -F::OFFSET * scale(i) as i16
                } else if F::SCALES == Scales::Nibbles {
                    i16::from(bytes[i] >> 4)
                } else {
                    i16::from(bytes[n * TILE + i])
                };
            }
        }
    }
}

/// Whether products need the pairs: as minima or to take the offset away.
const fn has_pairs<F: Format, const SIGNED: bool>() -> bool {
    F::HAS_MIN || (F::OFFSET != 0 && !SIGNED)
}

/// One row of the weight as numbers: the definition of what the layout means, used by `embed`.
pub(crate) fn decode_row<F: Format>(tile: &[u8], row: usize, out: &mut [f32]) {
    let n_blocks = out.len() / 256;
    let mut scratch = Unpacked::zeroed();
    for (b, out) in out.chunks_exact_mut(256).enumerate() {
        let (header, blocks) = tile.split_at(header_bytes::<F>(n_blocks));
        let halves = if F::HAS_MIN { 2 } else { 1 };
        let half = |plane: usize| {
            let at = ((b * halves + plane) * TILE + row) * 2;
            f16::from_le_bytes([header[at], header[at + 1]]).to_f32()
        };
        let block = &blocks[b * block_bytes::<F>()..][..block_bytes::<F>()];
        let (scales, planes) = block.split_at(scale_bytes::<F>());
        unpack_scales::<F, false>(scales, &mut scratch);
        let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, VECTORS_MAX));
        for (col, out) in out.iter_mut().enumerate() {
            let mut code = get(low, F::LOW_BITS, VECTORS_MAX, row, col);
            if F::HIGH_BITS > 0 {
                code |= get(high, F::HIGH_BITS, VECTORS_MAX, row, col) << F::LOW_BITS;
            }
            if let Some(table) = F::TABLE {
                code = table[usize::from(code)];
            }
            let g = col / F::GROUP;
            let scaled = half(0) * scratch.scales[g][row] as f32;
            *out = scaled * f32::from(i16::from(code) - F::OFFSET);
            if F::HAS_MIN {
                *out -= half(1) * f32::from(scratch.pairs[g / 2][2 * row + g % 2]);
            }
        }
    }
}

/// `acc[r] = ` products of the tile's 16 rows with activation row `r`, over all blocks. `records` are `[n_blocks][acc.len()]`.
pub(crate) fn tile<F: Format>(
    isa: Isa,
    tile: &[u8],
    records: &[Record256],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    debug_assert!(records.len().is_multiple_of(acc.len()));
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the device only holds an instruction set after `Isa::is_available`.
        Isa::Amx if acc.len() >= amx::rows_min::<F>() => unsafe {
            amx::tile::<F>(tile, records, acc, scratch)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 | Isa::Amx => unsafe { simd::tile_avx512::<F>(tile, records, acc, scratch) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe {
            if F::CODE_MAX > 127 {
                simd::tile_avx2::<F, true>(tile, records, acc, scratch);
            } else {
                simd::tile_avx2::<F, false>(tile, records, acc, scratch);
            }
        },
        _ => tile_scalar::<F>(tile, records, acc, scratch),
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
        unpack_block::<F, false>(tile, n_blocks, b, scratch);
        for (record, acc) in records.iter().zip(&mut *acc) {
            dot_scalar::<F>(scratch, record, acc);
        }
    }
}

fn dot_scalar<F: Format>(block: &Unpacked, record: &Record256, acc: &mut [f32; TILE]) {
    for row in 0..TILE {
        let (mut dot, mut pairs) = (0i32, 0i32);
        for g in 0..n_groups::<F>() {
            let mut sum = 0i32;
            for col in g * F::GROUP..(g + 1) * F::GROUP {
                let code = block.codes.0[col / 4 * VECTOR + row * 4 + col % 4];
                sum += i32::from(code) * i32::from(record.codes[col]);
            }
            dot += block.scales[g][row] * sum;
            let sum = if F::GROUP == 16 { record.sums16[g] } else { record.sums32[g] };
            pairs += i32::from(block.pairs[g / 2][2 * row + g % 2]) * i32::from(sum);
        }
        if !F::HAS_MIN {
            dot += pairs;
        }
        acc[row] = (block.d[row] * record.scale).mul_add(dot as f32, acc[row]);
        if F::HAS_MIN {
            acc[row] = (-(block.dmin[row] * record.scale)).mul_add(pairs as f32, acc[row]);
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
        records: &[Record256],
        acc: &mut [[f32; TILE]],
        scratch: &mut Unpacked,
    ) {
        acc.fill([0.0; TILE]);
        let n_blocks = records.len() / acc.len();
        for (b, records) in records.chunks_exact(acc.len()).enumerate() {
            unpack_block::<F, false>(tile, n_blocks, b, scratch);
            in_groups!(records, acc, [8, 4, 2, 1], |records, acc, N| dot_avx512::<F, N>(
                scratch, records, acc
            ));
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn tile_avx2<F: Format, const SIGNED: bool>(
        tile: &[u8],
        records: &[Record256],
        acc: &mut [[f32; TILE]],
        scratch: &mut Unpacked,
    ) {
        acc.fill([0.0; TILE]);
        let n_blocks = records.len() / acc.len();
        for (b, records) in records.chunks_exact(acc.len()).enumerate() {
            unpack_block::<F, SIGNED>(tile, n_blocks, b, scratch);
            in_groups!(records, acc, [4, 2, 1], |records, acc, N| dot_avx2::<F, SIGNED, N>(
                scratch, records, acc
            ));
        }
    }

    /// The sums of groups `2p` and `2p + 1` as a 16-bit pair. One load: the halves would be put together in scalar registers.
    #[inline(always)]
    fn sums<F: Format>(record: &Record256, p: usize) -> i32 {
        let sums: &[i16] = if F::GROUP == 16 { &record.sums16 } else { &record.sums32 };
        bytemuck::pod_read_unaligned(bytemuck::cast_slice(&sums[2 * p..2 * p + 2]))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    fn pairs_avx512<F: Format, const R: usize>(block: &Unpacked, records: &[Record256; R]) -> [__m512i; R] {
        let mut out = [_mm512_setzero_si512(); R];
        for p in 0..n_groups::<F>() / 2 {
            let factors = load512(bytemuck::cast_ref(&block.pairs[p]));
            for r in 0..R {
                let sums = _mm512_set1_epi32(sums::<F>(&records[r], p));
                out[r] = _mm512_dpwssd_epi32(out[r], factors, sums);
            }
        }
        out
    }

    /// One block with `R` rows of activations, each vector of codes loaded once for all of them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) fn dot_avx512<F: Format, const R: usize>(
        block: &Unpacked,
        records: &[Record256; R],
        acc: &mut [[f32; TILE]; R],
    ) {
        let (vectors, _) = block.codes.0.as_chunks::<VECTOR>();
        let mut dot = if has_pairs::<F, false>() && !F::HAS_MIN {
            pairs_avx512::<F, R>(block, records)
        } else {
            [_mm512_setzero_si512(); R]
        };
        for g in 0..n_groups::<F>() {
            let mut sum = [_mm512_setzero_si512(); R];
            for j in g * F::GROUP / 4..(g + 1) * F::GROUP / 4 {
                let codes = load512(&vectors[j]);
                for r in 0..R {
                    let x = _mm512_set1_epi32(quad(&records[r].codes, j));
                    sum[r] = _mm512_dpbusd_epi32(sum[r], codes, x);
                }
            }
            let scale = load512(bytemuck::cast_ref(&block.scales[g]));
            for r in 0..R {
                dot[r] = _mm512_add_epi32(dot[r], _mm512_mullo_epi32(sum[r], scale));
            }
        }
        finish_avx512::<F, R>(block, records, dot, acc);
    }

    /// Adds `R` rows' integer sums to their float sums.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) fn finish_avx512<F: Format, const R: usize>(
        block: &Unpacked,
        records: &[Record256; R],
        dot: [__m512i; R],
        acc: &mut [[f32; TILE]; R],
    ) {
        let mut out = [_mm512_setzero_ps(); R];
        let d = load512_f32(&block.d);
        for r in 0..R {
            let scale = _mm512_mul_ps(d, _mm512_set1_ps(records[r].scale));
            out[r] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot[r]), load512_f32(&acc[r]));
        }
        if F::HAS_MIN {
            let mins = pairs_avx512::<F, R>(block, records);
            let dmin = load512_f32(&block.dmin);
            for r in 0..R {
                let scale = _mm512_mul_ps(dmin, _mm512_set1_ps(records[r].scale));
                out[r] = _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(mins[r]), out[r]);
            }
        }
        for r in 0..R {
            store512_f32(&mut acc[r], out[r]);
        }
    }

    /// As `dot_avx512`, eight rows of the weight at a time. Byte products are added in 16 bits as far as they fit, then multiplied by
    /// the scale and widened in one instruction.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot_avx2<F: Format, const SIGNED: bool, const R: usize>(
        block: &Unpacked,
        records: &[Record256; R],
        acc: &mut [[f32; TILE]; R],
    ) {
        let (vectors, _) = block.codes.0.as_chunks::<32>();
        let run = run(F::CODE_MAX).min(F::GROUP / 4);
        for half in 0..2 {
            let mut dot = [_mm256_setzero_si256(); R];
            let mut pairs = [_mm256_setzero_si256(); R];
            if has_pairs::<F, SIGNED>() {
                for p in 0..n_groups::<F>() / 2 {
                    let factors: &[u8; 64] = bytemuck::cast_ref(&block.pairs[p]);
                    let factors = load256(&factors.as_chunks::<32>().0[half]);
                    for r in 0..R {
                        let sums = _mm256_set1_epi32(sums::<F>(&records[r], p));
                        pairs[r] = _mm256_add_epi32(pairs[r], _mm256_madd_epi16(factors, sums));
                    }
                }
            }
            for g in 0..n_groups::<F>() {
                let scales: &[u8; 64] = bytemuck::cast_ref(&block.scales[g]);
                let scale = load256(&scales.as_chunks::<32>().0[half]);
                let low = _mm256_and_si256(scale, _mm256_set1_epi32(0xffff));
                let scale = _mm256_or_si256(low, _mm256_slli_epi32::<16>(scale));
                let (start, end) = (g * F::GROUP / 4, (g + 1) * F::GROUP / 4);
                for first in (start..end).step_by(run) {
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
                        dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(sum[r], scale));
                    }
                }
            }
            for r in 0..R {
                let a = _mm256_set1_ps(records[r].scale);
                if !F::HAS_MIN {
                    dot[r] = _mm256_add_epi32(dot[r], pairs[r]);
                }
                let scale = _mm256_mul_ps(load256_f32(&block.d, half), a);
                let dot = _mm256_cvtepi32_ps(dot[r]);
                let mut out = _mm256_fmadd_ps(scale, dot, load256_f32(&acc[r], half));
                if F::HAS_MIN {
                    let scale = _mm256_mul_ps(load256_f32(&block.dmin, half), a);
                    out = _mm256_fnmadd_ps(scale, _mm256_cvtepi32_ps(pairs[r]), out);
                }
                store256_f32(&mut acc[r], half, out);
            }
        }
    }
}
