//! Q4_K: f16 d, f16 dmin, 12 bytes of six-bit scales and minima, 128 bytes of nibbles; `d · scale · code − dmin · min` in groups of 32.

use super::{scales_and_mins, u16_at};
use crate::cpu::matmul::q256::{Block, Format, Scales};

pub(crate) struct Q4K;

impl Format for Q4K {
    const BLOCK_BYTES: usize = 144;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 0;
    const GROUP: usize = 32;
    const OFFSET: i16 = 0;
    const CODE_MAX: u8 = 15;
    const SCALES: Scales = Scales::SixBits;
    const HAS_MIN: bool = true;

    fn split(block: &[u8], out: &mut Block) {
        (out.d, out.dmin) = (u16_at(block, 0), u16_at(block, 2));
        scales_and_mins(&block[4..16], &mut out.scales, &mut out.mins);
        for (bytes, codes) in block[16..].chunks_exact(32).zip(out.codes.chunks_exact_mut(64)) {
            for (i, byte) in bytes.iter().enumerate() {
                codes[i] = byte & 15;
                codes[i + 32] = byte >> 4;
            }
        }
    }
}
