//! Q5_0: f16 d, 4 bytes of fifth bits, 16 bytes of nibbles; `d · (code − 16)`.

use super::{fifth_bits, nibbles, u16_at};
use crate::cpu::matmul::q32::{Block, Format};

pub(crate) struct Q5_0;

impl Format for Q5_0 {
    const BLOCK_BYTES: usize = 22;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 1;
    const OFFSET: i16 = 16;
    const CODE_MAX: u8 = 31;
    const HAS_MIN: bool = false;

    fn split(block: &[u8], out: &mut Block) {
        out.d = u16_at(block, 0);
        nibbles(&block[6..22], &mut out.codes);
        fifth_bits(&block[2..6], &mut out.codes);
    }
}
