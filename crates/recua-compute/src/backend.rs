//! [`Backend`], [`Compiled`] and [`Encode`]: what a device crate implements. Callers use [`crate::Device`], [`crate::Program`] and
//! [`crate::CommandEncoder`], which check arguments before they come here.

use crate::buffer::{Buffer, DeviceId, Storage, Weight};
use crate::error::Result;
use crate::kernel::{Kernel, KernelArg, KernelSource};
use crate::op::Op;
use crate::plan::Plan;
use crate::program::Input;
use crate::submission::Submission;
use recua_gguf::GgmlType;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// What a device is.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The kind, as the command line names it: `cpu`, `wgpu`, `cuda:0`.
    pub kind: String,
    /// What a user calls it, such as the processor's name.
    pub name: String,
    /// One line of what was chosen and why: instruction sets, threads, limits.
    pub detail: String,
    /// Memory that could be allocated in all, if known.
    pub memory_bytes: Option<u64>,
    /// Whether work is done when the call that starts it returns, as on the CPU, which encodes nothing and has nothing under way.
    pub runs_in_submit: bool,
}

/// A device. It is one queue: submissions, launches, writes and reads take effect in the order of the calls, whatever thread makes them.
pub trait Backend: Send + Sync + 'static {
    /// The identity that the device's buffers carry: one of its own, or that of the device it wraps, which then makes all its memory.
    fn id(&self) -> DeviceId;
    /// What the device is.
    fn info(&self) -> &DeviceInfo;
    /// Bytes allocated now: buffers, weights and workspace.
    fn allocated_bytes(&self) -> u64;
    /// Zero-filled memory that nobody else holds. Refuses, never aborts, when there is none.
    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>>;
    /// Copies `bytes` to the start of `dst`; they fit.
    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()>;
    /// Copies the start of `src` to `out`; it fits. Waits for submitted work.
    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()>;
    /// Re-lays raw blocks out; their number has been checked.
    fn upload_weight(&self, raw: &[u8], ty: GgmlType, n: usize, k: usize) -> Result<Weight>;
    /// Compiles a hand-written kernel; `constants` specialise it.
    fn compile_kernel(
        &self,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>>;
    /// A fresh encoder. Until its commands are submitted or dropped, they hold the [`Buffer`]s they name: a [`crate::BufferPool`]
    /// hands out what nobody holds.
    fn encoder(&self) -> Result<Box<dyn Encode>>;
    /// Runs what this device's encoders finished, in list order.
    fn submit(&self, commands: Vec<Box<dyn Any + Send>>) -> Result<Submission>;
    /// Makes a plan ready: allocates, lowers, fuses, compiles kernels, all that is known before the first launch. What the plan names
    /// stays allocated as long as the result lives.
    fn compile(&self, plan: &Plan) -> Result<Arc<dyn Compiled>>;
    /// Bytes per second of pure reading, measured now.
    fn measure_read_bandwidth(&self) -> Result<f64>;
}

/// A plan made ready. Printed, it tells what a launch runs. Dropping it frees what it alone holds.
pub trait Compiled: fmt::Display + Send + Sync {
    /// Queues: copy `inputs` to their buffers, run, copy `outputs` to the host. Returns at once where the device can; allocates no device
    /// memory. The sizes fit.
    fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission>;
}

/// A device's own encoder inside a [`crate::CommandEncoder`].
pub trait Encode: Send {
    /// Appends an op that has been checked.
    fn op(&mut self, op: &Op) -> Result<()>;
    /// Appends `groups` workgroups of a kernel that this device compiled.
    fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()>;
    /// Ends the recording.
    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>>;
}
