//! Random blocks of every type that a mix can contain. Block `i` of tensor `t` depends on (seed, t, i) alone,
//! so any thread may generate any of them.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::format::GgmlType;
use crate::random::{Random, mix};

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
            self.unit(&mut Random::new(mix(self.key ^ (first + i as u64))), b);
        }
    }

    fn unit(&self, random: &mut Random, b: &mut [u8]) {
        let std = self.std;
        if !self.ty.is_quantized() {
            let mut x = [0.0f32; FLOAT_UNIT];
            x.iter_mut().for_each(|x| *x = random.normal() * std);
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
        let d = std * (0.8 + (1.2 - 0.8) * random.unit());
        match self.ty {
            GgmlType::Q4_0 => {
                put_half(b, 0, d / 4.6);
                random.fill(&mut b[2..]);
            }
            GgmlType::Q4_1 => {
                put_half(b, 0, d / 4.6);
                put_half(b, 2, d / 4.6 * -7.5);
                random.fill(&mut b[4..]);
            }
            GgmlType::Q5_0 => {
                put_half(b, 0, d / 9.2);
                random.fill(&mut b[2..]);
            }
            GgmlType::Q5_1 => {
                put_half(b, 0, d / 9.2);
                put_half(b, 2, d / 9.2 * -15.5);
                random.fill(&mut b[4..]);
            }
            GgmlType::Q8_0 => {
                put_half(b, 0, d / 73.0);
                random.fill(&mut b[2..]);
            }
            GgmlType::Q4_K => k_affine(random, b, d / (48.0 * 4.6), 8.0),
            GgmlType::Q5_K => k_affine(random, b, d / (48.0 * 9.2), 16.0),
            GgmlType::Q6_K => {
                random.fill(&mut b[..208]);
                // Scales from 64 to 127.
                b[192..208].iter_mut().for_each(|s| *s = 64 | *s & 63);
                put_half(b, 208, d / (96.0 * 18.5));
            }
            other => unreachable!("no mix contains {other}"),
        }
    }
}

/// Q4_K and Q5_K: scales from 32 to 63, and minimums for which the middle of the codes decodes to zero.
fn k_affine(random: &mut Random, b: &mut [u8], d: f32, min_per_scale: f32) {
    put_half(b, 0, d);
    put_half(b, 2, d * min_per_scale);
    let mut scales = random.bits().to_le_bytes();
    scales.iter_mut().for_each(|s| *s = 32 | *s & 31);
    let mins = scales.map(|s| (s as u32 * 15 / 16) as u8);
    for i in 0..4 {
        b[4 + i] = scales[i] | scales[i + 4] >> 4 << 6;
        b[8 + i] = mins[i] | mins[i + 4] >> 4 << 6;
        b[12 + i] = scales[i + 4] & 15 | (mins[i + 4] & 15) << 4;
    }
    random.fill(&mut b[16..]);
}

fn put_half(b: &mut [u8], i: usize, d: f32) {
    b[i..i + 2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
}

fn put<const N: usize>(b: &mut [u8], items: impl Iterator<Item = [u8; N]>) {
    for (b, item) in b.as_chunks_mut::<N>().0.iter_mut().zip(items) {
        *b = item;
    }
}
