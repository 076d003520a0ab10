//! Hand-written WGSL kernels: buffers are `@group(0) @binding(i)` in the order of the arguments, and bytes fill `var<immediate>`. The entry
//! point is the one with the kernel's name, or the only one.

use crate::adapter::IMMEDIATE_BYTES;
use crate::gpu::{Gpu, lock};
use crate::launch::{self, Recorder, access};
use crate::memory::{Binding, Memory};
use crate::pipelines::{Access, Compile, Pipeline, widen};
use recua_compute::{Error, KernelArg, KernelSource, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// A compiled kernel.
pub(crate) struct UserKernel {
    name: String,
    source: String,
    entry: String,
    constants: Vec<(String, f64)>,
    bindings: Vec<Declared>,
    immediate_bytes: u32,
    pipelines: Mutex<HashMap<Access, Arc<Pipeline>>>,
}

/// A binding as the source declares it.
struct Declared {
    /// Whether it is `read_write`.
    is_written: bool,
    /// The size of its type; a runtime-sized array counts as one element.
    n_bytes: u32,
}

impl UserKernel {
    /// Compiles the source; the error says what is wrong with it.
    pub(crate) fn compile(
        gpu: &Gpu,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<UserKernel> {
        let failed = |message: String| Error::KernelCompile {
            name: name.into(),
            device: gpu.info.name.clone(),
            message,
        };
        let source = match source {
            KernelSource::Wgsl(source) => source,
            KernelSource::CudaC(_) => {
                return Err(failed("the source is CUDA C++; this device runs WGSL".into()));
            }
            KernelSource::Rust(_) => {
                return Err(failed("the source is a Rust function; this device runs WGSL".into()));
            }
        };
        let module = naga::front::wgsl::parse_str(source).map_err(|e| failed(e.emit_to_string(source)))?;
        let mut entries =
            module.entry_points.iter().filter(|entry| entry.stage == naga::ShaderStage::Compute);
        let entry = match (entries.clone().find(|entry| entry.name == name), entries.next(), entries.next()) {
            (Some(entry), ..) | (None, Some(entry), None) => entry.name.clone(),
            (None, None, _) => return Err(failed("there is no @compute entry point".into())),
            (None, ..) => return Err(failed(format!("none of several entry points is named '{name}'"))),
        };
        let (mut found, mut immediate_bytes) = (Vec::new(), 0);
        for (_, variable) in module.global_variables.iter() {
            match (variable.space, &variable.binding) {
                (naga::AddressSpace::Immediate, _) => {
                    let n_bytes = module.types[variable.ty].inner.try_size(module.to_ctx());
                    immediate_bytes = n_bytes.unwrap_or(u32::MAX);
                }
                (naga::AddressSpace::Storage { access }, Some(at)) if at.group == 0 => {
                    let n_bytes = module.types[variable.ty].inner.try_size(module.to_ctx());
                    let n_bytes =
                        n_bytes.ok_or_else(|| failed(format!("@binding({}) is too large", at.binding)))?;
                    let is_written = access.contains(naga::StorageAccess::STORE);
                    found.push((at.binding, Declared { is_written, n_bytes }));
                }
                (_, Some(at)) => {
                    return Err(failed(format!(
                        "@group({}) @binding({}): arguments are `var<storage>` of group 0, bytes `var<immediate>`",
                        at.group, at.binding
                    )));
                }
                (_, None) => {}
            }
        }
        found.sort_unstable_by_key(|(binding, _)| *binding);
        if found.iter().enumerate().any(|(i, (binding, _))| *binding != i as u32) {
            return Err(failed(
                "the bindings are not numbered 0, 1, 2, … in the order of the arguments".into(),
            ));
        }
        if immediate_bytes > IMMEDIATE_BYTES {
            return Err(failed(format!("{immediate_bytes} bytes of immediates, at most {IMMEDIATE_BYTES}")));
        }
        let kernel = UserKernel {
            name: name.into(),
            source: source.clone(),
            entry,
            constants: constants.to_vec(),
            bindings: found.into_iter().map(|(_, declared)| declared).collect(),
            immediate_bytes,
            pipelines: Mutex::default(),
        };
        let writes =
            (0..).zip(&kernel.bindings).fold(0, |mask, (i, found)| mask | u32::from(found.is_written) << i);
        kernel.pipeline(gpu, Access { n_bindings: kernel.bindings.len() as u32, writes, widened: 0 })?;
        Ok(kernel)
    }

    fn pipeline(&self, gpu: &Gpu, access: Access) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = lock(&self.pipelines).get(&access) {
            return Ok(pipeline.clone());
        }
        let mut source = self.source.clone();
        widen(&mut source, access).map_err(|problem| {
            let problem =
                format!("kernel '{}': an input shares the allocation of an output, and {problem}", self.name);
            Error::Argument { op: "dispatch", problem }
        })?;
        let constants: Vec<(&str, f64)> =
            self.constants.iter().map(|(name, value)| (&**name, *value)).collect();
        let compile = Compile {
            name: &self.name,
            source: &source,
            entry: &self.entry,
            constants: &constants,
            checks: wgpu::ShaderRuntimeChecks::checked(),
            is_foreign: true,
        };
        let pipeline = Arc::new(compile.pipeline(gpu, access, self.immediate_bytes.next_multiple_of(4))?);
        Ok(lock(&self.pipelines).entry(access).or_insert(pipeline).clone())
    }

    /// Records a dispatch.
    pub(crate) fn dispatch(
        &self,
        recorder: &mut Recorder<'_>,
        groups: [u32; 3],
        args: &[KernelArg<'_>],
    ) -> Result<()> {
        let wrong = |problem: String| Error::Argument {
            op: "dispatch",
            problem: format!("kernel '{}': {problem}", self.name),
        };
        let alignment = u64::from(recorder.gpu.limits.min_storage_buffer_offset_alignment);
        let limit = recorder.gpu.limits.max_storage_buffer_binding_size;
        let (mut bindings, mut bytes) = (Vec::new(), Vec::new());
        for (i, arg) in args.iter().enumerate() {
            if let KernelArg::Bytes(more) = arg {
                bytes.extend_from_slice(more);
            }
            let Some(buffer) = arg.buffer() else { continue };
            let declared = self.bindings.get(bindings.len());
            let is_written = declared.is_some_and(|declared| declared.is_written);
            if is_written && !arg.is_written() {
                return Err(wrong(format!(
                    "argument {i} is read-only, but the kernel declares it read_write"
                )));
            }
            let (offset, size) =
                (buffer.offset_bytes() as u64, (buffer.n_bytes() as u64).next_multiple_of(4));
            if offset % alignment != 0 {
                let at = format!(
                    "argument {i} begins at byte {offset}, but must begin at a multiple of {alignment}"
                );
                return Err(wrong(at));
            }
            if size > limit {
                return Err(wrong(format!("argument {i} has {size} bytes, at most {limit} can be bound")));
            }
            if let Some(&Declared { n_bytes, .. }) =
                declared.filter(|declared| size < declared.n_bytes.into())
            {
                return Err(wrong(format!("argument {i} has {size} bytes, the kernel declares {n_bytes}")));
            }
            bindings.push(Binding { memory: Memory::of(buffer)?, offset, size, write: is_written });
        }
        if bindings.len() != self.bindings.len() {
            let counts = format!("{} buffers for {} bindings", bindings.len(), self.bindings.len());
            return Err(wrong(counts));
        }
        if bytes.len() != self.immediate_bytes as usize {
            let counts = format!("{} bytes for immediates of {}", bytes.len(), self.immediate_bytes);
            return Err(wrong(counts));
        }
        let pipeline = self.pipeline(recorder.gpu, access(&bindings))?;
        recorder.begin("dispatch");
        let kernel = launch::Kernel::Theirs(self.name.clone(), pipeline);
        recorder.push(kernel, &bindings, &bytes, groups)
    }
}
