//! The ops but for the products: one file an op. `check_NAME` looks at the values of an op's index buffers, once, on one thread;
//! after that `NAME` runs on every thread of the pool, each taking its part. There is no barrier at an op's end: the caller puts
//! one between ops.

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
pub(crate) use gather_rows::{check_gather_rows, gather_rows};
pub(crate) use rms_norm::rms_norm;
pub(crate) use rope_store::{check_rope_store, rope_store};
pub(crate) use top_k::top_k;

use crate::cpu::memory::slice;
use crate::error::{Error, Result};
use crate::kv::KvPool;
use crate::op::{INERT, PAGE_TOKENS, RowMap};

/// Fails unless `index < limit`.
pub(crate) fn check_index(op: &'static str, what: &'static str, index: u32, limit: usize) -> Result<()> {
    if (index as usize) < limit {
        return Ok(());
    }
    Err(Error::IndexOutOfRange { op, what, index: index.into(), limit: limit as u64 })
}

/// Where rows stand, as slices.
struct Rows<'a> {
    positions: &'a [u32],
    sequences: &'a [u32],
    pages: &'a [u32],
    pages_max: usize,
}

impl<'a> Rows<'a> {
    /// # Safety
    /// The queue is held, and nobody writes the row map while the slices live.
    unsafe fn new(map: &'a RowMap) -> Rows<'a> {
        // SAFETY: the caller's promise, and `Op::check` has found u32 in all three.
        let [positions, sequences, pages] =
            [&map.positions, &map.sequences, &map.pages].map(|buffer| unsafe { slice::<u32>(buffer) });
        Rows { positions, sequences, pages, pages_max: map.pages.n_cols() }
    }

    /// The page that holds page `page_idx` of the row's sequence.
    fn page(&self, row: usize, page_idx: usize) -> usize {
        assert!(page_idx < self.pages_max, "the position was checked against the page table");
        self.pages[self.sequences[row] as usize * self.pages_max + page_idx] as usize
    }

    /// Whether a row is of a sequence.
    fn is_live(&self, row: usize) -> bool {
        self.sequences[row] != INERT
    }

    /// Checks that each live row has a line in the page table, and that its position's page exists; with `all_before`, all pages up
    /// to it as well.
    fn check(&self, op: &'static str, cache: &KvPool, all_before: bool) -> Result<()> {
        let n_sequences = self.pages.len() / self.pages_max.max(1);
        // The pages `[0, checked)` of `sequence` are known to be good: consecutive rows are mostly of one sequence.
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
