//! Q3_K: 32 bytes of third bits, 64 bytes of two-bit codes, 12 bytes of six-bit scales, f16 d; `d · (scale − 32) · (code − 4)` in groups of 16.

use super::u16_at;
use crate::cpu::matmul::q256::{Block, Format, Scales};

pub(crate) struct Q3K;

impl Format for Q3K {
    const BLOCK_BYTES: usize = 110;
    const LOW_BITS: u32 = 2;
    const HIGH_BITS: u32 = 1;
    const GROUP: usize = 16;
    const OFFSET: i16 = 4;
    const CODE_MAX: u8 = 7;
    const SCALES: Scales = Scales::SixBits;
    const HAS_MIN: bool = false;
    const SCALE_OFFSET: i16 = -32;

    fn split(block: &[u8], out: &mut Block) {
        out.d = u16_at(block, 108);
        let packed = &block[96..108];
        for (i, scale) in out.scales.iter_mut().enumerate() {
            let low = packed[i % 8] >> (i / 8 * 4) & 15;
            *scale = low | (packed[8 + i % 4] >> (i / 4 * 2) & 3) << 4;
        }
        for (i, code) in out.codes.iter_mut().enumerate() {
            let low = block[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            *code = low | (block[i % 32] >> (i / 32) & 1) << 2;
        }
    }
}
