//! [`Device`]: the one face of every device, and [`Backend`], what a device crate implements behind it.

use crate::buffer::{Buffer, DType, DeviceId, Storage, n_bytes};
use crate::encoder::{CommandEncoder, Commands, Encode, Submission};
use crate::error::{Error, Result, argument};
use crate::plan::Plan;
use crate::registry::KernelSource;
use crate::weight::{Arrange, RawMatrix, Weight, check_parts};
use bytemuck::Pod;
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};

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
}

/// What a device crate implements. Callers use [`Device`], whose methods check arguments before they come here.
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
    /// Re-lays matrices out, which have been checked; see [`Device::upload_weight`].
    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight>;
    /// Compiles a hand-written kernel; `constants` specialise it.
    fn compile(
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
    /// Allocates the workspace that `plan` needs, so that running it allocates nothing.
    fn prepare(&self, plan: &Plan) -> Result<()>;
    /// Runs a recorded plan.
    fn run(&self, plan: &Plan) -> Result<Submission>;
    /// Bytes per second of pure reading, measured now.
    fn measure_read_bandwidth(&self) -> Result<f64>;
    /// Finds out how to run plans that are new; see [`Device::tune`].
    fn tune(&self, _plan: &Plan) -> Result<()> {
        Ok(())
    }
    /// See [`Device::encoding_threads`].
    fn encoding_threads(&self) -> Option<usize> {
        None
    }
}

/// A device. Cloning is cheap and means the same device; all methods take `&self` and may be called from any thread.
#[derive(Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
}

impl Device {
    /// Wraps a device crate's implementation.
    pub fn new(backend: impl Backend) -> Device {
        Device { backend: Arc::new(backend) }
    }

    /// The identity that this device's buffers carry.
    pub fn id(&self) -> DeviceId {
        self.backend.id()
    }

    /// What the device is.
    pub fn info(&self) -> &DeviceInfo {
        self.backend.info()
    }

    /// Bytes allocated now: buffers, weights and workspace.
    pub fn allocated_bytes(&self) -> u64 {
        self.backend.allocated_bytes()
    }

    /// Zero-filled memory for `shape` elements, at least one.
    pub fn alloc(&self, dtype: DType, shape: &[usize]) -> Result<Buffer> {
        let mut storage = self.backend.alloc(needed_bytes(dtype, shape)?)?;
        // An allocation has one type of element as long as it lives: that no op writes what it reads rests on it.
        if Arc::get_mut(&mut storage).is_none() {
            return Err(argument("alloc", "the device handed out memory that somebody holds"));
        }
        Buffer::from_storage(storage, self.id(), dtype, shape)
    }

    /// A buffer of `shape` that holds `values`.
    pub fn upload<T: Pod>(&self, values: &[T], dtype: DType, shape: &[usize]) -> Result<Buffer> {
        let buffer = self.alloc(dtype, shape)?;
        if size_of_val(values) != buffer.n_bytes() {
            let problem = format!("{} bytes for {buffer:?}", size_of_val(values));
            return Err(argument("upload", problem));
        }
        self.write(&buffer, values)?;
        Ok(buffer)
    }

    /// Copies `values` to the start of `dst`. Fails if they do not fit.
    pub fn write<T: Pod>(&self, dst: &Buffer, values: &[T]) -> Result<()> {
        self.check("write", dst, size_of_val(values), size_of::<T>())?;
        self.backend.write(dst, bytemuck::cast_slice(values))
    }

    /// Copies the start of `src` to `out` after all submitted work. Fails if `src` is too short.
    pub fn read<T: Pod>(&self, src: &Buffer, out: &mut [T]) -> Result<()> {
        self.check("read", src, size_of_val(out), size_of::<T>())?;
        self.backend.read(src, bytemuck::cast_slice_mut(out))
    }

    /// All of `src`, after all submitted work.
    pub fn read_vec<T: Pod>(&self, src: &Buffer) -> Result<Vec<T>> {
        let mut out = Vec::new();
        let n = src.n_bytes() / size_of::<T>().max(1);
        out.try_reserve_exact(n).map_err(|_| Error::OutOfMemory {
            device: "host".into(),
            what: format!("a copy of {src:?}"),
            requested_bytes: src.n_bytes(),
        })?;
        out.resize(n, T::zeroed());
        self.read(src, &mut out)?;
        Ok(out)
    }

    fn check(&self, op: &'static str, buffer: &Buffer, n_bytes: usize, element: usize) -> Result<()> {
        if buffer.device() != self.id() {
            return Err(Error::WrongDevice { op, what: "the buffer" });
        }
        if element != buffer.dtype().size_of() && element != 1 {
            return Err(argument(op, format!("elements of {element} bytes for {buffer:?}")));
        }
        if !buffer.is_contiguous() {
            return Err(argument(
                op,
                format!("{buffer:?} are columns of a wider matrix; all of its rows would do"),
            ));
        }
        if n_bytes > buffer.n_bytes() {
            return Err(argument(op, format!("{n_bytes} bytes do not fit {buffer:?}")));
        }
        Ok(())
    }

    /// Makes one weight of matrices that share their input: checks them and re-lays them out for this device, once. They may be of
    /// several types. Rows and columns of each may be a part of the matrix that its blocks are of, so a shard of a weight is the same call.
    ///
    /// # Errors
    /// If a matrix has not the bytes that its shape takes, a range is empty, outside the matrix or not of whole blocks, the matrices differ
    /// in their number of columns, they cannot be arranged so, the device cannot compute with a type, or there is no memory.
    pub fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        check_parts(parts, arrange, &self.info().name)?;
        self.backend.upload_weight(parts, arrange)
    }

    /// An empty plan for this device.
    pub fn plan(&self) -> Plan {
        Plan::new(self.id())
    }

    /// Allocates what `plan` needs beside its buffers, so that [`Device::run`] allocates nothing.
    pub fn prepare(&self, plan: &Plan) -> Result<()> {
        self.check_plan(plan)?;
        self.backend.prepare(plan)
    }

    /// Runs `plan` some dozen times, for less than a second, to find out how plans that come for the
    /// first time are encoded fastest on this host: in which parts, and on how many threads. For whoever owns all that the plan
    /// writes and has filled what it reads. Does nothing the second time, and on a device that encodes nothing.
    pub fn tune(&self, plan: &Plan) -> Result<()> {
        self.check_plan(plan)?;
        self.backend.tune(plan)
    }

    /// Runs a recorded plan.
    pub fn run(&self, plan: &Plan) -> Result<Submission> {
        self.check_plan(plan)?;
        self.backend.run(plan)
    }

    fn check_plan(&self, plan: &Plan) -> Result<()> {
        if plan.device() == self.id() {
            return Ok(());
        }
        Err(Error::WrongDevice { op: "run", what: "the plan" })
    }

    /// A fresh encoder; it may be filled on any thread.
    pub fn command_encoder(&self) -> Result<CommandEncoder> {
        Ok(CommandEncoder::new(self.clone(), self.backend.encoder()?))
    }

    /// Runs finished commands in list order, whichever thread encoded them.
    pub fn submit(&self, commands: impl IntoIterator<Item = Commands>) -> Result<Submission> {
        let mut list = Vec::new();
        for commands in commands {
            if commands.device != self.id() {
                return Err(Error::WrongDevice { op: "submit", what: "a list of commands" });
            }
            list.push(commands.inner);
        }
        self.backend.submit(list)
    }

    /// Bytes per second of pure reading, measured now (takes a second or two): the peak that decoding is compared with.
    pub fn measure_read_bandwidth(&self) -> Result<f64> {
        self.backend.measure_read_bandwidth()
    }

    /// Threads that encode a plan that comes for the first time, as [`Device::tune`] found out; `None` before that, and on a device that
    /// encodes nothing.
    pub fn encoding_threads(&self) -> Option<usize> {
        self.backend.encoding_threads()
    }

    /// Tells whether the device is still open.
    pub(crate) fn downgrade(&self) -> Weak<dyn Backend> {
        Arc::downgrade(&self.backend)
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }
}

/// Bytes of `shape` elements, at least one.
pub(crate) fn needed_bytes(dtype: DType, shape: &[usize]) -> Result<usize> {
    match n_bytes(dtype, shape) {
        Some(0) => Err(argument("alloc", format!("{dtype}{shape:?} has no elements"))),
        Some(bytes) => Ok(bytes),
        None => Err(argument("alloc", format!("{dtype}{shape:?} is larger than memory can be"))),
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.info().kind, self.info().name)
    }
}
