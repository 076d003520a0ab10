//! The same products with AMX tiles, for 16 rows of activations and more. The integer sums are exact, so the bits are the same.
//!
//! A tile product adds up 64 columns and cannot scale groups of 16 or 32 in between. So the integer scale goes into the weight first:
//! `v = scale · code` has up to 13 bits and is cut into two bytes, `v = low + high · 2^s`; two tile products per 64 columns then sum the
//! whole block of 256, and one addition puts the parts together.
//!
//! - Unsigned codes and scales of at most 5 and 6 bits: the *scale* is cut, 3 bits each; a code times 3 bits fits a byte, and one 16-bit
//!   multiplication does two codes at once, since the lower product does not carry into the upper one.
//! - Signed ones: codes lose their offset first, the product is formed in 16 bits and cut at bit 6.
//!
//! Folding costs a few hundred cycles a block, which is why fewer rows stay with the vectors.

use super::simd::{dot_avx512, finish_avx512};
use super::*;
use crate::cpu::amx::{self, Tiles};
use crate::cpu::matmul::x86::{in_groups, load512};
use std::arch::x86_64::*;

/// Rows of activations in a tile.
const ROWS: usize = amx::ROWS;

/// Steps of 64 columns in a block.
const STEPS: usize = 4;

/// From how many rows on tiles are faster than vectors (measured on a Sapphire Rapids processor; signed products cost more to fold).
pub(super) const fn rows_min<F: Format>() -> usize {
    if is_unsigned::<F>() { 16 } else { 64 }
}

/// Whether scales and codes are unsigned, so that the scale is what is cut.
const fn is_unsigned<F: Format>() -> bool {
    F::HAS_MIN
}

/// As `tile_avx512`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn tile<F: Format>(
    tile: &[u8],
    records: &[Record256],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    let n_blocks = records.len() / acc.len();
    // SAFETY: the device only holds this instruction set after `is_permitted`.
    let _tiles = unsafe { Tiles::configure() };
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        unpack_block::<F, false>(tile, n_blocks, b, scratch);
        fold::<F>(scratch);
        let (records32, records) = records.as_chunks::<32>();
        let (acc32, acc) = acc.as_chunks_mut::<32>();
        for i in 0..records32.len() {
            begin_32();
            for step in 0..STEPS {
                step_32::<F>(&records32[i], scratch, step);
                // The vector units finish the group before while the tiles work on this one.
                if i > 0 {
                    finish::<F>(&records32[i - 1], scratch, (i - 1) % 2, step * 8, &mut acc32[i - 1]);
                }
            }
            end_32(scratch, i % 2);
        }
        if let (Some(records), Some(acc)) = (records32.last(), acc32.last_mut()) {
            for step in 0..STEPS {
                finish::<F>(records, scratch, (records32.len() - 1) % 2, step * 8, acc);
            }
        }
        let (records16, records) = records.as_chunks::<16>();
        let (acc16, acc) = acc.as_chunks_mut::<16>();
        for (records, acc) in records16.iter().zip(acc16) {
            sum_16::<F>(records, scratch);
            finish::<F>(records, scratch, 0, 0, acc);
            finish::<F>(records, scratch, 0, 8, acc);
        }
        in_groups!(records, acc, [8, 4, 2, 1], |records, acc, N| dot_avx512::<F, N>(scratch, records, acc));
    }
}

/// Cuts the scaled codes of a block in two.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn fold<F: Format>(block: &mut Unpacked) {
    let (vectors, _) = block.codes.0.as_chunks::<VECTOR>();
    let [low, high] = &mut block.folded;
    let (lows, highs) = (low.0.as_chunks_mut::<VECTOR>().0, high.0.as_chunks_mut::<VECTOR>().0);
    for g in 0..n_groups::<F>() {
        let scale = load512(bytemuck::cast_ref(&block.scales[g]));
        // The scale in both 16-bit halves of a row's lane.
        let twice =
            |x| _mm512_or_si512(_mm512_slli_epi32::<16>(x), _mm512_and_si512(x, _mm512_set1_epi32(0xffff)));
        let parts = [_mm512_and_si512(scale, _mm512_set1_epi32(7)), _mm512_srai_epi32::<3>(scale)].map(twice);
        let scale = twice(scale);
        for j in g * F::GROUP / 4..(g + 1) * F::GROUP / 4 {
            let codes = load512(&vectors[j]);
            let (low, high) = if is_unsigned::<F>() {
                (_mm512_mullo_epi16(codes, parts[0]), _mm512_mullo_epi16(codes, parts[1]))
            } else {
                cut_signed(codes, F::OFFSET, scale)
            };
            // SAFETY: 64 bytes are there.
            unsafe {
                _mm512_storeu_si512(lows[j].as_mut_ptr().cast(), low);
                _mm512_storeu_si512(highs[j].as_mut_ptr().cast(), high);
            }
        }
    }
}

/// `(code − offset) · scale` of the even and the odd bytes, cut at bit 6 and put back in their places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn cut_signed(codes: __m512i, offset: i16, scale: __m512i) -> (__m512i, __m512i) {
    let (offset, byte, six) = (_mm512_set1_epi16(offset), _mm512_set1_epi16(0xff), _mm512_set1_epi16(63));
    let even = _mm512_sub_epi16(_mm512_and_si512(codes, byte), offset);
    let odd = _mm512_sub_epi16(_mm512_srli_epi16::<8>(codes), offset);
    let (even, odd) = (_mm512_mullo_epi16(even, scale), _mm512_mullo_epi16(odd, scale));
    let low =
        _mm512_or_si512(_mm512_and_si512(even, six), _mm512_slli_epi16::<8>(_mm512_and_si512(odd, six)));
    let high = _mm512_or_si512(
        _mm512_and_si512(_mm512_srai_epi16::<6>(even), byte),
        _mm512_slli_epi16::<8>(_mm512_srai_epi16::<6>(odd)),
    );
    (low, high)
}

/// Empties the four sums of 32 rows of activations: tiles 0 and 1 for the first 16 rows and the low and high part, 2 and 3 for the
/// second.
#[inline]
fn begin_32() {
    // SAFETY: tiles are configured.
    unsafe {
        amx::zero!(0);
        amx::zero!(1);
        amx::zero!(2);
        amx::zero!(3);
    }
}

/// Adds 64 columns to the four sums: two loads each of activations and weights for four products.
#[inline]
fn step_32<F: Format>(records: &[Record256; 32], block: &Unpacked, step: usize) {
    let stride = size_of::<Record256>();
    // The codes are a record's first field.
    let activations = records.as_ptr().cast::<u8>();
    let [low, high] = block.folded.each_ref().map(|codes| codes.0.as_ptr());
    // SAFETY: tiles are configured; a tile of activations is 16 records' 64 bytes, one of weights 16 vectors; both are inside.
    unsafe {
        amx::load!(4, activations.add(step * amx::ROW_BYTES), stride);
        amx::load!(6, low.add(step * ROWS * VECTOR), VECTOR);
        amx::load!(7, high.add(step * ROWS * VECTOR), VECTOR);
        amx::load!(5, activations.add(ROWS * stride + step * amx::ROW_BYTES), stride);
        if is_unsigned::<F>() {
            amx::dot!("tdpbsud", 0, 4, 6);
            amx::dot!("tdpbsud", 1, 4, 7);
            amx::dot!("tdpbsud", 2, 5, 6);
            amx::dot!("tdpbsud", 3, 5, 7);
        } else {
            amx::dot!("tdpbssd", 0, 4, 6);
            amx::dot!("tdpbssd", 1, 4, 7);
            amx::dot!("tdpbssd", 2, 5, 6);
            amx::dot!("tdpbssd", 3, 5, 7);
        }
    }
}

/// Writes the four sums to buffer `buffer`.
#[inline]
fn end_32(block: &mut Unpacked, buffer: usize) {
    let [low, high] = &mut block.sums[buffer];
    // SAFETY: tiles are configured; each is 16 rows of 64 bytes, and there are 32.
    unsafe {
        amx::store!(0, low.as_mut_ptr());
        amx::store!(1, high.as_mut_ptr());
        amx::store!(2, low[ROWS..].as_mut_ptr());
        amx::store!(3, high[ROWS..].as_mut_ptr());
    }
}

/// The sums of 16 rows of activations, to the first buffer.
#[inline]
fn sum_16<F: Format>(records: &[Record256; 16], block: &mut Unpacked) {
    let stride = size_of::<Record256>();
    // The codes are a record's first field.
    let activations = records.as_ptr().cast::<u8>();
    let [low, high] = block.folded.each_ref().map(|codes| codes.0.as_ptr());
    // SAFETY: as in `step_32`.
    unsafe {
        amx::zero!(0);
        amx::zero!(1);
        for step in 0..STEPS {
            amx::load!(4, activations.add(step * amx::ROW_BYTES), stride);
            amx::load!(6, low.add(step * ROWS * VECTOR), VECTOR);
            amx::load!(7, high.add(step * ROWS * VECTOR), VECTOR);
            if is_unsigned::<F>() {
                amx::dot!("tdpbsud", 0, 4, 6);
                amx::dot!("tdpbsud", 1, 4, 7);
            } else {
                amx::dot!("tdpbssd", 0, 4, 6);
                amx::dot!("tdpbssd", 1, 4, 7);
            }
        }
        let [low, high] = &mut block.sums[0];
        amx::store!(0, low.as_mut_ptr());
        amx::store!(1, high.as_mut_ptr());
    }
}

/// Puts the two sums of the rows `[first, first + 8)` together and adds them to the float sums, four rows at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn finish<F: Format>(
    records: &[Record256],
    block: &Unpacked,
    buffer: usize,
    first: usize,
    acc: &mut [[f32; TILE]],
) {
    let [low, high] = block.sums[buffer].each_ref().map(|sums| sums[first..first + 8].as_chunks::<4>().0);
    let (records, _) = records[first..first + 8].as_chunks::<4>();
    let (acc, _) = acc[first..first + 8].as_chunks_mut::<4>();
    for i in 0..2 {
        let mut dot = [_mm512_setzero_si512(); 4];
        for r in 0..4 {
            let high = load512(bytemuck::cast_ref(&high[i][r]));
            let high =
                if is_unsigned::<F>() { _mm512_slli_epi32::<3>(high) } else { _mm512_slli_epi32::<6>(high) };
            dot[r] = _mm512_add_epi32(load512(bytemuck::cast_ref(&low[i][r])), high);
        }
        // The pairs only matter to the minima here: signed codes have lost their offset.
        finish_avx512::<F, 4>(block, &records[i], dot, &mut acc[i]);
    }
}
