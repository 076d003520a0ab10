//! Ops become a [`Recording`]: dispatches as data, replayed as often as the same ops run. [`Recorder`] is what the files of the ops
//! write into.

use crate::gpu::Gpu;
use crate::memory::{Binding, Memory};
use crate::pipelines::{Access, KernelKey, Pipeline};
use crate::{matmul, ops};
use recua_compute::{Buffer, Error, Op, Result};
use std::ops::Range;
use std::sync::Arc;

/// Dispatches in order.
#[derive(Default)]
pub(crate) struct Recording {
    pub(crate) steps: Vec<Step>,
    /// Whether a kernel may report an index that is out of range.
    pub(crate) uses_status: bool,
    /// The allocations that the steps name, by [`Memory::id`].
    pub(crate) memories: Vec<u64>,
}

/// One dispatch.
pub(crate) struct Step {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) bind_group: wgpu::BindGroup,
    pub(crate) immediates: Vec<u8>,
    pub(crate) groups: [u32; 3],
}

impl Recording {
    /// One behind the other.
    pub(crate) fn join(list: Vec<Recording>) -> Recording {
        let mut all = Recording::default();
        for Recording { steps, uses_status, memories } in list {
            all.steps.extend(steps);
            all.uses_status |= uses_status;
            all.memories.extend(memories);
        }
        all.memories.sort_unstable();
        all.memories.dedup();
        all
    }
}

impl Gpu {
    /// The recording of `ops[range]`.
    pub(crate) fn record(&self, ops: &[Op], range: Range<usize>) -> Result<Recording> {
        loop {
            let generation = self.workspace_generation();
            let mut recording = Recording::default();
            let mut recorder = Recorder::new(self, &mut recording);
            range.clone().try_for_each(|i| recorder.op(&ops[i], ops.get(i + 1)))?;
            // If a workspace grew, the steps recorded before name the old one.
            if self.workspace_generation() == generation {
                return Ok(recording);
            }
        }
    }
}

/// Whether [`Recorder::op`] may do a part of the next op's work along with this one's.
pub(crate) fn works_ahead(op: &Op) -> bool {
    matches!(op, Op::RmsNorm(_))
}

/// Appends ops to a recording.
pub(crate) struct Recorder<'a> {
    pub(crate) gpu: &'a Gpu,
    recording: &'a mut Recording,
    /// Rows that the op before has brought into the form in which products take them.
    converted: Option<Buffer>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(gpu: &'a Gpu, recording: &'a mut Recording) -> Recorder<'a> {
        Recorder { gpu, recording, converted: None }
    }

    /// Appends an op. It may do a part of the next one's work along with its own: [`works_ahead`] says which ops do.
    pub(crate) fn op(&mut self, op: &Op, next: Option<&Op>) -> Result<()> {
        match op {
            Op::Embed(op) => matmul::embed(op, self),
            Op::RmsNorm(op) => ops::rms_norm(op, next, self),
            Op::Matmul(op) => matmul::matmul(op, self),
            Op::MatmulGlu(op) => matmul::matmul_glu(op, self),
            Op::RopeStore(op) => ops::rope_store(op, self),
            Op::Attention(op) => ops::attention(op, self),
            Op::GatherRows(op) => ops::gather_rows(op, self),
            Op::Argmax(op) => ops::argmax(op, self),
            Op::TopK(op) => ops::top_k(op, self),
            Op::Copy(op) => ops::copy(op, self),
            Op::CopyPages(op) => ops::copy_pages(op, self),
        }
    }

    /// Appends `groups` workgroups of one of this crate's kernels. `bindings[i]` is `@group(0) @binding(i)`; an input is declared
    /// `var<storage, read>` in exactly these words. `immediates` fill `var<immediate>`, at most 128 bytes.
    pub(crate) fn dispatch(
        &mut self,
        kernel: &KernelKey,
        bindings: &[Binding<'_>],
        immediates: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        let access = access(bindings);
        let is_emulated = self.gpu.tuning.emulated && kernel.file.contains("tensor");
        let kernel = &kernel.clone().define_if(is_emulated, "EMULATED");
        #[cfg(test)]
        if crate::pipelines::tests::is_only_noted(kernel) {
            return Ok(());
        }
        let pipeline = self.gpu.pipeline(kernel, access)?;
        self.push(kernel.entry, pipeline, bindings, immediates, groups)
    }

    /// Appends workgroups of any compiled kernel.
    pub(crate) fn push(
        &mut self,
        name: &str,
        pipeline: Arc<Pipeline>,
        bindings: &[Binding<'_>],
        immediates: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        let groups_max = self.gpu.limits.max_compute_workgroups_per_dimension;
        if groups.iter().any(|&n| n > groups_max) {
            return Err(Error::Argument {
                op: "dispatch",
                problem: format!("{name}: {groups:?} workgroups, at most {groups_max} in a dimension"),
            });
        }
        let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
            .zip(bindings)
            .map(|(binding, part)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: part.memory.buffer(),
                    offset: part.offset,
                    size: wgpu::BufferSize::new(part.size),
                }),
            })
            .collect();
        let descriptor =
            wgpu::BindGroupDescriptor { label: Some(name), layout: &pipeline.layout, entries: &entries };
        let bind_group = self.gpu.scoped(|| self.gpu.device.create_bind_group(&descriptor));
        let bind_group = bind_group.map_err(|e| self.gpu.error(name, 0, e))?;
        self.recording.memories.extend(bindings.iter().map(|part| part.memory.id()));
        self.recording.steps.push(Step { pipeline, bind_group, immediates: immediates.to_vec(), groups });
        Ok(())
    }

    /// Where kernels that `#import status` report: their `@binding(0)`.
    pub(crate) fn status(&mut self) -> Binding<'a> {
        self.recording.uses_status = true;
        Binding::all(&self.gpu.status, true)
    }

    /// The op has written the activations that [`matmul::activations_of`] of the next op has named.
    pub(crate) fn set_converted(&mut self, x: &Buffer) {
        self.converted = Some(x.clone());
    }

    /// Whether the op before has done so for `x`.
    pub(crate) fn take_converted(&mut self, x: &Buffer) -> bool {
        self.converted.take().is_some_and(|converted| converted.is_same(x))
    }

    /// Scratch that all ops share which ask by this name; see [`Gpu::workspace`].
    pub(crate) fn workspace(&self, what: &'static str, n_bytes: usize) -> Result<Arc<Memory>> {
        self.gpu.workspace(what, n_bytes)
    }
}

/// How the kernel of a dispatch sees its bindings.
pub(crate) fn access(bindings: &[Binding<'_>]) -> Access {
    let (mut writes, mut widened) = (0, 0);
    for (i, part) in bindings.iter().enumerate() {
        let is_shared = || bindings.iter().any(|other| other.write && other.memory.id() == part.memory.id());
        if part.write || is_shared() {
            writes |= 1 << i;
            widened |= u32::from(!part.write) << i;
        }
    }
    Access { n_bindings: bindings.len() as u32, writes, widened }
}
