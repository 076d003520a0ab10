//! Q5_1: f16 d, f16 m, 4 bytes of fifth bits, 16 bytes of nibbles; `d · code + m`.

use super::{fifth_bits, nibbles, u16_at};
use crate::cpu::matmul::q32::{Block, Format};

pub(crate) struct Q5_1;

impl Format for Q5_1 {
    const BLOCK_BYTES: usize = 24;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 1;
    const OFFSET: i16 = 0;
    const CODE_MAX: u8 = 31;
    const HAS_MIN: bool = true;

    fn split(block: &[u8], out: &mut Block) {
        (out.d, out.m) = (u16_at(block, 0), u16_at(block, 2));
        nibbles(&block[8..24], &mut out.codes);
        fifth_bits(&block[4..8], &mut out.codes);
    }
}
