//! Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles.

use super::{scales_and_mins, u16_at};
use crate::cpu::matmul::q256::{Block, Format, Scales};

pub(crate) struct Q5K;

impl Format for Q5K {
    const BLOCK_BYTES: usize = 176;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 1;
    const GROUP: usize = 32;
    const OFFSET: i16 = 0;
    const CODE_MAX: u8 = 31;
    const SCALES: Scales = Scales::SixBits;
    const HAS_MIN: bool = true;

    fn split(block: &[u8], out: &mut Block) {
        (out.d, out.dmin) = (u16_at(block, 0), u16_at(block, 2));
        scales_and_mins(&block[4..16], &mut out.scales, &mut out.mins);
        let high = &block[16..48];
        for (c, (bytes, codes)) in
            block[48..].chunks_exact(32).zip(out.codes.chunks_exact_mut(64)).enumerate()
        {
            for (i, byte) in bytes.iter().enumerate() {
                codes[i] = byte & 15 | (high[i] >> (2 * c) & 1) << 4;
                codes[i + 32] = byte >> 4 | (high[i] >> (2 * c + 1) & 1) << 4;
            }
        }
    }
}
