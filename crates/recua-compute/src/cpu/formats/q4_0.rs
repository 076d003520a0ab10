//! Q4_0: f16 d, 16 bytes of nibbles; `d · (code − 8)`.

use super::{nibbles, u16_at};
use crate::cpu::matmul::q32::{Block, Format};

pub(crate) struct Q4_0;

impl Format for Q4_0 {
    const BLOCK_BYTES: usize = 18;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 0;
    const OFFSET: i16 = 8;
    const CODE_MAX: u8 = 15;
    const HAS_MIN: bool = false;

    fn split(block: &[u8], out: &mut Block) {
        out.d = u16_at(block, 0);
        nibbles(&block[2..18], &mut out.codes);
    }
}
