//! Launches become command lists: [`Bundle`] holds their pipelines and bind groups, and encodes them each time they run.

use crate::gpu::{Gpu, lock};
use crate::launch::{Kernel, Launch, Launches, Recorder};
use crate::lower::copy_bytes;
use crate::memory::Memory;
use crate::pipelines::Pipeline;
use crate::readback::{Outputs, Readback};
use crate::shared::Shared;
use recua_compute::{Buffer, IndexReport, Result, Storage};
use std::ops::Range;
use std::sync::{Arc, MutexGuard, OnceLock};

/// Launches that can be encoded. A command list runs only once, so each run needs a new one.
pub(crate) struct Bundle {
    pub(crate) launches: Launches,
    pipelines: Vec<Arc<Pipeline>>,
    /// Each is made when it is first encoded.
    bind_groups: Vec<OnceLock<wgpu::BindGroup>>,
}

/// A command list that is ready to run.
pub(crate) struct Encoded {
    pub(crate) commands: wgpu::CommandBuffer,
    pub(crate) readback: Option<Readback>,
    /// Memory that must not be reused before the commands are submitted. Empty if a program holds it.
    pub(crate) named: Vec<Arc<dyn Storage>>,
}

impl Bundle {
    /// Compiles the kernels that have not been compiled yet.
    pub(crate) fn new(shared: &Shared, launches: Launches) -> Result<Bundle> {
        let pipeline = |launch: &Launch| match &launch.kernel {
            Kernel::Ours(key) => shared.pipelines.get(&shared.gpu, key, launch.access),
            Kernel::Theirs(_, pipeline) => Ok(pipeline.clone()),
        };
        let pipelines = launches.list.iter().map(pipeline).collect::<Result<_>>()?;
        let bind_groups = launches.list.iter().map(|_| OnceLock::new()).collect();
        Ok(Bundle { launches, pipelines, bind_groups })
    }

    /// The number of launches.
    pub(crate) fn len(&self) -> usize {
        self.launches.list.len()
    }

    /// The readback of a run, if it brings anything back.
    pub(crate) fn readback(&self, shared: &Shared, outputs: &Outputs) -> Result<Option<Readback>> {
        let has_times = shared.gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY);
        let uses_status = self.launches.uses_status;
        if outputs.list.is_empty() && (self.len() == 0 || !has_times && !uses_status) {
            return Ok(None);
        }
        shared.readbacks.get(&shared.gpu, outputs, uses_status).map(Some)
    }

    /// Encodes all launches.
    pub(crate) fn encode(&self, shared: &Shared) -> Result<Encoded> {
        let outputs = Outputs::default();
        let readback = self.readback(shared, &outputs)?;
        let commands = self.encode_range(shared, 0..self.len(), readback.as_ref(), &outputs)?;
        Ok(Encoded { commands, readback, named: Vec::new() })
    }

    /// Encodes the launches in `range` into a command list of their own, as one compute pass. The list with the first launch and the list
    /// with the last one, which runs later, also encode their parts of the readback.
    pub(crate) fn encode_range(
        &self,
        shared: &Shared,
        range: Range<usize>,
        readback: Option<&Readback>,
        outputs: &Outputs,
    ) -> Result<wgpu::CommandBuffer> {
        let gpu = &shared.gpu;
        let (is_first, is_last) = (range.start == 0, range.end == self.len());
        let commands = gpu.scoped(|| {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if range.is_empty() && readback.is_none() {
                return encoder.finish();
            }
            if self.launches.uses_status && is_first {
                encoder.clear_buffer(shared.status.buffer(), 0, Some(IndexReport::CUT_AT as u64));
            }
            let timestamp_writes = readback.and_then(|readback| readback.timestamp_writes(is_first, is_last));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            self.replay(gpu, range, &mut encoder.begin_compute_pass(&descriptor));
            if let Some(readback) = readback.filter(|_| is_last) {
                readback.encode(&mut encoder, shared.status.buffer(), outputs);
            }
            encoder.finish()
        });
        commands.map_err(|e| gpu.error("a list of commands", 0, e))
    }

    /// Encodes the dispatches in order.
    fn replay(&self, gpu: &Gpu, range: Range<usize>, pass: &mut wgpu::ComputePass<'_>) {
        let mut last = std::ptr::null();
        for i in range {
            let (launch, pipeline) = (&self.launches.list[i], &self.pipelines[i]);
            if Arc::as_ptr(pipeline) != last {
                pass.set_pipeline(&pipeline.pipeline);
                last = Arc::as_ptr(pipeline);
            }
            let bind_group = self.bind_groups[i].get_or_init(|| bind(gpu, launch, pipeline));
            pass.set_bind_group(0, bind_group, &[]);
            if !launch.immediates.is_empty() {
                pass.set_immediates(0, &launch.immediates);
            }
            let [x, y, z] = launch.groups;
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

fn bind(gpu: &Gpu, launch: &Launch, pipeline: &Pipeline) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
        .zip(&launch.bindings)
        .map(|(binding, bound)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &bound.buffer,
                offset: bound.offset,
                size: wgpu::BufferSize::new(bound.size),
            }),
        })
        .collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(launch.op),
        layout: &pipeline.layout,
        entries: &entries,
    })
}

/// Copies bytes to the start of a buffer, at any alignment and length, after all work submitted so far. The caller holds [`Shared::order`].
pub(crate) fn write(shared: &Shared, dst: &Buffer, bytes: &[u8], _order: &MutexGuard<'_, ()>) -> Result<()> {
    let (memory, start) = (Memory::of(dst)?, dst.offset_bytes() as u64);
    if bytes.is_empty() {
        return Ok(());
    }
    if start.is_multiple_of(4) && bytes.len().is_multiple_of(4) {
        return shared.transfers.upload(&shared.gpu, memory, start, bytes);
    }
    // A partly written word keeps its other bytes: a kernel merges them.
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    let staged = Memory::new(&shared.gpu, padded.len(), "staging")?;
    shared.transfers.upload(&shared.gpu, &staged, 0, &padded)?;
    let mut recorder = Recorder::new(shared);
    recorder.begin("write");
    copy_bytes(&mut recorder, (&staged, 0), (memory, start), bytes.len() as u64)?;
    let bundle = Bundle::new(shared, recorder.finish())?;
    let commands = bundle.encode_range(shared, 0..bundle.len(), None, &Outputs::default())?;
    shared.gpu.submit([commands]);
    shared.transfers.set_submitted();
    shared.gpu.check()
}

/// [`write`] for callers that do not hold the lock.
pub(crate) fn write_in_order(shared: &Shared, dst: &Buffer, bytes: &[u8]) -> Result<()> {
    write(shared, dst, bytes, &lock(&shared.order))
}
