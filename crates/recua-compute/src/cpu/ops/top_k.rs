//! `top_k`: the largest elements of each row, sorted. A thread takes whole rows. Bound by reading the row: once k elements are found, nearly
//! every other element is only compared with the smallest of them.

use crate::cpu::memory::{slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::Result;
use crate::op::{TOP_K_MAX, TopK};

/// See [`TopK`].
pub(crate) fn top_k(op: &TopK, worker: &Worker<'_>) -> Result<()> {
    let (cols, k) = (op.x.n_cols(), op.k());
    // SAFETY: the op writes only `out`, which does not overlap `x` (`Op::check`).
    let x: &[f32] = unsafe { slice(&op.x) };
    for row in worker.share(op.x.n_rows()) {
        // SAFETY: each row of `out` belongs to one share.
        let out: &mut [u32] = unsafe { slice_mut(&op.out, row * k * 2, k * 2) };
        find(&x[row * cols..][..cols], out.as_chunks_mut().0);
    }
    Ok(())
}

/// The number of elements that are compared at once.
const SEVERAL: usize = 16;

fn find(x: &[f32], out: &mut [[u32; 2]]) {
    let k = out.len();
    // Sorted, the largest first.
    let mut list = [(f32::NEG_INFINITY, u32::MAX); TOP_K_MAX];
    let list = &mut list[..k];
    for (i, several) in x.chunks(SEVERAL).enumerate() {
        // The first of equal elements stays, and NaN is above nothing.
        if !several.iter().fold(false, |is_any, &x| is_any | (x > list[k - 1].0)) {
            continue;
        }
        for (j, &x) in several.iter().enumerate() {
            // Adding zero turns minus zero into zero.
            let value = x.min(f32::MAX) + 0.0;
            if x > list[k - 1].0 && value > list[k - 1].0 {
                let place = list.partition_point(|(other, _)| *other >= value);
                list[place..].rotate_right(1);
                list[place] = (value, (i * SEVERAL + j) as u32);
            }
        }
    }
    for (out, (value, index)) in out.iter_mut().zip(list) {
        *out = [value.to_bits(), *index];
    }
}
