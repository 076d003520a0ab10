//! Hand-written kernels: [`KernelRegistry`] keeps their sources, compiles them on first use and caches them.

use crate::buffer::{Buffer, DeviceId};
use crate::device::Device;
use crate::error::{Error, Result};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A kernel's source, in the language of the device that is to run it. The wrong language for a device is an error of
/// [`KernelRegistry::get`].
#[derive(Clone)]
pub enum KernelSource {
    /// For wgpu devices.
    Wgsl(String),
    /// For CUDA devices.
    CudaC(String),
    /// For the CPU device: called once a dispatch.
    Rust(RustKernel),
}

/// A kernel of the CPU device.
pub type RustKernel = Arc<dyn Fn(&mut KernelCall<'_>) -> std::result::Result<(), String> + Send + Sync>;

/// What a [`RustKernel`] is called with.
pub struct KernelCall<'a> {
    /// The number of workgroups in each dimension.
    pub groups: [u32; 3],
    /// The arguments in order.
    pub args: Vec<CallArg<'a>>,
    /// The specialisation constants.
    pub constants: &'a [(String, f64)],
}

/// An argument as a [`RustKernel`] sees it.
pub enum CallArg<'a> {
    /// A buffer that is only read.
    Read(&'a [u8]),
    /// A buffer that is written.
    Write(&'a mut [u8]),
    /// Immediate bytes.
    Bytes(&'a [u8]),
}

/// An argument of a dispatch.
#[derive(Clone, Copy)]
pub enum KernelArg<'a> {
    /// A buffer that the kernel only reads.
    Read(&'a Buffer),
    /// A buffer that the kernel writes, or reads and writes.
    Write(&'a Buffer),
    /// Immediate bytes, such as a small struct of sizes.
    Bytes(&'a [u8]),
}

impl<'a> KernelArg<'a> {
    /// The buffer, unless the argument is immediate bytes.
    pub fn buffer(&self) -> Option<&'a Buffer> {
        match self {
            KernelArg::Read(buffer) | KernelArg::Write(buffer) => Some(buffer),
            KernelArg::Bytes(_) => None,
        }
    }

    /// Whether the kernel may write it.
    pub fn is_written(&self) -> bool {
        matches!(self, KernelArg::Write(_))
    }
}

/// A compiled kernel of one device. Cheap to clone.
#[derive(Clone)]
pub struct Kernel {
    name: Arc<str>,
    device: DeviceId,
    compiled: Arc<dyn Any + Send + Sync>,
}

impl Kernel {
    /// The registered name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device it was compiled for.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The device's own form of it.
    pub fn compiled_as<T: Any>(&self) -> Option<&T> {
        self.compiled.downcast_ref()
    }
}

type CacheKey = (DeviceId, String, Vec<(String, u64)>);

/// Sources and compiled kernels. Shared between threads by reference; a second `get` returns the same kernel.
#[derive(Default)]
pub struct KernelRegistry {
    sources: Mutex<HashMap<String, KernelSource>>,
    kernels: Mutex<HashMap<CacheKey, Kernel>>,
}

impl KernelRegistry {
    /// An empty registry.
    pub fn new() -> KernelRegistry {
        KernelRegistry::default()
    }

    /// Registers or replaces a source; nothing is compiled yet. Replacing forgets what was compiled from the old one.
    pub fn register(&self, name: &str, source: KernelSource) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.insert(name.to_string(), source).is_some() {
            self.kernels.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.1 != name);
        }
    }

    /// The kernel for `device`, specialised by `constants`; compiled on first use.
    pub fn get(&self, device: &Device, name: &str, constants: &[(&str, f64)]) -> Result<Kernel> {
        let bits = |(name, value): &(&str, f64)| (name.to_string(), value.to_bits());
        let key = (device.id(), name.to_string(), constants.iter().map(bits).collect());
        if let Some(kernel) = self.kernels.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(kernel.clone());
        }
        let source = self.sources.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let source = source.ok_or_else(|| Error::KernelNotFound { name: name.to_string() })?;
        // Compiled outside the locks: a slow compiler must not hold up the other threads' cached kernels.
        let constants: Vec<_> = constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let compiled = device.backend().compile(name, &source, &constants)?;
        let kernel = Kernel { name: name.into(), device: device.id(), compiled };
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(kernels.entry(key).or_insert(kernel).clone())
    }
}
