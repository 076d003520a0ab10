//! Q6_K: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, f16 d; `d · scale · (code − 32)` in groups of 16.

use super::u16_at;
use crate::cpu::matmul::q256::{Block, Format, Scales};

pub(crate) struct Q6K;

impl Format for Q6K {
    const BLOCK_BYTES: usize = 210;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 2;
    const GROUP: usize = 16;
    const OFFSET: i16 = 32;
    const CODE_MAX: u8 = 63;
    const SCALES: Scales = Scales::Bytes;
    const HAS_MIN: bool = false;

    fn split(block: &[u8], out: &mut Block) {
        out.d = u16_at(block, 208);
        out.scales.copy_from_slice(&block[192..208]);
        for n in 0..2 {
            let (low, high) = (&block[64 * n..][..64], &block[128 + 32 * n..][..32]);
            let codes = &mut out.codes[128 * n..][..128];
            for l in 0..32 {
                codes[l] = low[l] & 15 | (high[l] & 3) << 4;
                codes[l + 32] = low[l + 32] & 15 | (high[l] >> 2 & 3) << 4;
                codes[l + 64] = low[l] >> 4 | (high[l] >> 4 & 3) << 4;
                codes[l + 96] = low[l + 32] >> 4 | (high[l] >> 6) << 4;
            }
        }
    }
}
