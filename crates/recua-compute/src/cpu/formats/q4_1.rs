//! Q4_1: f16 d, f16 m, 16 bytes of nibbles; `d · code + m`.

use super::{nibbles, u16_at};
use crate::cpu::matmul::q32::{Block, Format};

pub(crate) struct Q4_1;

impl Format for Q4_1 {
    const BLOCK_BYTES: usize = 20;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 0;
    const OFFSET: i16 = 0;
    const CODE_MAX: u8 = 15;
    const HAS_MIN: bool = true;

    fn split(block: &[u8], out: &mut Block) {
        (out.d, out.m) = (u16_at(block, 0), u16_at(block, 2));
        nibbles(&block[4..20], &mut out.codes);
    }
}
