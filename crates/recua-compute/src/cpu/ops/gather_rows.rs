//! `gather_rows`: out[i] = x[indexes[i]]. Bound by memory; the threads take even shares of the rows.

use crate::cpu::isa::Isa;
use crate::cpu::memory::{slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::Result;
use crate::op::GatherRows;

/// See [`GatherRows`].
pub(crate) fn gather_rows(op: &GatherRows, worker: &Worker<'_>, _isa: Isa) -> Result<()> {
    let dim = op.x.n_cols();
    // SAFETY: the op writes only `out`, which does not overlap `x` (`Op::check`) and has another type than `indexes`.
    let (x, indexes): (&[f32], &[u32]) = unsafe { (slice(&op.x), slice(&op.indexes)) };
    for row in worker.share(indexes.len()) {
        // SAFETY: each row of `out` belongs to one share.
        let out: &mut [f32] = unsafe { slice_mut(&op.out, row * dim, dim) };
        out.copy_from_slice(&x[indexes[row] as usize * dim..][..dim]);
    }
    Ok(())
}
