//! [`Device`]: the one face of every device.

use crate::backend::{Backend, DeviceInfo};
use crate::buffer::{Buffer, DType, DeviceId, Weight, n_bytes};
use crate::encoder::{CommandEncoder, Commands};
use crate::error::{Error, Result, argument};
use crate::plan::Plan;
use crate::program::Program;
use crate::submission::Submission;
use bytemuck::Pod;
use recua_gguf::GgmlType;
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
        buffer.check_bytes(op, n_bytes, element)
    }

    /// Checks a matrix of `n` rows of `k` weights, given as raw GGML blocks, and re-lays it out for this device, once.
    pub fn upload_weight(&self, raw: &[u8], ty: GgmlType, n: usize, k: usize) -> Result<Weight> {
        let bytes = ty.row_bytes(k).and_then(|row| row.checked_mul(n));
        if n == 0 || k == 0 || bytes != Some(raw.len()) {
            let problem = match bytes {
                Some(b) if n > 0 && k > 0 => format!("{ty}[{n}, {k}] takes {b} bytes, {} came", raw.len()),
                _ => format!("{ty} cannot be [{n}, {k}]: blocks hold {} values", ty.block_values()),
            };
            return Err(argument("upload_weight", problem));
        }
        if !ty.is_decodable() {
            return Err(Error::UnsupportedType { device: self.info().name.clone(), ty });
        }
        self.backend.upload_weight(raw, ty, n, k)
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
    pub fn command_encoder(&self) -> Result<CommandEncoder> {
        CommandEncoder::new(self.backend.clone())
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
