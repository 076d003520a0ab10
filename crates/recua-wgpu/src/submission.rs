//! Work in flight: waiting for it, its outputs, the time that the device took, and what kernels reported.

use crate::commands::Encoded;
use crate::gpu::lock;
use crate::readback::{Header, Outputs, Readback};
use crate::shared::Shared;
use recua_compute::{Error, IndexReport, Pending, Result, no_output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Work in flight.
pub(crate) struct InFlight {
    shared: Arc<Shared>,
    index: wgpu::SubmissionIndex,
    done: Arc<AtomicBool>,
    outputs: Arc<Outputs>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Readbacks that have not been read; the first has the outputs, if there are any.
    unread: Vec<Readback>,
    /// The readback with the outputs, mapped, once the work is done.
    read: Option<Readback>,
    report: Option<IndexReport>,
    time: Option<Duration>,
}

impl InFlight {
    /// Submits command lists in order.
    pub(crate) fn start_all(shared: &Arc<Shared>, list: Vec<Encoded>) -> Result<InFlight> {
        let (mut commands, mut readbacks, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for encoded in list {
            commands.push(encoded.commands);
            readbacks.extend(encoded.readback);
            named.extend(encoded.named);
        }
        let order = lock(&shared.order);
        let in_flight = InFlight::start(shared, commands, readbacks, Arc::default(), &order)?;
        drop(order);
        // The queue orders all later work after this, so the memory may be reused.
        drop(named);
        Ok(in_flight)
    }

    /// Submits command lists as one submission. The caller holds [`Shared::order`]. The first readback is the one with the outputs.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        commands: impl IntoIterator<Item = wgpu::CommandBuffer>,
        readbacks: Vec<Readback>,
        outputs: Arc<Outputs>,
        _order: &MutexGuard<'_, ()>,
    ) -> Result<InFlight> {
        let gpu = &shared.gpu;
        gpu.check()?;
        let index = gpu.submit(commands);
        shared.transfers.set_submitted();
        let done = Arc::new(AtomicBool::new(false));
        let on_done = || {
            let done = done.clone();
            move || done.store(true, Ordering::Release)
        };
        match &readbacks[..] {
            [] => gpu.on_done(on_done()),
            list => list.iter().for_each(|readback| {
                let on_done = on_done();
                readback.staging.map_async(wgpu::MapMode::Read, .., move |_| on_done());
            }),
        }
        let state = Mutex::new(State { unread: readbacks, ..State::default() });
        Ok(InFlight { shared: shared.clone(), index, done, outputs, state })
    }

    /// Reads the readbacks. The work must be done.
    fn collect(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        let has_outputs = !self.outputs.list.is_empty();
        let mut span: Option<[u64; 2]> = None;
        for (i, readback) in std::mem::take(&mut state.unread).into_iter().enumerate() {
            // A readback that cannot be read now never will be: the device is lost.
            let Some(Header { report, times }) = readback.header() else { continue };
            state.report = state.report.or(report);
            if let Some([begin, end]) = times {
                let [first, last] = span.unwrap_or([begin, end]);
                span = Some([first.min(begin), last.max(end)]);
            }
            if i == 0 && has_outputs {
                state.read = Some(readback);
            } else {
                readback.staging.unmap();
                self.shared.readbacks.free(readback);
            }
        }
        if let Some([begin, end]) = span {
            let ns = end.saturating_sub(begin) as f64 * self.shared.gpu.timestamp_period();
            state.time = Some(Duration::from_nanos(ns as u64));
        }
        state
    }
}

impl Pending for InFlight {
    fn wait(&self) -> Result<()> {
        if !self.done.load(Ordering::Acquire) {
            self.shared.gpu.wait(self.index.clone())?;
            // Another thread that polls may be about to set this, but may not have done so yet.
            self.done.store(true, Ordering::Release);
        }
        match self.collect().report {
            Some(report) => Err(report.error()),
            None => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        // Callbacks run only during a poll. An error shows up in `wait`.
        self.shared.gpu.poll();
        self.done.load(Ordering::Acquire)
    }

    fn gpu_time(&self) -> Option<Duration> {
        if !self.done.load(Ordering::Acquire) && !self.is_done() {
            return None;
        }
        self.collect().time
    }

    fn take(&self, i: usize, out: &mut [u8]) -> Result<()> {
        let output = self.outputs.list.get(i).ok_or_else(|| no_output(i, self.outputs.list.len()))?;
        if output.len != out.len() {
            let problem = format!("output {i} has {} bytes, not {}", output.len, out.len());
            return Err(Error::Argument { op: "take", problem });
        }
        self.wait()?;
        let gpu = &self.shared.gpu;
        let state = lock(&self.state);
        let readback = state.read.as_ref().ok_or_else(|| gpu.lost("outputs cannot be read".into()))?;
        readback.take(gpu, output, out)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let State { unread, read, .. } = std::mem::take(&mut *lock(&self.state));
        let Shared { gpu, readbacks, .. } = &*self.shared;
        if let Some(readback) = read {
            readback.staging.unmap();
            readbacks.free(readback);
        }
        unread
            .into_iter()
            .filter(|readback| readback.has_status)
            .for_each(|readback| readbacks.leave(gpu, readback));
    }
}
