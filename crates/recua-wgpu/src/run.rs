//! The device behind [`recua_compute::Device`]: recordings of plans are kept, so that a plan that comes again is only replayed.

use crate::adapter::Opened;
use crate::gpu::{Gpu, lock};
use crate::parts::{Parts, Source};
use crate::record::{Recorder, Recording};
use crate::submission::Encoded;
use crate::user_kernel::UserKernel;
use crate::{bandwidth, weight};
use recua_compute::{
    Arrange, Backend, Buffer, DeviceId, DeviceInfo, Encode, Error, Kernel, KernelArg, KernelSource, Op, Plan,
    RawMatrix, Result, Storage, Submission, Weight, hazards,
};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// The device.
pub(crate) struct Wgpu {
    /// Goes before the device does, with its threads.
    parts: OnceLock<Parts>,
    gpu: Arc<Gpu>,
}

impl Wgpu {
    pub(crate) fn new(opened: Opened) -> Result<Wgpu> {
        Ok(Wgpu { parts: OnceLock::new(), gpu: Arc::new(Gpu::new(opened)?) })
    }

    #[cfg(test)]
    pub(crate) fn set_parts(&self, parts: Parts) {
        assert!(self.parts.set(parts).is_ok());
    }

    #[cfg(test)]
    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The recording of a plan: kept, or made and kept.
    fn recording(&self, plan: &Plan) -> Result<Arc<Recording>> {
        let recordings = &self.gpu.ledger.recordings;
        if let Some(recording) = lock(recordings).get(plan.id()) {
            return Ok(recording);
        }
        let ops = plan.ops();
        let recording = Arc::new(Recording::join(vec![self.gpu.record(ops, 0..ops.len())?]));
        // What is pushed out is freed after the lock is.
        let _old = lock(recordings).insert(plan.id(), recording.clone(), false);
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

    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        weight::upload(&self.gpu, parts, arrange)
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
        Ok(Box::new(Encoder { gpu: self.gpu.clone(), recording: Recording::default(), named: Vec::new() }))
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

    fn tune(&self, plan: &Plan) -> Result<()> {
        if self.parts.get().is_none() {
            // Another thread may have been first.
            let _ = self.parts.set(Parts::tuned(&self.gpu, plan)?);
        }
        Ok(())
    }

    fn run(&self, plan: &Plan) -> Result<Submission> {
        let (gpu, id) = (&self.gpu, plan.id());
        let recordings = &gpu.ledger.recordings;
        let kept = lock(recordings).get(id);
        let source = match kept {
            Some(recording) => {
                let [ahead, _oldest] = lock(recordings).take_ahead(id);
                if let Some(encoded) = ahead {
                    return Ok(Submission::new(gpu.start(vec![encoded])?));
                }
                Source::Kept(recording)
            }
            None => Source::New(plan.clone()),
        };
        let whole = Parts::on_this_thread(usize::MAX);
        let Parts { workers, n_steps } = self.parts.get().unwrap_or(&whole);
        let (in_flight, recording) = gpu.run_in_parts(workers, *n_steps, source)?;
        if let Some(recording) = recording {
            let _old = lock(recordings).insert(id, Arc::new(recording), true);
        }
        Ok(Submission::new(in_flight))
    }

    fn encoding_threads(&self) -> Option<usize> {
        self.parts.get().map(|parts| parts.workers.len() + 1)
    }

    fn measure_read_bandwidth(&self) -> Result<f64> {
        bandwidth::measure(&self.gpu)
    }
}

/// Records on any thread.
struct Encoder {
    gpu: Arc<Gpu>,
    recording: Recording,
    /// The memory that the recording names.
    named: Vec<Arc<dyn Storage>>,
}

impl Encode for Encoder {
    fn op(&mut self, op: &Op) -> Result<()> {
        let buffers = hazards::reads(op).into_iter().chain(hazards::writes(op));
        self.named.extend(buffers.map(|buffer| buffer.storage().clone()));
        Recorder::new(&self.gpu, &mut self.recording).op(op, None)
    }

    fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()> {
        let compiled = kernel.compiled_as::<UserKernel>();
        let compiled = compiled.ok_or(Error::WrongDevice { op: "dispatch", what: "the kernel" })?;
        let buffers = args.iter().filter_map(KernelArg::buffer);
        self.named.extend(buffers.map(|buffer| buffer.storage().clone()));
        compiled.dispatch(&mut Recorder::new(&self.gpu, &mut self.recording), groups, args)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>> {
        let encoded = self.gpu.encode(&self.recording)?;
        Ok(Box::new(Encoded { named: self.named, ..encoded }))
    }
}

/// Recordings of recent plans, by [`Plan::id`].
///
/// A list of commands runs once, so a plan that comes again takes a new one each time. Those of the plans that came again lately are
/// encoded ahead, while the host waits: a server's steps go to and fro between a few shapes, as requests come and go.
#[derive(Default)]
pub(crate) struct Recordings {
    kept: HashMap<u64, Kept>,
    /// Counts uses.
    clock: u64,
    /// Plans that came again, the one that ran last in front. These alone have commands ahead. One that ran once, as a prompt of any
    /// length does, is not worth them, and takes no other's place.
    recent: VecDeque<u64>,
}

struct Kept {
    recording: Arc<Recording>,
    used: u64,
    has_run: bool,
    ahead: Option<Encoded>,
}

/// Recordings that are kept: a decode step of each batch size, and some prompts.
const KEPT_MAX: usize = 96;
/// Plans that have commands ahead.
const RECENT_MAX: usize = 8;

impl Recordings {
    fn get(&mut self, id: u64) -> Option<Arc<Recording>> {
        let kept = self.kept.get_mut(&id)?;
        self.clock += 1;
        kept.used = self.clock;
        Some(kept.recording.clone())
    }

    /// Keeps a recording and hands back what has not been used for longest, if there is too much.
    fn insert(&mut self, id: u64, recording: Arc<Recording>, has_run: bool) -> Option<Kept> {
        self.clock += 1;
        self.kept.insert(id, Kept { recording, used: self.clock, has_run, ahead: None });
        if self.kept.len() <= KEPT_MAX {
            return None;
        }
        let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id)?;
        self.recent.retain(|id| *id != oldest);
        self.kept.remove(&oldest)
    }

    /// A kept plan is about to run: its commands, if they were encoded ahead, and those that give way to its next ones.
    fn take_ahead(&mut self, id: u64) -> [Option<Encoded>; 2] {
        let Some(kept) = self.kept.get_mut(&id) else { return [None, None] };
        let ahead = kept.ahead.take();
        if !std::mem::replace(&mut kept.has_run, true) {
            return [ahead, None];
        }
        self.recent.retain(|recent| *recent != id);
        self.recent.push_front(id);
        let oldest = if self.recent.len() > RECENT_MAX { self.recent.pop_back() } else { None };
        [ahead, oldest.and_then(|id| self.kept.get_mut(&id)).and_then(|kept| kept.ahead.take())]
    }

    /// The plan that lacks commands ahead and is the likeliest to run next.
    fn without_ahead(&self) -> Option<(u64, Arc<Recording>)> {
        let mut recent = self.recent.iter().filter_map(|id| Some((*id, self.kept.get(id)?)));
        let (id, kept) = recent.find(|(_, kept)| kept.ahead.is_none())?;
        Some((id, kept.recording.clone()))
    }

    /// Hands back commands that are of no use, because the recording or its place has gone meanwhile.
    fn set_ahead(&mut self, id: u64, recording: &Arc<Recording>, encoded: Encoded) -> Option<Encoded> {
        let is_recent = self.recent.contains(&id);
        let kept = self.kept.get_mut(&id);
        match kept.filter(|kept| is_recent && Arc::ptr_eq(&kept.recording, recording)) {
            Some(kept) => kept.ahead.replace(encoded),
            None => Some(encoded),
        }
    }

    /// Drops the recordings that name an allocation, which is going away.
    pub(crate) fn forget(&mut self, memory: u64) {
        self.kept.retain(|_, kept| kept.recording.memories.binary_search(&memory).is_err());
        self.recent.retain(|id| self.kept.contains_key(id));
    }
}

impl Gpu {
    /// Encodes one list of commands ahead, if there is one to encode. For whoever is about to wait.
    pub(crate) fn encode_ahead(&self) {
        // Not in the `let` below, which would hold the lock while encoding.
        let found = lock(&self.ledger.recordings).without_ahead();
        let Some((id, recording)) = found else { return };
        // An error comes back when the plan runs and is encoded then.
        let Ok(encoded) = self.encode(&recording) else { return };
        let _useless = lock(&self.ledger.recordings).set_ahead(id, &recording, encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{self, Options};
    use recua_compute::{DType, Device, GgmlType, Record, cases};

    /// A plan that scales a row of `x`, with a weight of its own.
    fn scaled(device: &Device, x: &Buffer, by: f32) -> (Plan, Buffer) {
        let weight = device.upload(&[by; 64], DType::F32, &[64]).unwrap();
        let out = device.alloc(DType::F32, &[1, 64]).unwrap();
        let mut plan = device.plan();
        plan.rms_norm(x, &weight, &out, 1e-5).unwrap();
        (plan, out)
    }

    #[test]
    fn plans_that_come_again_by_turns_are_encoded_ahead() {
        let options = Options { allow_software: true, ..Options::default() };
        let Some(opened) = cases::opened_or_skipped("wgpu", adapter::open(&options)) else { return };
        let wgpu = Wgpu::new(opened).unwrap();
        let gpu = wgpu.gpu.clone();
        let device = Device::new(wgpu);
        let has_ahead = |plan: &Plan| {
            let recordings = lock(&gpu.ledger.recordings);
            recordings.kept.get(&plan.id()).is_some_and(|kept| kept.ahead.is_some())
        };
        let x = device.upload(&[3.0f32; 64], DType::F32, &[1, 64]).unwrap();
        let mut plans: Vec<_> = (1..=RECENT_MAX + 2).map(|i| (scaled(&device, &x, i as f32), i)).collect();
        let run = |((plan, out), i): &((Plan, Buffer), usize)| {
            device.run(plan).unwrap().wait().unwrap();
            let found = device.read_vec::<f32>(out).unwrap();
            assert!(found.iter().all(|y| (y - *i as f32).abs() < 1e-3), "{found:?} of {i}");
            device.write(out, &[f32::NAN; 64]).unwrap();
        };
        let ahead = |plans: &[((Plan, Buffer), usize)]| -> Vec<usize> {
            plans.iter().filter(|((plan, _), _)| has_ahead(plan)).map(|(_, i)| *i).collect()
        };

        run(&plans[0]);
        run(&plans[1]);
        assert_eq!(ahead(&plans), [0; 0], "what has run once may never come again");
        for _ in 0..3 {
            run(&plans[0]);
            run(&plans[1]);
            run(&plans[1]);
            assert_eq!(ahead(&plans), [1, 2]);
        }
        // Others that come once take nobody's place.
        plans[2..].iter().for_each(run);
        assert_eq!(ahead(&plans), [1, 2]);
        plans[2..].iter().for_each(run);
        assert_eq!(ahead(&plans), (3..=RECENT_MAX + 2).collect::<Vec<_>>());

        // A plan whose memory goes takes its commands along.
        let ((plan, out), i) = plans.pop().unwrap();
        drop(out);
        let allocated = device.allocated_bytes();
        let id = plan.id();
        drop(plan);
        assert!(device.allocated_bytes() < allocated);
        let recordings = lock(&gpu.ledger.recordings);
        assert!(!recordings.kept.contains_key(&id) && !recordings.recent.contains(&id), "{i}");
    }

    #[test]
    fn a_device_that_is_gone_is_an_error() {
        let options = Options { allow_software: true, ..Options::default() };
        let Some(opened) = cases::opened_or_skipped("wgpu", adapter::open(&options)) else { return };
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
            device
                .upload_weight(&[RawMatrix::new(GgmlType::F32, 1, 64, &[0; 256])], Arrange::Stacked)
                .map(drop),
            device.command_encoder().map(drop),
            device.measure_read_bandwidth().map(drop),
        ];
        for (i, result) in lost.into_iter().enumerate() {
            assert!(matches!(result, Err(Error::DeviceLost { .. })), "call {i}: {result:?}");
        }
    }
}
