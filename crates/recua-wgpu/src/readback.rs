//! [`Readback`]: what a submission brings back to the host, in one staging buffer: what kernels reported, when the device began and ended,
//! and the outputs of a launch.

use crate::gpu::{Gpu, lock};
use crate::memory::Memory;
use recua_compute::{Buffer, IndexReport, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of two timestamps.
const TIMES_BYTES: u64 = 16;
/// A staging buffer holds the status, then the times from here on, then the outputs.
const TIMES_AT: u64 = IndexReport::BYTES as u64;
const HEADER_BYTES: u64 = TIMES_AT + TIMES_BYTES;

/// A staging buffer for one submission at a time.
pub(crate) struct Readback {
    pub(crate) staging: wgpu::Buffer,
    /// Present if the device has timestamps.
    times: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    pub(crate) has_status: bool,
}

/// Readbacks that are free, and those of submissions that nobody waited for.
#[derive(Default)]
pub(crate) struct Readbacks {
    free: Mutex<Vec<Readback>>,
    unread: Mutex<Vec<Readback>>,
    /// The first report among those that have been read.
    report: Mutex<Option<IndexReport>>,
    /// Readbacks made so far: in the long run, as many as are in use at one time.
    pub(crate) n_made: AtomicU64,
}

/// The most free readbacks to keep, and the most bytes of them.
const FREE_MAX: usize = 64;
const FREE_BYTES_MAX: u64 = 128 << 20;
/// From this many unread readbacks on, those of finished work are read. So there are never more than this, plus those in flight.
const UNREAD_MAX: usize = 64;

/// The header of a readback.
pub(crate) struct Header {
    pub(crate) report: Option<IndexReport>,
    /// When the device began and ended, in timestamp units.
    pub(crate) times: Option<[u64; 2]>,
}

/// The outputs of a launch, and their places in a readback.
#[derive(Default, PartialEq)]
pub(crate) struct Outputs {
    pub(crate) list: Vec<Output>,
    n_bytes: u64,
}

/// One output. Copies consist of words of four bytes, so the first and the last word may contain bytes that were not requested.
#[derive(PartialEq)]
pub(crate) struct Output {
    buffer: wgpu::Buffer,
    start: u64,
    size: u64,
    /// The offset in the staging buffer, a multiple of sixteen.
    at: u64,
    /// Bytes before the output's first one, and bytes of the output.
    skip: usize,
    pub(crate) len: usize,
}

impl Outputs {
    pub(crate) fn new(buffers: &[Buffer]) -> Result<Outputs> {
        let mut outputs = Outputs::default();
        for buffer in buffers {
            outputs.push(Memory::of(buffer)?, buffer.offset_bytes(), buffer.n_bytes());
        }
        Ok(outputs)
    }

    fn push(&mut self, memory: &Memory, start: usize, len: usize) {
        let first = start / 4 * 4;
        let size = ((start + len).next_multiple_of(4) - first) as u64;
        let (buffer, at) = (memory.buffer().clone(), HEADER_BYTES + self.n_bytes);
        self.list.push(Output { buffer, start: first as u64, size, at, skip: start - first, len });
        self.n_bytes += size.next_multiple_of(16);
    }

    /// The bytes that they take in a staging buffer.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

impl Readback {
    /// The timestamps that a compute pass writes.
    pub(crate) fn timestamp_writes(
        &self,
        is_first: bool,
        is_last: bool,
    ) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let (query_set, _) = self.times.as_ref().filter(|_| is_first || is_last)?;
        Some(wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: is_first.then_some(0),
            end_of_pass_write_index: is_last.then_some(1),
        })
    }

    /// Whether it has room for these outputs.
    pub(crate) fn has_room(&self, outputs: &Outputs) -> bool {
        self.staging.size() >= HEADER_BYTES + outputs.n_bytes
    }

    /// Takes over the times of another readback, whose pass wrote them.
    pub(crate) fn take_times(&mut self, other: &mut Readback) {
        std::mem::swap(&mut self.times, &mut other.times);
    }

    /// Encodes the copies to the staging buffer.
    pub(crate) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        status: &wgpu::Buffer,
        outputs: &Outputs,
    ) {
        if let Some((query_set, resolved)) = &self.times {
            encoder.resolve_query_set(query_set, 0..2, resolved, 0);
            encoder.copy_buffer_to_buffer(resolved, 0, &self.staging, TIMES_AT, Some(TIMES_BYTES));
        }
        if self.has_status {
            encoder.copy_buffer_to_buffer(status, 0, &self.staging, 0, Some(IndexReport::BYTES as u64));
        }
        for Output { buffer, start, size, at, .. } in &outputs.list {
            encoder.copy_buffer_to_buffer(buffer, *start, &self.staging, *at, Some(*size));
        }
    }

    /// The header; `None` if the work is not done or the device is lost.
    pub(crate) fn header(&self) -> Option<Header> {
        let bytes = self.staging.get_mapped_range(0..HEADER_BYTES).ok()?;
        let mut words = [0u32; 8];
        bytemuck::bytes_of_mut(&mut words).copy_from_slice(&bytes);
        let [code, index, limit, rest, begin_low, begin_high, end_low, end_high] = words;
        let report = if self.has_status { IndexReport::new([code, index, limit, rest]) } else { None };
        let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let times = self.times.is_some().then(|| [join(begin_low, begin_high), join(end_low, end_high)]);
        Some(Header { report, times })
    }

    /// Copies an output of finished work.
    pub(crate) fn take(&self, gpu: &Gpu, output: &Output, out: &mut [u8]) -> Result<()> {
        let Output { at, size, skip, len, .. } = *output;
        let mapped = self.staging.get_mapped_range(at..at + size).map_err(|e| gpu.lost(e.to_string()))?;
        out.copy_from_slice(&mapped[skip..][..len]);
        Ok(())
    }
}

impl Readbacks {
    /// A readback with room for these outputs.
    pub(crate) fn get(&self, gpu: &Gpu, outputs: &Outputs, has_status: bool) -> Result<Readback> {
        {
            let mut free = lock(&self.free);
            let fitting = free.iter().enumerate().filter(|(_, readback)| readback.has_room(outputs));
            if let Some((i, _)) = fitting.min_by_key(|(_, readback)| readback.staging.size()) {
                return Ok(Readback { has_status, ..free.swap_remove(i) });
            }
        }
        self.n_made.fetch_add(1, Ordering::Relaxed);
        let size = (HEADER_BYTES + outputs.n_bytes).next_power_of_two().max(4096);
        let buffer = |size, usage| {
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            gpu.device.create_buffer(&descriptor)
        };
        let query_set = || {
            let descriptor =
                wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 };
            gpu.device.create_query_set(&descriptor)
        };
        let resolve = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let has_times = gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY);
        let readback = gpu.scoped(|| Readback {
            staging: buffer(size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            times: has_times.then(|| (query_set(), buffer(TIMES_BYTES, resolve))),
            has_status,
        });
        readback.map_err(|e| gpu.error("staging", size, e))
    }

    /// Keeps an unmapped readback for reuse, unless enough are kept.
    pub(crate) fn free(&self, readback: Readback) {
        let mut free = lock(&self.free);
        let n_bytes: u64 = free.iter().map(|readback| readback.staging.size()).sum();
        if free.len() < FREE_MAX && n_bytes + readback.staging.size() <= FREE_BYTES_MAX {
            free.push(readback);
        }
    }

    /// Takes the readback of a submission that nobody waits for any more; the next [`Readbacks::check_unread`] returns its report.
    pub(crate) fn leave(&self, gpu: &Gpu, readback: Readback) {
        let n = {
            let mut unread = lock(&self.unread);
            unread.push(readback);
            unread.len()
        };
        if n > UNREAD_MAX {
            gpu.poll();
            self.read_unread();
        }
    }

    /// The report of finished submissions that nobody waited for.
    pub(crate) fn check_unread(&self) -> Result<()> {
        self.read_unread();
        lock(&self.report).take().map_or(Ok(()), |report| Err(report.error()))
    }

    fn read_unread(&self) {
        let mut unread = lock(&self.unread);
        for readback in std::mem::take(&mut *unread) {
            match readback.header() {
                Some(Header { report, .. }) => {
                    if let Some(report) = report {
                        lock(&self.report).get_or_insert(report);
                    }
                    readback.staging.unmap();
                    self.free(readback);
                }
                None => unread.push(readback),
            }
        }
    }

    /// Copies `out.len()` bytes from byte `start` of an allocation to the host, after all submitted work. `order` is the device's lock.
    pub(crate) fn read(
        &self,
        gpu: &Gpu,
        order: &Mutex<()>,
        memory: &Memory,
        start: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let mut outputs = Outputs::default();
        outputs.push(memory, start, out.len());
        let readback = self.get(gpu, &outputs, false)?;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let Output { buffer, start, size, at, .. } = &outputs.list[0];
        encoder.copy_buffer_to_buffer(buffer, *start, &readback.staging, *at, Some(*size));
        let commands = encoder.finish();
        let index = {
            let _order = lock(order);
            gpu.submit([commands])
        };
        readback.staging.map_async(wgpu::MapMode::Read, .., |_| {});
        gpu.wait(index)?;
        readback.take(gpu, &outputs.list[0], out)?;
        readback.staging.unmap();
        self.free(readback);
        Ok(())
    }
}
