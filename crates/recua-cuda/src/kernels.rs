//! [`Kernels`]: this crate's kernels, compiled on first use for the card found, and kept in memory and on disk.

use crate::cache::{Cache, Fingerprint};
use crate::context::lock;
use crate::function::Function;
use crate::gpu::Gpu;
use crate::nvrtc::{Compiled, Nvrtc, nvrtc};
use crate::sources;
use recua_compute::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Which kernel, and how it is specialised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KernelKey {
    /// The file's name without the ending.
    pub(crate) file: &'static str,
    /// The entry point, which is `extern "C"`.
    pub(crate) entry: &'static str,
    /// Macros and their values.
    pub(crate) defines: Vec<(&'static str, String)>,
}

impl KernelKey {
    /// The entry point that is named as the file.
    pub(crate) fn new(file: &'static str) -> KernelKey {
        KernelKey { file, entry: file, defines: Vec::new() }
    }

    /// With another entry point.
    pub(crate) fn entry(mut self, entry: &'static str) -> KernelKey {
        self.entry = entry;
        self
    }

    /// With a macro.
    pub(crate) fn define(mut self, name: &'static str, value: impl fmt::Display) -> KernelKey {
        self.defines.push((name, value.to_string()));
        self
    }
}

impl fmt::Display for KernelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry)?;
        self.defines.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// Kernels that are compiled at a time: the compiler takes a hundred megabytes for some.
const COMPILERS_MAX: usize = 16;

/// The cache.
pub(crate) struct Kernels {
    pub(crate) disk: Cache,
    loaded: Mutex<HashMap<KernelKey, Arc<Function>>>,
}

impl Kernels {
    pub(crate) fn new(disk: Cache) -> Kernels {
        Kernels { disk, loaded: Mutex::default() }
    }

    /// The kernel, compiled if it was not.
    pub(crate) fn get(&self, gpu: &Gpu, key: &KernelKey) -> Result<Arc<Function>> {
        if let Some(function) = lock(&self.loaded).get(key) {
            return Ok(function.clone());
        }
        let failed = |problem: Problem| problem.error(gpu, &key.to_string());
        let compile = Compile::ours(key, gpu.cc).map_err(|message| failed(Problem::Compile(message)))?;
        let function = Arc::new(compile.function(gpu, &self.disk, key.entry).map_err(failed)?);
        Ok(lock(&self.loaded).entry(key.clone()).or_insert(function).clone())
    }

    /// Compiles those that are not yet, side by side.
    pub(crate) fn prepare(&self, gpu: &Gpu, keys: &[KernelKey]) -> Result<()> {
        let missing: Vec<&KernelKey> = {
            let loaded = lock(&self.loaded);
            let mut seen = std::collections::HashSet::new();
            keys.iter().filter(|key| !loaded.contains_key(*key) && seen.insert(*key)).collect()
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get()).min(COMPILERS_MAX);
        let next = AtomicUsize::new(0);
        let first_error = Mutex::new(None);
        let work = || {
            while let Some(key) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(e) = self.get(gpu, key) {
                    lock(&first_error).get_or_insert(e);
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            // Without another thread, this one does all.
            let start = |_| drop(std::thread::Builder::new().spawn_scoped(scope, work));
            (1..cores.min(missing.len())).for_each(start);
            work();
        });
        first_error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// A kernel to compile.
pub(crate) struct Compile<'a> {
    pub(crate) name: &'a str,
    pub(crate) source: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) options: Vec<String>,
}

/// Why a kernel cannot be had.
pub(crate) enum Problem {
    /// There is no compiler, and where it comes from.
    NoCompiler(String),
    /// What the compiler said.
    Compile(String),
    Device(Error),
}

impl Problem {
    /// As an error of the kernel of this name.
    pub(crate) fn error(self, gpu: &Gpu, name: &str) -> Error {
        match self {
            Problem::NoCompiler(problem) => Error::DeviceNotFound { device: gpu.info.kind.clone(), problem },
            Problem::Compile(message) => compile_error(gpu, name, message),
            Problem::Device(error) => error,
        }
    }
}

impl<'a> Compile<'a> {
    /// One of this crate's kernels, for a card.
    fn ours(key: &'a KernelKey, cc: (i32, i32)) -> std::result::Result<Compile<'a>, String> {
        let source = sources::source(key.file).ok_or_else(|| format!("there is no {}.cu", key.file))?;
        let defines = key.defines.iter().map(|(name, value)| (*name, value.as_str()));
        Ok(Compile { name: key.file, source, headers: sources::HEADERS, options: options(cc, defines) })
    }

    /// What its cubin depends on.
    fn fingerprint(&self) -> Fingerprint {
        let headers = self.headers.iter().flat_map(|(name, text)| [*name, *text]);
        let options = self.options.iter().map(String::as_str);
        Fingerprint::of([self.name, self.source].into_iter().chain(headers).chain(options))
    }

    /// Loads the function `entry`, from the disk if it is there.
    pub(crate) fn function(&self, gpu: &Gpu, disk: &Cache, entry: &str) -> Result<Function, Problem> {
        let of = self.fingerprint();
        let load = |cubin: &[u8]| Function::load(&gpu.context, cubin, entry, gpu.shared_bytes_max);
        let compiler = nvrtc(gpu.context.driver.version / 1000);
        let version = compiler.as_ref().ok().map(|nvrtc| nvrtc.version);
        if let Some(cubin) = disk.get(of, version) {
            match load(&cubin) {
                Ok(function) => return Ok(function),
                Err(e @ Error::DeviceLost { .. }) => return Err(Problem::Device(e)),
                // A file that the driver does not take is as good as none.
                Err(_) => version.into_iter().for_each(|version| disk.remove(of, version)),
            }
        }
        let nvrtc = compiler.map_err(Problem::NoCompiler)?;
        let Compiled { cubin, .. } = self.compiled(nvrtc, gpu.cc).map_err(Problem::Compile)?;
        let function = load(&cubin).map_err(Problem::Device)?;
        disk.put(of, nvrtc.version, &cubin);
        Ok(function)
    }

    /// Compiles it.
    pub(crate) fn compiled(&self, nvrtc: &Nvrtc, cc: (i32, i32)) -> std::result::Result<Compiled, String> {
        let (major, minor) = cc;
        if !nvrtc.archs.contains(&(major * 10 + minor)) {
            let (newer, older) = nvrtc.version;
            return Err(format!(
                "the card has compute capability {major}.{minor}, for which NVRTC {newer}.{older} ({}) does not compile",
                nvrtc.path
            ));
        }
        nvrtc.compile(&format!("{}.cu", self.name), self.source, self.headers, &self.options)
    }
}

/// The compiler's options for a card.
pub(crate) fn options<'a>(cc: (i32, i32), defines: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let (major, minor) = cc;
    // What only this architecture has (wgmma, for one) is there under its own name.
    let own = if major >= 9 { "a" } else { "" };
    let mut options = vec![format!("--gpu-architecture=sm_{major}{minor}{own}"), "--std=c++17".into()];
    // A product and a sum are one operation only where the source says so: then a row's bits are the same in every permutation.
    options.push("--fmad=false".into());
    options.extend(defines.map(|(name, value)| format!("--define-macro={name}={value}")));
    options
}

/// The error of a kernel that does not compile.
pub(crate) fn compile_error(gpu: &Gpu, name: &str, message: String) -> Error {
    Error::KernelCompile { name: name.into(), device: gpu.info.name.clone(), message }
}

#[cfg(test)]
mod tests;
