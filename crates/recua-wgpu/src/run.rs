//! The device behind [`recua_compute::Device`]: recordings of plans are kept, so that a plan that comes again is only replayed.

use crate::adapter::Opened;
use crate::gpu::{Gpu, lock};
use crate::memory::Memory;
use crate::record::{Recorder, Recording};
use crate::submission::Encoded;
use crate::user_kernel::UserKernel;
use crate::{bandwidth, weight};
use recua_compute::{
    Backend, Buffer, DeviceId, DeviceInfo, Encode, Error, GgmlType, Kernel, KernelArg, KernelSource, Op,
    Plan, Result, RowMap, Storage, Submission, Weight,
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
        let mut signature = Vec::new();
        plan.ops().iter().for_each(|op| sign(op, &mut signature));
        let recordings = &self.gpu.ledger.recordings;
        if let Some(recording) = lock(recordings).get(&signature) {
            return Ok(recording);
        }
        let mut recording = Recording::default();
        loop {
            let generation = self.gpu.workspace_generation();
            let mut recorder = Recorder::new(&self.gpu, &mut recording);
            plan.ops().iter().try_for_each(|op| recorder.op(op))?;
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
        let _old = lock(recordings).insert(signature, recording.clone());
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
        Ok(Submission::new(self.gpu.start(vec![self.gpu.encode(&recording)?])?))
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
        Recorder::new(&self.gpu, &mut self.recording).op(op)
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

/// Recordings of recent plans, by what tells plans apart.
#[derive(Default)]
pub(crate) struct Recordings {
    kept: HashMap<Vec<u64>, (Arc<Recording>, u64)>,
    /// Counts uses.
    clock: u64,
}

/// Recordings that are kept: a decode step of each batch size, and some prompts.
const KEPT_MAX: usize = 96;

impl Recordings {
    fn get(&mut self, signature: &[u64]) -> Option<Arc<Recording>> {
        let (recording, used) = self.kept.get_mut(signature)?;
        self.clock += 1;
        *used = self.clock;
        Some(recording.clone())
    }

    /// Keeps a recording and hands back the one that has not been used for longest, if there are too many.
    fn insert(&mut self, signature: Vec<u64>, recording: Arc<Recording>) -> Option<Arc<Recording>> {
        self.clock += 1;
        self.kept.insert(signature, (recording, self.clock));
        if self.kept.len() <= KEPT_MAX {
            return None;
        }
        let oldest = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone())?;
        self.kept.remove(&oldest).map(|(recording, _)| recording)
    }

    /// Drops the recordings that name an allocation, which is going away.
    pub(crate) fn forget(&mut self, memory: u64) {
        self.kept.retain(|_, (recording, _)| recording.memories.binary_search(&memory).is_err());
    }
}

/// Appends what tells an op from every other. Allocations are told apart by their ids, which are never used again.
fn sign(op: &Op, out: &mut Vec<u64>) {
    // The op and how many buffers follow, so that no two lists of ops read alike.
    out.push(match op {
        Op::Embed(_) => 1,
        Op::RmsNorm(_) => 2,
        Op::Matmul(o) => {
            o.parts.iter().fold(3, |header, part| {
                header << 2 | u64::from(part.bias.is_some()) | u64::from(part.add.is_some()) << 1
            }) << 8
                | 3
        }
        Op::MatmulGlu(_) => 4,
        Op::RopeStore(_) => 5,
        Op::Attention(_) => 6,
        Op::GatherRows(_) => 7,
        Op::Argmax(_) => 8,
        Op::Copy(_) => 9,
    });
    let mut buffer = |b: &Buffer| {
        out.push(Memory::of(b).map_or(0, Memory::id));
        out.push(b.offset_bytes() as u64);
        out.push(b.dtype() as u64 | (b.shape().len() as u64) << 8);
        out.extend(b.shape().iter().map(|&n| n as u64));
    };
    let rows = |rows: &RowMap, buffer: &mut dyn FnMut(&Buffer)| {
        [&rows.positions, &rows.sequences, &rows.pages].into_iter().for_each(buffer);
    };
    match op {
        Op::Embed(o) => {
            [&o.tokens, &o.out].into_iter().for_each(&mut buffer);
            out.push(weight::identity(&o.table));
        }
        Op::RmsNorm(o) => {
            [&o.x, &o.weight, &o.out].into_iter().for_each(&mut buffer);
            out.push(o.eps.to_bits().into());
        }
        Op::Matmul(o) => {
            buffer(&o.x);
            for part in &o.parts {
                buffer(&part.out);
                part.bias.iter().chain(&part.add).for_each(&mut buffer);
            }
            out.push(o.parts.len() as u64);
            out.extend(o.parts.iter().map(|part| weight::identity(&part.weight)));
        }
        Op::MatmulGlu(o) => {
            [&o.x, &o.out].into_iter().for_each(&mut buffer);
            let weights = [weight::identity(&o.gate), weight::identity(&o.up)];
            out.extend([o.activation as u64, weights[0], weights[1]]);
        }
        Op::RopeStore(o) => {
            [&o.q, &o.k, &o.v, &o.table, &o.cache.k, &o.cache.v].into_iter().for_each(&mut buffer);
            rows(&o.rows, &mut buffer);
            let norms = o.norm.iter().flat_map(|norm| [&norm.q, &norm.k]);
            norms.for_each(&mut buffer);
            let eps = o.norm.as_ref().map_or(u64::MAX, |norm| norm.eps.to_bits().into());
            out.extend([eps, o.style as u64]);
        }
        Op::Attention(o) => {
            [&o.q, &o.out, &o.cache.k, &o.cache.v].into_iter().for_each(&mut buffer);
            rows(&o.rows, &mut buffer);
            out.push(o.scale.to_bits().into());
        }
        Op::GatherRows(o) => [&o.x, &o.indexes, &o.out].into_iter().for_each(&mut buffer),
        Op::Argmax(o) => [&o.x, &o.out].into_iter().for_each(&mut buffer),
        Op::Copy(o) => [&o.src, &o.dst].into_iter().for_each(&mut buffer),
    }
}
