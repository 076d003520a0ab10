//! [`Memory`]: one wgpu buffer, counted while it lives. wgpu tracks hazards by the whole buffer, so each allocation is one of its own,
//! of exactly the size asked for, rounded up to sixteen bytes.

use crate::gpu::{self, Gpu, lock};
use crate::run::Recordings;
use recua_compute::{Buffer, Error, Result, Storage};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes allocated now, and the recordings that name the memory.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) bytes: AtomicU64,
    pub(crate) recordings: Mutex<Recordings>,
}

/// One allocation on the device.
pub(crate) struct Memory {
    buffer: wgpu::Buffer,
    id: u64,
    n_bytes: usize,
    ledger: Arc<Ledger>,
}

impl Memory {
    /// `n_bytes` of zeros, at least one.
    pub(crate) fn new(
        device: &wgpu::Device,
        name: &str,
        limits: &wgpu::Limits,
        ledger: &Arc<Ledger>,
        n_bytes: usize,
        what: &str,
    ) -> Result<Memory> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let refused = |why: String| Error::OutOfMemory {
            device: name.into(),
            what: format!("{what}{why}"),
            requested_bytes: n_bytes,
        };
        let size = (n_bytes as u64).max(1).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        if size > limits.max_buffer_size {
            let why = format!(" (a buffer here holds at most {} bytes)", limits.max_buffer_size);
            return Err(refused(why));
        }
        let scopes =
            [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal]
                .map(|filter| device.push_error_scope(filter));
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // The innermost scope goes first.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
        if let Some(error) = errors.reduce(|first, _| first) {
            return Err(refused(format!(" ({})", gpu::reason(&error))));
        }
        ledger.bytes.fetch_add(size, Ordering::Relaxed);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Memory { buffer, id, n_bytes: size as usize, ledger: ledger.clone() })
    }

    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Tells allocations apart, for ever.
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
        // A kept recording would keep the memory: it goes first.
        lock(&self.ledger.recordings).forget(self.id);
        self.ledger.bytes.fetch_sub(self.n_bytes as u64, Ordering::Relaxed);
    }
}

/// A part of an allocation as a kernel sees it.
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

    /// The bytes `[start, end)` of an allocation, and how many bytes behind the binding's own start `start` lies: a binding begins at
    /// a multiple of the adapter's alignment. Fails if the adapter cannot bind so much at once.
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

    /// The bytes of a buffer that the kernel reads, and where they begin in the binding, in words of four bytes.
    pub(crate) fn read(gpu: &Gpu, buffer: &'a Buffer) -> Result<(Binding<'a>, u32)> {
        Binding::view(gpu, buffer, false)
    }

    /// The bytes of a buffer that the kernel writes, and where they begin in the binding, in words of four bytes.
    pub(crate) fn write(gpu: &Gpu, buffer: &'a Buffer) -> Result<(Binding<'a>, u32)> {
        Binding::view(gpu, buffer, true)
    }

    fn view(gpu: &Gpu, buffer: &'a Buffer, write: bool) -> Result<(Binding<'a>, u32)> {
        let (memory, start) = (Memory::of(buffer)?, buffer.offset_bytes() as u64);
        let (binding, rest) = Binding::part(gpu, memory, start, start + buffer.span_bytes() as u64, write)?;
        if rest % 4 != 0 {
            let problem = format!("{buffer:?} begins at byte {start}, a multiple of four is needed");
            return Err(Error::Argument { op: "wgpu", problem });
        }
        Ok((binding, rest / 4))
    }
}
