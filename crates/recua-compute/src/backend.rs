//! [`Backend`], [`Compiled`] and [`Encode`]: what a device crate implements. Callers use [`crate::Device`], [`crate::Program`] and
//! [`crate::CommandEncoder`], which check arguments before they call these.

use crate::buffer::{Buffer, DeviceId, Storage};
use crate::error::Result;
use crate::kernel::{Kernel, KernelArg, KernelSource};
use crate::kv::{KvPool, KvShape};
use crate::op::Op;
use crate::plan::Plan;
use crate::program::Input;
use crate::submission::Submission;
use crate::weight::{Arrange, RawMatrix, Weight};
use crate::work::Tiling;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The kind of device and its properties.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The kind, as the command line names it: `cpu`, `wgpu`, `cuda:0`.
    pub kind: String,
    /// The name users know it by, such as the processor's.
    pub name: String,
    /// One line about what was chosen and why: instruction set, threads, limits.
    pub detail: String,
    /// Bytes that could be allocated in total, if known.
    pub memory_bytes: Option<u64>,
    /// Whether work is done when the call that starts it returns, as on the CPU, which encodes nothing and has nothing in flight.
    pub runs_in_submit: bool,
    /// The numbers of rows for which programs should be compiled, ascending. A pass of another number takes the next larger program, whose
    /// spare rows are [`crate::INERT`]. Empty if any number of rows is as good as another.
    pub row_buckets: &'static [usize],
}

/// A device. It is one queue: submissions, launches, writes and reads take effect in the order of the calls, whichever threads make them.
///
/// # Errors
/// Arguments have been checked when a method is called. Each fails only for reasons of the device: no memory ([`crate::Error::OutOfMemory`]),
/// no kernels for a shape or a type of weight, a kernel that does not compile, a lost device.
#[allow(clippy::missing_errors_doc, reason = "said once for all methods")]
pub trait Backend: Send + Sync + 'static {
    /// The identity that the device's buffers carry: its own, or that of the device that it wraps, if that one allocates all its memory.
    fn id(&self) -> DeviceId;
    /// What the device is.
    fn info(&self) -> &DeviceInfo;
    /// Bytes allocated now: buffers, weights and workspace.
    fn allocated_bytes(&self) -> u64;
    /// See [`crate::Device::n_cut`].
    fn n_cut(&self) -> Result<u64>;
    /// New zero-filled memory. If there is none, it fails and never aborts.
    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>>;
    /// Copies `bytes` to the start of `dst`, where they fit.
    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()>;
    /// Fills `out` from the start of `src`, which is at least as large. Waits for submitted work.
    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()>;
    /// Converts checked matrices to the device's layout; see [`Device::upload_weight`](crate::Device::upload_weight).
    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight>;
    /// Allocates a layer's cache in the device's own layout, for a checked shape. Its contents may be anything: nothing is read before it is
    /// written. If there is no memory, it fails and never aborts.
    fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool>;
    /// See [`crate::Device::tiling`].
    fn tiling(&self, shape: &KvShape, n_heads: usize) -> Tiling;
    /// Compiles a hand-written kernel, specialized by `constants`.
    fn compile_kernel(
        &self,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>>;
    /// A new encoder. Its commands must keep the [`Buffer`]s they use alive until they are submitted or dropped, because a
    /// [`crate::BufferPool`] reuses memory that nothing refers to.
    fn encoder(&self) -> Result<Box<dyn Encode>>;
    /// Runs what this device's encoders finished, in list order.
    fn submit(&self, commands: Vec<Box<dyn Any + Send>>) -> Result<Submission>;
    /// Makes a plan ready by doing everything that is possible before the first launch: allocating, lowering, fusing, compiling kernels. The
    /// result keeps the plan's buffers and weights allocated.
    fn compile(&self, plan: &Plan) -> Result<Arc<dyn Compiled>>;
    /// The read bandwidth in bytes per second, measured now.
    fn measure_read_bandwidth(&self) -> Result<f64>;
}

/// A plan made ready. Its `Display` lists what a launch runs. Dropping it frees what only it holds.
///
/// # Errors
/// A launch fails only for reasons of the device, and, on a device that runs in the call, if the run itself fails.
#[allow(clippy::missing_errors_doc, reason = "said once for all methods")]
pub trait Compiled: fmt::Display + Send + Sync {
    /// Queues three things: copy `inputs` to their buffers, run, copy `outputs` to the host. Returns immediately if the device can, and
    /// allocates no device memory. The sizes have been checked.
    fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission>;
}

/// A device's own encoder inside a [`crate::CommandEncoder`].
///
/// # Errors
/// As those of [`Backend`].
#[allow(clippy::missing_errors_doc, reason = "said once for all methods")]
pub trait Encode: Send {
    /// Appends an op that has been checked.
    fn op(&mut self, op: &Op) -> Result<()>;
    /// Appends a dispatch of `groups` workgroups of a kernel that this device compiled.
    fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()>;
    /// Ends the recording.
    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>>;
}
