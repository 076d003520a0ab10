//! The reference definition of every block format: bytes to numbers, one value at a time, in f32.
//!
//! Written for clarity; every faster decoder in the project is tested against it. The layouts are ggml's
//! (`ggml-common.h`). Each format is one function that decodes one block: blocks of 32 values here, those of
//! 256 in [`k`].

mod k;

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::format::{GgmlType, names_where};

/// Decodes `bytes`, whole blocks of type `ty`, into `out`: one f32 per value, in row order.
///
/// # Errors
/// If the type is not [decodable](GgmlType::is_decodable), or `bytes` is not exactly the encoding of
/// `out.len()` values.
pub fn decode(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if ty.row_bytes(out.len()) != Some(bytes.len()) {
        return Err(Error::other(format!(
            "{} bytes are not {} values of {ty}: a block of {} values takes {} bytes",
            bytes.len(),
            out.len(),
            ty.block_values(),
            ty.block_bytes()
        )));
    }
    match ty {
        GgmlType::F32 => blocks(bytes, out, |b: &[u8; 4], y: &mut [f32; 1]| y[0] = f32::from_le_bytes(*b)),
        GgmlType::F16 => blocks(bytes, out, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = half_at(b, 0)),
        GgmlType::BF16 => {
            blocks(bytes, out, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = bf16::from_le_bytes(*b).to_f32());
        }
        GgmlType::Q4_0 => blocks(bytes, out, q4_0),
        GgmlType::Q4_1 => blocks(bytes, out, q4_1),
        GgmlType::Q5_0 => blocks(bytes, out, q5_0),
        GgmlType::Q5_1 => blocks(bytes, out, q5_1),
        GgmlType::Q8_0 => blocks(bytes, out, q8_0),
        GgmlType::Q2_K => blocks(bytes, out, k::q2_k),
        GgmlType::Q3_K => blocks(bytes, out, k::q3_k),
        GgmlType::Q4_K => blocks(bytes, out, k::q4_k),
        GgmlType::Q5_K => blocks(bytes, out, k::q5_k),
        GgmlType::Q6_K => blocks(bytes, out, k::q6_k),
        GgmlType::IQ4_NL => blocks(bytes, out, iq4_nl),
        GgmlType::IQ4_XS => blocks(bytes, out, k::iq4_xs),
        GgmlType::MXFP4 => blocks(bytes, out, mxfp4),
        _ => {
            let known = names_where(GgmlType::is_decodable);
            return Err(Error::other(format!("{ty} cannot be decoded; decodable types: {known}")));
        }
    }
    Ok(())
}

/// Calls `block` for each block of `B` bytes and `N` values. The caller has checked that the lengths match.
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let (bytes, _) = bytes.as_chunks::<B>();
    let (out, _) = out.as_chunks_mut::<N>();
    for (b, y) in bytes.iter().zip(out) {
        block(b, y);
    }
}

/// The f16 at byte `i`.
fn half_at(bytes: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([bytes[i], bytes[i + 1]]).to_f32()
}

/// What the 16 codes of IQ4_NL and IQ4_XS stand for: values denser around zero, where most weights are.
const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The 16 values of FP4 (E2M1), doubled so that they are integers; the scale is halved to match.
const FP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

// In every format with 32 four-bit codes, byte j holds code j (low half) and code j + 16 (high half).
fn nibbles(qs: &[u8], y: &mut [f32; 32], value: impl Fn(usize, u8) -> f32) {
    for (j, q) in qs.iter().enumerate() {
        y[j] = value(j, q & 15);
        y[j + 16] = value(j + 16, q >> 4);
    }
}

// d: f16, qs: [u8; 16]
fn q4_0(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    nibbles(&b[2..], y, |_, q| d * (q as f32 - 8.0));
}

// d: f16, m: f16, qs: [u8; 16]
fn q4_1(b: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    nibbles(&b[4..], y, |_, q| d * q as f32 + m);
}

// Bit j of `high` is the fifth bit of value j.
fn fifth(high: &[u8], j: usize) -> u8 {
    (high[j / 8] >> (j % 8) & 1) << 4
}

// d: f16, qh: [u8; 4], qs: [u8; 16]
fn q5_0(b: &[u8; 22], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    nibbles(&b[6..], y, |j, q| d * ((q | fifth(&b[2..6], j)) as f32 - 16.0));
}

// d: f16, m: f16, qh: [u8; 4], qs: [u8; 16]
fn q5_1(b: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    nibbles(&b[8..], y, |j, q| d * (q | fifth(&b[4..8], j)) as f32 + m);
}

// d: f16, qs: [i8; 32]
fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (y, q) in y.iter_mut().zip(&b[2..]) {
        *y = d * (*q as i8) as f32;
    }
}

// d: f16, qs: [u8; 16]
fn iq4_nl(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    nibbles(&b[2..], y, |_, q| d * IQ4_VALUES[q as usize] as f32);
}

// e: u8, qs: [u8; 16]; the scale is 2^(e - 128), half of E8M0's 2^(e - 127) because the values are doubled.
fn mxfp4(b: &[u8; 17], y: &mut [f32; 32]) {
    let d = match b[0] {
        // Below the smallest normal number: 2^-128 and 2^-127.
        e @ 0..2 => f32::from_bits(0x0020_0000 << e),
        e => f32::from_bits((e as u32 - 1) << 23),
    };
    nibbles(&b[1..], y, |_, q| d * FP4_DOUBLED[q as usize] as f32);
}
