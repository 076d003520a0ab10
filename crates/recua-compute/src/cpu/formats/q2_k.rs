//! Q2_K: 16 bytes of four-bit scales and minima, 64 bytes of two-bit codes, f16 d, f16 dmin; `d · scale · code − dmin · min` in groups of 16.

use super::u16_at;
use crate::cpu::matmul::q256::{Block, Format, Scales};

pub(crate) struct Q2K;

impl Format for Q2K {
    const BLOCK_BYTES: usize = 84;
    const LOW_BITS: u32 = 2;
    const HIGH_BITS: u32 = 0;
    const GROUP: usize = 16;
    const OFFSET: i16 = 0;
    const CODE_MAX: u8 = 3;
    const SCALES: Scales = Scales::Nibbles;
    const HAS_MIN: bool = true;

    fn split(block: &[u8], out: &mut Block) {
        (out.d, out.dmin) = (u16_at(block, 80), u16_at(block, 82));
        for i in 0..16 {
            (out.scales[i], out.mins[i]) = (block[i] & 15, block[i] >> 4);
        }
        for (i, code) in out.codes.iter_mut().enumerate() {
            *code = block[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        }
    }
}
