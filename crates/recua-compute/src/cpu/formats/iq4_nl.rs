//! IQ4_NL: f16 d, 16 bytes of nibbles that index 16 levels; `d · level`.

use super::{IQ4_LEVELS, nibbles, u16_at};
use crate::cpu::matmul::q32::{Block, Format};

pub(crate) struct Iq4Nl;

impl Format for Iq4Nl {
    const BLOCK_BYTES: usize = 18;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 0;
    const OFFSET: i16 = 128;
    const CODE_MAX: u8 = 241;
    const HAS_MIN: bool = false;
    const TABLE: Option<&'static [u8; 16]> = Some(&IQ4_LEVELS);

    fn split(block: &[u8], out: &mut Block) {
        out.d = u16_at(block, 0);
        nibbles(&block[2..18], &mut out.codes);
    }
}
