//! [`Shared`]: the rooms of an opened device. Each owns its methods and borrows [`Gpu`]; whoever needs several of them is handed this.

use crate::cache::Cache;
use crate::gpu::Gpu;
use crate::kernels::Kernels;
use crate::memory::Memory;
use crate::staging::Stagings;
use crate::transfer::Transfers;
use crate::workspace::Workspaces;
use recua_compute::{IndexReport, Result};
use std::sync::Mutex;

/// An opened device.
pub(crate) struct Shared {
    pub(crate) transfers: Transfers,
    pub(crate) stagings: Stagings,
    pub(crate) kernels: Kernels,
    pub(crate) workspaces: Workspaces,
    /// Where kernels report indexes that are out of range, and count what they cut.
    pub(crate) status: Memory,
    /// Held from the first write of a launch to its last submission: what another thread submits comes before all of it or after.
    pub(crate) order: Mutex<()>,
    pub(crate) gpu: Gpu,
}

impl Shared {
    pub(crate) fn new(gpu: Gpu, cache: Cache) -> Result<Shared> {
        let kernels = Kernels::new(cache);
        Ok(Shared {
            transfers: Transfers::new(&gpu, &kernels)?,
            stagings: Stagings::default(),
            kernels,
            workspaces: Workspaces::default(),
            status: Memory::new(&gpu, IndexReport::BYTES, "the status of kernels")?,
            order: Mutex::default(),
            gpu,
        })
    }

    /// Copies bytes to the device, to be seen by work that is submitted later: see [`Transfers::upload`].
    pub(crate) fn upload(&self, memory: &Memory, start: usize, bytes: &[u8]) -> Result<()> {
        self.transfers.upload(&self.gpu, memory, start, bytes)
    }
}
