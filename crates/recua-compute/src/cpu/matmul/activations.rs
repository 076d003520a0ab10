//! Rows of activations in the form that the integer kernels read: 8-bit blocks with a float scale.
//!
//! Formats with integer scales inside 256 weights ([`super::q256`]) take one activation scale per 256 values, so that a whole block is
//! summed in integers; the others ([`super::q32`]) take one per 32. Records are ordered by block, and within a block by row: a tile of
//! weights is multiplied with all rows of a block before it goes on to the next.

use crate::cpu::isa::multiversion;

/// The number of values of a row in a record.
pub(crate) const RECORD: usize = 256;

/// The number of records after the last row's that kernels may read, whatever they hold: AMX takes 16 rows at a time.
pub(crate) const RECORDS_BEHIND: usize = 15;

/// Values that are all below this count as zeros: their scale would not be a normal number, and its reciprocal might overflow.
const TINY: f32 = 127.0 * f32::MIN_POSITIVE;

/// Adding and subtracting 1.5 · 2²³ rounds to the nearest integer, ties to even, in any instruction set.
const ROUND: f32 = 12_582_912.0;

/// 256 values with one scale: `x ≈ scale * code`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Record256 {
    pub(crate) codes: [i8; RECORD],
    /// The sum of every 16 codes.
    pub(crate) sums16: [i16; 16],
    /// The sum of every 32 codes.
    pub(crate) sums32: [i16; 8],
    pub(crate) scale: f32,
}

/// 8 groups of 32 values, each with a scale. Groups after the end of a row are zero.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Record32 {
    pub(crate) codes: [i8; RECORD],
    pub(crate) scales: [f32; 8],
    /// The sum of each group's codes.
    pub(crate) sums: [i32; 8],
    /// That sum times the scale, which a weight's constant term is multiplied by.
    pub(crate) scaled_sums: [f32; 8],
}

/// A kind of record.
pub(crate) trait Record: Copy + Send + Sync + 'static {
    /// Encodes up to 256 values; the rest of the record is zero.
    fn encode(isa: crate::cpu::Isa, values: &[f32], record: &mut Self);
}

impl Record for Record256 {
    fn encode(isa: crate::cpu::Isa, values: &[f32], record: &mut Self) {
        encode256(isa, values, record);
    }
}

impl Record for Record32 {
    fn encode(isa: crate::cpu::Isa, values: &[f32], record: &mut Self) {
        encode32(isa, values, record);
    }
}

multiversion! { fn encode256(isa, values: &[f32], record: &mut Record256) = encode256_body }
multiversion! { fn encode32(isa, values: &[f32], record: &mut Record32) = encode32_body }

#[inline(always)]
fn encode256_body(values: &[f32], record: &mut Record256) {
    let mut block = [0.0f32; RECORD];
    block[..values.len()].copy_from_slice(values);
    let (scale, inverse) = scale_of(max_abs(&block));
    round_all(&block, inverse, &mut record.codes);
    record.scale = scale;
    for (sum, codes) in record.sums16.iter_mut().zip(record.codes.chunks_exact(16)) {
        *sum = codes.iter().map(|&c| i16::from(c)).sum();
    }
    for (sum, pair) in record.sums32.iter_mut().zip(record.sums16.chunks_exact(2)) {
        *sum = pair[0] + pair[1];
    }
}

#[inline(always)]
fn encode32_body(values: &[f32], record: &mut Record32) {
    let mut block = [0.0f32; RECORD];
    block[..values.len()].copy_from_slice(values);
    for g in 0..8 {
        let group: &[f32; 32] = block[g * 32..][..32].try_into().expect("32 values");
        let (scale, inverse) = scale_of(max_abs(group));
        let codes: &mut [i8; 32] = (&mut record.codes[g * 32..][..32]).try_into().expect("32 codes");
        round_all(group, inverse, codes);
        let sum: i32 = codes.iter().map(|&c| i32::from(c)).sum();
        record.scales[g] = scale;
        record.sums[g] = sum;
        record.scaled_sums[g] = scale * sum as f32;
    }
}

/// The scale and its reciprocal.
#[inline(always)]
fn scale_of(max: f32) -> (f32, f32) {
    // Written so that a NaN takes the first branch and stays visible in the products.
    if max < TINY { (0.0, 0.0) } else { (max / 127.0, 127.0 / max) }
}

/// Magnitudes are compared as integers, where NaN is the largest, so that a NaN reaches the scale instead of getting lost.
#[inline(always)]
fn max_abs<const N: usize>(values: &[f32; N]) -> f32 {
    let mut lanes = [0u32; 16];
    for chunk in values.chunks_exact(16) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = (*lane).max(value.to_bits() & 0x7fff_ffff);
        }
    }
    f32::from_bits(lanes.into_iter().fold(0, u32::max))
}

#[inline(always)]
fn round_all<const N: usize>(values: &[f32; N], inverse: f32, codes: &mut [i8; N]) {
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value.mul_add(inverse, ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;

    #[test]
    fn codes_are_the_nearest_and_sums_are_exact() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for len in [256usize, 32, 224] {
                let values: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.37).collect();
                let mut wide = Record256 { codes: [1; 256], sums16: [1; 16], sums32: [1; 8], scale: 1.0 };
                Record256::encode(isa, &values, &mut wide);
                let mut narrow =
                    Record32 { codes: [1; 256], scales: [1.0; 8], sums: [1; 8], scaled_sums: [1.0; 8] };
                Record32::encode(isa, &values, &mut narrow);
                for (i, value) in values.iter().enumerate() {
                    let (a, b) = (f32::from(wide.codes[i]), f32::from(narrow.codes[i]));
                    assert!((a * wide.scale - value).abs() <= wide.scale * 0.501);
                    assert!((b * narrow.scales[i / 32] - value).abs() <= narrow.scales[i / 32] * 0.501);
                }
                assert!(wide.codes[len..].iter().chain(&narrow.codes[len..]).all(|&code| code == 0));
                let sum = |codes: &[i8]| codes.iter().map(|&c| i32::from(c)).sum::<i32>();
                assert!((0..16).all(|g| i32::from(wide.sums16[g]) == sum(&wide.codes[g * 16..][..16])));
                assert!((0..8).all(|g| i32::from(wide.sums32[g]) == sum(&wide.codes[g * 32..][..32])));
                assert!((0..8).all(|g| narrow.sums[g] == sum(&narrow.codes[g * 32..][..32])));
            }
        }
    }

    #[test]
    fn a_value_that_is_not_finite_stays_visible() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = [1.0f32; 256];
            values[100] = bad;
            let mut record = Record256 { codes: [0; 256], sums16: [0; 16], sums32: [0; 8], scale: 0.0 };
            Record256::encode(Isa::best(), &values, &mut record);
            assert!(!record.scale.is_finite());
        }
    }
}
