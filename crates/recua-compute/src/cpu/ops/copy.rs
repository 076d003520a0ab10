//! `copy`: dst = src, byte for byte. Bound by memory; the threads take even shares.

use crate::cpu::isa::Isa;
use crate::cpu::memory::ptr;
use crate::cpu::pool::Worker;
use crate::error::Result;
use crate::op::Copy;

/// See [`Copy`].
pub(crate) fn copy(op: &Copy, worker: &Worker<'_>, _isa: Isa) -> Result<()> {
    let share = worker.share(op.src.n_bytes());
    // SAFETY: the lengths are equal and do not overlap (`Op::check`), and the threads' shares are disjoint.
    unsafe {
        let (src, dst) = (ptr(&op.src).add(share.start), ptr(&op.dst).add(share.start));
        std::ptr::copy_nonoverlapping(src, dst, share.len());
    }
    Ok(())
}
