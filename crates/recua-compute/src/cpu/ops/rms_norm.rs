//! `rms_norm`: out = x / sqrt(mean(x²) + eps) * weight, a row at a time. A thread takes whole rows. The sum of squares has one tree:
//! element i goes to lane i mod 64, each lane sums in order, and the lanes are added by halves. Bound by memory.

use crate::cpu::isa::{Isa, multiversion};
use crate::cpu::math::{LANES, sum};
use crate::cpu::memory::{slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::Result;
use crate::op::RmsNorm;

/// See [`RmsNorm`].
pub(crate) fn rms_norm(op: &RmsNorm, worker: &Worker<'_>, isa: Isa) -> Result<()> {
    let dim = op.x.n_cols();
    let in_place = op.out.is_same(&op.x);
    // SAFETY: the op writes `out` alone, which does not overlap `weight` (`Op::check`).
    let weight: &[f32] = unsafe { slice(&op.weight) };
    for row in worker.share(op.x.n_rows()) {
        // SAFETY: each row of `out` belongs to one share; if `x` is the same memory, nobody reads it through `x`.
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
pub(super) fn normalise_body(x: &mut [f32], weight: &[f32], eps: f32) {
    let mut lanes = [[0.0f32; LANES]; CHAINS];
    let (chunks, rest) = x.as_chunks::<{ LANES * CHAINS }>();
    for chunk in chunks {
        for c in 0..CHAINS {
            for i in 0..LANES {
                let value = chunk[c * LANES + i];
                lanes[c][i] = value.mul_add(value, lanes[c][i]);
            }
        }
    }
    for (i, value) in rest.iter().enumerate() {
        let lane = &mut lanes[i / LANES][i % LANES];
        *lane = value.mul_add(*value, *lane);
    }
    let total = (sum(lanes[0]) + sum(lanes[2])) + (sum(lanes[1]) + sum(lanes[3]));
    let scale = 1.0 / (total / x.len() as f32 + eps).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * *weight;
    }
}

multiversion! {
    fn normalise(isa, x: &mut [f32], weight: &[f32], eps: f32) = normalise_body
}
