//! The quantized formats as the CPU kernels know them: a few constants, and how to unpack a GGML block. Each format is one file.
//!
//! `recua_gguf::decode` defines what a block means; a test compares every format with it.

mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub(crate) use iq4_nl::Iq4Nl;
pub(crate) use iq4_xs::Iq4Xs;
pub(crate) use mxfp4::Mxfp4;
pub(crate) use q2_k::Q2K;
pub(crate) use q3_k::Q3K;
pub(crate) use q4_0::Q4_0;
pub(crate) use q4_1::Q4_1;
pub(crate) use q4_k::Q4K;
pub(crate) use q5_0::Q5_0;
pub(crate) use q5_1::Q5_1;
pub(crate) use q5_k::Q5K;
pub(crate) use q6_k::Q6K;
pub(crate) use q8_0::Q8_0;

/// The non-linear levels of IQ4_NL and IQ4_XS, plus 128.
pub(crate) const IQ4_LEVELS: [u8; 16] =
    [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Sixteen bytes of nibbles: the low ones are the first, the high ones the second half of 32 codes.
#[inline(always)]
pub(crate) fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        codes[i] = byte & 15;
        codes[i + 16] = byte >> 4;
    }
}

/// Adds a fifth bit to 32 codes.
#[inline(always)]
pub(crate) fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((bits >> i & 1) << 4) as u8;
    }
}

#[inline(always)]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The 8 six-bit scales and minima of Q4_K and Q5_K from their 12 bytes.
#[inline(always)]
pub(crate) fn scales_and_mins(bytes: &[u8], scales: &mut [u8; 16], mins: &mut [u8; 16]) {
    for i in 0..4 {
        scales[i] = bytes[i] & 63;
        mins[i] = bytes[i + 4] & 63;
        scales[i + 4] = bytes[i + 8] & 15 | bytes[i] >> 6 << 4;
        mins[i + 4] = bytes[i + 8] >> 4 | bytes[i + 4] >> 6 << 4;
    }
}
