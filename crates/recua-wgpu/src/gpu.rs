//! [`Gpu`]: the handles of an opened adapter, and the conversion of wgpu's errors. It does not know what the handles are used for.

use crate::adapter::{COOPERATIVE_MATRIX, Opened};
use crate::tuning::Tuning;
use recua_compute::{DeviceId, DeviceInfo, Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An opened adapter.
pub(crate) struct Gpu {
    pub(crate) id: DeviceId,
    pub(crate) info: DeviceInfo,
    pub(crate) device: wgpu::Device,
    queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    pub(crate) features: wgpu::Features,
    pub(crate) tuning: Tuning,
    /// Whether the adapter computes on the CPU.
    pub(crate) is_software: bool,
    /// Bytes currently allocated.
    pub(crate) allocated: Arc<AtomicU64>,
    /// Number of submissions so far.
    pub(crate) n_submissions: AtomicU64,
    faults: Arc<Faults>,
}

/// Errors that wgpu reported outside any call of ours.
#[derive(Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<wgpu::Error>>,
}

/// Numbers of rows for which programs are recorded. The tiles of products are full at most of them.
const ROW_BUCKETS: &[usize] = &[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];

/// Locks a mutex, poisoned or not: no panic leaves the data behind these locks half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn new(opened: Opened, tuning: Tuning) -> Gpu {
        let Opened { info, device, queue, detail } = opened;
        let faults = Arc::new(Faults::default());
        let on_lost = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            lock(&on_lost.lost).get_or_insert(format!("{reason:?}: {message}"));
        });
        let on_error = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&on_error.uncaptured).get_or_insert(error);
        }));
        // wgpu does not report the total memory.
        let (memory_bytes, runs_in_submit, is_software) =
            (None, false, info.device_type == wgpu::DeviceType::Cpu);
        let (kind, name, row_buckets) = ("wgpu".into(), info.name, ROW_BUCKETS);
        let info = DeviceInfo { kind, name, detail, memory_bytes, runs_in_submit, row_buckets };
        let (limits, features) = (device.limits(), device.features());
        let id = DeviceId::unique();
        let (allocated, n_submissions) = Default::default();
        Gpu {
            id,
            info,
            device,
            queue,
            limits,
            features,
            tuning,
            is_software,
            allocated,
            n_submissions,
            faults,
        }
    }

    /// Whether products and attention use the kernels for cooperative matrices.
    pub(crate) fn has_matrices(&self) -> bool {
        self.features.contains(COOPERATIVE_MATRIX) || self.tuning.emulated
    }

    /// Runs `f` and returns the error that wgpu found, if any.
    pub(crate) fn scoped<T>(&self, f: impl FnOnce() -> T) -> std::result::Result<T, wgpu::Error> {
        let scopes =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
                .map(|filter| self.device.push_error_scope(filter));
        let value = f();
        // The innermost scope is popped first.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
        errors.reduce(|first, _| first).map_or(Ok(value), Err)
    }

    /// Stages a copy of `bytes`; the next submission copies them to the buffer before its commands run. `start` and the length are
    /// multiples of four.
    pub(crate) fn stage(&self, buffer: &wgpu::Buffer, start: u64, bytes: &[u8]) {
        self.queue.write_buffer(buffer, start, bytes);
    }

    /// Submits command lists as one submission.
    pub(crate) fn submit(
        &self,
        commands: impl IntoIterator<Item = wgpu::CommandBuffer>,
    ) -> wgpu::SubmissionIndex {
        self.n_submissions.fetch_add(1, Ordering::Relaxed);
        self.queue.submit(commands)
    }

    /// Calls `f` once everything submitted so far is done and the device is polled.
    pub(crate) fn on_done(&self, f: impl FnOnce() + Send + 'static) {
        self.queue.on_submitted_work_done(f);
    }

    /// Nanoseconds per timestamp unit.
    pub(crate) fn timestamp_period(&self) -> f64 {
        f64::from(self.queue.get_timestamp_period())
    }

    /// Blocks until a submission is done.
    pub(crate) fn wait(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
        self.check()?;
        waited.map(drop).map_err(|e| self.lost(e.to_string()))
    }

    /// Runs the callbacks of finished work. An error shows up in the next call.
    pub(crate) fn poll(&self) {
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    /// Fails if the device is lost or an earlier call left an error.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(message) = &*lock(&self.faults.lost) {
            return Err(self.lost(message.clone()));
        }
        match lock(&self.faults.uncaptured).take() {
            Some(error) => Err(self.error("work submitted before", 0, error)),
            None => Ok(()),
        }
    }

    /// Converts wgpu's error. `what` names the action that failed, and `n_bytes` is what it needed, 0 if only the driver knows.
    pub(crate) fn error(&self, what: &str, n_bytes: u64, error: wgpu::Error) -> Error {
        let message = reason(&error);
        match error {
            wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory {
                device: self.info.name.clone(),
                what: format!("{what} ({message})"),
                requested_bytes: n_bytes as usize,
            },
            wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => {
                Error::KernelRun { name: what.into(), message }
            }
        }
    }

    pub(crate) fn lost(&self, message: String) -> Error {
        Error::DeviceLost { device: self.info.name.clone(), message }
    }
}

/// wgpu's description of an error.
pub(crate) fn reason(error: &wgpu::Error) -> String {
    match error {
        wgpu::Error::OutOfMemory { source } => source.to_string(),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            description.clone()
        }
    }
}
