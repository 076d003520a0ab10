//! The same products with AMX tiles. The integer sums are exact, so the bits are the same.
//!
//! A group's 32 columns are half of a tile's: one tile product multiplies them for 16 weight rows and 16 rows of activations. Its sums are
//! stored, because each group has its own scale. While the tiles work on the next rows, the vector units add the stored sums of the previous
//! rows to their float sums. Codes of 8 bits are used where they are stored; others are unpacked first, once for all rows. A last group of
//! fewer than 16 rows also multiplies the records after it, and discards those results.

use super::simd::{Source, unpack_groups};
use super::*;
use crate::cpu::amx::{self, Halves, Tiles};
use crate::cpu::matmul::dot::{Dot, Registers};

/// The number of rows of activations from which on tiles are faster than vectors: between 12 and 16, as timed on an Intel Xeon
/// (`bench/record`).
pub(super) const ROWS_MIN: usize = 14;

/// The number of rows of activations in a tile.
const ROWS: usize = amx::ROWS;

/// The number of groups whose sums fill half of the tiles.
const AT_ONCE: usize = 4;

/// The number of groups in a record.
const GROUPS: usize = RECORD / GROUP;

/// The integer sums of the current rows and of those before: `[group][row][lane]`.
#[repr(C, align(64))]
pub(super) struct Scratch {
    sums: [Sums; 2],
}

type Sums = [[[i32; TILE]; ROWS]; GROUPS];

/// 16 rows of activations over the 8 groups of a record.
#[derive(Clone, Copy)]
struct Meeting<'a> {
    block: PackedBlock<'a>,
    records: &'a [Record32; ROWS],
    first_row: usize,
}

/// All products of a tile over whole records. `records` as [`super::tile`] takes them.
pub(super) fn tile<F: Format>(
    avx512: HasAvx512,
    amx: HasAmx,
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut super::Scratch,
) {
    // SAFETY: the processor has the set, as `avx512` and `amx` prove.
    unsafe { tile_amx::<F>(avx512, amx, tile, n_groups, records, acc, scratch) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn tile_amx<F: Format>(
    avx512: HasAvx512,
    amx: HasAmx,
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut super::Scratch,
) {
    let dot = Avx512Vnni(avx512);
    acc.fill([0.0; TILE]);
    let rows = acc.len();
    let super::Scratch { unpacked, amx: Scratch { sums: [sums, sums_before] } } = scratch;
    let (mut sums, mut sums_before) = (sums, sums_before);
    let tiles = Tiles::configure(amx);
    let mut before: Option<Meeting<'_>> = None;
    for b in 0..n_groups / GROUPS {
        let block = packed_block::<F>(tile, n_groups, b);
        let codes = if is_byte::<F>() {
            block.low
        } else {
            unpack_groups::<F, _>(dot, &block, unpacked);
            &unpacked.codes.0
        };
        let codes = codes.first_chunk().expect("64 vectors");
        for first_row in (0..rows).step_by(ROWS) {
            let records =
                records[b * rows + first_row..].first_chunk().expect("15 records follow the last row");
            let now = Meeting { block, records, first_row };
            for g in (0..GROUPS).step_by(AT_ONCE) {
                if is_byte::<F>() && first_row == 0 {
                    (g..g + AT_ONCE).for_each(|g| Source::<F>::prefetch(&block, g));
                }
                multiply(&tiles, records, codes, g, sums);
                if let Some(before) = &before {
                    finish::<F>(dot, before, g, sums_before, acc);
                }
            }
            before = Some(now);
            std::mem::swap(&mut sums, &mut sums_before);
        }
    }
    if let Some(before) = &before {
        for g in (0..GROUPS).step_by(AT_ONCE) {
            finish::<F>(dot, before, g, sums_before, acc);
        }
    }
}

/// Whether codes are stored as tiles take them.
const fn is_byte<F: Format>() -> bool {
    F::LOW_BITS == 8 && F::TABLE.is_none()
}

/// The integer sums of four groups from `g` on.
#[inline(always)]
fn multiply(
    _: &Tiles<Halves>,
    records: &[Record32; ROWS],
    codes: &[u8; VECTOR * RECORD / 4],
    g: usize,
    sums: &mut Sums,
) {
    assert!(g + AT_ONCE <= GROUPS, "groups outside the record");
    let stride = size_of::<Record32>();
    // The codes are the first field of a record.
    let activations = records.as_ptr().cast::<u8>().wrapping_add(g * GROUP);
    let weights = codes.as_ptr().wrapping_add(g * GROUP / 4 * VECTOR);
    let sums: &mut [_; AT_ONCE] = (&mut sums[g..g + AT_ONCE]).try_into().expect("four groups");
    // SAFETY: tiles are configured in this form; a tile of activations is 32 bytes of 16 records, one of weights 8 vectors, one of sums 16 rows of 64
    // bytes; all are inside.
    unsafe {
        let activations = |i: usize| activations.wrapping_add(i * GROUP);
        let weights = |i: usize| weights.wrapping_add(i * GROUP / 4 * VECTOR);
        amx::zero!(0);
        amx::zero!(1);
        amx::zero!(2);
        amx::zero!(3);
        amx::load!(4, activations(0), stride);
        amx::load!(6, weights(0), VECTOR);
        amx::dot!("tdpbsud", 0, 4, 6);
        amx::load!(5, activations(1), stride);
        amx::load!(7, weights(1), VECTOR);
        amx::dot!("tdpbsud", 1, 5, 7);
        amx::load!(4, activations(2), stride);
        amx::load!(6, weights(2), VECTOR);
        amx::dot!("tdpbsud", 2, 4, 6);
        amx::load!(5, activations(3), stride);
        amx::load!(7, weights(3), VECTOR);
        amx::dot!("tdpbsud", 3, 5, 7);
        amx::store!(0, sums[0].as_mut_ptr());
        amx::store!(1, sums[1].as_mut_ptr());
        amx::store!(2, sums[2].as_mut_ptr());
        amx::store!(3, sums[3].as_mut_ptr());
    }
}

/// Adds the integer sums of four groups from `g` on to the float sums.
#[inline(always)]
fn finish<F: Format>(dot: Avx512Vnni, before: &Meeting<'_>, g: usize, sums: &Sums, acc: &mut [[f32; TILE]]) {
    let set = dot.set();
    // The offset as a 16-bit pair with 0, so that one instruction multiplies a sum by it.
    let offset = set.ints(i32::from((-F::OFFSET) as u16));
    let mut d = [set.floats(0.0); AT_ONCE];
    let mut m = d;
    for i in 0..AT_ONCE {
        d[i] = Source::<F>::d(&before.block, dot, g + i, 0);
        if F::HAS_MIN {
            m[i] = Source::<F>::m(&before.block, dot, g + i, 0);
        }
    }
    let sums: &[_; AT_ONCE] = (&sums[g..g + AT_ONCE]).try_into().expect("four groups");
    // Only as many rows as there are: what a last group computed beyond its rows is discarded.
    for (r, (record, acc)) in before.records.iter().zip(&mut acc[before.first_row..]).enumerate() {
        let record_sums: &[i32; AT_ONCE] = record.sums[g..g + AT_ONCE].try_into().expect("four groups");
        let scales: &[f32; AT_ONCE] = record.scales[g..g + AT_ONCE].try_into().expect("four groups");
        let scaled: &[f32; AT_ONCE] = record.scaled_sums[g..g + AT_ONCE].try_into().expect("four groups");
        let mut out = set.load_floats(acc, 0);
        for i in 0..AT_ONCE {
            let mut dot = set.load(bytemuck::cast_ref(&sums[i][r]), 0);
            if F::OFFSET != 0 {
                dot = set.add_pairs(dot, offset, set.ints(record_sums[i]));
            }
            let scale = set.mul_floats(d[i], set.floats(scales[i]));
            out = set.mul_add(scale, set.to_floats(dot), out);
            if F::HAS_MIN {
                out = set.mul_add(m[i], set.floats(scaled[i]), out);
            }
        }
        set.store_floats(acc, 0, out);
    }
}
