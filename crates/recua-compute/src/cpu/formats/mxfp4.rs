//! MXFP4: an exponent byte, 16 bytes of nibbles that are 4-bit floats; `2^(e − 128) · level`, with levels doubled so that they are integers.

use super::nibbles;
use crate::cpu::matmul::q32::{Block, Format};

/// 0, 1, 2, 3, 4, 6, 8, 12 and their negatives, plus 12.
const LEVELS: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

pub(crate) struct Mxfp4;

impl Format for Mxfp4 {
    const BLOCK_BYTES: usize = 17;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 0;
    const OFFSET: i16 = 12;
    const CODE_MAX: u8 = 24;
    const HAS_MIN: bool = false;
    const TABLE: Option<&'static [u8; 16]> = Some(&LEVELS);
    const WIDE_SCALE: bool = true;

    fn split(block: &[u8], out: &mut Block) {
        // 2^(e − 128) as bf16 bits; the two smallest are subnormal.
        out.d = match block[0] {
            0 => 0x20,
            1 => 0x40,
            e => u16::from(e - 1) << 7,
        };
        nibbles(&block[1..17], &mut out.codes);
    }
}
