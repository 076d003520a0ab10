//! The same products with AMX tiles. The integer sums are exact, so the bits are the same.
//!
//! A tile product sums 64 columns and cannot scale groups of 16 or 32 in between. So the integer scale is multiplied into the weight first:
//! `v = scale · code` has up to 13 bits and is cut into two bytes, `v = low + high · 2^s`. Two tile products per 64 columns then sum the
//! whole block of 256, and one addition combines the parts.
//!
//! - Unsigned codes and scales of at most 5 and 6 bits: the *scale* is cut, 3 bits each; a code times 3 bits fits a byte, and one 16-bit
//!   multiplication does two codes at once, since the lower product does not carry into the upper one.
//! - Signed scales: the offset is subtracted from the codes first; the product is formed in 16 bits and cut at bit 6.
//!
//! Two weight tiles are multiplied with 16 rows of activations at a time: four tiles of sums, enough to hide a tile product's latency. While
//! the tiles work, the vector units cut the next 64 columns and finish the previous rows. A last group of fewer than 16 rows also multiplies
//! the records after it, and discards those results.

use super::simd::{Source, finish, unpack_floats};
use super::*;
use crate::cpu::amx::{self, Tiles, Whole};
use crate::cpu::matmul::dot::{Dot, Registers};
use std::arch::x86_64::*;

/// The number of rows of activations in a tile.
const ROWS: usize = amx::ROWS;

/// The number of steps of 64 columns in a block.
const STEPS: usize = 4;

/// The number of rows that are finished during a step.
const FINISHED: usize = ROWS / STEPS;

/// The number of rows from which on tiles are faster than vectors: between 8 and 16, as timed on an Intel Xeon (`bench/record`). Signed
/// scales cost more to cut.
pub(super) const fn rows_min<F: Format>() -> usize {
    if is_unsigned::<F>() { 10 } else { 14 }
}

/// Whether scales and codes are unsigned, so that the scale is cut.
const fn is_unsigned<F: Format>() -> bool {
    F::HAS_MIN
}

/// The memory that tiles are loaded from and stored to.
#[repr(C, align(64))]
pub(super) struct Scratch {
    /// The codes times their scales of two tiles: low and high parts.
    cut: [[Codes; 2]; 2],
    /// The integer sums of the current group and the one before: for each of two tiles, the low and the high part, `[row][lane]`.
    sums: [Sums; 2],
}

type Sums = [[[[i32; TILE]; ROWS]; 2]; 2];

/// A group whose integer sums are not yet added to the float sums.
struct Pending {
    block: usize,
    first_row: usize,
    buffer: usize,
}

/// All products of two tiles with many rows. `records` as [`super::tiles`] takes them.
pub(super) fn two_tiles<F: Format>(
    avx512: HasAvx512,
    amx: HasAmx,
    tiles: &[u8],
    records: &[Record256],
    rows: usize,
    acc: &mut [[f32; TILE]],
    scratch: &mut super::Scratch,
) {
    // SAFETY: the processor has the set, as `avx512` and `amx` prove.
    unsafe { two_tiles_amx::<F>(avx512, amx, tiles, records, rows, acc, scratch) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn two_tiles_amx<F: Format>(
    avx512: HasAvx512,
    amx: HasAmx,
    tiles: &[u8],
    records: &[Record256],
    rows: usize,
    acc: &mut [[f32; TILE]],
    scratch: &mut super::Scratch,
) {
    let dot = Avx512Vnni(avx512);
    acc.fill([0.0; TILE]);
    let n_blocks = (records.len() - RECORDS_BEHIND) / rows;
    let (tile0, tile1) = tiles.split_at(tiles.len() / 2);
    let super::Scratch { tiles: blocks, amx: Scratch { cut, sums } } = scratch;
    let amx_tiles = Tiles::configure(amx);
    let mut pending: Option<Pending> = None;
    let mut buffer = 0;
    for b in 0..n_blocks {
        let packed = [packed_block::<F>(tile0, n_blocks, b), packed_block::<F>(tile1, n_blocks, b)];
        for (packed, block) in packed.iter().zip(&mut blocks[b % 2]) {
            unpack_floats::<F, _>(dot, packed, 0, block);
        }
        cut_step::<F>(dot, &packed, 0, cut);
        for first_row in (0..rows).step_by(ROWS) {
            let group =
                records[b * rows + first_row..].first_chunk().expect("15 records follow the last row");
            begin(&amx_tiles);
            for step in 0..STEPS {
                if first_row == 0 && step + 1 < STEPS {
                    cut_step::<F>(dot, &packed, step + 1, cut);
                }
                multiply::<F>(&amx_tiles, group, cut, step);
                ask_for(group.as_ptr_range().end, step);
                if let Some(pending) = &pending {
                    finish_rows::<F>(dot, pending, step, blocks, sums, records, acc);
                }
            }
            end(&amx_tiles, &mut sums[buffer]);
            pending = Some(Pending { block: b, first_row, buffer });
            buffer ^= 1;
        }
    }
    if let Some(pending) = &pending {
        for step in 0..STEPS {
            finish_rows::<F>(dot, pending, step, blocks, sums, records, acc);
        }
    }
}

/// Cuts the scaled codes of 64 columns in two.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn cut_step<F: Format>(
    dot: Avx512Vnni,
    blocks: &[PackedBlock<'_>; 2],
    step: usize,
    out: &mut [[Codes; 2]; 2],
) {
    // The first or the second 16 bits of each lane, twice.
    let first = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13));
    let twice = [first, _mm512_or_si512(first, _mm512_set1_epi8(2))];
    for (block, [low, high]) in blocks.iter().zip(out) {
        let (lows, highs) = (low.0.as_chunks_mut::<VECTOR>().0, high.0.as_chunks_mut::<VECTOR>().0);
        for g in step * 64 / F::GROUP..(step + 1) * 64 / F::GROUP {
            Source::<F>::prefetch(block, g);
            let scale = Source::<F>::scales(block, dot, g / 2, 0);
            let scale = _mm512_shuffle_epi8(scale, twice[g % 2]);
            let low = _mm512_and_si512(scale, _mm512_set1_epi16(7));
            let high = _mm512_srli_epi16::<3>(scale);
            for i in 0..F::GROUP / 4 {
                let codes = Source::<F>::codes(block, dot, g, i, 0);
                let (low, high) = if is_unsigned::<F>() {
                    (_mm512_mullo_epi16(codes, low), _mm512_mullo_epi16(codes, high))
                } else {
                    cut_signed(codes, F::OFFSET, scale)
                };
                dot.set().store(&mut lows[g * F::GROUP / 4 + i], 0, low);
                dot.set().store(&mut highs[g * F::GROUP / 4 + i], 0, high);
            }
        }
    }
}

/// `(code − offset) · scale` of the even and the odd bytes, cut at bit 6 and put back in place.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn cut_signed(codes: __m512i, offset: i16, scale: __m512i) -> (__m512i, __m512i) {
    let (offset, byte, six) = (_mm512_set1_epi16(offset), _mm512_set1_epi16(0xff), _mm512_set1_epi8(63));
    let even = _mm512_sub_epi16(_mm512_and_si512(codes, byte), offset);
    let odd = _mm512_sub_epi16(_mm512_srli_epi16::<8>(codes), offset);
    let (even, odd) = (_mm512_mullo_epi16(even, scale), _mm512_mullo_epi16(odd, scale));
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let low = _mm512_mask_blend_epi8(ODD, even, _mm512_slli_epi16::<8>(odd));
    let high = _mm512_mask_blend_epi8(
        ODD,
        _mm512_srai_epi16::<6>(even),
        // Bits 6 to 13 of the product, in the upper byte.
        _mm512_slli_epi16::<2>(odd),
    );
    (_mm512_and_si512(low, six), high)
}

/// Prefetches 64 columns of the next 16 records, and in the last step the rest of them: otherwise the tiles would wait for each cache line.
#[inline(always)]
fn ask_for(next: *const Record256, step: usize) {
    for i in 0..ROWS {
        let at = next.cast::<u8>().wrapping_add(i * size_of::<Record256>() + step * amx::ROW_BYTES);
        // SAFETY: a prefetch reads nothing and may name any address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
            if step + 1 == STEPS {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(amx::ROW_BYTES).cast());
            }
        }
    }
}

/// Zeroes the four sums: the low and the high part of the first tile, then of the second.
#[inline(always)]
fn begin(_: &Tiles<Whole>) {
    // SAFETY: tiles are configured.
    unsafe {
        amx::zero!(0);
        amx::zero!(1);
        amx::zero!(2);
        amx::zero!(3);
    }
}

/// Adds 64 columns to the four sums.
#[inline(always)]
fn multiply<F: Format>(_: &Tiles<Whole>, records: &[Record256; ROWS], cut: &[[Codes; 2]; 2], step: usize) {
    assert!(step < STEPS, "columns outside the block");
    let stride = size_of::<Record256>();
    // The codes are the first field of a record.
    let activations = records.as_ptr().cast::<u8>();
    let weights = |tile: usize, part: usize| cut[tile][part].0.as_ptr().wrapping_add(step * ROWS * VECTOR);
    // SAFETY: tiles are configured in this form; a tile of activations is 16 records' 64 bytes, one of weights 16 vectors; both are inside.
    unsafe {
        amx::load!(4, activations.add(step * amx::ROW_BYTES), stride);
        amx::load!(5, weights(0, 0), VECTOR);
        amx::load!(6, weights(0, 1), VECTOR);
        amx::load!(7, weights(1, 0), VECTOR);
        if is_unsigned::<F>() {
            amx::dot!("tdpbsud", 0, 4, 5);
            amx::load!(5, weights(1, 1), VECTOR);
            amx::dot!("tdpbsud", 1, 4, 6);
            amx::dot!("tdpbsud", 2, 4, 7);
            amx::dot!("tdpbsud", 3, 4, 5);
        } else {
            amx::dot!("tdpbssd", 0, 4, 5);
            amx::load!(5, weights(1, 1), VECTOR);
            amx::dot!("tdpbssd", 1, 4, 6);
            amx::dot!("tdpbssd", 2, 4, 7);
            amx::dot!("tdpbssd", 3, 4, 5);
        }
    }
}

/// Writes the four sums.
#[inline(always)]
fn end(_: &Tiles<Whole>, [[low0, high0], [low1, high1]]: &mut Sums) {
    // SAFETY: tiles are configured in this form; each is 16 rows of 64 bytes.
    unsafe {
        amx::store!(0, low0.as_mut_ptr());
        amx::store!(1, high0.as_mut_ptr());
        amx::store!(2, low1.as_mut_ptr());
        amx::store!(3, high1.as_mut_ptr());
    }
}

/// Combines the two parts for a quarter of a group's rows and adds them to the float sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn finish_rows<F: Format>(
    dot: Avx512Vnni,
    pending: &Pending,
    step: usize,
    blocks: &[[Unpacked; 2]; 2],
    sums: &[Sums; 2],
    records: &[Record256],
    acc: &mut [[f32; TILE]],
) {
    let rows = acc.len() / 2;
    let (set, at) = (dot.set(), step * FINISHED);
    let first = pending.first_row + at;
    let n = rows.saturating_sub(first).min(FINISHED);
    let blocks = blocks[pending.block % 2].each_ref();
    let records = &records[pending.block * rows + first..][..n];
    let (acc0, acc1) = acc.split_at_mut(rows);
    let (acc0, acc1) = (&mut acc0[rows.min(first)..][..n], &mut acc1[rows.min(first)..][..n]);
    let [[low0, high0], [low1, high1]] = &sums[pending.buffer];
    let sum = |low: &[[i32; TILE]; ROWS], high: &[[i32; TILE]; ROWS], i: usize| {
        let high = set.load(bytemuck::cast_ref(&high[at + i]), 0);
        let high =
            if is_unsigned::<F>() { _mm512_slli_epi32::<3>(high) } else { _mm512_slli_epi32::<6>(high) };
        set.add(set.load(bytemuck::cast_ref(&low[at + i]), 0), high)
    };
    if let (Ok(records), Ok(acc0), Ok(acc1)) =
        (<&[Record256; FINISHED]>::try_from(records), acc0.try_into(), acc1.try_into())
    {
        let mut dots = [[[set.ints(0); FINISHED]]; 2];
        for i in 0..FINISHED {
            dots[0][0][i] = sum(low0, high0, i);
            dots[1][0][i] = sum(low1, high1, i);
        }
        finish::<F, _, _, 2, 1, FINISHED>(dot, blocks, records, 0, dots, &mut [acc0, acc1]);
        return;
    }
    let rows =
        records.as_chunks::<1>().0.iter().zip(acc0.as_chunks_mut::<1>().0).zip(acc1.as_chunks_mut::<1>().0);
    for (i, ((record, acc0), acc1)) in rows.enumerate() {
        let dots = [[[sum(low0, high0, i)]], [[sum(low1, high1, i)]]];
        finish::<F, _, _, 2, 1, 1>(dot, blocks, record, 0, dots, &mut [acc0, acc1]);
    }
}
