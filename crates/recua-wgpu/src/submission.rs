//! What is under way: commands with their receipt, which brings back the device's time and what kernels reported.

use crate::gpu::{Gpu, lock};
use crate::record::{Recording, Step};
use crate::status::{self, Report};
use recua_compute::{Pending, Result, Storage};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Bytes of two timestamps.
const TIMES_BYTES: u64 = 16;

/// A list of commands that is ready to run.
pub(crate) struct Encoded {
    pub(crate) commands: wgpu::CommandBuffer,
    pub(crate) receipt: Option<Receipt>,
    /// Memory that must not be used for anything else before the commands are submitted. Empty where a plan holds it.
    pub(crate) named: Vec<Arc<dyn Storage>>,
}

/// What a list of commands, or several of one plan, leave behind for the host: the status of their kernels, and when the first began and
/// the last ended. A clone is the same one.
#[derive(Clone)]
pub(crate) struct Receipt {
    staging: wgpu::Buffer,
    times: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    has_status: bool,
}

/// Receipts that are free, and those of submissions nobody waited for.
#[derive(Default)]
pub(crate) struct Receipts {
    free: Mutex<Vec<Receipt>>,
    unread: Mutex<Vec<Receipt>>,
    /// What the first of those reported, as far as they have been read.
    report: Mutex<Option<Report>>,
}

/// Free receipts that are kept.
const FREE_MAX: usize = 64;
/// Unread receipts from which on those whose work is done are read. So there are never more than this and what is under way.
const UNREAD_MAX: usize = 64;

impl Gpu {
    /// Replays a recording into one list of commands: one compute pass.
    pub(crate) fn encode(&self, recording: &Recording) -> Result<Encoded> {
        let receipt = self.receipt_of(recording);
        let commands = self.encode_steps(&recording.steps, true, true, receipt.as_ref())?;
        Ok(Encoded { commands, receipt, named: Vec::new() })
    }

    /// Replays steps into a list of commands of their own. The list with the first of a receipt's steps and that with the last, which
    /// runs later, see to what the receipt brings back.
    pub(crate) fn encode_steps(
        &self,
        steps: &[Step],
        is_first: bool,
        is_last: bool,
        receipt: Option<&Receipt>,
    ) -> Result<wgpu::CommandBuffer> {
        let commands = self.scoped(|| {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if steps.is_empty() && receipt.is_none() {
                return encoder.finish();
            }
            let (status, has_status) = (self.status.buffer(), receipt.is_some_and(|r| r.has_status));
            if has_status && is_first {
                encoder.clear_buffer(status, 0, None);
            }
            let times = receipt.and_then(|receipt| receipt.times.as_ref()).filter(|_| is_first || is_last);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: times.map(|(query_set, _)| wgpu::ComputePassTimestampWrites {
                    query_set,
                    beginning_of_pass_write_index: is_first.then_some(0),
                    end_of_pass_write_index: is_last.then_some(1),
                }),
            });
            replay(&mut pass, steps);
            drop(pass);
            if let Some(receipt) = receipt.filter(|_| is_last) {
                if let Some((query_set, resolved)) = &receipt.times {
                    encoder.resolve_query_set(query_set, 0..2, resolved, 0);
                    let at = status::BYTES as u64;
                    encoder.copy_buffer_to_buffer(resolved, 0, &receipt.staging, at, Some(TIMES_BYTES));
                }
                if has_status {
                    encoder.copy_buffer_to_buffer(status, 0, &receipt.staging, 0, Some(status::BYTES as u64));
                }
            }
            encoder.finish()
        });
        commands.map_err(|e| self.error("a list of commands", 0, e))
    }

    /// A receipt for a recording, if there is anything to bring back.
    pub(crate) fn receipt_of(&self, recording: &Recording) -> Option<Receipt> {
        if recording.steps.is_empty() { None } else { self.receipt(recording.uses_status) }
    }

    fn query_set(&self, count: u32) -> wgpu::QuerySet {
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count };
        self.device.create_query_set(&descriptor)
    }

    /// A receipt that brings back the times, where the device has them, and the status if `has_status`.
    pub(crate) fn receipt(&self, has_status: bool) -> Option<Receipt> {
        let has_times = self.features.contains(wgpu::Features::TIMESTAMP_QUERY);
        if !has_times && !has_status {
            return None;
        }
        if let Some(receipt) = lock(&self.receipts.free).pop() {
            return Some(Receipt { has_status, ..receipt });
        }
        let buffer = |size, usage| {
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            self.device.create_buffer(&descriptor)
        };
        let read = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let resolve = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Some(Receipt {
            staging: buffer(status::BYTES as u64 + TIMES_BYTES, read),
            times: has_times.then(|| (self.query_set(2), buffer(TIMES_BYTES, resolve))),
            has_status,
        })
    }

    /// Starts lists of commands in order.
    pub(crate) fn start(self: &Arc<Self>, list: Vec<Encoded>) -> Result<InFlight> {
        self.start_in_order(list, &lock(&self.order))
    }

    /// As [`Gpu::start`], for whoever holds [`Gpu::order`].
    pub(crate) fn start_in_order(
        self: &Arc<Self>,
        list: Vec<Encoded>,
        _order: &MutexGuard<'_, ()>,
    ) -> Result<InFlight> {
        self.check()?;
        let (mut commands, mut receipts, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for encoded in list {
            commands.push(encoded.commands);
            receipts.extend(encoded.receipt);
            named.extend(encoded.named);
        }
        let index = self.queue.submit(commands);
        // What comes after is ordered by the queue.
        drop(named);
        for receipt in &receipts {
            receipt.staging.map_async(wgpu::MapMode::Read, .., |_| {});
        }
        let done = Arc::new(AtomicBool::new(false));
        let on_done = done.clone();
        self.queue.on_submitted_work_done(move || on_done.store(true, Ordering::Release));
        let state = Mutex::new(State { receipts, report: None, time: None });
        Ok(InFlight { gpu: self.clone(), index, done, state })
    }

    /// Blocks until a submission is done.
    pub(crate) fn wait(&self, index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index: index, timeout: None });
        self.check()?;
        waited.map(drop).map_err(|e| self.lost(e.to_string()))
    }

    /// What submissions reported that nobody waited for, as far as their work is done.
    pub(crate) fn check_unread(&self) -> Result<()> {
        self.read_unread();
        lock(&self.receipts.report).take().map_or(Ok(()), |report| Err(report.error()))
    }

    /// Reads the receipts that nobody waits for and whose work is done.
    fn read_unread(&self) {
        let mut unread = lock(&self.receipts.unread);
        let all = std::mem::take(&mut *unread);
        for receipt in all {
            match self.collect(receipt) {
                Ok((Some(report), _)) => _ = lock(&self.receipts.report).get_or_insert(report),
                Ok((None, _)) => {}
                Err(receipt) => unread.push(receipt),
            }
        }
    }

    /// Reads a receipt and frees it: what was reported, and the timestamps. Hands it back if its work is not done.
    #[allow(clippy::result_large_err, reason = "the error is the argument")]
    fn collect(&self, receipt: Receipt) -> std::result::Result<(Option<Report>, Option<[u64; 2]>), Receipt> {
        let Ok(bytes) = receipt.staging.get_mapped_range(..) else { return Err(receipt) };
        let mut words = [0u32; 8];
        bytemuck::bytes_of_mut(&mut words).copy_from_slice(&bytes[..32]);
        drop(bytes);
        receipt.staging.unmap();
        let [code, index, limit, rest, begin_low, begin_high, end_low, end_high] = words;
        let report = if receipt.has_status { Report::new([code, index, limit, rest]) } else { None };
        let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let times = receipt.times.is_some().then(|| [join(begin_low, begin_high), join(end_low, end_high)]);
        let mut free = lock(&self.receipts.free);
        if free.len() < FREE_MAX {
            free.push(receipt);
        }
        Ok((report, times))
    }
}

/// Dispatches steps one after the other.
fn replay(pass: &mut wgpu::ComputePass<'_>, steps: &[Step]) {
    let mut last = std::ptr::null();
    for step in steps {
        let pipeline = Arc::as_ptr(&step.pipeline);
        if pipeline != last {
            pass.set_pipeline(&step.pipeline.pipeline);
            last = pipeline;
        }
        pass.set_bind_group(0, &step.bind_group, &[]);
        if !step.immediates.is_empty() {
            pass.set_immediates(0, &step.immediates);
        }
        let [x, y, z] = step.groups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Work under way.
pub(crate) struct InFlight {
    gpu: Arc<Gpu>,
    index: wgpu::SubmissionIndex,
    done: Arc<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    receipts: Vec<Receipt>,
    report: Option<Report>,
    time: Option<Duration>,
}

impl InFlight {
    /// Reads the receipts; the work is done.
    fn collect(&self) -> Option<Report> {
        let mut state = lock(&self.state);
        let mut span: Option<[u64; 2]> = None;
        for receipt in std::mem::take(&mut state.receipts) {
            // One that cannot be read now never will be: the device is gone.
            let Ok((report, times)) = self.gpu.collect(receipt) else { continue };
            state.report = state.report.or(report);
            if let Some([begin, end]) = times {
                let [first, last] = span.unwrap_or([begin, end]);
                span = Some([first.min(begin), last.max(end)]);
            }
        }
        if let Some([begin, end]) = span {
            let ns = end.saturating_sub(begin) as f64 * f64::from(self.gpu.queue.get_timestamp_period());
            state.time = Some(Duration::from_nanos(ns as u64));
        }
        state.report
    }
}

impl Pending for InFlight {
    fn wait(&self) -> Result<()> {
        self.gpu.encode_ahead();
        self.gpu.wait(Some(self.index.clone()))?;
        // Another thread that polls may be about to say so, and need not have yet.
        self.done.store(true, Ordering::Release);
        match self.collect() {
            Some(report) => Err(report.error()),
            None => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        // Callbacks run only while somebody polls. An error shows up in `wait`.
        let _ = self.gpu.device.poll(wgpu::PollType::Poll);
        self.done.load(Ordering::Acquire)
    }

    fn gpu_time(&self) -> Option<Duration> {
        if !self.is_done() {
            return None;
        }
        self.collect();
        lock(&self.state).time
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let receipts = std::mem::take(&mut lock(&self.state).receipts);
        let with_status = receipts.into_iter().filter(|receipt| receipt.has_status);
        let n = {
            let mut unread = lock(&self.gpu.receipts.unread);
            unread.extend(with_status);
            unread.len()
        };
        if n > UNREAD_MAX {
            // Tells what is done. An error shows up in the next call.
            let _ = self.gpu.device.poll(wgpu::PollType::Poll);
            self.gpu.read_unread();
        }
    }
}
