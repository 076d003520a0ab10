//! [`Memory`]: one allocation on the device, counted while it lives.

use crate::context::Context;
use crate::gpu::Gpu;
use recua_compute::{Buffer, Error, Result, Storage};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One allocation. Dropped, it is freed once the work submitted before is done.
pub(crate) struct Memory {
    pointer: u64,
    n_bytes: usize,
    context: Arc<Context>,
    /// All bytes that live.
    allocated: Arc<AtomicU64>,
}

impl Memory {
    /// `n_bytes` of zeros, at least one, rounded up to sixteen, at a multiple of 256. `what` is for the error.
    pub(crate) fn new(gpu: &Gpu, n_bytes: usize, what: &str) -> Result<Memory> {
        let memory = Memory::unfilled(gpu, n_bytes, what)?;
        let Memory { pointer, n_bytes, ref context, .. } = memory;
        // SAFETY: the allocation has so many bytes, and nobody else knows of it.
        context.call("filling memory with zeros", |driver| unsafe {
            (driver.cuMemsetD8Async)(pointer, 0, n_bytes, context.stream())
        })?;
        Ok(memory)
    }

    /// As [`Memory::new`] without the zeros: for whoever writes all of it before anything reads it.
    pub(crate) fn unfilled(gpu: &Gpu, n_bytes: usize, what: &str) -> Result<Memory> {
        let size = n_bytes.max(1).checked_next_multiple_of(16).unwrap_or(usize::MAX);
        // What no card of this kind has is not asked for: the driver may call it a wrong argument.
        let found = if size as u64 > gpu.memory_bytes { None } else { gpu.context.alloc(size)? };
        let pointer = found.ok_or_else(|| gpu.out_of_memory(what, n_bytes))?;
        gpu.allocated.fetch_add(size as u64, Ordering::Relaxed);
        Ok(Memory { pointer, n_bytes: size, context: gpu.context.clone(), allocated: gpu.allocated.clone() })
    }

    /// Where it begins, as kernels see it.
    pub(crate) fn pointer(&self) -> u64 {
        self.pointer
    }

    /// The size, a multiple of sixteen.
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The memory behind a buffer of this kind of device.
    pub(crate) fn of(buffer: &Buffer) -> Result<&Memory> {
        buffer.storage_as::<Memory>().ok_or(Error::WrongDevice { op: "cuda", what: "a buffer" })
    }
}

/// Where a buffer's first element lies, as kernels see it.
pub(crate) fn pointer(buffer: &Buffer) -> Result<u64> {
    Ok(Memory::of(buffer)?.pointer() + buffer.offset_bytes() as u64)
}

impl Storage for Memory {
    fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.context.free(self.pointer);
        self.allocated.fetch_sub(self.n_bytes as u64, Ordering::Relaxed);
    }
}

/// A size as kernels take it.
pub(crate) fn u32_of(op: &'static str, what: &str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::Argument { op, problem: format!("{what} of {n} is too large") })
}
