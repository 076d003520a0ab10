//! A plan made ready for the CPU. A launch runs it before it returns.

use super::memory::ptr;
use super::{Cpu, IndexCheck};
use crate::backend::Compiled;
use crate::buffer::Buffer;
use crate::error::{Error, Result, argument};
use crate::plan::Plan;
use crate::program::Input;
use crate::submission::{Pending, Submission, no_output};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A plan whose workspace is reserved. It stays so, because the workspace only grows.
pub(super) struct CpuProgram {
    cpu: Arc<Cpu>,
    plan: Plan,
    checks: Vec<IndexCheck>,
}

impl CpuProgram {
    /// A program of a plan whose workspace is reserved.
    pub(super) fn new(cpu: Arc<Cpu>, plan: Plan) -> CpuProgram {
        let checks = IndexCheck::of(plan.ops().iter());
        CpuProgram { cpu, plan, checks }
    }
}

impl Compiled for CpuProgram {
    fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission> {
        let mut queue = self.cpu.lock();
        for input in inputs {
            let bytes = input.bytes();
            // SAFETY: `Input::new` has checked the length, and the queue is held, so no op is running.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr(input.buffer()), bytes.len()) }
        }
        self.cpu.run_ops(&mut queue, self.plan.ops().iter(), &self.checks)?;
        let outputs = outputs.iter().map(copied).collect::<Result<_>>()?;
        Ok(Submission::new(Done { outputs }))
    }
}

impl fmt::Display for CpuProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

/// The bytes of a buffer, while the queue is held.
fn copied(output: &Buffer) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(output.n_bytes()).map_err(|_| Error::OutOfMemory {
        device: "host".into(),
        what: format!("a copy of {output:?}"),
        requested_bytes: output.n_bytes(),
    })?;
    // SAFETY: the view's bytes are initialized, and the queue is held, so nothing writes them.
    bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(ptr(output), output.n_bytes()) });
    Ok(bytes)
}

/// Work that was done before the call that started it returned.
#[derive(Default)]
pub(super) struct Done {
    outputs: Vec<Vec<u8>>,
}

impl Pending for Done {
    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn is_done(&self) -> bool {
        true
    }

    fn gpu_time(&self) -> Option<Duration> {
        None
    }

    fn take(&self, i: usize, out: &mut [u8]) -> Result<()> {
        let bytes = self.outputs.get(i).ok_or_else(|| no_output(i, self.outputs.len()))?;
        if bytes.len() != out.len() {
            return Err(argument("take", format!("output {i} has {} bytes, not {}", bytes.len(), out.len())));
        }
        out.copy_from_slice(bytes);
        Ok(())
    }
}
