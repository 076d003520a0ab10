//! The CPU device's memory: zeroed, aligned to a cache line, and only touched while the device's queue is held.

use super::Counted;
use crate::buffer::Buffer;
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// The size of a cache line, and of the widest vector register.
pub(crate) const ALIGN: usize = 64;

/// From this size on, memory is mapped, with huge pages if the system grants them: a step streams all weights, and with small pages every
/// 4 KB costs a walk through the page tables.
const HUGE_PAGE: usize = 2 << 20;

/// An allocation of the CPU device.
pub(crate) struct Memory {
    start: NonNull<u8>,
    n_bytes: usize,
    owner: Owner,
}

/// How the bytes are freed.
enum Owner {
    Heap(Layout),
    /// Dropping it unmaps.
    Map(#[allow(dead_code, reason = "held to be dropped")] MmapMut),
}

// SAFETY: `Memory` is plain bytes. Access goes through raw pointers, and the device's queue lock, held by whoever runs ops, reads or
// writes, orders it between threads.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `None` when there is no memory.
    pub(crate) fn zeroed(n_bytes: usize) -> Option<Memory> {
        if n_bytes >= HUGE_PAGE {
            let mut map = MmapMut::map_anon(n_bytes).ok()?;
            // If the system refuses, only speed suffers.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Some(Memory { start: NonNull::new(map.as_mut_ptr())?, n_bytes, owner: Owner::Map(map) });
        }
        let layout = Layout::from_size_align(n_bytes.max(1), ALIGN).ok()?;
        // SAFETY: the layout has at least one byte.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Memory { start, n_bytes, owner: Owner::Heap(layout) })
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.n_bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Owner::Heap(layout) = self.owner {
            // SAFETY: allocated by `zeroed` with this layout.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

/// The address of a view's first byte. The view covers `buffer.span_bytes()` from there, all inside the allocation, as `Buffer` ensures.
pub(crate) fn ptr(buffer: &Buffer) -> *mut u8 {
    let counted: &Counted = buffer.storage_as().expect("only `alloc` of the device makes buffers of its id");
    // SAFETY: `Buffer::view` keeps the offset inside the allocation.
    unsafe { counted.memory.as_ptr().add(buffer.offset_bytes()) }
}

/// `len` elements of a row of a matrix, which may be columns of a wider one, from column `first` on.
///
/// # Safety
/// The queue is held, and nothing writes these elements while the slice lives. `T` is a plain number of the buffer's element size.
pub(crate) unsafe fn row_of<T: bytemuck::Pod>(buffer: &Buffer, row: usize, first: usize, len: usize) -> &[T] {
    // SAFETY: the caller's promise.
    unsafe { row_mut(buffer, row, first, len) }
}

/// The same, mutable.
///
/// # Safety
/// The queue is held, and no other thread reads or writes these elements while the slice lives. `T` is a plain number of the
/// buffer's element size.
#[allow(clippy::mut_from_ref, reason = "the caller promises exclusive access to the range")]
pub(crate) unsafe fn row_mut<T: bytemuck::Pod>(
    buffer: &Buffer,
    row: usize,
    first: usize,
    len: usize,
) -> &mut [T] {
    debug_assert_eq!(size_of::<T>(), buffer.dtype().size_of());
    let is_inside = first.checked_add(len).is_some_and(|end| end <= buffer.n_cols());
    assert!(row < buffer.n_rows() && is_inside, "outside the view");
    // SAFETY: the range lies inside a row of the view, which lies inside the allocation; the rest is the caller's promise.
    unsafe {
        std::slice::from_raw_parts_mut(ptr(buffer).cast::<T>().add(row * buffer.row_stride() + first), len)
    }
}

/// A contiguous view as a slice.
///
/// # Safety
/// The queue is held, and nothing writes these bytes while the slice lives. `T` is a plain number of the buffer's element size.
pub(crate) unsafe fn slice<T: bytemuck::Pod>(buffer: &Buffer) -> &[T] {
    debug_assert_eq!(size_of::<T>(), buffer.dtype().size_of());
    assert!(buffer.is_contiguous(), "columns of a wider matrix are not a slice");
    // SAFETY: the view lies inside the allocation and is aligned to its element; the rest is the caller's promise.
    unsafe { std::slice::from_raw_parts(ptr(buffer).cast(), buffer.n_elements()) }
}

/// `len` elements of a contiguous view from element `first` on, mutable.
///
/// # Safety
/// The queue is held, and no other thread reads or writes these elements while the slice lives. `T` is a plain number of the
/// buffer's element size.
#[allow(clippy::mut_from_ref, reason = "the caller promises exclusive access to the range")]
pub(crate) unsafe fn slice_mut<T: bytemuck::Pod>(buffer: &Buffer, first: usize, len: usize) -> &mut [T] {
    debug_assert_eq!(size_of::<T>(), buffer.dtype().size_of());
    let is_inside = first.checked_add(len).is_some_and(|end| end <= buffer.n_elements());
    assert!(buffer.is_contiguous() && is_inside, "outside the view");
    // SAFETY: the range lies inside the view; the rest is the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(ptr(buffer).cast::<T>().add(first), len) }
}
