//! Encoders of the formats with 256 values a block. The scale of a sub-block is a small integer times the
//! block's f16 scale. The nearest integer and its neighbours are all tried on the values, and the one with the
//! least error is kept.

use super::search::{affine, error, nearest, reciprocal, symmetric};
use super::{codes_affine, codes_symmetric, put_scale};

/// The integer scales and minimums of the eight sub-blocks of a Q4_K or Q5_K block, and the codes of its
/// values.
struct Affine {
    codes: [u8; 256],
    scales: [u8; 8],
    mins: [u8; 8],
}

/// Writes the block's two f16 scales to bytes 0-3 of `b` and returns everything else. A value decodes to `d *
/// scale * code - dmin * min`.
fn affine_block(x: &[f32; 256], code_max: f32, b: &mut [u8]) -> Affine {
    const SCALE_MAX: f32 = 63.0;
    let subs = x.as_chunks::<32>().0;
    let mut wanted = [(0.0f32, 0.0f32); 8];
    for (wanted, x) in wanted.iter_mut().zip(subs) {
        // A minimum above zero cannot be stored.
        let (d, m) = affine(x, code_max, 0.0);
        *wanted = (d, -m);
    }
    let largest = wanted.iter().fold((0.0f32, 0.0f32), |l, w| (l.0.max(w.0), l.1.max(w.1)));
    let d = put_scale(b, 0, largest.0 / SCALE_MAX);
    let dmin = put_scale(b, 2, largest.1 / SCALE_MAX);
    let mut block = Affine { codes: [0; 256], scales: [0; 8], mins: [0; 8] };
    for (i, x) in subs.iter().enumerate() {
        let scale = nearest((wanted[i].0 * reciprocal(d)).clamp(0.0, SCALE_MAX));
        let min = nearest((wanted[i].1 * reciprocal(dmin)).clamp(0.0, SCALE_MAX));
        let mut best = (f32::INFINITY, scale, min);
        for s in [scale, scale - 1.0, scale + 1.0] {
            for m in [min, min - 1.0, min + 1.0] {
                if (0.0..=SCALE_MAX).contains(&s) && (0.0..=SCALE_MAX).contains(&m) {
                    let e = error(x, d * s, -dmin * m, 0.0, code_max);
                    if e < best.0 {
                        best = (e, s, m);
                    }
                }
            }
        }
        let (_, scale, min) = best;
        let codes = codes_affine(x, d * scale, -dmin * min, code_max);
        block.codes[32 * i..][..32].copy_from_slice(&codes);
        (block.scales[i], block.mins[i]) = (scale as u8, min as u8);
    }
    block
}

/// Packs eight pairs of 6 bits into 12 bytes; `decode::k::scale_min` describes the layout.
fn put_scales(packed: &mut [u8], block: &Affine) {
    let (s, m) = (&block.scales, &block.mins);
    for i in 0..4 {
        packed[i] = s[i] | s[i + 4] >> 4 << 6;
        packed[i + 4] = m[i] | m[i + 4] >> 4 << 6;
        packed[i + 8] = s[i + 4] & 15 | (m[i + 4] & 15) << 4;
    }
}

/// Stores the low four bits of the codes: 64 values share 32 bytes, the first 32 in the low halves.
fn put_low(qs: &mut [u8], codes: &[u8; 256]) {
    for (i, q) in qs.iter_mut().enumerate() {
        let first = i / 32 * 64 + i % 32;
        *q = codes[first] & 15 | codes[first + 32] << 4;
    }
}

// d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]
pub(super) fn q4_k(x: &[f32; 256]) -> [u8; 144] {
    let mut b = [0; 144];
    let block = affine_block(x, 15.0, &mut b);
    put_scales(&mut b[4..16], &block);
    put_low(&mut b[16..], &block.codes);
    b
}

// d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128]
pub(super) fn q5_k(x: &[f32; 256]) -> [u8; 176] {
    let mut b = [0; 176];
    let block = affine_block(x, 31.0, &mut b);
    put_scales(&mut b[4..16], &block);
    for (i, code) in block.codes.iter().enumerate() {
        b[16 + i % 32] |= (code >> 4) << (i / 32);
    }
    put_low(&mut b[48..], &block.codes);
    b
}

// ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16
pub(super) fn q6_k(x: &[f32; 256]) -> [u8; 210] {
    const SCALE_MIN: f32 = -128.0;
    const SCALE_MAX: f32 = 127.0;
    const ZERO: f32 = 32.0;
    let mut b = [0; 210];
    let subs = x.as_chunks::<16>().0;
    let mut wanted = [0.0f32; 16];
    for (wanted, x) in wanted.iter_mut().zip(subs) {
        *wanted = symmetric(x, -ZERO, ZERO - 1.0);
    }
    // The scale largest in magnitude becomes -128, the integer largest in magnitude, whatever its sign.
    let largest = wanted.iter().fold(0.0f32, |l, w| if w.abs() > l.abs() { *w } else { l });
    let d = put_scale(&mut b, 208, largest / SCALE_MIN);
    let mut codes = [0u8; 256];
    for (i, x) in subs.iter().enumerate() {
        let near = nearest((wanted[i] * reciprocal(d)).clamp(SCALE_MIN, SCALE_MAX));
        let mut best = (f32::INFINITY, near);
        for s in [near, near - 1.0, near + 1.0] {
            if (SCALE_MIN..=SCALE_MAX).contains(&s) {
                let e = error(x, d * s, 0.0, -ZERO, ZERO - 1.0);
                if e < best.0 {
                    best = (e, s);
                }
            }
        }
        codes[16 * i..][..16].copy_from_slice(&codes_symmetric(x, d * best.1, ZERO));
        b[192 + i] = best.1 as i8 as u8;
    }
    // Each half of 128 values uses 64 bytes of ql (values 64 apart share a byte) and 32 of qh (32 apart).
    for (i, code) in codes.iter().enumerate() {
        let (half, j) = (i / 128, i % 128);
        b[half * 64 + j % 64] |= (code & 15) << (j / 64 * 4);
        b[128 + half * 32 + j % 32] |= (code >> 4) << (j / 32 * 2);
    }
    b
}
