//! Decoders of the formats with 256 values a block and a small scale per 16 or 32 of them.

use super::{IQ4_VALUES, half_at};

/// The 6-bit scale and minimum of sub-block `i` of Q4_K and Q5_K, packed into 12 bytes. The first four pairs
/// are the low 6 bits of bytes 0-7, scales before minimums. The last four have their low 4 bits in bytes 8-11
/// and their high 2 bits in the top bits of bytes 0-7.
pub(crate) fn scale_min(i: usize, q: &[u8]) -> (u8, u8) {
    if i < 4 {
        (q[i] & 63, q[i + 4] & 63)
    } else {
        ((q[i + 4] & 15) | (q[i - 4] >> 6) << 4, (q[i + 4] >> 4) | (q[i] >> 6) << 4)
    }
}

// scales: [u8; 16] (scale low, minimum high), qs: [u8; 64], d: f16, dmin: f16
pub(super) fn q2_k(b: &[u8; 84], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 80), half_at(b, 82));
    for (i, y) in y.iter_mut().enumerate() {
        let scale = b[i / 16];
        let q = b[16 + two_bit_byte(i)] >> two_bit_shift(i) & 3;
        *y = d * (scale & 15) as f32 * q as f32 - dmin * (scale >> 4) as f32;
    }
}

// In Q2_K and Q3_K, each half of 128 values takes 32 bytes. A byte holds four values that are 32 apart, the
// first in the lowest bits.
fn two_bit_byte(i: usize) -> usize {
    i / 128 * 32 + i % 32
}

fn two_bit_shift(i: usize) -> usize {
    i % 128 / 32 * 2
}

// hmask: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16
pub(super) fn q3_k(b: &[u8; 110], y: &mut [f32; 256]) {
    let d = half_at(b, 108);
    let packed = &b[96..108];
    for (i, y) in y.iter_mut().enumerate() {
        let s = i / 16;
        // Bytes 0-7 hold the low 4 bits of the 16 scales: 0-7 in the low halves, 8-15 in the high halves. Bytes
        // 8-11 hold the high 2 bits: those of scale s are at bits 2 * (s / 4) of byte 8 + s % 4.
        let low = packed[s % 8] >> (s / 8 * 4) & 15;
        let high = packed[8 + s % 4] >> (s / 4 * 2) & 3;
        let scale = (low | high << 4) as i32 - 32;
        let q = (b[32 + two_bit_byte(i)] >> two_bit_shift(i) & 3) as i32;
        // A set mask bit means "do not subtract 4".
        let offset = if b[i % 32] >> (i / 32) & 1 == 1 { 0 } else { 4 };
        *y = d * scale as f32 * (q - offset) as f32;
    }
}

// d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]
pub(super) fn q4_k(b: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (i, y) in y.iter_mut().enumerate() {
        let (scale, min) = scale_min(i / 32, &b[4..16]);
        // 64 values share 32 bytes: the first 32 in the low halves, the next 32 in the high ones.
        let q = b[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
        *y = d * scale as f32 * q as f32 - dmin * min as f32;
    }
}

// d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128]
pub(super) fn q5_k(b: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (i, y) in y.iter_mut().enumerate() {
        let (scale, min) = scale_min(i / 32, &b[4..16]);
        let low = b[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
        let high = b[16 + i % 32] >> (i / 32) & 1;
        *y = d * scale as f32 * (low | high << 4) as f32 - dmin * min as f32;
    }
}

// ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16
pub(super) fn q6_k(b: &[u8; 210], y: &mut [f32; 256]) {
    let d = half_at(b, 208);
    for (i, y) in y.iter_mut().enumerate() {
        // Each half of 128 values uses 64 bytes of ql (values 64 apart share a byte) and 32 of qh (32 apart).
        let (half, j) = (i / 128, i % 128);
        let low = b[half * 64 + j % 64] >> (j / 64 * 4) & 15;
        let high = b[128 + half * 32 + j % 32] >> (j / 32 * 2) & 3;
        let scale = b[192 + i / 16] as i8;
        *y = d * scale as f32 * ((low | high << 4) as i32 - 32) as f32;
    }
}

// d: f16, scales_h: u16, scales_l: [u8; 4], qs: [u8; 128]
pub(super) fn iq4_xs(b: &[u8; 136], y: &mut [f32; 256]) {
    let d = half_at(b, 0);
    let scales_high = u16::from_le_bytes([b[2], b[3]]);
    for (i, y) in y.iter_mut().enumerate() {
        let s = i / 32;
        let low = b[4 + s / 2] >> (s % 2 * 4) & 15;
        let high = (scales_high >> (2 * s) & 3) as u8;
        let scale = (low | high << 4) as i32 - 32;
        let q = b[8 + s * 16 + i % 16] >> (i % 32 / 16 * 4) & 15;
        *y = d * scale as f32 * IQ4_VALUES[q as usize] as f32;
    }
}
