//! Hand-written kernels: [`KernelRegistry`] keeps their sources, compiles them on first use and caches them.

use crate::backend::Backend;
use crate::buffer::DeviceId;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::{Kernel, KernelSource};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Sources and compiled kernels. Threads share it by reference; a second `get` returns the same kernel.
#[derive(Default)]
pub struct KernelRegistry {
    entries: Mutex<HashMap<String, Entry>>,
}

/// A source and the kernels compiled from it.
struct Entry {
    source: Arc<KernelSource>,
    kernels: HashMap<(DeviceId, Constants), Compiled>,
}

/// Names of constants and the bits of their values.
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

    /// Registers or replaces a source without compiling it. Replacing one drops the kernels compiled from the old source.
    pub fn register(&self, name: &str, source: KernelSource) {
        let entry = Entry { source: Arc::new(source), kernels: HashMap::new() };
        // What it replaces is dropped after the lock is released.
        let _old = self.lock().insert(name.to_string(), entry);
    }

    /// The kernel for `device`, specialized by `constants`; compiled on first use, and kept until its source is replaced or its device is
    /// closed.
    ///
    /// # Errors
    /// If `name` is not registered, the source is not in the device's language, or it does not compile (the message names the kernel and
    /// quotes the compiler).
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
        // Compiled without holding the lock: a slow compiler must not keep other threads from their cached kernels.
        let constants: Vec<_> = constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let compiled = device.backend().compile_kernel(name, &source, &constants)?;
        let kernel = Kernel { name: name.into(), device: device.id(), compiled };
        let mut entries = self.lock();
        let all = entries.values_mut().flat_map(|entry| entry.kernels.extract_if(|_, k| k.is_closed()));
        let closed: Vec<_> = all.collect();
        let kernel = match entries.get_mut(name) {
            Some(entry) if Arc::ptr_eq(&entry.source, &source) => {
                let compiled = Compiled { kernel, device: device.downgrade() };
                entry.kernels.entry(key).or_insert(compiled).kernel.clone()
            }
            // The source may have been replaced meanwhile. This caller asked before that, and gets the old kernel; the next gets the new one.
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
    use crate::backend::{Compiled as Program, DeviceInfo, Encode};
    use crate::buffer::{Buffer, Storage};
    use crate::kv::{KvPool, KvShape};
    use crate::plan::Plan;
    use crate::submission::Submission;
    use crate::weight::{Arrange, RawMatrix, Weight};
    use crate::work::Tiling;
    use std::any::Any;

    /// A device that only compiles: it calls `before`, and its compiled kernel is the source itself.
    struct Compiler {
        id: DeviceId,
        before: Box<dyn Fn() + Send + Sync>,
    }

    impl Backend for Compiler {
        fn id(&self) -> DeviceId {
            self.id
        }
        fn compile_kernel(
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
        fn n_cut(&self) -> Result<u64> {
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
        fn alloc_kv(&self, _: &KvShape) -> Result<KvPool> {
            unimplemented!()
        }
        fn tiling(&self, _: &KvShape, _: usize) -> Tiling {
            unimplemented!()
        }
        fn encoder(&self) -> Result<Box<dyn Encode>> {
            unimplemented!()
        }
        fn submit(&self, _: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
            unimplemented!()
        }
        fn compile(&self, _: &Plan) -> Result<Arc<dyn Program>> {
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
