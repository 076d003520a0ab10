//! [`Memory`]: one wgpu buffer, counted while it lives. wgpu tracks hazards per buffer, so each allocation is a buffer of its own, of
//! exactly the requested size, rounded up to sixteen bytes. [`Binding`] and [`Window`] are the parts of it that kernels see.

use crate::gpu::{self, Gpu};
use recua_compute::{Buffer, Error, Result, Storage};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One allocation on the device.
pub(crate) struct Memory {
    buffer: wgpu::Buffer,
    id: u64,
    n_bytes: usize,
    /// All bytes currently allocated on the device.
    allocated: Arc<AtomicU64>,
}

impl Memory {
    /// Allocates `n_bytes` of zeros, at least one. `what` names it in an error.
    pub(crate) fn new(gpu: &Gpu, n_bytes: usize, what: &str) -> Result<Memory> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        gpu.check()?;
        let refused = |why: String| Error::OutOfMemory {
            device: gpu.info.name.clone(),
            what: format!("{what}{why}"),
            requested_bytes: n_bytes,
        };
        let size = (n_bytes as u64).max(1).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        if size > gpu.limits.max_buffer_size {
            let why = format!(" (a buffer here holds at most {} bytes)", gpu.limits.max_buffer_size);
            return Err(refused(why));
        }
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let buffer = gpu.scoped(|| gpu.device.create_buffer(&descriptor));
        let buffer = buffer.map_err(|error| refused(format!(" ({})", gpu::reason(&error))))?;
        gpu.allocated.fetch_add(size, Ordering::Relaxed);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Memory { buffer, id, n_bytes: size as usize, allocated: gpu.allocated.clone() })
    }

    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Identifies the allocation; never reused.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The size, a multiple of sixteen.
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The memory behind a buffer of this device.
    pub(crate) fn of(buffer: &Buffer) -> Result<&Memory> {
        let memory = buffer.storage_as::<Memory>();
        memory.ok_or(Error::WrongDevice { op: "wgpu", what: "a buffer" })
    }
}

impl Storage for Memory {
    fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.allocated.fetch_sub(self.n_bytes as u64, Ordering::Relaxed);
    }
}

/// A part of an allocation, as a kernel sees it.
#[derive(Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) memory: &'a Memory,
    /// A multiple of the adapter's alignment.
    pub(crate) offset: u64,
    /// In bytes, a multiple of four.
    pub(crate) size: u64,
    /// Whether the kernel writes it (or reads and writes).
    pub(crate) write: bool,
}

impl<'a> Binding<'a> {
    /// All of an allocation.
    pub(crate) fn all(memory: &'a Memory, write: bool) -> Binding<'a> {
        Binding { memory, offset: 0, size: memory.n_bytes() as u64, write }
    }

    /// The bytes `[start, end)` of an allocation, and the distance in bytes from the start of the binding to `start`: a binding must begin
    /// at a multiple of the adapter's alignment. Fails if the adapter cannot bind that many bytes at once.
    pub(crate) fn part(
        gpu: &Gpu,
        memory: &'a Memory,
        start: u64,
        end: u64,
        write: bool,
    ) -> Result<(Binding<'a>, u32)> {
        let alignment = u64::from(gpu.limits.min_storage_buffer_offset_alignment).max(16);
        let offset = start / alignment * alignment;
        // Whole vectors of four words: the allocation is a multiple of that.
        let size = (end.next_multiple_of(16) - offset).max(16);
        if size > gpu.limits.max_storage_buffer_binding_size {
            return Err(Error::Argument {
                op: "wgpu",
                problem: format!(
                    "{size} bytes cannot be bound at once on {}, whose limit is {}",
                    gpu.info.name, gpu.limits.max_storage_buffer_binding_size
                ),
            });
        }
        Ok((Binding { memory, offset, size, write }, (start - offset) as u32))
    }

    /// A binding for a buffer that the kernel reads, and the buffer's start in it, in words of four bytes.
    pub(crate) fn read(gpu: &Gpu, buffer: &'a Buffer) -> Result<(Binding<'a>, u32)> {
        Binding::view(gpu, buffer, false)
    }

    /// A binding for a buffer that the kernel writes, and the buffer's start in it, in words of four bytes.
    pub(crate) fn write(gpu: &Gpu, buffer: &'a Buffer) -> Result<(Binding<'a>, u32)> {
        Binding::view(gpu, buffer, true)
    }

    fn view(gpu: &Gpu, buffer: &'a Buffer, write: bool) -> Result<(Binding<'a>, u32)> {
        let (memory, start) = (Memory::of(buffer)?, buffer.offset_bytes() as u64);
        let (binding, rest) = Binding::part(gpu, memory, start, start + buffer.span_bytes() as u64, write)?;
        if rest % 4 != 0 {
            let problem = format!("{buffer:?} begins at byte {start}, but must begin at a multiple of four");
            return Err(Error::Argument { op: "wgpu", problem });
        }
        Ok((binding, rest / 4))
    }
}

/// A range of whole rows that can be bound at once: for tensors larger than the adapter's limit for one binding.
pub(crate) struct Window<'a> {
    pub(crate) first_row: u32,
    pub(crate) n_rows: u32,
    pub(crate) binding: Binding<'a>,
    /// The start of the first row in the binding, in words of four bytes.
    pub(crate) start: u32,
}

/// Cuts a matrix of four-byte elements into windows of at most `rows_max` rows.
pub(crate) fn windows<'a>(
    gpu: &Gpu,
    buffer: &'a Buffer,
    rows_max: usize,
    write: bool,
) -> Result<Vec<Window<'a>>> {
    let memory = Memory::of(buffer)?;
    let row_bytes = buffer.n_cols() * buffer.dtype().size_of();
    let (n_rows, slack) = (buffer.n_rows(), gpu.limits.min_storage_buffer_offset_alignment as usize + 32);
    let limit = (gpu.limits.max_storage_buffer_binding_size as usize).saturating_sub(slack);
    let step = (limit / row_bytes.max(1)).clamp(1, rows_max.max(1));
    let mut list = Vec::new();
    for first in (0..n_rows).step_by(step) {
        let n = step.min(n_rows - first);
        let start = (buffer.offset_bytes() + first * row_bytes) as u64;
        let (binding, rest) = Binding::part(gpu, memory, start, start + (n * row_bytes) as u64, write)?;
        list.push(Window { first_row: first as u32, n_rows: n as u32, binding, start: rest / 4 });
    }
    Ok(list)
}

/// A size as a `u32`, which kernels take.
pub(crate) fn u32_of(op: &'static str, what: &str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::Argument { op, problem: format!("{what} of {n} is too large") })
}
