//! The device behind [`recua_compute::Device`]: it hands each call to the room that does it.

use crate::bundle::Bundle;
use crate::launch::{Launches, Recorder};
use crate::lower::{attention, lower_op};
use crate::memory::Memory;
use crate::program::CudaProgram;
use crate::shared::Shared;
use crate::submission::{self, InFlight};
use crate::user_kernel::UserKernel;
use crate::{bandwidth, kv, weight};
use recua_compute::{
    Arrange, Backend, Buffer, Compiled, DeviceId, DeviceInfo, Encode, Error, Kernel, KernelArg, KernelSource,
    KvPool, KvShape, Op, Plan, RawMatrix, Result, Storage, Submission, Tiling, Weight,
};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The device.
pub(crate) struct Cuda {
    pub(crate) shared: Arc<Shared>,
}

impl Backend for Cuda {
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
        submission::n_cut(&self.shared)
    }

    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(Memory::new(&self.shared.gpu, n_bytes, "a buffer")?))
    }

    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        submission::write(&self.shared, dst, bytes)
    }

    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        submission::read(&self.shared, src, out)
    }

    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        self.shared.gpu.check()?;
        weight::upload(&self.shared, parts, arrange)
    }

    fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool> {
        kv::alloc(&self.shared, shape)
    }

    fn tiling(&self, shape: &KvShape, n_heads: usize) -> Tiling {
        attention::tiling(&self.shared.gpu, shape, n_heads)
    }

    fn compile_kernel(
        &self,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        Ok(Arc::new(UserKernel::compile(&self.shared, name, source, constants)?))
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        self.shared.gpu.check()?;
        Ok(Box::new(Encoder {
            shared: self.shared.clone(),
            launches: Launches::default(),
            named: Named::default(),
        }))
    }

    fn submit(&self, commands: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
        let encoded = |list: Box<dyn Any + Send>| match list.downcast::<Encoded>() {
            Ok(encoded) => Ok(*encoded),
            Err(_) => Err(Error::WrongDevice { op: "submit", what: "a list of commands" }),
        };
        let list = commands.into_iter().map(encoded).collect::<Result<Vec<Encoded>>>()?;
        let uses_status = list.iter().any(|encoded| encoded.bundle.launches.uses_status);
        let gpu = &self.shared.gpu;
        let work = || {
            // SAFETY: the lists hold what their launches name until all are submitted; what is freed after that is ordered behind them.
            list.iter().try_for_each(|encoded| unsafe { encoded.bundle.submit(gpu, gpu.context.stream()) })
        };
        InFlight::start(&self.shared, &[], &[], uses_status, work).map(Submission::new)
    }

    fn compile(&self, plan: &Plan) -> Result<Arc<dyn Compiled>> {
        self.shared.gpu.check()?;
        Ok(Arc::new(CudaProgram::new(&self.shared, plan)?))
    }

    fn measure_read_bandwidth(&self) -> Result<f64> {
        bandwidth::measure(&self.shared)
    }
}

/// A list of launches that is ready to run.
struct Encoded {
    bundle: Bundle,
    #[allow(dead_code, reason = "held to be dropped")]
    named: Named,
}

/// What launches name: held until they are submitted.
#[derive(Default)]
#[allow(dead_code, reason = "held to be dropped")]
struct Named {
    ops: Vec<Op>,
    buffers: Vec<Buffer>,
}

/// Records on any thread.
struct Encoder {
    shared: Arc<Shared>,
    launches: Launches,
    named: Named,
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
        self.named.ops.push(op.clone());
        self.record(|recorder| lower_op(op, None, recorder))
    }

    fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()> {
        let compiled = kernel.compiled_as::<UserKernel>();
        let compiled = compiled.ok_or(Error::WrongDevice { op: "dispatch", what: "the kernel" })?;
        self.named.buffers.extend(args.iter().filter_map(KernelArg::buffer).cloned());
        self.record(|recorder| compiled.dispatch(recorder, groups, args))
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>> {
        let bundle = Bundle::new(&self.shared, self.launches)?;
        Ok(Box::new(Encoded { bundle, named: self.named }))
    }
}

#[cfg(test)]
mod tests;
