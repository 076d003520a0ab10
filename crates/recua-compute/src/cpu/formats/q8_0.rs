//! Q8_0: f16 d, 32 signed bytes; `d · code`. Codes are stored plus 128, because byte products need one unsigned operand.

use super::u16_at;
use crate::cpu::matmul::q32::{Block, Format};

pub(crate) struct Q8_0;

impl Format for Q8_0 {
    const BLOCK_BYTES: usize = 34;
    const LOW_BITS: u32 = 8;
    const HIGH_BITS: u32 = 0;
    const OFFSET: i16 = 128;
    const CODE_MAX: u8 = 255;
    const HAS_MIN: bool = false;

    fn split(block: &[u8], out: &mut Block) {
        out.d = u16_at(block, 0);
        for (code, byte) in out.codes.iter_mut().zip(&block[2..34]) {
            *code = byte ^ 0x80;
        }
    }
}
