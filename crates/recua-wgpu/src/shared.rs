//! [`Shared`]: the components of an opened device. Each has its own methods and borrows [`Gpu`]; code that needs several takes a `Shared`.

use crate::adapter::Opened;
use crate::gpu::Gpu;
use crate::memory::Memory;
use crate::pipelines::Pipelines;
use crate::readback::Readbacks;
use crate::transfer::Transfers;
use crate::tuning::Tuning;
use crate::workspace::Workspaces;
use recua_compute::{IndexReport, Result};
use std::sync::Mutex;

/// An opened device.
pub(crate) struct Shared {
    pub(crate) gpu: Gpu,
    pub(crate) pipelines: Pipelines,
    pub(crate) workspaces: Workspaces,
    pub(crate) readbacks: Readbacks,
    pub(crate) transfers: Transfers,
    /// Where kernels report indexes that are out of range, and count what they cut.
    pub(crate) status: Memory,
    /// Held from the first write of a launch to its last submission, so that work of another thread runs before or after all of it.
    pub(crate) order: Mutex<()>,
}

impl Shared {
    pub(crate) fn new(opened: Opened, tuning: Tuning) -> Result<Shared> {
        let gpu = Gpu::new(opened, tuning);
        Ok(Shared {
            status: Memory::new(&gpu, IndexReport::BYTES, "the status of kernels")?,
            pipelines: Pipelines::default(),
            workspaces: Workspaces::default(),
            readbacks: Readbacks::default(),
            transfers: Transfers::default(),
            order: Mutex::default(),
            gpu,
        })
    }
}
