//! The device behind [`recua_compute::Device`]: recordings of plans are kept, so that a plan that comes again is only replayed.

use crate::adapter::Opened;
use crate::gpu::{Gpu, lock};
use crate::record::{Recorder, Recording};
use crate::submission::Encoded;
use crate::user_kernel::UserKernel;
use crate::{bandwidth, weight};
use recua_compute::{
    Backend, Buffer, DeviceId, DeviceInfo, Encode, Error, GgmlType, Kernel, KernelArg, KernelSource, Op,
    Plan, Result, Storage, Submission, Weight,
};
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The device.
pub(crate) struct Wgpu {
    gpu: Arc<Gpu>,
}

impl Wgpu {
    pub(crate) fn new(opened: Opened) -> Result<Wgpu> {
        Ok(Wgpu { gpu: Arc::new(Gpu::new(opened)?) })
    }

    /// The recording of a plan: kept, or made and kept.
    fn recording(&self, plan: &Plan) -> Result<Arc<Recording>> {
        let recordings = &self.gpu.ledger.recordings;
        if let Some(recording) = lock(recordings).get(plan.id()) {
            return Ok(recording);
        }
        let mut recording = Recording::default();
        loop {
            let generation = self.gpu.workspace_generation();
            let mut recorder = Recorder::new(&self.gpu, &mut recording);
            let next = plan.ops().iter().skip(1).map(Some).chain([None]);
            plan.ops().iter().zip(next).try_for_each(|(op, next)| recorder.op(op, next))?;
            if self.gpu.workspace_generation() == generation {
                break;
            }
            // A workspace grew, and the steps recorded before name the old one.
            recording = Recording::default();
        }
        recording.memories.sort_unstable();
        recording.memories.dedup();
        let recording = Arc::new(recording);
        // What is pushed out is freed after the lock is.
        let _old = lock(recordings).insert(plan.id(), recording.clone());
        Ok(recording)
    }
}

impl Backend for Wgpu {
    fn id(&self) -> DeviceId {
        self.gpu.id
    }

    fn info(&self) -> &DeviceInfo {
        &self.gpu.info
    }

    fn allocated_bytes(&self) -> u64 {
        self.gpu.ledger.bytes.load(Ordering::Relaxed)
    }

    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.gpu.alloc(n_bytes, "a buffer")?))
    }

    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        self.gpu.write(dst, bytes)
    }

    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        self.gpu.read(src, out)
    }

    fn upload_weight(&self, raw: &[u8], ty: GgmlType, n: usize, k: usize) -> Result<Weight> {
        weight::upload(&self.gpu, raw, ty, n, k)
    }

    fn compile(
        &self,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        Ok(Arc::new(UserKernel::compile(&self.gpu, name, source, constants)?))
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        self.gpu.check()?;
        Ok(Box::new(Encoder { gpu: self.gpu.clone(), recording: Recording::default() }))
    }

    fn submit(&self, commands: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
        let encoded = |list: Box<dyn Any + Send>| match list.downcast::<Encoded>() {
            Ok(encoded) => Ok(*encoded),
            Err(_) => Err(Error::WrongDevice { op: "submit", what: "a list of commands" }),
        };
        let list = commands.into_iter().map(encoded).collect::<Result<Vec<Encoded>>>()?;
        Ok(Submission::new(self.gpu.start(list)?))
    }

    fn prepare(&self, plan: &Plan) -> Result<()> {
        self.recording(plan).map(drop)
    }

    fn run(&self, plan: &Plan) -> Result<Submission> {
        let recording = self.recording(plan)?;
        let ahead = lock(&self.gpu.ledger.recordings).take_ahead(plan.id(), &recording);
        let encoded = ahead.map_or_else(|| self.gpu.encode(&recording), Ok)?;
        Ok(Submission::new(self.gpu.start(vec![encoded])?))
    }

    fn measure_read_bandwidth(&self) -> Result<f64> {
        bandwidth::measure(&self.gpu)
    }
}

/// Records on any thread.
struct Encoder {
    gpu: Arc<Gpu>,
    recording: Recording,
}

impl Encode for Encoder {
    fn op(&mut self, op: &Op) -> Result<()> {
        Recorder::new(&self.gpu, &mut self.recording).op(op, None)
    }

    fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()> {
        let compiled = kernel.compiled_as::<UserKernel>();
        let compiled = compiled.ok_or(Error::WrongDevice { op: "dispatch", what: "the kernel" })?;
        compiled.dispatch(&mut Recorder::new(&self.gpu, &mut self.recording), groups, args)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(self.gpu.encode(&self.recording)?))
    }
}

/// Recordings of recent plans, by [`Plan::id`].
#[derive(Default)]
pub(crate) struct Recordings {
    kept: HashMap<u64, (Arc<Recording>, u64)>,
    /// Counts uses.
    clock: u64,
    last: Option<Last>,
}

/// The plan that ran last. A list of commands runs once, so a plan that comes again takes a new one each time: it is made while the
/// host waits for the one before.
struct Last {
    id: u64,
    recording: Arc<Recording>,
    /// Whether the plan before was the same. A plan that does not come again is not worth encoding ahead.
    comes_again: bool,
    ahead: Option<Encoded>,
}

/// Recordings that are kept: a decode step of each batch size, and some prompts.
const KEPT_MAX: usize = 96;

impl Recordings {
    fn get(&mut self, id: u64) -> Option<Arc<Recording>> {
        let (recording, used) = self.kept.get_mut(&id)?;
        self.clock += 1;
        *used = self.clock;
        Some(recording.clone())
    }

    /// Keeps a recording and hands back the one that has not been used for longest, if there are too many.
    fn insert(&mut self, id: u64, recording: Arc<Recording>) -> Option<Arc<Recording>> {
        self.clock += 1;
        self.kept.insert(id, (recording, self.clock));
        if self.kept.len() <= KEPT_MAX {
            return None;
        }
        let oldest = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id)?;
        self.kept.remove(&oldest).map(|(recording, _)| recording)
    }

    /// A plan is about to run: its commands, if they were encoded ahead.
    fn take_ahead(&mut self, id: u64, recording: &Arc<Recording>) -> Option<Encoded> {
        let last = self.last.take().filter(|last| last.id == id);
        let comes_again = last.is_some();
        self.last = Some(Last { id, recording: recording.clone(), comes_again, ahead: None });
        last.and_then(|last| last.ahead)
    }

    /// Drops the recordings that name an allocation, which is going away.
    pub(crate) fn forget(&mut self, memory: u64) {
        let names = |recording: &Recording| recording.memories.binary_search(&memory).is_ok();
        self.kept.retain(|_, (recording, _)| !names(recording));
        self.last.take_if(|last| names(&last.recording));
    }
}

impl Gpu {
    /// Encodes the next list of commands of the plan that ran last, if it is likely to come again. For whoever is about to wait.
    pub(crate) fn encode_ahead(&self) {
        let found = match &lock(&self.ledger.recordings).last {
            Some(last) if last.comes_again && last.ahead.is_none() => Some(last.recording.clone()),
            _ => None,
        };
        let Some(recording) = found else { return };
        // An error comes back when the plan runs and is encoded then.
        let Ok(encoded) = self.encode(&recording) else { return };
        if let Some(last) = &mut lock(&self.ledger.recordings).last
            && Arc::ptr_eq(&last.recording, &recording)
        {
            last.ahead = Some(encoded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{self, Options};
    use recua_compute::{DType, Device, Record};

    #[test]
    fn a_device_that_is_gone_is_an_error() {
        let options = Options { allow_software: true, ..Options::default() };
        let Ok(opened) = adapter::open(&options) else { return };
        let wgpu = Wgpu::new(opened).unwrap();
        let gpu = wgpu.gpu.clone();
        let device = Device::new(wgpu);
        let x = device.upload(&[1.0f32; 64], DType::F32, &[1, 64]).unwrap();
        let weight = device.upload(&[1.0f32; 64], DType::F32, &[64]).unwrap();
        let mut plan = device.plan();
        plan.rms_norm(&x, &weight, &x, 1e-5).unwrap();
        // The third run's commands are encoded by now.
        (0..2).for_each(|_| device.run(&plan).unwrap().wait().unwrap());
        let under_way = device.run(&plan).unwrap();

        gpu.device.destroy();
        let _ = under_way.wait();
        let lost = [
            device.run(&plan).and_then(|submission| submission.wait()),
            device.read_vec::<f32>(&x).map(drop),
            device.write(&x, &[2.0f32; 64]),
            device.alloc(DType::F32, &[64]).map(drop),
            device.upload_weight(&[0; 256], GgmlType::F32, 1, 64).map(drop),
            device.command_encoder().map(drop),
            device.measure_read_bandwidth().map(drop),
        ];
        for (i, result) in lost.into_iter().enumerate() {
            assert!(matches!(result, Err(Error::DeviceLost { .. })), "call {i}: {result:?}");
        }
    }
}
