//! Encodes numbers as blocks. Scales are chosen to minimize the squared error, not just to cover the largest
//! value.
//!
//! The error is unweighted: without statistics of the activations, every value of a row is equally likely to be
//! multiplied by a large one. [`search`] finds scales, [`k`] packs the 256-value blocks.

mod k;
mod search;

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::format::{GgmlType, names_where};
use search::{affine, nearest, reciprocal, symmetric};

/// Encodes `values` as blocks of type `ty` and appends them to `out`.
///
/// # Errors
/// If the type is not [encodable](GgmlType::is_encodable), `values` is not a whole number of blocks, or a value
/// is not finite or is larger in magnitude than 65504, f16's range (F32 and BF16 have their own).
pub fn encode(ty: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    encode_from(0, ty, values, out)
}

/// As [`encode`]. `first` is the index of `values[0]` in the whole tensor, so that errors give the index there.
pub(crate) fn encode_from(first: usize, ty: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    if !ty.is_encodable() {
        let known = names_where(GgmlType::is_encodable);
        return Err(Error::other(format!("{ty} cannot be encoded; encodable types: {known}")));
    }
    let n_bytes = ty.row_bytes(values.len()).ok_or_else(|| {
        let (n, block) = (values.len(), ty.block_values());
        Error::other(format!("{n} values are not a whole number of {ty} blocks of {block}"))
    })?;
    check_range(first, ty, values)?;
    out.try_reserve(n_bytes)
        .map_err(|_| Error::other(format!("not enough memory for {n_bytes} bytes of {ty}")))?;
    match ty {
        GgmlType::F32 => blocks(values, out, |x: &[f32; 1]| x[0].to_le_bytes()),
        GgmlType::F16 => blocks(values, out, |x: &[f32; 1]| f16::from_f32(x[0]).to_le_bytes()),
        GgmlType::BF16 => blocks(values, out, |x: &[f32; 1]| bf16::from_f32(x[0]).to_le_bytes()),
        GgmlType::Q4_0 => blocks(values, out, q4_0),
        GgmlType::Q4_1 => blocks(values, out, q4_1),
        GgmlType::Q5_0 => blocks(values, out, q5_0),
        GgmlType::Q5_1 => blocks(values, out, q5_1),
        GgmlType::Q8_0 => blocks(values, out, q8_0),
        GgmlType::Q4_K => blocks(values, out, k::q4_k),
        GgmlType::Q5_K => blocks(values, out, k::q5_k),
        GgmlType::Q6_K => blocks(values, out, k::q6_k),
        _ => unreachable!("{ty} is in the table of encodable types"),
    }
    Ok(())
}

fn check_range(first: usize, ty: GgmlType, values: &[f32]) -> Result<()> {
    let limit = match ty {
        GgmlType::F32 => f32::MAX,
        GgmlType::BF16 => bf16::MAX.to_f32(),
        _ => f16::MAX.to_f32(),
    };
    match values.iter().position(|x| x.is_nan() || x.abs() > limit) {
        None => Ok(()),
        Some(i) => {
            let (at, x) = (first + i, values[i]);
            Err(Error::other(if x.is_finite() {
                format!("value {at} is {x}, but {ty} holds magnitudes up to {limit}")
            } else {
                format!("value {at} is {x}; only finite values can be encoded as {ty}")
            }))
        }
    }
}

/// Appends one `block` for each `N` values. The caller has checked that `N` divides their number.
fn blocks<const N: usize, const B: usize>(
    values: &[f32],
    out: &mut Vec<u8>,
    block: impl Fn(&[f32; N]) -> [u8; B],
) {
    for x in values.as_chunks::<N>().0 {
        out.extend_from_slice(&block(x));
    }
}

/// Writes `x` as f16 at byte `i` and returns the stored value. Codes must be computed from the stored value.
fn put_half(b: &mut [u8], i: usize, x: f32) -> f32 {
    let x = f16::from_f32(x);
    b[i..i + 2].copy_from_slice(&x.to_le_bytes());
    x.to_f32()
}

/// As [`put_half`], but a subnormal scale is rounded away from zero. Rounding towards zero can lose much or all
/// of it, and the largest values would then have no code.
fn put_scale(b: &mut [u8], i: usize, d: f32) -> f32 {
    // Normal numbers keep at least this fraction when they are rounded.
    const KEPT_MIN: f32 = 0.999;
    let half = f16::from_f32(d);
    if half.to_f32().abs() >= d.abs() * KEPT_MIN {
        return put_half(b, i, d);
    }
    // Among floats of one sign, the next bit pattern is the next larger magnitude.
    put_half(b, i, f16::from_bits(half.to_bits() + 1).to_f32())
}

/// Stores 32 codes of four bits: byte j holds code j low and code j + 16 high.
fn put_nibbles(qs: &mut [u8], codes: &[u8; 32]) {
    for (j, q) in qs.iter_mut().enumerate() {
        *q = codes[j] & 15 | codes[j + 16] << 4;
    }
}

/// Stores the fifth bits of 32 codes, bit j for code j.
fn put_fifth(qh: &mut [u8], codes: &[u8; 32]) {
    for (j, code) in codes.iter().enumerate() {
        qh[j / 8] |= (code >> 4 & 1) << (j % 8);
    }
}

/// Codes of `x` for the values `d * (code - zero)`, code in `[0, 2 * zero)`.
fn codes_symmetric<const N: usize>(x: &[f32; N], d: f32, zero: f32) -> [u8; N] {
    let inverse = reciprocal(d);
    x.map(|x| (nearest(x * inverse).clamp(-zero, zero - 1.0) + zero) as u8)
}

/// Codes of `x` for the values `d * code + m`, code in `[0, code_max]`.
fn codes_affine<const N: usize>(x: &[f32; N], d: f32, m: f32, code_max: f32) -> [u8; N] {
    let inverse = reciprocal(d);
    x.map(|x| nearest(((x - m) * inverse).clamp(0.0, code_max)) as u8)
}

fn q4_0(x: &[f32; 32]) -> [u8; 18] {
    let mut b = [0; 18];
    let d = put_scale(&mut b, 0, symmetric(x, -8.0, 7.0));
    put_nibbles(&mut b[2..], &codes_symmetric(x, d, 8.0));
    b
}

fn q4_1(x: &[f32; 32]) -> [u8; 20] {
    let mut b = [0; 20];
    let (d, m) = affine(x, 15.0, f32::MAX);
    let (d, m) = (put_scale(&mut b, 0, d), put_half(&mut b, 2, m));
    put_nibbles(&mut b[4..], &codes_affine(x, d, m, 15.0));
    b
}

fn q5_0(x: &[f32; 32]) -> [u8; 22] {
    let mut b = [0; 22];
    let d = put_scale(&mut b, 0, symmetric(x, -16.0, 15.0));
    let codes = codes_symmetric(x, d, 16.0);
    put_fifth(&mut b[2..6], &codes);
    put_nibbles(&mut b[6..], &codes);
    b
}

fn q5_1(x: &[f32; 32]) -> [u8; 24] {
    let mut b = [0; 24];
    let (d, m) = affine(x, 31.0, f32::MAX);
    let (d, m) = (put_scale(&mut b, 0, d), put_half(&mut b, 2, m));
    let codes = codes_affine(x, d, m, 31.0);
    put_fifth(&mut b[4..8], &codes);
    put_nibbles(&mut b[8..], &codes);
    b
}

fn q8_0(x: &[f32; 32]) -> [u8; 34] {
    let mut b = [0; 34];
    let d = put_scale(&mut b, 0, symmetric(x, -127.0, 127.0));
    let inverse = reciprocal(d);
    for (b, x) in b[2..].iter_mut().zip(x) {
        // -128 is left unused: kernels that negate bytes (as AVX2's sign trick does) would overflow on it.
        *b = nearest((x * inverse).clamp(-127.0, 127.0)) as i8 as u8;
    }
    b
}
