//! [`Store`]: the part of a cache that is on a device: the keys and values of every layer, and the page table. It decides nothing:
//! [`Changes`] tell it which page belongs to which sequence.
//!
//! A layer's K and V are one pool, which the device lays out.

use super::sequences::Changes;
use crate::error::{Error, Result, SMALLER_CACHE};
use recua_compute::{Buffer, DType, Device, INERT, Input, KvPool, KvShape, Plan, Program, Record};
use std::ops::Range;

/// Everything that determines the size of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreShape {
    pub(crate) n_layers: usize,
    // For each layer.
    pub(crate) kv: KvShape,
    // Lines of the page table, and pages of the longest sequence.
    pub(crate) n_slots: usize,
    pub(crate) pages_max: usize,
}

impl StoreShape {
    /// Bytes of all layers' K and V; saturates.
    pub(crate) fn kv_bytes(&self) -> u64 {
        (self.kv.n_bytes().unwrap_or(usize::MAX) as u64).saturating_mul(self.n_layers as u64)
    }

    /// Bytes of the page table and the list of pages to copy; saturates.
    pub(crate) fn table_bytes(&self) -> u64 {
        let table = (self.n_slots as u64).saturating_mul(self.pages_max as u64);
        table.saturating_add(2 * self.copies_max() as u64).saturating_mul(4)
    }

    /// The most pages that one launch copies. A step copies at most one per slot; more pages take several launches.
    fn copies_max(&self) -> usize {
        self.n_slots.clamp(1, COPIES_MAX)
    }
}

/// The limit on pages copied by one launch.
const COPIES_MAX: usize = 64;

/// Changed table entries at most this far apart are sent as one piece: 256 more bytes cost less than another call.
const GAP_MAX: usize = 64;

/// The cache on a device.
pub(crate) struct Store {
    shape: StoreShape,
    // One per layer
    layers: Vec<KvPool>,
    // u32 [n_slots, pages_max]
    table: Buffer,
    // The same table on the host.
    entries: Vec<u32>,
    // Indexes of entries that `table` does not have yet.
    changed: Vec<usize>,
    // u32 [copies_max, 2]: pages to copy, from and to
    copy_list: Buffer,
}

impl Store {
    /// Allocates everything, zeroed. The device's memory comes first: the host's list is a thousandth of its size, so a size beyond all
    /// memory is refused before anything is touched.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn new(device: &Device, shape: StoreShape) -> Result<Store> {
        let mut layers = Vec::new();
        for i in 0..shape.n_layers {
            let named = |source| Error::Allocation {
                what: format!("the KV cache of layer {i}"),
                advice: SMALLER_CACHE,
                source,
            };
            layers.push(device.alloc_kv(&shape.kv).map_err(named)?);
        }
        let alloc = |what: &str, dims: &[usize]| {
            let named = |source| Error::Allocation { what: what.into(), advice: SMALLER_CACHE, source };
            device.alloc(DType::U32, dims).map_err(named)
        };
        let table = alloc("the page table", &[shape.n_slots, shape.pages_max])?;
        let copy_list = alloc("the list of pages to copy", &[shape.copies_max(), 2])?;
        let mut entries = Vec::new();
        let no_memory = |_| Error::HostMemory { what: "the page table", bytes: table.n_bytes() };
        entries.try_reserve_exact(table.n_elements()).map_err(no_memory)?;
        entries.resize(table.n_elements(), 0);
        Ok(Store { shape, layers, table, entries, changed: Vec::new(), copy_list })
    }

    pub(crate) fn shape(&self) -> &StoreShape {
        &self.shape
    }

    pub(crate) fn layers(&self) -> &[KvPool] {
        &self.layers
    }

    pub(crate) fn table(&self) -> &Buffer {
        &self.table
    }

    /// The plan that copies pages within this store; see [`tell`](Self::tell).
    ///
    /// # Errors
    /// If the device has no such op.
    pub(crate) fn copies(&self, device: &Device) -> Result<Plan> {
        copies(device, &self.layers, &self.layers, &self.copy_list)
    }

    /// Launches the copies of `changes` with the program of [`copies`](Self::copies), and notes the page table entries that the device
    /// needs. Does not wait: later launches take effect later.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn tell(&mut self, changes: &Changes, program: &Program) -> Result<()> {
        let list = &self.copy_list;
        for copies in changes.copies.chunks(list.n_rows()) {
            let mut pairs: Vec<u32> = copies.iter().flat_map(|&(from, to)| [from, to]).collect();
            pairs.resize(list.n_elements(), INERT);
            program.launch(&[Input::new(list, &pairs)?], &[])?;
        }
        for &(slot, index, page) in &changes.table {
            let at = slot as usize * self.shape.pages_max + index as usize;
            self.entries[at] = page;
            self.changed.push(at);
        }
        self.changed.sort_unstable();
        Ok(())
    }

    /// The page table entries that the device needs, in few pieces: the place and the values of each.
    ///
    /// # Errors
    /// If a slot or page does not exist.
    pub(crate) fn untold(&self) -> Result<Vec<(Buffer, &[u32])>> {
        let piece = |at: Range<usize>| Ok((self.table.view(at.start, &[at.len()])?, &self.entries[at]));
        pieces(&self.changed).into_iter().map(piece).collect()
    }

    /// Notes that the device has these entries now.
    pub(crate) fn told(&mut self) {
        self.changed.clear();
    }

    /// Copies pages of this store to `to`, a store of the same layers, and waits for the copies.
    ///
    /// # Errors
    /// If a page does not exist, the device fails, or it lays out the two stores differently (the same rows would then have other bits).
    pub(crate) fn copy_to(&self, device: &Device, to: &Store, moves: &[(u32, u32)]) -> Result<()> {
        // At least one pair, so that a device with two different layouts reports that even if there is nothing to copy.
        let mut pairs = vec![INERT; 2];
        pairs.extend(moves.iter().flat_map(|&(from, to)| [from, to]));
        let list = device.upload(&pairs, DType::U32, &[pairs.len() / 2, 2])?;
        Ok(device.run(&copies(device, &self.layers, &to.layers, &list)?)?.wait()?)
    }
}

/// A plan that copies the listed pages from each layer to the same layer.
fn copies(device: &Device, from: &[KvPool], to: &[KvPool], list: &Buffer) -> Result<Plan> {
    let mut plan = device.plan();
    for (from, to) in from.iter().zip(to) {
        plan.copy_pages(from, to, list)?;
    }
    Ok(plan)
}

/// Ranges that contain all of `at`, which is sorted.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_lie_close_together_are_one_piece() {
        assert!(pieces(&[]).is_empty());
        assert_eq!(pieces(&[3, 3, 4, 67, 200, 263, 328]), [3..68, 200..264, 328..329]);
    }
}
