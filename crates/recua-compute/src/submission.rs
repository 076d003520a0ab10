//! [`Submission`]: work under way on a device, and what it brings back to the host.

use crate::error::{Error, Result, argument};
use bytemuck::Pod;
use std::time::Duration;

/// Work under way on a device; for device crates.
pub trait Pending: Send + Sync {
    /// Blocks until the work is done and says how it went.
    fn wait(&self) -> Result<()>;
    /// Whether the work is done; never blocks.
    fn is_done(&self) -> bool;
    /// How long the device worked, once done; `None` where it cannot tell.
    fn gpu_time(&self) -> Option<Duration>;
    /// Copies output `i` of a launch to `out`, which has exactly its size; waits if need be.
    fn take(&self, i: usize, _out: &mut [u8]) -> Result<()> {
        Err(no_output(i, 0))
    }
}

/// There is no output `i`: for [`Pending::take`].
pub fn no_output(i: usize, n_outputs: usize) -> Error {
    argument("take", format!("output {i} is asked for, the launch has {n_outputs}"))
}

/// Work under way. Dropping it does not stop the work.
pub struct Submission {
    pending: Box<dyn Pending>,
}

impl Submission {
    /// Wraps a device's own handle.
    pub fn new(pending: impl Pending + 'static) -> Submission {
        Submission { pending: Box::new(pending) }
    }

    /// Blocks until the work is done and says how it went. May be called again.
    pub fn wait(&self) -> Result<()> {
        self.pending.wait()
    }

    /// Whether the work is done; never blocks.
    pub fn is_done(&self) -> bool {
        self.pending.is_done()
    }

    /// How long the device worked, once done; `None` where it cannot tell.
    pub fn gpu_time(&self) -> Option<Duration> {
        self.pending.gpu_time()
    }

    /// Copies output `i` of the launch to `out`, after waiting for the work. May be called again.
    ///
    /// # Errors
    /// If there is no output `i`, `out` has not exactly its size, or the work has failed.
    pub fn take<T: Pod>(&self, i: usize, out: &mut [T]) -> Result<()> {
        self.pending.take(i, bytemuck::cast_slice_mut(out))
    }
}
