//! A CPU device with limited memory whose launches can be made to fail, and one that runs its launches as late as possible.

use recua_compute::{
    Arrange, Backend, Buffer, Compiled, DType, Device, DeviceId, DeviceInfo, Encode, Error, Input,
    KernelSource, KvPool, KvShape, Op, Pending, Plan, Program, RawMatrix, Result, Storage, Submission,
    Tiling, Weight,
};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The handle that a test keeps while a model owns the device.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    // The number of runs that succeed before the next one fails; if negative, none fails.
    runs_left: Arc<AtomicI64>,
    // The same for launches of `open_late`, counted when they run.
    late_runs_left: Arc<AtomicI64>,
    n_weights: Arc<AtomicI64>,
    bytes_read: Arc<AtomicI64>,
    bytes_written: Arc<AtomicI64>,
    has_no_attention: Arc<AtomicBool>,
    in_flight_max: Arc<AtomicI64>,
}

impl Faults {
    /// Makes the run after the next `n` fail; the ones after it succeed.
    pub(crate) fn fail_after(&self, n: i64) {
        self.runs_left.store(n + 1, Ordering::SeqCst);
    }

    /// Makes the run after the next `n` fail, among the launches on a device of [`open_late`].
    pub(crate) fn fail_late_after(&self, n: i64) {
        self.late_runs_left.store(n + 1, Ordering::SeqCst);
    }

    /// Removes the device's attention kernel.
    pub(crate) fn refuse_attention(&self) {
        self.has_no_attention.store(true, Ordering::SeqCst);
    }

    /// Bytes read since the last call.
    pub(crate) fn bytes_read(&self) -> i64 {
        self.bytes_read.swap(0, Ordering::SeqCst)
    }

    /// Bytes written since the last call.
    pub(crate) fn bytes_written(&self) -> i64 {
        self.bytes_written.swap(0, Ordering::SeqCst)
    }

    /// The most launches in flight at once since the last call.
    pub(crate) fn in_flight_max(&self) -> i64 {
        self.in_flight_max.swap(0, Ordering::SeqCst)
    }

    /// The number of uploaded weights.
    pub(crate) fn n_weights(&self) -> i64 {
        self.n_weights.load(Ordering::SeqCst)
    }
}

struct Faulty {
    inner: Device,
    info: DeviceInfo,
    faults: Faults,
    // Allocations beyond this fail, whatever `info` promises.
    limit_bytes: u64,
    // `None` if a launch runs at once.
    queue: Option<Queue>,
}

/// Launches that have not run.
type Queue = Arc<Mutex<VecDeque<Arc<Job>>>>;

/// A launch that has not run, and later its result.
struct Job {
    program: Program,
    inputs: Vec<(Buffer, Vec<u8>)>,
    outputs: Vec<Buffer>,
    faults: Faults,
    done: OnceLock<Result<Submission>>,
}

/// A device that reports `promised` bytes (or nothing) and refuses to allocate more than `limit_bytes`.
pub(crate) fn open(promised: Option<u64>, limit_bytes: u64) -> (Device, Faults) {
    let inner = crate::support::cpu();
    let info = DeviceInfo { memory_bytes: promised, name: "faulty".into(), ..inner.info().clone() };
    let faults = Faults::default();
    (Device::new(Faulty { inner, info, faults: faults.clone(), limit_bytes, queue: None }), faults)
}

/// A device with row buckets that runs a launch only when it is waited for, as if it were far behind the host.
pub(crate) fn open_late(row_buckets: &'static [usize]) -> (Device, Faults) {
    let inner = crate::support::cpu();
    let info = DeviceInfo { name: "late".into(), row_buckets, runs_in_submit: false, ..inner.info().clone() };
    let (faults, queue) = (Faults::default(), Some(Queue::default()));
    (Device::new(Faulty { inner, info, faults: faults.clone(), limit_bytes: u64::MAX, queue }), faults)
}

impl Faulty {
    /// Runs everything that was launched.
    fn catch_up(&self) {
        let jobs = self.queue.iter().flat_map(|queue| std::mem::take(&mut *queue.lock().unwrap()));
        jobs.for_each(|job| job.run());
    }
}

impl Job {
    fn run(&self) {
        let inputs: Vec<Input<'_>> =
            self.inputs.iter().map(|(buffer, bytes)| Input::new(buffer, bytes).unwrap()).collect();
        let is_to_fail = self.faults.late_runs_left.fetch_sub(1, Ordering::SeqCst) == 1;
        let lost = || Error::DeviceLost { device: "late".into(), message: "as told".into() };
        let done = if is_to_fail { Err(lost()) } else { self.program.launch(&inputs, &self.outputs) };
        self.done.set(done).map_err(drop).unwrap();
    }
}

/// A launch of [`open_late`].
struct Late {
    queue: Queue,
    job: Arc<Job>,
}

impl Late {
    fn done(&self) -> Result<&Submission> {
        let mut queue = self.queue.lock().unwrap();
        while self.job.done.get().is_none() {
            queue.pop_front().expect("it is in the queue until it has run").run();
        }
        let failed = || Error::DeviceLost { device: "late".into(), message: "a launch failed".into() };
        self.job.done.get().unwrap().as_ref().map_err(|_| failed())
    }
}

impl Pending for Late {
    fn wait(&self) -> Result<()> {
        self.done()?.wait()
    }
    fn is_done(&self) -> bool {
        self.job.done.get().is_some()
    }
    fn gpu_time(&self) -> Option<Duration> {
        None
    }
    fn take(&self, i: usize, out: &mut [u8]) -> Result<()> {
        self.done()?.take(i, out)
    }
}

impl Backend for Faulty {
    fn id(&self) -> DeviceId {
        self.inner.id()
    }
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn allocated_bytes(&self) -> u64 {
        self.inner.allocated_bytes()
    }
    fn n_cut(&self) -> Result<u64> {
        self.inner.n_cut()
    }
    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>> {
        if self.allocated_bytes() + n_bytes as u64 > self.limit_bytes {
            let what = "a buffer".into();
            return Err(Error::OutOfMemory { device: "faulty".into(), what, requested_bytes: n_bytes });
        }
        Ok(self.inner.alloc(DType::U8, &[n_bytes])?.storage().clone())
    }
    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        self.catch_up();
        self.faults.bytes_written.fetch_add(bytes.len() as i64, Ordering::SeqCst);
        self.inner.write(dst, bytes)
    }
    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        self.catch_up();
        self.faults.bytes_read.fetch_add(out.len() as i64, Ordering::SeqCst);
        self.inner.read(src, out)
    }
    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        self.faults.n_weights.fetch_add(1, Ordering::SeqCst);
        self.inner.upload_weight(parts, arrange)
    }
    fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool> {
        let n_bytes = shape.n_bytes().unwrap_or(usize::MAX);
        if self.allocated_bytes().saturating_add(n_bytes as u64) > self.limit_bytes {
            let what = "a cache".into();
            return Err(Error::OutOfMemory { device: "faulty".into(), what, requested_bytes: n_bytes });
        }
        self.inner.alloc_kv(shape)
    }
    fn tiling(&self, shape: &KvShape, n_heads: usize) -> Tiling {
        self.inner.tiling(shape, n_heads)
    }
    fn compile_kernel(
        &self,
        name: &str,
        _: &KernelSource,
        _: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        Err(Error::KernelNotFound { name: name.into() })
    }
    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Err(Error::WorkerShutDown)
    }
    fn submit(&self, _: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
        Err(Error::WorkerShutDown)
    }
    fn compile(&self, plan: &Plan) -> Result<Arc<dyn Compiled>> {
        let has_attention = plan.ops().iter().any(|op| matches!(op, Op::Attention(_)));
        if has_attention && self.faults.has_no_attention.load(Ordering::SeqCst) {
            return Err(Error::Argument { op: "attention", problem: "heads of this size".into() });
        }
        let (inner, faults) = (self.inner.compile(plan)?, self.faults.clone());
        Ok(Arc::new(FaultyProgram { inner, faults, queue: self.queue.clone() }))
    }
    fn measure_read_bandwidth(&self) -> Result<f64> {
        self.inner.measure_read_bandwidth()
    }
}

struct FaultyProgram {
    inner: Program,
    faults: Faults,
    queue: Option<Queue>,
}

impl Compiled for FaultyProgram {
    fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission> {
        if self.faults.runs_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(Error::DeviceLost { device: "faulty".into(), message: "as told".into() });
        }
        let written: usize = inputs.iter().map(|input| input.bytes().len()).sum();
        let read: usize = outputs.iter().map(Buffer::n_bytes).sum();
        self.faults.bytes_written.fetch_add(written as i64, Ordering::SeqCst);
        self.faults.bytes_read.fetch_add(read as i64, Ordering::SeqCst);
        let Some(queue) = &self.queue else { return self.inner.launch(inputs, outputs) };
        let copied = |input: &Input<'_>| (input.buffer().clone(), input.bytes().to_vec());
        let job = Arc::new(Job {
            program: self.inner.clone(),
            inputs: inputs.iter().map(copied).collect(),
            outputs: outputs.to_vec(),
            faults: self.faults.clone(),
            done: OnceLock::new(),
        });
        let mut jobs = queue.lock().unwrap();
        jobs.push_back(job.clone());
        self.faults.in_flight_max.fetch_max(jobs.len() as i64, Ordering::SeqCst);
        Ok(Submission::new(Late { queue: queue.clone(), job }))
    }
}

impl fmt::Display for FaultyProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
