//! Bytes between the host and the device: staged, in pieces, through buffers that are used again.

use crate::gpu::{Gpu, lock};
use crate::memory::{Binding, Memory};
use crate::ops;
use crate::record::{Recorder, Recording};
use recua_compute::{Buffer, Result};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest piece that is staged at once.
const PIECE_BYTES: usize = 32 << 20;

/// Staging buffers for reading that are free, and the bytes written since the last submission.
#[derive(Default)]
pub(crate) struct Transfers {
    free: Mutex<Vec<wgpu::Buffer>>,
    written: AtomicU64,
}

/// Free staging buffers that are kept: as many as threads that read at the same time, usually.
const FREE_MAX: usize = 4;

impl Gpu {
    /// Copies bytes to the device. `start` and the length are multiples of four. Work submitted later sees them, earlier work does
    /// not.
    pub(crate) fn upload(&self, memory: &Memory, start: u64, bytes: &[u8]) -> Result<()> {
        for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            self.queue.write_buffer(memory.buffer(), start + (i * PIECE_BYTES) as u64, piece);
            // wgpu stages a copy of the bytes, and frees it once work that was submitted after it is done.
            let written = self.transfers.written.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if written + piece.len() as u64 > 2 * PIECE_BYTES as u64 {
                self.transfers.written.store(0, Ordering::Relaxed);
                let index = self.queue.submit([]);
                self.wait(Some(index))?;
            }
        }
        self.check()
    }

    /// Copies bytes to the start of a buffer, wherever it begins and ends.
    pub(crate) fn write(self: &Arc<Self>, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        let memory = Memory::of(dst)?;
        let start = dst.offset_bytes() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        if start.is_multiple_of(4) && bytes.len().is_multiple_of(4) {
            return self.upload(memory, start, bytes);
        }
        // A word that is written in part keeps its other bytes: a kernel sees to that.
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(4), 0);
        let staged = self.alloc(padded.len(), "staging")?;
        self.upload(&staged, 0, &padded)?;
        let mut recording = Recording::default();
        let n_bytes = bytes.len() as u64;
        ops::copy_bytes(&mut Recorder::new(self, &mut recording), (&staged, 0), (memory, start), n_bytes)?;
        self.start(vec![self.encode(&recording)?])?;
        Ok(())
    }

    /// Copies the start of a buffer to the host, after all submitted work.
    pub(crate) fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        self.check()?;
        let memory = Memory::of(src)?;
        let mut start = src.offset_bytes();
        for piece in out.chunks_mut(PIECE_BYTES) {
            self.read_piece(memory, start, piece)?;
            start += piece.len();
        }
        self.check_unread()
    }

    fn read_piece(&self, memory: &Memory, start: usize, out: &mut [u8]) -> Result<()> {
        // Copies go by words; the allocation is a multiple of them.
        let first = start / 4 * 4;
        let size = ((start + out.len()).next_multiple_of(4) - first) as u64;
        let staging = self.staging(size)?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(memory.buffer(), first as u64, &staging, 0, Some(size));
        let index = self.queue.submit([encoder.finish()]);
        self.transfers.written.store(0, Ordering::Relaxed);
        staging.map_async(wgpu::MapMode::Read, 0..size, |_| {});
        self.encode_ahead();
        self.wait(Some(index))?;
        let mapped = staging.get_mapped_range(0..size).map_err(|e| self.lost(e.to_string()))?;
        out.copy_from_slice(&mapped[start - first..][..out.len()]);
        drop(mapped);
        staging.unmap();
        let mut free = lock(&self.transfers.free);
        if free.len() < FREE_MAX {
            free.push(staging);
        }
        Ok(())
    }

    /// A mappable buffer of at least `size` bytes.
    fn staging(&self, size: u64) -> Result<wgpu::Buffer> {
        let mut free = lock(&self.transfers.free);
        if let Some(i) = free.iter().position(|buffer| buffer.size() >= size) {
            return Ok(free.swap_remove(i));
        }
        // One that is too small gives way to one that will do for both.
        free.pop();
        let size = size.next_power_of_two().max(4096);
        let descriptor = wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        self.scoped(|| self.device.create_buffer(&descriptor)).map_err(|e| self.error("staging", size, e))
    }
}

/// Windows of whole rows that can be bound at once: for tensors larger than the adapter's limit for one binding.
pub(crate) struct Window<'a> {
    pub(crate) first_row: u32,
    pub(crate) n_rows: u32,
    pub(crate) binding: Binding<'a>,
    /// Where the first row begins in the binding, in words of four bytes.
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
