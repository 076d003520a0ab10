//! `rms_norm`: out = x / sqrt(mean(x²) + eps) * weight, row by row. A thread takes whole rows. The sum of squares is always the same tree:
//! element i goes to lane i mod 64, each lane sums in order, and halves of the lanes are added until one is left. Bound by memory.

use crate::cpu::isa::Isa;
use crate::cpu::math::{LANES, Lanes, vectorised};
use crate::cpu::memory::{slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::Result;
use crate::op::RmsNorm;

/// See [`RmsNorm`].
pub(crate) fn rms_norm(op: &RmsNorm, worker: &Worker<'_>, isa: Isa) -> Result<()> {
    let dim = op.x.n_cols();
    let in_place = op.out.is_same(&op.x);
    // SAFETY: the op writes only `out`, which does not overlap `weight` (`Op::check`).
    let weight: &[f32] = unsafe { slice(&op.weight) };
    for row in worker.share(op.x.n_rows()) {
        // SAFETY: each row of `out` belongs to one share; if `x` is the same memory, nothing reads it through `x`.
        let out: &mut [f32] = unsafe { slice_mut(&op.out, row * dim, dim) };
        if !in_place {
            // SAFETY: `x` is not `out`, so it does not overlap it (`Op::check`), and nothing else is written.
            let x: &[f32] = unsafe { slice(&op.x) };
            out.copy_from_slice(&x[row * dim..][..dim]);
        }
        normalise(isa, out, weight, op.eps);
    }
    Ok(())
}

/// Independent registers of partial sums.
const CHAINS: usize = 4;

/// The norm of one row or one head, in place.
#[inline(always)]
pub(super) fn normalise_body<V: Lanes>(set: V::Set, x: &mut [f32], weight: &[f32], eps: f32) {
    let mut sums = [V::splat(set, 0.0); CHAINS];
    let (vectors, rest) = x.as_chunks::<LANES>();
    let (chunks, vectors) = vectors.as_chunks::<CHAINS>();
    for chunk in chunks {
        for c in 0..CHAINS {
            let x = V::load(set, &chunk[c]);
            sums[c] = x.mul_add(x, sums[c]);
        }
    }
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for (sum, x) in sums.iter_mut().zip(vectors.iter().chain([&last])) {
        let x = V::load(set, x);
        *sum = x.mul_add(x, *sum);
    }
    let total = sums[0].add(sums[2]).add(sums[1].add(sums[3])).sum();
    let scale = 1.0 / (total / x.len() as f32 + eps).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * *weight;
    }
}

vectorised! {
    fn normalise(isa, x: &mut [f32], weight: &[f32], eps: f32) = normalise_body
}
