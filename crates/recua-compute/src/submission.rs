//! [`Submission`]: work in flight on a device, and the outputs it copies to the host.

use crate::error::{Error, Result, argument};
use bytemuck::Pod;
use std::time::Duration;

/// Work in flight on a device; for device crates.
///
/// # Errors
/// If the work failed, for example because the device was lost or an index was out of range.
#[allow(clippy::missing_errors_doc, reason = "said once for all methods")]
pub trait Pending: Send + Sync {
    /// Blocks until the work is done and says how it went.
    fn wait(&self) -> Result<()>;
    /// Whether the work is done; never blocks.
    fn is_done(&self) -> bool;
    /// How long the device worked, once the work is done; `None` if the device cannot tell.
    fn gpu_time(&self) -> Option<Duration>;
    /// Copies output `i` of a launch to `out`, which has exactly its size. Waits if necessary.
    fn take(&self, i: usize, _out: &mut [u8]) -> Result<()> {
        Err(no_output(i, 0))
    }
}

/// The error of [`Pending::take`] if there is no output `i`.
pub fn no_output(i: usize, n_outputs: usize) -> Error {
    argument("take", format!("output {i} was requested, the launch has {n_outputs}"))
}

/// Work in flight. Dropping it does not stop the work.
pub struct Submission {
    pending: Box<dyn Pending>,
}

impl Submission {
    /// Wraps a device's own handle.
    pub fn new(pending: impl Pending + 'static) -> Submission {
        Submission { pending: Box::new(pending) }
    }

    /// Blocks until the work is done and says how it went. May be called again.
    ///
    /// # Errors
    /// If the device failed, or an index that the work read was out of range.
    pub fn wait(&self) -> Result<()> {
        self.pending.wait()
    }

    /// Whether the work is done; never blocks.
    pub fn is_done(&self) -> bool {
        self.pending.is_done()
    }

    /// How long the device worked, once the work is done; `None` if the device cannot tell.
    pub fn gpu_time(&self) -> Option<Duration> {
        self.pending.gpu_time()
    }

    /// Waits for the work, then copies output `i` of the launch to `out`. May be called again.
    ///
    /// # Errors
    /// If there is no output `i`, `out` does not have exactly its size, or the work failed.
    pub fn take<T: Pod>(&self, i: usize, out: &mut [T]) -> Result<()> {
        self.pending.take(i, bytemuck::cast_slice_mut(out))
    }
}
