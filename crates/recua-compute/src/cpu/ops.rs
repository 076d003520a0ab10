//! All ops except the products, one file per op. `check_NAME` checks the values of an op's index buffers, once, on one thread; then `NAME`
//! runs on every thread of the pool, and each thread does its part. There is no barrier at the end of an op: the caller puts one between
//! ops.

mod argmax;
mod attention;
mod copy;
mod copy_pages;
mod gather_rows;
mod rms_norm;
mod rope_store;
mod top_k;

pub(crate) use argmax::argmax;
pub(crate) use attention::{Spans, attention, check_attention};
pub(crate) use copy::copy;
pub(crate) use copy_pages::{check_copy_pages, copy_pages};
pub(crate) use gather_rows::gather_rows;
pub(crate) use rms_norm::rms_norm;
pub(crate) use rope_store::{check_rope_store, rope_store};
pub(crate) use top_k::top_k;

use crate::cpu::memory::slice;
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::op::operands::{Access, Resource};
use crate::op::{INERT, Op, PAGE_TOKENS, RowMap};

/// Fails unless `index < limit`.
fn check_index(op: &'static str, what: &'static str, index: u32, limit: usize) -> Result<()> {
    if (index as usize) < limit {
        return Ok(());
    }
    Err(Error::IndexOutOfRange { op, what, index: index.into(), limit: limit as u64 })
}

/// Checks the indexes of an op that have a limit of their own.
pub(crate) fn check_limits(op: &Op) -> Result<()> {
    for operand in op.operands() {
        let (Access::Index(Some(limit)), Resource::Buffer(buffer)) = (operand.access, operand.resource)
        else {
            continue;
        };
        // SAFETY: the queue is held and no op is running.
        let indexes: &[u32] = unsafe { slice(buffer) };
        indexes.iter().try_for_each(|&index| check_index(op.name(), limit.what, index, limit.below))?;
    }
    Ok(())
}

/// A row map as slices.
struct Rows<'a> {
    positions: &'a [u32],
    sequences: &'a [u32],
    pages: &'a [u32],
    pages_max: usize,
}

impl<'a> Rows<'a> {
    /// # Safety
    /// The queue is held, and nothing writes the row map while the slices live.
    unsafe fn new(map: &'a RowMap) -> Rows<'a> {
        // SAFETY: the caller's promise, and `Op::check` has found u32 in all three.
        let [positions, sequences, pages] =
            [&map.positions, &map.sequences, &map.pages].map(|buffer| unsafe { slice::<u32>(buffer) });
        Rows { positions, sequences, pages, pages_max: map.pages.n_cols() }
    }

    /// Which page of the pool is page `page_idx` of the row's sequence.
    fn page(&self, row: usize, page_idx: usize) -> usize {
        assert!(page_idx < self.pages_max, "the position was checked against the page table");
        self.pages[self.sequences[row] as usize * self.pages_max + page_idx] as usize
    }

    /// Whether a row belongs to a sequence.
    fn is_live(&self, row: usize) -> bool {
        self.sequences[row] != INERT
    }

    /// Checks that each live row has a line in the page table and that the page of its position exists; with `all_before`, also all pages
    /// before that.
    fn check(&self, op: &'static str, cache: &KvPool, all_before: bool) -> Result<()> {
        let n_sequences = self.pages.len() / self.pages_max.max(1);
        // The pages `[0, checked)` of `sequence` have been checked. Consecutive rows mostly belong to one sequence.
        let (mut sequence, mut checked) = (INERT, 0);
        for (row, &position) in self.positions.iter().enumerate().filter(|(row, _)| self.is_live(*row)) {
            let position = position as usize;
            check_index(op, "the sequence", self.sequences[row], n_sequences)?;
            let limit = self.pages_max.saturating_mul(PAGE_TOKENS);
            check_index(op, "the position", self.positions[row], limit)?;
            if self.sequences[row] != sequence {
                (sequence, checked) = (self.sequences[row], 0);
            }
            let last = position / PAGE_TOKENS;
            let first = if all_before { checked } else { last };
            for page_idx in first..=last {
                let page = self.pages[sequence as usize * self.pages_max + page_idx];
                check_index(op, "the page", page, cache.shape().n_pages)?;
            }
            checked = checked.max(last + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
