//! Seeded numbers for synthetic models, benches and tests: the same on every machine, so that files, figures and hashes can be
//! compared and a failure repeats.

/// SplitMix64 (Steele, Lea and Flood, 2014).
///
/// ```
/// let mut random = recua_gguf::Random::new(0);
/// // The thousandths of the published first outputs for seed 0: e220a839..., 6e789e6a..., 06c45d18..., f88bb8a8...
/// assert_eq!(random.indexes(4, 1000), [883, 431, 26, 970]);
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The generator's output function: spreads every bit of `z` over the whole word.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }

    /// A number in `[0, n)`; `n` is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// `len` numbers in `[0, n)`, such as token ids of a vocabulary.
    pub fn indexes(&mut self, len: usize, n: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(n) as u32).collect()
    }

    /// In `[0, 1)`, a multiple of 2⁻²⁴.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// In `[-1, 1)`, a multiple of 2⁻²³.
    pub fn f32(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// `n` numbers as [`Random::f32`] gives them.
    pub fn f32s(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }

    /// An almost normal number of mean 0 and standard deviation 1: the scaled sum of four uniform ones.
    pub fn normal(&mut self) -> f32 {
        // A uniform 16-bit number has mean 32767.5 and variance 65536^2 / 12; the sum of four has four times both.
        const MEAN: f32 = 4.0 * 32_767.5;
        const STD: f32 = 37_837.2;
        let r = self.bits();
        let sum = (r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48);
        (sum as f32 - MEAN) / STD
    }

    /// `[0, n)` in random order.
    pub fn shuffled(&mut self, n: usize) -> Vec<usize> {
        let mut list: Vec<usize> = (0..n).collect();
        self.shuffle(&mut list);
        list
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
