//! [`Gpu`]: what every part of this crate shares, and how wgpu's own errors become ours.

use crate::adapter::{COOPERATIVE_MATRIX, Opened};
use crate::memory::{Ledger, Memory};
use crate::pipelines::Pipelines;
use crate::status;
use crate::submission::Receipts;
use crate::transfer::Transfers;
use crate::tuning::Tuning;
use recua_compute::{DeviceId, DeviceInfo, Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An opened adapter.
pub(crate) struct Gpu {
    pub(crate) id: DeviceId,
    pub(crate) info: DeviceInfo,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    pub(crate) features: wgpu::Features,
    pub(crate) tuning: Tuning,
    /// Whether the adapter computes on the CPU.
    pub(crate) is_software: bool,
    pub(crate) pipelines: Pipelines,
    /// Bytes allocated, and the recordings that name them.
    pub(crate) ledger: Arc<Ledger>,
    /// Where kernels report indexes that are out of range.
    pub(crate) status: Memory,
    pub(crate) receipts: Receipts,
    /// Held while commands are submitted that must not have others between them.
    pub(crate) order: Mutex<()>,
    /// Scratch that ops share; each entry only grows.
    workspaces: Mutex<HashMap<&'static str, Arc<Memory>>>,
    /// Counts the growths of workspaces.
    generation: AtomicU64,
    pub(crate) transfers: Transfers,
    faults: Arc<Faults>,
}

/// What wgpu reported outside any call of ours.
#[derive(Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<wgpu::Error>>,
}

/// Rows of a pass that programs are recorded for: tiles of products are whole at most of them.
const ROW_BUCKETS: &[usize] = &[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];

/// A panic elsewhere leaves nothing behind these locks that could be half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn new(opened: Opened, tuning: Tuning) -> Result<Gpu> {
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
        let (name, is_software) = (info.name.clone(), info.device_type == wgpu::DeviceType::Cpu);
        // wgpu does not tell how much memory there is.
        let info = DeviceInfo {
            kind: "wgpu".into(),
            name: name.clone(),
            detail,
            memory_bytes: None,
            row_buckets: ROW_BUCKETS,
        };
        let (limits, features) = (device.limits(), device.features());
        let ledger = Arc::new(Ledger::default());
        let status = Memory::new(&device, &name, &limits, &ledger, status::BYTES, "the status of kernels")?;
        Ok(Gpu {
            id: DeviceId::unique(),
            info,
            tuning,
            is_software,
            pipelines: Pipelines::default(),
            receipts: Receipts::default(),
            order: Mutex::default(),
            workspaces: Mutex::default(),
            generation: AtomicU64::new(0),
            transfers: Transfers::default(),
            device,
            queue,
            limits,
            features,
            ledger,
            status,
            faults,
        })
    }

    /// Fresh memory, zero-filled. `what` is for the error.
    pub(crate) fn alloc(&self, n_bytes: usize, what: &str) -> Result<Memory> {
        self.check()?;
        Memory::new(&self.device, &self.info.name, &self.limits, &self.ledger, n_bytes, what)
    }

    /// Scratch of at least `n_bytes` that all ops share which ask by this name. Ops run one after the other, so nothing that must
    /// outlive the op that wrote it belongs here.
    pub(crate) fn workspace(&self, what: &'static str, n_bytes: usize) -> Result<Arc<Memory>> {
        let mut workspaces = lock(&self.workspaces);
        if let Some(memory) = workspaces.get(what).filter(|memory| memory.n_bytes() >= n_bytes) {
            return Ok(memory.clone());
        }
        let memory = Arc::new(self.alloc(n_bytes, what)?);
        let _smaller = workspaces.insert(what, memory.clone());
        self.generation.fetch_add(1, Ordering::Relaxed);
        Ok(memory)
    }

    /// Changes whenever a workspace grows.
    pub(crate) fn workspace_generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether products and attention take the kernels of cooperative matrices.
    pub(crate) fn has_matrices(&self) -> bool {
        self.features.contains(COOPERATIVE_MATRIX) || self.tuning.emulated
    }

    /// Runs `f` and says what wgpu found wrong with it.
    pub(crate) fn scoped<T>(&self, f: impl FnOnce() -> T) -> std::result::Result<T, wgpu::Error> {
        let scopes =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
                .map(|filter| self.device.push_error_scope(filter));
        let value = f();
        // The innermost scope goes first.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
        errors.reduce(|first, _| first).map_or(Ok(value), Err)
    }

    /// Fails if the device is gone or an earlier call left an error behind.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(message) = &*lock(&self.faults.lost) {
            return Err(self.lost(message.clone()));
        }
        match lock(&self.faults.uncaptured).take() {
            Some(error) => Err(self.error("work submitted before", 0, error)),
            None => Ok(()),
        }
    }

    /// wgpu's error as ours; `what` was being done, and took `n_bytes`, 0 if only the driver knows.
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

/// What wgpu says of an error.
pub(crate) fn reason(error: &wgpu::Error) -> String {
    match error {
        wgpu::Error::OutOfMemory { source } => source.to_string(),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            description.clone()
        }
    }
}
