//! The programs of a model: its passes, by shape, and the copies of its cache.

use super::llama::{self, Pass, Shape};
use crate::error::{Error, Result, SMALLER_CACHE};
use recua_compute::{Device, Plan, Program};
use std::collections::HashMap;

/// Programs over the buffers of one configuration. A new one replaces the pass that was not used for the longest time.
pub(crate) struct Programs {
    /// Copies the pages in the store's list.
    pub(crate) copies: Program,
    programs: HashMap<Shape, (u64, Program)>,
    clock: u64,
}

impl Programs {
    /// A server's steps have a few dozen shapes at a time; a large model's program takes some hundred kilobytes of host memory.
    const N_MAX: usize = 64;

    pub(crate) fn new(copies: Program) -> Programs {
        Programs { copies, programs: HashMap::new(), clock: 0 }
    }

    pub(crate) fn get(&mut self, shape: Shape) -> Option<Program> {
        self.clock += 1;
        let (used, program) = self.programs.get_mut(&shape)?;
        *used = self.clock;
        Some(program.clone())
    }

    pub(crate) fn insert(&mut self, shape: Shape, program: Program) {
        if self.programs.len() >= Self::N_MAX
            && let Some(oldest) = self.programs.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            self.programs.remove(&oldest);
        }
        self.programs.insert(shape, (self.clock, program));
    }
}

/// The plan of a pass.
pub(crate) fn record(device: &Device, pass: &Pass<'_>, shape: Shape) -> Result<Plan> {
    let mut plan = device.plan();
    llama::record(&mut plan, pass, shape)?;
    Ok(plan)
}

/// A pass made ready.
pub(crate) fn compile(device: &Device, pass: &Pass<'_>, shape: Shape) -> Result<Program> {
    device.compile(&record(device, pass, shape)?).map_err(|source| match source {
        recua_compute::Error::OutOfMemory { .. } => {
            Error::Allocation { what: "the device's workspace".into(), advice: SMALLER_CACHE, source }
        }
        source => source.into(),
    })
}
