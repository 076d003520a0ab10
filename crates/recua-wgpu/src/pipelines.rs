//! Compiled kernels: compiled on first use and cached by (file, entry, defines, constants, access of the bindings).

use crate::adapter::IMMEDIATE_BYTES;
use crate::gpu::{Gpu, lock};
use crate::kernels;
use crate::preprocess::preprocess;
use recua_compute::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// A kernel and its specialization.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KernelKey {
    /// The file's name without its ending, such as `rms_norm` or `formats/q4_0`.
    pub(crate) file: &'static str,
    /// The entry point.
    pub(crate) entry: &'static str,
    /// Names that `#ifdef` finds defined.
    pub(crate) defines: Vec<&'static str>,
    /// Values of the file's `override` constants.
    pub(crate) constants: Vec<(&'static str, u32)>,
    /// Omits the index checks. Only for kernels that keep every index in range themselves, whatever the buffers contain.
    pub(crate) unchecked: bool,
}

impl KernelKey {
    /// The entry point with the file's name, with index checks.
    pub(crate) fn new(file: &'static str) -> KernelKey {
        KernelKey { file, entry: file, defines: Vec::new(), constants: Vec::new(), unchecked: false }
    }

    /// With another entry point.
    pub(crate) fn entry(mut self, entry: &'static str) -> KernelKey {
        self.entry = entry;
        self
    }

    /// With `name` defined.
    pub(crate) fn define(mut self, name: &'static str) -> KernelKey {
        self.defines.push(name);
        self
    }

    /// With `name` defined if `condition`.
    pub(crate) fn define_if(self, condition: bool, name: &'static str) -> KernelKey {
        if condition { self.define(name) } else { self }
    }

    /// Without index checks.
    pub(crate) fn unchecked(mut self) -> KernelKey {
        self.unchecked = true;
        self
    }

    /// With a constant's value.
    pub(crate) fn constant(mut self, name: &'static str, value: u32) -> KernelKey {
        self.constants.push((name, value));
        self
    }

    /// The WGSL text after preprocessing.
    pub(crate) fn source(&self) -> std::result::Result<String, String> {
        preprocess(self.file, &self.defines, &kernels::source)
    }
}

impl fmt::Display for KernelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry)?;
        self.defines.iter().try_for_each(|name| write!(f, " {name}"))?;
        self.constants.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// A kernel's access to its bindings: bit `i` of a mask is `@binding(i)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Access {
    pub(crate) n_bindings: u32,
    /// Bindings that are `read_write`.
    pub(crate) writes: u32,
    /// Bindings that the source declares `read` and that must be `read_write` here, because the dispatch writes the same wgpu buffer
    /// through another binding: wgpu allows only one usage per buffer.
    pub(crate) widened: u32,
}

/// A compiled kernel.
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// The cache.
#[derive(Default)]
pub(crate) struct Pipelines {
    compiled: Mutex<HashMap<(KernelKey, Access), Arc<Pipeline>>>,
}

impl Pipelines {
    /// The kernel, compiled if necessary.
    pub(crate) fn get(&self, gpu: &Gpu, key: &KernelKey, access: Access) -> Result<Arc<Pipeline>> {
        // Looked up by value: the key is small.
        let cache_key = (key.clone(), access);
        if let Some(pipeline) = lock(&self.compiled).get(&cache_key) {
            return Ok(pipeline.clone());
        }
        let failed = |message: String| Error::KernelCompile {
            name: key.entry.into(),
            device: gpu.info.name.clone(),
            message,
        };
        let mut source = key.source().map_err(failed)?;
        widen(&mut source, access).map_err(failed)?;
        let constants: Vec<(&str, f64)> = key.constants.iter().map(|&(n, v)| (n, f64::from(v))).collect();
        // SAFETY: this crate's kernels end their loops and never divide by zero. Those that also keep their own indexes in range say so in
        // their key; for the others, indexes are checked.
        let checks = unsafe {
            let mut checks = wgpu::ShaderRuntimeChecks::all(false);
            checks.bounds_checks = !key.unchecked;
            checks
        };
        let compile = Compile {
            name: key.entry,
            source: &source,
            entry: key.entry,
            constants: &constants,
            checks,
            is_foreign: false,
        };
        let pipeline = Arc::new(compile.pipeline(gpu, access, IMMEDIATE_BYTES)?);
        Ok(lock(&self.compiled).entry(cache_key).or_insert(pipeline).clone())
    }
}

/// A kernel to compile.
pub(crate) struct Compile<'a> {
    pub(crate) name: &'a str,
    pub(crate) source: &'a str,
    pub(crate) entry: &'a str,
    pub(crate) constants: &'a [(&'a str, f64)],
    pub(crate) checks: wgpu::ShaderRuntimeChecks,
    /// Whether it is a user's hand-written kernel.
    pub(crate) is_foreign: bool,
}

impl Compile<'_> {
    /// Compiles without the cache.
    pub(crate) fn pipeline(self, gpu: &Gpu, access: Access, immediate_size: u32) -> Result<Pipeline> {
        let entries: Vec<wgpu::BindGroupLayoutEntry> = (0..access.n_bindings)
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: access.writes >> binding & 1 == 0 },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let Compile { name, source, entry, constants, checks, is_foreign } = self;
        let compiled = gpu.scoped(|| {
            let device = &gpu.device;
            let source = wgpu::ShaderSource::Wgsl(source.into());
            let module = wgpu::ShaderModuleDescriptor { label: Some(name), source };
            // SAFETY: the creator of this `Compile` is responsible for the checks it omits.
            let module = unsafe { device.create_shader_module_trusted(module, checks) };
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(name),
                entries: &entries,
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size,
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants,
                    // Our kernels write workgroup memory before they read it; a user's kernel may not.
                    zero_initialize_workgroup_memory: is_foreign,
                },
                cache: None,
            });
            Pipeline { pipeline, layout }
        });
        compiled.map_err(|e| Error::KernelCompile {
            name: name.into(),
            device: gpu.info.name.clone(),
            message: e.to_string(),
        })
    }
}

/// Declares the bindings in `access.widened` as read_write.
pub(crate) fn widen(source: &mut String, access: Access) -> std::result::Result<(), String> {
    for binding in (0..access.n_bindings).filter(|binding| access.widened >> binding & 1 == 1) {
        let declared = format!("@binding({binding}) var<storage, read>");
        if !source.contains(&declared) {
            return Err(format!("`{declared}` is not in the source"));
        }
        *source = source.replace(&declared, &format!("@binding({binding}) var<storage, read_write>"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
