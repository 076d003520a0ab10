//! [`Store`]: what of a cache is on a device, the keys and values of every layer and the page table. It decides nothing: which
//! page belongs to whom it is told by [`Changes`].
//!
//! A layer's K and V are one pool each, laid out as `recua_compute`'s `op.rs` says.

use super::sequences::Changes;
use crate::error::{Error, Result};
use recua_compute::{Buffer, DType, Device, KvLayer, PAGE_TOKENS, Plan, Record};
use std::ops::Range;

/// What fixes the size of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreShape {
    pub(crate) n_layers: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) dtype: DType,
    pub(crate) n_pages: usize,
    // Lines of the page table, and pages of the longest sequence.
    pub(crate) n_slots: usize,
    pub(crate) pages_max: usize,
}

impl StoreShape {
    /// Bytes of all layers' K and V; saturates.
    pub(crate) fn kv_bytes(&self) -> u64 {
        [self.n_layers, self.n_kv_heads, PAGE_TOKENS, self.head_dim, self.dtype.size_of()]
            .iter()
            .fold((self.n_pages as u64).saturating_mul(2), |n, d| n.saturating_mul(*d as u64))
    }

    /// Bytes of the page table; saturates.
    pub(crate) fn table_bytes(&self) -> u64 {
        (self.n_slots as u64).saturating_mul(self.pages_max as u64).saturating_mul(4)
    }
}

/// Entries of the table this far apart are sent as one piece: 256 bytes more cost less than a call.
const GAP_MAX: usize = 64;

/// The cache on a device.
pub(crate) struct Store {
    shape: StoreShape,
    // One a layer: [n_pages, n_kv_heads, PAGE_TOKENS, head_dim], twice
    layers: Vec<KvLayer>,
    // u32 [n_slots, pages_max]
    table: Buffer,
    // The same on the host.
    entries: Vec<u32>,
    // Indexes of entries that `table` does not show yet.
    changed: Vec<usize>,
}

impl Store {
    /// Allocates all of it, full of zeros. The device comes before the host's list, which is a thousandth of it, so that a size
    /// beyond all memory is refused while nothing has been touched.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn new(device: &Device, shape: StoreShape) -> Result<Store> {
        let alloc = |what: &str, dtype, dims: &[usize]| {
            let named = |source| Error::Allocation { what: what.into(), source };
            device.alloc(dtype, dims).map_err(named)
        };
        let dims = [shape.n_pages, shape.n_kv_heads, PAGE_TOKENS, shape.head_dim];
        let mut layers = Vec::new();
        for i in 0..shape.n_layers {
            let what = format!("the KV cache of layer {i}");
            layers
                .push(KvLayer { k: alloc(&what, shape.dtype, &dims)?, v: alloc(&what, shape.dtype, &dims)? });
        }
        let table = alloc("the page table", DType::U32, &[shape.n_slots, shape.pages_max])?;
        let mut entries = Vec::new();
        let no_memory = |_| Error::HostMemory { what: "the page table", bytes: table.n_bytes() };
        entries.try_reserve_exact(table.n_elements()).map_err(no_memory)?;
        entries.resize(table.n_elements(), 0);
        Ok(Store { shape, layers, table, entries, changed: Vec::new() })
    }

    pub(crate) fn shape(&self) -> &StoreShape {
        &self.shape
    }

    pub(crate) fn layers(&self) -> &[KvLayer] {
        &self.layers
    }

    pub(crate) fn table(&self) -> &Buffer {
        &self.table
    }

    /// Copies pages, and uploads the entries of the page table that changed and no others.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn apply(&mut self, device: &Device, changes: &Changes) -> Result<()> {
        if !changes.copies.is_empty() {
            self.copies(device, self, &changes.copies)?.map_or(Ok(()), |plan| device.run(&plan)?.wait())?;
        }
        for &(slot, index, page) in &changes.table {
            let at = slot as usize * self.shape.pages_max + index as usize;
            self.entries[at] = page;
            self.changed.push(at);
        }
        self.changed.sort_unstable();
        for piece in pieces(&self.changed) {
            let view = self.table.view(piece.start, &[piece.len()])?;
            device.write(&view, &self.entries[piece])?;
        }
        self.changed.clear();
        Ok(())
    }

    /// What copies pages of this store to `to`, a store of the same layers; nothing if there are none.
    ///
    /// # Errors
    /// If a page does not exist.
    pub(crate) fn copies(&self, device: &Device, to: &Store, moves: &[(u32, u32)]) -> Result<Option<Plan>> {
        let mut plan = device.plan();
        for (src, dst) in self.layers.iter().zip(&to.layers) {
            for (from, to) in joined(moves) {
                for (src, dst) in [(&src.k, &dst.k), (&src.v, &dst.v)] {
                    plan.copy(&pages_view(src, &from)?, &pages_view(dst, &to)?)?;
                }
            }
        }
        Ok((!moves.is_empty()).then_some(plan))
    }
}

/// Ranges that hold all of `at`, which is sorted.
fn pieces(at: &[usize]) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    for &at in at {
        match pieces.last_mut() {
            Some(last) if at < last.end + GAP_MAX => last.end = last.end.max(at + 1),
            _ => pieces.push(at..at + 1),
        }
    }
    pieces
}

/// Pages from and to; neighbours that stay neighbours are copied together.
fn joined(moves: &[(u32, u32)]) -> Vec<(Range<u32>, Range<u32>)> {
    let mut copies: Vec<(Range<u32>, Range<u32>)> = Vec::new();
    for &(from, to) in moves {
        match copies.last_mut() {
            Some(last) if (last.0.end, last.1.end) == (from, to) => {
                (last.0.end, last.1.end) = (from + 1, to + 1);
            }
            _ => copies.push((from..from + 1, to..to + 1)),
        }
    }
    copies
}

fn pages_view(pool: &Buffer, pages: &Range<u32>) -> Result<Buffer> {
    let mut dims = pool.shape().to_vec();
    let page_elements: usize = dims[1..].iter().product();
    dims[0] = pages.len();
    Ok(pool.view(pages.start as usize * page_elements, &dims)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_lie_close_together_are_one_piece() {
        assert!(pieces(&[]).is_empty());
        assert_eq!(pieces(&[3, 3, 4, 67, 200, 263, 328]), [3..68, 200..264, 328..329]);
    }
}
