//! Hand-written kernels: [`KernelRegistry`] keeps their sources, compiles them on first use and caches them.

use crate::buffer::{Buffer, DeviceId};
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A kernel's source, in the language of the device that is to run it. The wrong language for a device is an error of
/// [`KernelRegistry::get`], and so is a source that does not compile; an argument that does not fit what the source declares is one of
/// [`crate::CommandEncoder::dispatch`]. Each names the kernel.
#[derive(Clone)]
pub enum KernelSource {
    /// For wgpu devices.
    ///
    /// * **Entry point:** the `@compute` function that is named as the kernel, or the only one. `@workgroup_size` is the kernel's own;
    ///   a dispatch says how many workgroups run, in up to three dimensions.
    /// * **Buffers:** the i-th buffer among the arguments, from 0 and without counting [`KernelArg::Bytes`], is `@group(0) @binding(i)`,
    ///   with no number left out. `var<storage, read>` is read; `var<storage, read_write>` is written and takes [`KernelArg::Write`].
    ///   No other address space has bindings: no uniforms, textures or samplers. A view must begin at a multiple of the adapter's
    ///   alignment, 256 bytes at most (fresh buffers do), and hold what the declared type needs. `arrayLength` counts
    ///   the elements of the view, its bytes rounded up to a multiple of four.
    /// * **Bytes:** all [`KernelArg::Bytes`], one after the other, fill the one `var<immediate>`; they must have exactly its size, at
    ///   most 128 bytes.
    /// * **Constants:** `override NAME` is set by name.
    /// * **An input in the allocation of an output** (two views of one buffer, which do not overlap) must be declared in exactly these
    ///   words, spaces and all: `@binding(1) var<storage, read>`. The device then declares it `read_write`, because WebGPU wants one
    ///   usage of an allocation in a dispatch.
    /// * Indexes are checked: an access outside a binding reads some element or zero, and writes nothing outside. Workgroup memory
    ///   begins as zero.
    ///
    /// ```wgsl
    /// @group(0) @binding(0) var<storage, read> x: array<f32>;
    /// @group(0) @binding(1) var<storage, read_write> y: array<f32>;
    /// struct Args { n: u32, factor: f32 }
    /// var<immediate> args: Args;
    /// override ADDED: f32 = 0.0;
    ///
    /// @compute @workgroup_size(64)
    /// fn scale(@builtin(global_invocation_id) id: vec3<u32>) {
    ///     if id.x < args.n {
    ///         y[id.x] = x[id.x] * args.factor + ADDED;
    ///     }
    /// }
    /// ```
    Wgsl(String),
    /// For CUDA devices, of which there is none yet.
    CudaC(String),
    /// For the CPU device; see [`RustKernel`].
    Rust(RustKernel),
}

/// A kernel of the CPU device. It is called once a dispatch, on one thread, while nothing else runs on the device: what workgroups
/// mean, and whether to start threads, is its own business. The arguments come in the order of the dispatch, a buffer as the bytes of
/// its view, aligned to its element, so that `bytemuck::cast_slice` gives the elements. An error, or a panic, ends the submission with
/// [`Error::KernelRun`].
pub type RustKernel = Arc<dyn Fn(&mut KernelCall<'_>) -> std::result::Result<(), String> + Send + Sync>;

/// What a [`RustKernel`] is called with.
pub struct KernelCall<'a> {
    /// The number of workgroups in each dimension.
    pub groups: [u32; 3],
    /// The arguments in order.
    pub args: Vec<CallArg<'a>>,
    /// The specialisation constants, as [`KernelRegistry::get`] was given them.
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
    /// A buffer that the kernel writes, or reads and writes. It overlaps no other argument.
    Write(&'a Buffer),
    /// Immediate bytes, such as a small struct of sizes. Copied.
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

/// Sources and compiled kernels. Shared between threads by reference; a second `get` returns the same kernel.
#[derive(Default)]
pub struct KernelRegistry {
    entries: Mutex<HashMap<String, Entry>>,
}

/// A source and what was compiled from it.
struct Entry {
    source: Arc<KernelSource>,
    kernels: HashMap<(DeviceId, Constants), Compiled>,
}

/// Names and the bits of their values.
type Constants = Vec<(String, u64)>;

struct Compiled {
    kernel: Kernel,
    /// Tells when the device is closed.
    device: Weak<dyn Backend>,
}

impl KernelRegistry {
    /// An empty registry.
    pub fn new() -> KernelRegistry {
        KernelRegistry::default()
    }

    /// Registers or replaces a source; nothing is compiled yet. Replacing forgets what was compiled from the old one.
    pub fn register(&self, name: &str, source: KernelSource) {
        let entry = Entry { source: Arc::new(source), kernels: HashMap::new() };
        // What it replaces is dropped without the lock.
        let _old = self.lock().insert(name.to_string(), entry);
    }

    /// The kernel for `device`, specialised by `constants`; compiled on first use, and kept until its source is replaced or its
    /// device closed.
    pub fn get(&self, device: &Device, name: &str, constants: &[(&str, f64)]) -> Result<Kernel> {
        let bits = |(name, value): &(&str, f64)| (name.to_string(), value.to_bits());
        let key = (device.id(), constants.iter().map(bits).collect());
        let source = {
            let entries = self.lock();
            let entry = entries.get(name).ok_or_else(|| Error::KernelNotFound { name: name.to_string() })?;
            if let Some(compiled) = entry.kernels.get(&key) {
                return Ok(compiled.kernel.clone());
            }
            entry.source.clone()
        };
        // Compiled without the lock: a slow compiler must not hold up the other threads' cached kernels.
        let constants: Vec<_> = constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let compiled = device.backend().compile(name, &source, &constants)?;
        let kernel = Kernel { name: name.into(), device: device.id(), compiled };
        let mut entries = self.lock();
        let all = entries.values_mut().flat_map(|entry| entry.kernels.extract_if(|_, k| k.is_closed()));
        let closed: Vec<_> = all.collect();
        let kernel = match entries.get_mut(name) {
            Some(entry) if Arc::ptr_eq(&entry.source, &source) => {
                let compiled = Compiled { kernel, device: device.downgrade() };
                entry.kernels.entry(key).or_insert(compiled).kernel.clone()
            }
            // Meanwhile the source was replaced: this caller came before that, the next one comes after.
            _ => kernel,
        };
        drop(entries);
        drop(closed);
        Ok(kernel)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compiled {
    fn is_closed(&self) -> bool {
        self.device.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Storage;
    use crate::device::DeviceInfo;
    use crate::encoder::{Encode, Submission};
    use crate::plan::Plan;
    use crate::weight::{Arrange, RawMatrix, Weight};

    /// A device that only compiles: what it compiles to is the source itself, and `before` is called first.
    struct Compiler {
        id: DeviceId,
        before: Box<dyn Fn() + Send + Sync>,
    }

    impl Backend for Compiler {
        fn id(&self) -> DeviceId {
            self.id
        }
        fn compile(
            &self,
            _: &str,
            source: &KernelSource,
            _: &[(String, f64)],
        ) -> Result<Arc<dyn Any + Send + Sync>> {
            (self.before)();
            Ok(Arc::new(source.clone()))
        }
        fn info(&self) -> &DeviceInfo {
            unimplemented!()
        }
        fn allocated_bytes(&self) -> u64 {
            unimplemented!()
        }
        fn alloc(&self, _: usize) -> Result<Arc<dyn Storage>> {
            unimplemented!()
        }
        fn write(&self, _: &Buffer, _: &[u8]) -> Result<()> {
            unimplemented!()
        }
        fn read(&self, _: &Buffer, _: &mut [u8]) -> Result<()> {
            unimplemented!()
        }
        fn upload_weight(&self, _: &[RawMatrix<'_>], _: Arrange) -> Result<Weight> {
            unimplemented!()
        }
        fn encoder(&self) -> Result<Box<dyn Encode>> {
            unimplemented!()
        }
        fn submit(&self, _: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
            unimplemented!()
        }
        fn prepare(&self, _: &Plan) -> Result<()> {
            unimplemented!()
        }
        fn run(&self, _: &Plan) -> Result<Submission> {
            unimplemented!()
        }
        fn measure_read_bandwidth(&self) -> Result<f64> {
            unimplemented!()
        }
    }

    fn text(kernel: &Kernel) -> &str {
        match kernel.compiled_as::<KernelSource>() {
            Some(KernelSource::Wgsl(text)) => text,
            _ => panic!("another kind of source"),
        }
    }

    #[test]
    fn a_source_that_is_replaced_while_it_compiles_leaves_nothing_behind() {
        let registry = Arc::new(KernelRegistry::new());
        registry.register("k", KernelSource::Wgsl("old".into()));
        let inside = registry.clone();
        let replace = move || inside.register("k", KernelSource::Wgsl("new".into()));
        let device = Device::new(Compiler { id: DeviceId::unique(), before: Box::new(replace) });
        assert_eq!(
            text(&registry.get(&device, "k", &[]).unwrap()),
            "old",
            "asked for before it was replaced"
        );
        assert_eq!(text(&registry.get(&device, "k", &[]).unwrap()), "new");
    }

    #[test]
    fn kernels_of_a_closed_device_are_forgotten() {
        let registry = KernelRegistry::new();
        registry.register("a", KernelSource::Wgsl("a".into()));
        registry.register("b", KernelSource::Wgsl("b".into()));
        let device = || Device::new(Compiler { id: DeviceId::unique(), before: Box::new(|| ()) });
        let (first, second) = (device(), device());
        let compiled = Arc::downgrade(&registry.get(&first, "a", &[]).unwrap().compiled);
        registry.get(&second, "b", &[]).unwrap();
        assert!(compiled.upgrade().is_some());
        drop(first);
        registry.get(&second, "b", &[("of", 1.0)]).unwrap();
        assert!(compiled.upgrade().is_none());
    }
}
