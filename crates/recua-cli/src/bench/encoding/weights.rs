//! Weights that behave like a model's: random, seeded, of a real model's variance, so that a chain of products
//! neither dies out nor overflows.

use std::collections::HashMap;

use recua::Device;
use recua::compute::{Arrange, Error, RawMatrix, Result, Weight};
use recua::gguf::{GgmlType, encode};

use recua::gguf::Random;

/// Values that are encoded; the weights are made of pieces of them, because encoding gigabytes takes minutes.
const POOL_VALUES: usize = 1 << 17;
/// Values of a piece: a whole number of blocks of every type.
const PIECE_VALUES: usize = 256;

/// Makes weights.
pub(super) struct Weights<'a> {
    device: &'a Device,
    random: Random,
    /// Encoded values, by type and the bits of their standard deviation.
    pools: HashMap<(GgmlType, u32), Vec<u8>>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(device: &'a Device) -> Self {
        Self { device, random: Random::new(1), pools: HashMap::new() }
    }

    /// A weight of matrices with `n` rows of a type each and `k` columns, whose values have a standard deviation of `std`.
    pub(super) fn make(
        &mut self,
        parts: &[(GgmlType, usize)],
        k: usize,
        std: f32,
        arrange: Arrange,
    ) -> Result<Weight> {
        let raws: Vec<Vec<u8>> =
            parts.iter().map(|&(ty, n)| self.raw(ty, n, k, std)).collect::<Result<_>>()?;
        let matrices = parts.iter().zip(&raws).map(|(&(ty, n), raw)| RawMatrix::new(ty, n, k, raw));
        self.device.upload_weight(&matrices.collect::<Vec<_>>(), arrange)
    }

    /// The blocks of a matrix.
    fn raw(&mut self, ty: GgmlType, n: usize, k: usize, std: f32) -> Result<Vec<u8>> {
        let argument = |problem| Error::Argument { op: "weights", problem };
        let n_bytes = n_bytes(ty, n, k).map_err(argument)?;
        let mut raw = Vec::new();
        raw.try_reserve_exact(n_bytes).map_err(|_| Error::OutOfMemory {
            device: "host".into(),
            what: format!("a weight {ty}[{n}, {k}]"),
            requested_bytes: n_bytes,
        })?;
        let random = &mut self.random;
        let pool = self.pools.entry((ty, std.to_bits())).or_default();
        if pool.is_empty() {
            let values: Vec<f32> = (0..POOL_VALUES).map(|_| normal(random) * std).collect();
            encode(ty, &values, pool).map_err(|e| argument(e.to_string()))?;
        }
        let piece_bytes = pool.len() / (POOL_VALUES / PIECE_VALUES);
        while raw.len() < n_bytes {
            let start = random.below(POOL_VALUES / PIECE_VALUES) * piece_bytes;
            raw.extend_from_slice(&pool[start..start + piece_bytes.min(n_bytes - raw.len())]);
        }
        Ok(raw)
    }

    /// `n` values of mean 0 and standard deviation 1.
    pub(super) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| normal(&mut self.random)).collect()
    }

    /// Token ids.
    pub(super) fn tokens(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        self.random.indexes(n, vocab)
    }
}

/// Bytes of a matrix, or why there can be none of its shape.
pub(super) fn n_bytes(ty: GgmlType, n: usize, k: usize) -> std::result::Result<usize, String> {
    let block = ty.block_values();
    let row =
        ty.row_bytes(k).ok_or_else(|| format!("k = {k} is not a multiple of {block}, as {ty} needs"))?;
    row.checked_mul(n).ok_or_else(|| format!("a matrix of {n} times {k} is too large"))
}

/// Close to normal: the sum of four uniform numbers.
fn normal(random: &mut Random) -> f32 {
    const STEPS: usize = 1 << 16;
    let sum: usize = (0..4).map(|_| random.below(STEPS)).sum();
    // A uniform number of [0, 1) has variance 1/12, four of them 1/3.
    (sum as f32 / STEPS as f32 - 2.0) * 3f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use recua::gguf::decode;

    #[test]
    fn values_have_the_variance_that_was_asked_for() {
        let device = recua::open_device("cpu").unwrap();
        let mut weights = Weights::new(&device);
        let values = weights.values(100_000);
        let mean = values.iter().sum::<f32>() / 1e5;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        for ty in [GgmlType::Q6_K, GgmlType::Q4_0, GgmlType::F16] {
            let weight = weights.make(&[(ty, 3)], 256, 0.1, Arrange::Stacked).unwrap();
            assert_eq!((weight.n(), weight.k(), weight.ggml_type()), (3, 256, Some(ty)));
            let pool = &weights.pools[&(ty, 0.1f32.to_bits())];
            let mut values = vec![0.0; POOL_VALUES];
            decode(ty, pool, &mut values).unwrap();
            let variance = values.iter().map(|v| v * v).sum::<f32>() / POOL_VALUES as f32;
            assert!((variance - 0.01).abs() < 5e-4, "{ty}: {variance}");
        }
    }
}
