//! The device behind [`recua_compute::Device`]: it passes each call to the module that does the work.

use crate::adapter::Opened;
use crate::commands::{Bundle, Encoded, write_in_order};
use crate::kv::Kv;
use crate::launch::{Launches, Recorder};
use crate::lower::{lower_op, tiling};
use crate::memory::Memory;
use crate::program::WgpuProgram;
use crate::shared::Shared;
use crate::submission::InFlight;
use crate::transfer::PIECE_BYTES;
use crate::tuning::Tuning;
use crate::user_kernel::UserKernel;
use crate::{bandwidth, weight};
use recua_compute::{
    Arrange, Backend, Buffer, Compiled, DeviceId, DeviceInfo, Encode, Error, IndexReport, Kernel, KernelArg,
    KernelSource, KvPool, KvShape, Op, Plan, RawMatrix, Result, Storage, Submission, Tiling, Weight,
    operands::Operand,
};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The device.
pub(crate) struct Wgpu {
    pub(crate) shared: Arc<Shared>,
}

impl Wgpu {
    pub(crate) fn new(opened: Opened, tuning: Tuning) -> Result<Wgpu> {
        Ok(Wgpu { shared: Arc::new(Shared::new(opened, tuning)?) })
    }
}

impl Backend for Wgpu {
    fn id(&self) -> DeviceId {
        self.shared.gpu.id
    }

    fn info(&self) -> &DeviceInfo {
        &self.shared.gpu.info
    }

    fn allocated_bytes(&self) -> u64 {
        self.shared.gpu.allocated.load(Ordering::Relaxed)
    }

    fn n_cut(&self) -> Result<u64> {
        let Shared { gpu, readbacks, order, status, .. } = &*self.shared;
        gpu.check()?;
        let mut n = 0u32;
        readbacks.read(gpu, order, status, IndexReport::CUT_AT, bytemuck::bytes_of_mut(&mut n))?;
        Ok(n.into())
    }

    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(Memory::new(&self.shared.gpu, n_bytes, "a buffer")?))
    }

    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        write_in_order(&self.shared, dst, bytes)
    }

    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        let Shared { gpu, readbacks, order, .. } = &*self.shared;
        gpu.check()?;
        let (memory, mut start) = (Memory::of(src)?, src.offset_bytes());
        for piece in out.chunks_mut(PIECE_BYTES) {
            readbacks.read(gpu, order, memory, start, piece)?;
            start += piece.len();
        }
        readbacks.check_unread()
    }

    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        weight::upload(&self.shared, parts, arrange)
    }

    fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool> {
        Kv::pool(&self.shared.gpu, shape)
    }

    fn tiling(&self, shape: &KvShape, n_heads: usize) -> Tiling {
        tiling(&self.shared.gpu, shape, n_heads)
    }

    fn compile_kernel(
        &self,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        Ok(Arc::new(UserKernel::compile(&self.shared.gpu, name, source, constants)?))
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        self.shared.gpu.check()?;
        let (launches, named) = Default::default();
        Ok(Box::new(Encoder { shared: self.shared.clone(), launches, named }))
    }

    fn submit(&self, commands: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
        let encoded = |list: Box<dyn Any + Send>| match list.downcast::<Encoded>() {
            Ok(encoded) => Ok(*encoded),
            Err(_) => Err(Error::WrongDevice { op: "submit", what: "a list of commands" }),
        };
        let list = commands.into_iter().map(encoded).collect::<Result<Vec<Encoded>>>()?;
        Ok(Submission::new(InFlight::start_all(&self.shared, list)?))
    }

    fn compile(&self, plan: &Plan) -> Result<Arc<dyn Compiled>> {
        Ok(Arc::new(WgpuProgram::new(&self.shared, plan)?))
    }

    fn measure_read_bandwidth(&self) -> Result<f64> {
        bandwidth::measure(&self.shared)
    }
}

/// An encoder. It can be used on any thread.
struct Encoder {
    shared: Arc<Shared>,
    launches: Launches,
    /// The memory that the launches use.
    named: Vec<Arc<dyn Storage>>,
}

impl Encoder {
    fn record(&mut self, f: impl FnOnce(&mut Recorder<'_>) -> Result<()>) -> Result<()> {
        let mut recorder = Recorder::resume(&self.shared, std::mem::take(&mut self.launches));
        let result = f(&mut recorder);
        self.launches = recorder.finish();
        result
    }
}

impl Encode for Encoder {
    fn op(&mut self, op: &Op) -> Result<()> {
        let operands = op.operands();
        let buffers = operands.iter().flat_map(Operand::buffers);
        self.named.extend(buffers.map(|buffer| buffer.storage().clone()));
        self.record(|recorder| lower_op(op, None, recorder))
    }

    fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()> {
        let compiled = kernel.compiled_as::<UserKernel>();
        let compiled = compiled.ok_or(Error::WrongDevice { op: "dispatch", what: "the kernel" })?;
        let buffers = args.iter().filter_map(KernelArg::buffer);
        self.named.extend(buffers.map(|buffer| buffer.storage().clone()));
        self.record(|recorder| compiled.dispatch(recorder, groups, args))
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>> {
        let encoded = Bundle::new(&self.shared, self.launches)?.encode(&self.shared)?;
        Ok(Box::new(Encoded { named: self.named, ..encoded }))
    }
}

#[cfg(test)]
mod tests;
