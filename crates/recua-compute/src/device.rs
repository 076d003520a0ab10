//! [`Device`]: the interface of every device.

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

/// A device. Cloning is cheap, and a clone is the same device. All methods take `&self` and may be called from any thread.
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

    /// The kind of device and its properties.
    pub fn info(&self) -> &DeviceInfo {
        self.backend.info()
    }

    /// Bytes currently allocated: buffers, weights and workspace.
    pub fn allocated_bytes(&self) -> u64 {
        self.backend.allocated_bytes()
    }

    /// How many elements of keys and values were cut to ±65504 on their way into an f16 cache ([`crate::KvType::F16`]), after all submitted
    /// work and since the device was opened. A GPU stops counting at about a thousand million.
    ///
    /// # Errors
    /// If the device fails.
    pub fn n_cut(&self) -> Result<u64> {
        self.backend.n_cut()
    }

    /// A buffer of `shape`, filled with zeros.
    ///
    /// # Errors
    /// If `shape` has no elements or more bytes than memory can have, or the device has no more ([`Error::OutOfMemory`]).
    pub fn alloc(&self, dtype: DType, shape: &[usize]) -> Result<Buffer> {
        let mut storage = self.backend.alloc(needed_bytes(dtype, shape)?)?;
        // An allocation has one element type throughout its life. That no op overwrites what it reads rests on this.
        if Arc::get_mut(&mut storage).is_none() {
            return Err(argument("alloc", "the device handed out memory that is in use"));
        }
        Buffer::from_storage(storage, self.id(), dtype, shape)
    }

    /// A buffer of `shape` that holds `values`.
    ///
    /// # Errors
    /// As [`Device::alloc`]; also if `values` do not have exactly as many bytes as `shape`.
    pub fn upload<T: Pod>(&self, values: &[T], dtype: DType, shape: &[usize]) -> Result<Buffer> {
        let buffer = self.alloc(dtype, shape)?;
        if size_of_val(values) != buffer.n_bytes() {
            let problem = format!("{} bytes for {buffer:?}", size_of_val(values));
            return Err(argument("upload", problem));
        }
        self.write(&buffer, values)?;
        Ok(buffer)
    }

    /// Copies `values` to the start of `dst`, after all submitted work. For loading and tests; a launch has its own inputs.
    ///
    /// # Errors
    /// If `dst` belongs to another device, the values do not fit into it, or their size is not that of its elements.
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
    /// As [`Device::read`]; also if the host has no memory for the copy.
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

    /// Makes one weight of matrices that share their input: checks them, and converts them once to this device's layout. They may be of
    /// different types. Each may be only some rows and columns of the matrix that its blocks hold, so shards are uploaded in the same way.
    ///
    /// # Errors
    /// If the bytes of a matrix do not match its shape; if a range is empty, outside the matrix or not whole blocks; if the matrices differ in
    /// their number of columns or cannot be arranged as asked; if the device cannot compute with a type; or if there is not enough memory.
    pub fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        check_parts(parts, arrange, &self.info().name)?;
        self.backend.upload_weight(parts, arrange)
    }

    /// A new cache for one layer. The device decides on its layout, and splits it if one allocation cannot hold it.
    ///
    /// # Errors
    /// If the shape has no page, no head or an odd head size, or the device cannot hold such a cache; the error says what it can hold.
    pub fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool> {
        shape.check("alloc_kv")?;
        self.backend.alloc_kv(shape)
    }

    /// How [`crate::WorkList::build`] should cut the work of attention for this device, with `n_heads` query heads over a cache of this
    /// shape. Shapes that differ only in their number of pages have the same tiling if the device lays them out alike.
    pub fn tiling(&self, shape: &KvShape, n_heads: usize) -> Tiling {
        self.backend.tiling(shape, n_heads)
    }

    /// An empty plan for this device.
    pub fn plan(&self) -> Plan {
        Plan::new(self.id())
    }

    /// Makes `plan` ready to be launched any number of times: compiles kernels and allocates what the plan needs besides its buffers. A
    /// launch then allocates no device memory.
    ///
    /// # Errors
    /// If the plan was recorded for another device, this device lacks what it needs (memory, room for heads of this size), or a kernel does
    /// not compile.
    pub fn compile(&self, plan: &Plan) -> Result<Program> {
        if plan.device() != self.id() {
            return Err(Error::WrongDevice { op: "compile", what: "the plan" });
        }
        Ok(Program::new(self.id(), self.backend.compile(plan)?))
    }

    /// Compiles and launches a plan that runs once. A plan that runs repeatedly is cheaper as a [`Program`].
    ///
    /// # Errors
    /// As [`Device::compile`] and [`Program::launch`].
    pub fn run(&self, plan: &Plan) -> Result<Submission> {
        self.compile(plan)?.launch(&[], &[])
    }

    /// A new encoder; it may be filled on any thread.
    ///
    /// # Errors
    /// If the device cannot create one.
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

    /// The read bandwidth in bytes per second, measured now, which takes a second or two: the peak that decoding is compared with.
    ///
    /// # Errors
    /// If there is no memory for the measurement, or the device fails.
    pub fn measure_read_bandwidth(&self) -> Result<f64> {
        self.backend.measure_read_bandwidth()
    }

    /// A reference that does not keep the device open.
    pub(crate) fn downgrade(&self) -> Weak<dyn Backend> {
        Arc::downgrade(&self.backend)
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }
}

/// The bytes of `shape`; fails if it has no elements.
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
