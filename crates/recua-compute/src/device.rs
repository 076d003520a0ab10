//! [`Device`]: the one face of every device.

use crate::backend::{Backend, DeviceInfo};
use crate::buffer::{Buffer, DType, DeviceId, n_bytes};
use crate::encoder::{CommandEncoder, Commands};
use crate::error::{Error, Result, argument};
use crate::kv::{KvPool, KvShape};
use crate::plan::Plan;
use crate::program::Program;
use crate::submission::Submission;
use crate::weight::{Arrange, RawMatrix, Weight, check_parts};
use crate::work::Tiling;
use bytemuck::Pod;
use std::fmt;
use std::sync::{Arc, Weak};

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

    /// A buffer of `shape`, filled with zeros.
    ///
    /// # Errors
    /// If `shape` has no elements or more bytes than memory can have, or the device has no more ([`Error::OutOfMemory`]).
    pub fn alloc(&self, dtype: DType, shape: &[usize]) -> Result<Buffer> {
        let mut storage = self.backend.alloc(needed_bytes(dtype, shape)?)?;
        // An allocation has one type of element as long as it lives: that no op writes what it reads rests on it.
        if Arc::get_mut(&mut storage).is_none() {
            return Err(argument("alloc", "the device handed out memory that somebody holds"));
        }
        Buffer::from_storage(storage, self.id(), dtype, shape)
    }

    /// A buffer of `shape` that holds `values`.
    ///
    /// # Errors
    /// As [`Device::alloc`]; if `values` are not exactly as many bytes as `shape` takes.
    pub fn upload<T: Pod>(&self, values: &[T], dtype: DType, shape: &[usize]) -> Result<Buffer> {
        let buffer = self.alloc(dtype, shape)?;
        if size_of_val(values) != buffer.n_bytes() {
            let problem = format!("{} bytes for {buffer:?}", size_of_val(values));
            return Err(argument("upload", problem));
        }
        self.write(&buffer, values)?;
        Ok(buffer)
    }

    /// Copies `values` to the start of `dst`, after all submitted work. For loading and tests: a launch has inputs of its own.
    ///
    /// # Errors
    /// If `dst` is of another device, the values do not fit into it, or they would end inside an element.
    pub fn write<T: Pod>(&self, dst: &Buffer, values: &[T]) -> Result<()> {
        self.check("write", dst, size_of_val(values), size_of::<T>())?;
        self.backend.write(dst, bytemuck::cast_slice(values))
    }

    /// Copies the start of `src` to `out`, after all submitted work. For loading and tests: a launch has outputs of its own.
    ///
    /// # Errors
    /// If `src` is of another device or shorter than `out`, or work submitted before has failed on the device.
    pub fn read<T: Pod>(&self, src: &Buffer, out: &mut [T]) -> Result<()> {
        self.check("read", src, size_of_val(out), size_of::<T>())?;
        self.backend.read(src, bytemuck::cast_slice_mut(out))
    }

    /// All of `src`, after all submitted work.
    ///
    /// # Errors
    /// As [`Device::read`]; if the host has no room for the copy.
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
        buffer.check_bytes(op, n_bytes, element)
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

    /// The cache of one layer, which nobody else holds. The device decides how it lies, and splits it where one allocation cannot hold
    /// it.
    ///
    /// # Errors
    /// If the shape has no page or head, or an odd head size, or the device cannot hold such a cache: the error says what it can.
    pub fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool> {
        shape.check("alloc_kv")?;
        self.backend.alloc_kv(shape)
    }

    /// How this device likes the work of attention cut, with `n_heads` query heads over a cache of this shape: for
    /// [`crate::WorkList::build`]. Two shapes that a device lays out alike have the same, whatever their pages.
    pub fn tiling(&self, shape: &KvShape, n_heads: usize) -> Tiling {
        self.backend.tiling(shape, n_heads)
    }

    /// An empty plan for this device.
    pub fn plan(&self) -> Plan {
        Plan::new(self.id())
    }

    /// Makes `plan` ready to be launched as often as one likes: allocates what it needs beside its buffers, compiles kernels. A launch
    /// then allocates no device memory.
    ///
    /// # Errors
    /// If the plan is another device's, needs what this device has not (memory, room for such heads), or a kernel does not compile.
    pub fn compile(&self, plan: &Plan) -> Result<Program> {
        if plan.device() != self.id() {
            return Err(Error::WrongDevice { op: "compile", what: "the plan" });
        }
        Ok(Program::new(self.id(), self.backend.compile(plan)?))
    }

    /// Compiles and launches a plan that runs once. What runs again is cheaper as a [`Program`].
    ///
    /// # Errors
    /// As [`Device::compile`] and [`Program::launch`].
    pub fn run(&self, plan: &Plan) -> Result<Submission> {
        self.compile(plan)?.launch(&[], &[])
    }

    /// A fresh encoder; it may be filled on any thread.
    ///
    /// # Errors
    /// If the device cannot make one.
    pub fn command_encoder(&self) -> Result<CommandEncoder> {
        CommandEncoder::new(self.backend.clone())
    }

    /// Runs finished commands in list order, whichever thread encoded them.
    ///
    /// # Errors
    /// If a list was encoded for another device, or the device fails.
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
    ///
    /// # Errors
    /// If there is no memory for the measurement, or the device fails.
    pub fn measure_read_bandwidth(&self) -> Result<f64> {
        self.backend.measure_read_bandwidth()
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
