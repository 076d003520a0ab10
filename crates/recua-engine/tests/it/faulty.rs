//! A CPU device with a limit to its memory, whose runs can be made to fail.

use recua_compute::{
    Backend, Buffer, Compiled, DType, Device, DeviceId, DeviceInfo, Encode, Error, GgmlType, Input,
    KernelSource, Op, Plan, Program, Result, Storage, Submission, Weight,
};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What a test holds on to while a model owns the device.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    // Runs that succeed before the next fails; below zero: none fails.
    runs_left: Arc<AtomicI64>,
    n_weights: Arc<AtomicI64>,
    bytes_read: Arc<AtomicI64>,
    bytes_written: Arc<AtomicI64>,
    has_no_attention: Arc<AtomicBool>,
}

impl Faults {
    /// The run after the next `n` fails, and the ones after it succeed.
    pub(crate) fn fail_after(&self, n: i64) {
        self.runs_left.store(n + 1, Ordering::SeqCst);
    }

    /// The device has no kernel for attention.
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

    /// Weights that were brought to the device.
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
}

/// A device that says it has `promised` bytes (or does not say) and refuses to allocate more than `limit_bytes`.
pub(crate) fn open(promised: Option<u64>, limit_bytes: u64) -> (Device, Faults) {
    let inner = crate::support::cpu();
    let info = DeviceInfo { memory_bytes: promised, name: "faulty".into(), ..inner.info().clone() };
    let faults = Faults::default();
    (Device::new(Faulty { inner, info, faults: faults.clone(), limit_bytes }), faults)
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
    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>> {
        if self.allocated_bytes() + n_bytes as u64 > self.limit_bytes {
            let what = "a buffer".into();
            return Err(Error::OutOfMemory { device: "faulty".into(), what, requested_bytes: n_bytes });
        }
        Ok(self.inner.alloc(DType::U8, &[n_bytes])?.storage().clone())
    }
    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        self.faults.bytes_written.fetch_add(bytes.len() as i64, Ordering::SeqCst);
        self.inner.write(dst, bytes)
    }
    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        self.faults.bytes_read.fetch_add(out.len() as i64, Ordering::SeqCst);
        self.inner.read(src, out)
    }
    fn upload_weight(&self, raw: &[u8], ty: GgmlType, n: usize, k: usize) -> Result<Weight> {
        self.faults.n_weights.fetch_add(1, Ordering::SeqCst);
        self.inner.upload_weight(raw, ty, n, k)
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
        Ok(Arc::new(FaultyProgram { inner: self.inner.compile(plan)?, faults: self.faults.clone() }))
    }
    fn measure_read_bandwidth(&self) -> Result<f64> {
        self.inner.measure_read_bandwidth()
    }
}

struct FaultyProgram {
    inner: Program,
    faults: Faults,
}

impl fmt::Display for FaultyProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Compiled for FaultyProgram {
    fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission> {
        if self.faults.runs_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(Error::DeviceLost { device: "faulty".into(), message: "as told".into() });
        }
        let n_read: usize = outputs.iter().map(Buffer::n_bytes).sum();
        self.faults.bytes_read.fetch_add(n_read as i64, Ordering::SeqCst);
        let n_written: usize = inputs.iter().map(|input| input.bytes().len()).sum();
        self.faults.bytes_written.fetch_add(n_written as i64, Ordering::SeqCst);
        self.inner.launch(inputs, outputs)
    }
}
