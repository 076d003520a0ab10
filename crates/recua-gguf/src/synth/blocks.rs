//! Random blocks of every type that a mix can contain. Block `i` of tensor `t` depends on (seed, t, i) alone,
//! so any thread may generate any of them.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::format::GgmlType;

/// Values generated together for a type without blocks.
const FLOAT_UNIT: usize = 256;

/// The random content of one tensor.
pub(super) struct Source {
    ty: GgmlType,
    std: f32,
    key: u64,
}

impl Source {
    /// Values of mean 0 and standard deviation of about `std`.
    pub(super) fn new(ty: GgmlType, std: f32, seed: u64, tensor: u64) -> Self {
        Self { ty, std, key: mix(mix(seed) ^ tensor) }
    }

    /// Values generated together (a unit): a block, or 256 numbers of a type without blocks.
    pub(super) fn unit_values(&self) -> usize {
        if self.ty.is_quantized() { self.ty.block_values() } else { FLOAT_UNIT }
    }

    pub(super) fn unit_bytes(&self) -> usize {
        self.unit_values() / self.ty.block_values() * self.ty.block_bytes()
    }

    /// Fills `out` with units `first`, `first + 1`, ...
    pub(super) fn fill(&self, first: u64, out: &mut [u8]) {
        for (i, b) in out.chunks_exact_mut(self.unit_bytes()).enumerate() {
            self.unit(&mut Rng { state: mix(self.key ^ (first + i as u64)) }, b);
        }
    }

    fn unit(&self, rng: &mut Rng, b: &mut [u8]) {
        let std = self.std;
        if !self.ty.is_quantized() {
            let mut x = [0.0f32; FLOAT_UNIT];
            x.iter_mut().for_each(|x| *x = rng.normal() * std);
            return match self.ty {
                GgmlType::F16 => {
                    let mut h = [f16::ZERO; FLOAT_UNIT];
                    h.convert_from_f32_slice(&x);
                    put(b, h.iter().map(|h| h.to_le_bytes()));
                }
                GgmlType::BF16 => put(b, x.iter().map(|x| bf16::from_f32(*x).to_le_bytes())),
                _ => put(b, x.iter().map(|x| x.to_le_bytes())),
            };
        }
        // Codes are uniform. The divisors below are the codes' standard deviation times the mean of the integer
        // scales.
        let d = std * rng.uniform(0.8, 1.2);
        match self.ty {
            GgmlType::Q4_0 => {
                put_half(b, 0, d / 4.6);
                rng.fill(&mut b[2..]);
            }
            GgmlType::Q4_1 => {
                put_half(b, 0, d / 4.6);
                put_half(b, 2, d / 4.6 * -7.5);
                rng.fill(&mut b[4..]);
            }
            GgmlType::Q5_0 => {
                put_half(b, 0, d / 9.2);
                rng.fill(&mut b[2..]);
            }
            GgmlType::Q5_1 => {
                put_half(b, 0, d / 9.2);
                put_half(b, 2, d / 9.2 * -15.5);
                rng.fill(&mut b[4..]);
            }
            GgmlType::Q8_0 => {
                put_half(b, 0, d / 73.0);
                rng.fill(&mut b[2..]);
            }
            GgmlType::Q4_K => k_affine(rng, b, d / (48.0 * 4.6), 8.0),
            GgmlType::Q5_K => k_affine(rng, b, d / (48.0 * 9.2), 16.0),
            GgmlType::Q6_K => {
                rng.fill(&mut b[..208]);
                // Scales from 64 to 127.
                b[192..208].iter_mut().for_each(|s| *s = 64 | *s & 63);
                put_half(b, 208, d / (96.0 * 18.5));
            }
            other => unreachable!("no mix contains {other}"),
        }
    }
}

/// Q4_K and Q5_K: scales from 32 to 63, and minimums for which the middle of the codes decodes to zero.
fn k_affine(rng: &mut Rng, b: &mut [u8], d: f32, min_per_scale: f32) {
    put_half(b, 0, d);
    put_half(b, 2, d * min_per_scale);
    let mut scales = rng.next().to_le_bytes();
    scales.iter_mut().for_each(|s| *s = 32 | *s & 31);
    let mins = scales.map(|s| (s as u32 * 15 / 16) as u8);
    for i in 0..4 {
        b[4 + i] = scales[i] | scales[i + 4] >> 4 << 6;
        b[8 + i] = mins[i] | mins[i + 4] >> 4 << 6;
        b[12 + i] = scales[i + 4] & 15 | (mins[i + 4] & 15) << 4;
    }
    rng.fill(&mut b[16..]);
}

fn put_half(b: &mut [u8], i: usize, d: f32) {
    b[i..i + 2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
}

fn put<const N: usize>(b: &mut [u8], items: impl Iterator<Item = [u8; N]>) {
    for (b, item) in b.as_chunks_mut::<N>().0.iter_mut().zip(items) {
        *b = item;
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Rng {
    state: u64,
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Rng {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    fn uniform(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * ((self.next() >> 40) as f32 / (1u32 << 24) as f32)
    }

    /// An almost normal number of mean 0 and standard deviation 1: the scaled sum of four uniform ones.
    fn normal(&mut self) -> f32 {
        // A uniform 16-bit number has mean 32767.5 and variance 65536^2 / 12; the sum of four has four times
        // both.
        const MEAN: f32 = 4.0 * 32_767.5;
        const STD: f32 = 37_837.2;
        let r = self.next();
        let sum = (r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48);
        (sum as f32 - MEAN) / STD
    }
}
