//! The table of rotations: the cosine and sine of every pair's angle at every position, computed once in f64.

use super::params::{ModelParams, RopeScaling};
use crate::error::{Error, Result, SMALLER_CACHE};
use recua_compute::{Buffer, DType, Device};

/// The shape of the table: `[positions, n_rot / 2, 2]`.
pub(crate) fn dims(p: &ModelParams, max_seq_len: usize) -> [usize; 3] {
    [max_seq_len, p.rope.n_rot / 2, 2]
}

/// f32 `[max_seq_len, n_rot / 2, 2]` on the device. `divisors` has one entry per pair, or none.
pub(crate) fn table(
    device: &Device,
    p: &ModelParams,
    divisors: &[f32],
    max_seq_len: usize,
) -> Result<Buffer> {
    let dims = dims(p, max_seq_len);
    let buffer = device.alloc(DType::F32, &dims).map_err(|source| Error::Allocation {
        what: "the rope table".into(),
        advice: SMALLER_CACHE,
        source,
    })?;
    let mut values = Vec::new();
    let no_memory = |_| Error::HostMemory { what: "the rope table", bytes: buffer.n_bytes() };
    values.try_reserve_exact(buffer.n_elements()).map_err(no_memory)?;
    let frequencies = frequencies(p, divisors);
    for position in 0..max_seq_len {
        for frequency in &frequencies {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            values.extend([cos as f32, sin as f32]);
        }
    }
    device.write(&buffer, &values)?;
    Ok(buffer)
}

/// The angle by which each pair turns per position.
fn frequencies(p: &ModelParams, divisors: &[f32]) -> Vec<f64> {
    let factor = if let RopeScaling::Linear(factor) = p.rope.scaling { f64::from(factor) } else { 1.0 };
    let frequency = |i: usize| {
        let divisor = divisors.get(i).map_or(1.0, |d| f64::from(*d));
        f64::from(p.rope.base).powf(-2.0 * i as f64 / p.rope.n_rot as f64) / divisor / factor
    };
    (0..p.rope.n_rot / 2).map(frequency).collect()
}
