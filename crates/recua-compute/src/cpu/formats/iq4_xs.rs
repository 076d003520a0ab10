//! IQ4_XS: f16 d, six-bit scales in 6 bytes, 128 bytes of nibbles that index 16 levels; `d · (scale − 32) · level` in groups of 32.

use super::{IQ4_LEVELS, nibbles, u16_at};
use crate::cpu::matmul::q256::{Block, Format, Scales};

pub(crate) struct Iq4Xs;

impl Format for Iq4Xs {
    const BLOCK_BYTES: usize = 136;
    const LOW_BITS: u32 = 4;
    const HIGH_BITS: u32 = 0;
    const GROUP: usize = 32;
    const OFFSET: i16 = 128;
    const CODE_MAX: u8 = 241;
    const SCALES: Scales = Scales::Bytes;
    const HAS_MIN: bool = false;
    const TABLE: Option<&'static [u8; 16]> = Some(&IQ4_LEVELS);

    fn split(block: &[u8], out: &mut Block) {
        out.d = u16_at(block, 0);
        let high = u16_at(block, 2);
        for i in 0..8 {
            let low = block[4 + i / 2] >> (i % 2 * 4) & 15;
            let scale = low | ((high >> (2 * i) & 3) as u8) << 4;
            out.scales[i] = scale.wrapping_sub(32);
        }
        for (bytes, codes) in block[8..].chunks_exact(16).zip(out.codes.chunks_exact_mut(32)) {
            nibbles(bytes, codes);
        }
    }
}
