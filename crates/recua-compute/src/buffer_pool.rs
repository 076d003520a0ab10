//! [`BufferPool`]: device memory that is reused, for short-lived buffers.

use crate::buffer::{Buffer, DType, Storage};
use crate::device::{Device, needed_bytes};
use crate::error::{Error, Result, argument};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hands out buffers and reuses their memory once they are dropped, so that a program that needs scratch in every step allocates only in
/// the first. Threads share it by reference.
///
/// * **Dropping gives memory back.** Memory is free once nothing refers to it: no clone, no view, no [`crate::Plan`], no
///   [`crate::CommandEncoder`] and no finished [`crate::Commands`]. There is no explicit release, so none can come too early.
/// * **Work in flight does not matter.** A device's work, writes and reads included, takes effect in the order of submission: whatever is
///   done with reused memory happens after the work that used it before, whether or not anyone waited for that work.
/// * **The contents are arbitrary.** New memory is zero; reused memory holds what was last written to it.
/// * **Sizes are rounded up** to classes, four per power of two: new memory is at most a quarter larger than requested, or 256 bytes. If a
///   class has nothing free, memory of up to twice the size is used, so that steps of changing shapes share memory too.
///   Buffers that live as long as the program gain nothing from a pool: [`Device::alloc`] takes exactly what they need.
///   Weights never come from a pool: [`Device::upload_weight`] allocates exactly what their layout needs.
pub struct BufferPool {
    device: Device,
    /// By size in bytes.
    classes: Mutex<BTreeMap<usize, Class>>,
}

/// The allocations of one size, free and in use.
#[derive(Default)]
struct Class {
    all: Vec<Arc<dyn Storage>>,
    /// Where the search begins: a step that takes the same buffers as the step before finds each immediately.
    next: usize,
}

impl Class {
    fn take(&mut self) -> Option<Arc<dyn Storage>> {
        let n = self.all.len();
        let found = (0..n).map(|i| (self.next + i) % n).find(|&i| is_free(&mut self.all[i]))?;
        self.next = (found + 1) % n;
        Some(self.all[found].clone())
    }
}

/// Whether only the pool refers to it.
fn is_free(storage: &mut Arc<dyn Storage>) -> bool {
    Arc::get_mut(storage).is_some()
}

impl BufferPool {
    /// An empty pool.
    pub fn new(device: &Device) -> BufferPool {
        BufferPool { device: device.clone(), classes: Mutex::default() }
    }

    /// A buffer of `shape`, which has at least one element, with arbitrary contents. If the device has no more memory, the pool first frees
    /// what is unused.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn alloc(&self, dtype: DType, shape: &[usize]) -> Result<Buffer> {
        let n_bytes = needed_bytes(dtype, shape)?;
        let size = class_bytes(n_bytes)
            .ok_or_else(|| argument("alloc", format!("{dtype}{shape:?} is larger than memory can be")))?;
        let fitting = size..=size.saturating_mul(2);
        let free = self.lock().range_mut(fitting).find_map(|(_, class)| class.take());
        let storage = match free {
            Some(storage) => storage,
            // Allocated without holding the lock, because it takes long.
            None => {
                let fresh = match self.device.alloc(DType::U8, &[size]) {
                    Err(Error::OutOfMemory { .. }) => {
                        self.clear();
                        self.device.alloc(DType::U8, &[size])?
                    }
                    other => other?,
                };
                let storage = fresh.storage().clone();
                self.lock().entry(size).or_default().all.push(storage.clone());
                storage
            }
        };
        Buffer::from_storage(storage, self.device.id(), dtype, shape)
    }

    /// The number of allocations that are not in use.
    pub fn n_free(&self) -> usize {
        self.count(|_, is_free| usize::from(is_free))
    }

    /// The number of allocations that are in use.
    pub fn n_in_use(&self) -> usize {
        self.count(|_, is_free| usize::from(!is_free))
    }

    /// The bytes of the allocations that are not in use.
    pub fn free_bytes(&self) -> usize {
        self.count(|size, is_free| if is_free { size } else { 0 })
    }

    /// Frees the allocations that are not in use. Dropping the pool does so too; buffers in use live on until they are dropped.
    pub fn clear(&self) {
        let mut freed = Vec::new();
        for class in self.lock().values_mut() {
            freed.extend(class.all.extract_if(.., is_free));
            class.next = 0;
        }
        // Freed without holding the lock.
        drop(freed);
    }

    fn count(&self, mut of: impl FnMut(usize, bool) -> usize) -> usize {
        let mut classes = self.lock();
        let all = classes.iter_mut().flat_map(|(size, class)| class.all.iter_mut().map(|s| (*size, s)));
        all.map(|(size, storage)| of(size, is_free(storage))).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Class>> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size of the class that holds `n_bytes`.
fn class_bytes(n_bytes: usize) -> Option<usize> {
    let step = (n_bytes.checked_next_power_of_two()? / 8).max(256);
    n_bytes.checked_next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_a_quarter_at_most() {
        for (n_bytes, expected) in
            [(1, 256), (256, 256), (257, 512), (1025, 1280), (4096, 4096), (5000, 5120)]
        {
            assert_eq!(class_bytes(n_bytes), Some(expected), "{n_bytes}");
        }
        for n_bytes in (1024..100_000).step_by(77).chain([(1 << 40) + 1, 1 << 40, (1 << 40) - 1]) {
            let class = class_bytes(n_bytes).unwrap();
            assert!(n_bytes <= class && class <= n_bytes + n_bytes / 4, "{n_bytes} in {class}");
            assert_eq!(class_bytes(class), Some(class));
        }
        assert_eq!(class_bytes(usize::MAX), None);
    }
}
