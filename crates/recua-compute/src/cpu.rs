//! The CPU device: memory, and one `match` over the ops. A submission runs before `submit` returns.

#[cfg(target_arch = "x86_64")]
mod amx;
mod bandwidth;
mod formats;
pub(crate) mod isa;
mod kv;
mod machine;
pub(crate) mod math;
mod matmul;
mod memory;
mod ops;
mod pool;
mod program;

pub use isa::Isa;

use crate::backend::{Backend, Compiled, DeviceInfo, Encode};
use crate::buffer::{Buffer, DeviceId, Storage};
use crate::device::Device;
use crate::error::{Error, Result, argument};
use crate::hazards::writes;
use crate::kernel::{CallArg, Kernel, KernelArg, KernelCall, KernelSource, RustKernel};
use crate::kv::{KvPool, KvShape};
use crate::op::Op;
use crate::op::operands::{Access, Operand};
use crate::plan::Plan;
use crate::submission::Submission;
use crate::weight::{Arrange, RawMatrix, RawRows, Weight};
use crate::work::Tiling;
use kv::Kv;
use matmul::Workspace;
use matmul::planes::TILE;
use matmul::weight::{self, Layout, Packed, Segment};
use memory::{Memory, ptr};
use pool::{Pool, Worker};
use program::{CpuProgram, Done};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The environment variable that names the instruction set: `scalar`, `avx2`, `avxvnni`, `avx512` or `amx`.
pub const ISA_VARIABLE: &str = "RECUA_CPU_ISA";

/// How the CPU device is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads that work on a pass; all processors that this process may use if `None`.
    pub threads: Option<usize>,
    /// The instruction set; `RECUA_CPU_ISA`, else the fastest one, if `None`.
    pub isa: Option<Isa>,
}

/// Opens the CPU device.
///
/// # Errors
/// If the processor lacks the instruction set requested by `options` or `RECUA_CPU_ISA`, or threads cannot be started.
pub fn open(options: Options) -> Result<Device> {
    let isa = match options.isa {
        Some(isa) => isa,
        None => match std::env::var(ISA_VARIABLE) {
            Ok(name) => name.parse().map_err(|e: String| argument(ISA_VARIABLE, e))?,
            Err(_) => Isa::best(),
        },
    };
    if !isa.is_available() {
        let best = Isa::best();
        return Err(argument("open", format!("this processor has no {isa}; its best is {best}")));
    }
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = options.threads.unwrap_or(available).clamp(1, 1024);
    let pool =
        Pool::new(threads).map_err(|source| Error::Threads { device: "cpu", n_threads: threads, source })?;
    let info = DeviceInfo {
        kind: "cpu".into(),
        name: machine::processor_name(),
        detail: format!("{isa}, {threads} threads"),
        memory_bytes: machine::available_memory(),
        row_buckets: &[],
        runs_in_submit: true,
    };
    let queue = Mutex::new(Queue { pool, workspace: Workspace::default(), spans: ops::Spans::default() });
    let allocated = Allocated { device: "cpu", bytes: Arc::new(AtomicU64::new(0)) };
    Ok(Device::new(Arc::new(Cpu {
        id: DeviceId::unique(),
        info,
        isa,
        allocated,
        n_cut: AtomicU64::new(0),
        queue,
    })))
}

/// Allocates the device's memory and counts its bytes.
#[derive(Clone)]
pub(crate) struct Allocated {
    device: &'static str,
    bytes: Arc<AtomicU64>,
}

impl Allocated {
    /// Zeroed memory. Dropping it does not lower the count; [`Allocated::release`] does.
    fn memory(&self, n_bytes: usize, what: &str) -> Result<Memory> {
        let memory = Memory::zeroed(n_bytes).ok_or_else(|| Error::OutOfMemory {
            device: self.device.into(),
            what: what.into(),
            requested_bytes: n_bytes,
        })?;
        self.bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
        Ok(memory)
    }

    fn release(&self, n_bytes: usize) {
        self.bytes.fetch_sub(n_bytes as u64, Ordering::Relaxed);
    }
}

/// A buffer's memory. Dropping it lowers the count.
struct Counted {
    memory: Memory,
    counter: Allocated,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.release(self.memory.len());
    }
}

impl Storage for Counted {
    fn n_bytes(&self) -> usize {
        self.memory.len()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.counter.release(self.memory.len());
    }
}

struct Cpu {
    id: DeviceId,
    info: DeviceInfo,
    isa: Isa,
    allocated: Allocated,
    /// See [`Device::n_cut`].
    n_cut: AtomicU64,
    /// Held by whoever runs ops or touches memory.
    queue: Mutex<Queue>,
}

struct Queue {
    pool: Pool,
    workspace: Workspace,
    spans: ops::Spans,
}

/// One entry of a finished recording.
#[allow(clippy::large_enum_variant, reason = "as for `Op`")]
enum Command {
    Op(Op),
    Kernel { name: String, kernel: CompiledKernel, groups: [u32; 3], args: Vec<Arg> },
}

enum Arg {
    Read(Buffer),
    Write(Buffer),
    Bytes(Vec<u8>),
}

#[derive(Clone)]
struct CompiledKernel {
    function: RustKernel,
    constants: Arc<[(String, f64)]>,
}

impl Cpu {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic inside a kernel leaves no state that the next pass would read.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the workspace that [`Cpu::run_ops`] needs for these ops.
    fn reserve<'a>(&self, queue: &mut Queue, ops: impl Iterator<Item = &'a Op> + Clone) -> Result<()> {
        let n_threads = queue.pool.n_threads();
        queue.workspace.reserve(ops.clone(), n_threads, &self.allocated)?;
        queue.spans.reserve(ops, n_threads, &self.allocated)
    }

    /// Runs ops whose workspace is reserved; `checks` are [`IndexCheck::of`] these ops.
    fn run_ops<'a>(
        &self,
        queue: &mut Queue,
        ops: impl Iterator<Item = &'a Op> + Clone + Sync,
        checks: &[IndexCheck],
    ) -> Result<()> {
        let (workspace, spans) = (&queue.workspace, &queue.spans);
        // The first op that must not run. A failing op sets it to the op after itself, so that a thread that is still in the failing op
        // goes on to the barrier where the others wait.
        let stop_at = AtomicUsize::new(usize::MAX);
        let error = Mutex::new(None);
        let fail = |e: Error, at: usize| {
            error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            stop_at.fetch_min(at, Ordering::Relaxed);
        };
        for (op, _) in ops.clone().zip(checks).filter(|(_, check)| **check == IndexCheck::First) {
            check_indexes(op)?;
        }
        let job = |worker: &Worker<'_>| {
            for (i, (op, check)) in ops.clone().zip(checks).enumerate() {
                if *check == IndexCheck::AtItsTurn {
                    if worker.idx == 0 {
                        check_indexes(op).unwrap_or_else(|e| fail(e, i));
                    }
                    worker.barrier();
                }
                if stop_at.load(Ordering::Relaxed) <= i {
                    return;
                }
                self.run_op(op, worker, workspace, spans).unwrap_or_else(|e| fail(e, i + 1));
                worker.barrier();
            }
        };
        let lost = |_| Error::DeviceLost { device: "cpu".into(), message: "a kernel panicked".into() };
        catch_unwind(AssertUnwindSafe(|| queue.pool.run(&job))).map_err(lost)?;
        error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// This thread's part of an op.
    fn run_op(&self, op: &Op, worker: &Worker<'_>, workspace: &Workspace, spans: &ops::Spans) -> Result<()> {
        let isa = self.isa;
        match op {
            Op::Embed(op) => matmul::embed(op, worker),
            Op::RmsNorm(op) => ops::rms_norm(op, worker, isa),
            Op::Matmul(op) => matmul::matmul(op, worker, isa, workspace),
            Op::MatmulGlu(op) => matmul::matmul_glu(op, worker, isa, workspace),
            Op::RopeStore(op) => ops::rope_store(op, worker, isa, &self.n_cut),
            Op::Attention(op) => ops::attention(op, worker, isa, spans),
            Op::GatherRows(op) => ops::gather_rows(op, worker, isa),
            Op::Argmax(op) => ops::argmax(op, worker, isa),
            Op::TopK(op) => ops::top_k(op, worker),
            Op::Copy(op) => ops::copy(op, worker, isa),
            Op::CopyPages(op) => ops::copy_pages(op, worker),
        }
    }

    fn run_kernel(
        name: &str,
        kernel: &CompiledKernel,
        groups: [u32; 3],
        args: &[Arg],
        _queue: &mut Queue,
    ) -> Result<()> {
        let args = args.iter().map(|arg| match arg {
            // SAFETY: the queue is held, written arguments overlap no other argument (`CommandEncoder::dispatch` has checked), and a
            // view's bytes are initialized.
            Arg::Read(buffer) => unsafe {
                CallArg::Read(std::slice::from_raw_parts(ptr(buffer), buffer.n_bytes()))
            },
            // SAFETY: as above.
            Arg::Write(buffer) => unsafe {
                CallArg::Write(std::slice::from_raw_parts_mut(ptr(buffer), buffer.n_bytes()))
            },
            Arg::Bytes(bytes) => CallArg::Bytes(bytes),
        });
        let mut call = KernelCall { groups, args: args.collect(), constants: &kernel.constants };
        let failed = |message| Error::KernelRun { name: name.into(), message };
        catch_unwind(AssertUnwindSafe(|| (kernel.function)(&mut call)))
            .map_err(|_| failed("it panicked".into()))?
            .map_err(failed)
    }
}

/// When the values of an op's indexes are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IndexCheck {
    /// It has none.
    Never,
    /// Before all ops, which saves a barrier.
    First,
    /// Before itself, because an op before it writes some of them.
    AtItsTurn,
}

impl IndexCheck {
    /// The checks of a list of ops.
    fn of<'a>(ops: impl Iterator<Item = &'a Op> + Clone) -> Vec<IndexCheck> {
        let mut written: Vec<&Buffer> = Vec::new();
        let mut check = |op: &'a Op| {
            let operands = op.operands();
            let is_index = |operand: &&Operand<'_>| matches!(operand.access, Access::Index(_));
            let mut indexes = operands.iter().filter(is_index).flat_map(Operand::buffers).peekable();
            let check = if indexes.peek().is_none() {
                IndexCheck::Never
            } else if indexes.any(|index| written.iter().any(|written| written.overlaps(index))) {
                IndexCheck::AtItsTurn
            } else {
                IndexCheck::First
            };
            written.extend(writes(op));
            check
        };
        ops.map(&mut check).collect()
    }
}

/// Checks the values of an op's indexes.
fn check_indexes(op: &Op) -> Result<()> {
    match op {
        Op::Embed(op) => matmul::check_embed(op),
        Op::RopeStore(op) => ops::check_rope_store(op),
        Op::Attention(op) => ops::check_attention(op),
        Op::CopyPages(op) => ops::check_copy_pages(op),
        // These have no indexes whose limits depend on other values.
        Op::RmsNorm(_)
        | Op::Matmul(_)
        | Op::MatmulGlu(_)
        | Op::GatherRows(_)
        | Op::Argmax(_)
        | Op::TopK(_)
        | Op::Copy(_) => ops::check_limits(op),
    }
}

/// Implemented for the `Arc`, because programs hold the device too.
impl Backend for Arc<Cpu> {
    fn id(&self) -> DeviceId {
        self.id
    }

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocated_bytes(&self) -> u64 {
        self.allocated.bytes.load(Ordering::Relaxed)
    }

    fn n_cut(&self) -> Result<u64> {
        Ok(self.n_cut.load(Ordering::Relaxed))
    }

    fn alloc(&self, n_bytes: usize) -> Result<Arc<dyn Storage>> {
        let memory = self.allocated.memory(n_bytes, "a buffer")?;
        Ok(Arc::new(Counted { memory, counter: self.allocated.clone() }))
    }

    fn write(&self, dst: &Buffer, bytes: &[u8]) -> Result<()> {
        let _queue = self.lock();
        // SAFETY: `Device::write` has checked the length, and the queue is held, so no op is running.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr(dst), bytes.len()) }
        Ok(())
    }

    fn read(&self, src: &Buffer, out: &mut [u8]) -> Result<()> {
        let _queue = self.lock();
        // SAFETY: `Device::read` has checked the length, and the queue is held, so no op is running.
        unsafe { std::ptr::copy_nonoverlapping(ptr(src), out.as_mut_ptr(), out.len()) }
        Ok(())
    }

    fn upload_weight(&self, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
        let k = parts.first().map_or(0, |part| part.columns.len());
        let (mut segments, mut first, mut n_bytes) = (Vec::new(), 0, 0);
        for parts in weight::segments(parts, arrange) {
            let (ty, rows) = (parts[0].ty, RawRows::stacked(parts));
            let unsupported = || Error::UnsupportedType { device: self.info.name.clone(), ty };
            let layout = Layout::of(ty).ok_or_else(unsupported)?;
            let (tile_bytes, n_tiles, n) =
                (layout.tile_bytes(k), rows.n_outputs().div_ceil(TILE), rows.n_outputs());
            let too_large =
                || argument("upload_weight", format!("{ty}[{n}, {k}] is larger than memory can be"));
            let bytes = tile_bytes.checked_mul(n_tiles).ok_or_else(too_large)?;
            let memory = self.allocated.memory(bytes, &format!("a weight {ty}[{n}, {k}]"))?;
            let counter = self.allocated.clone();
            let segment = Segment { memory, tile_bytes, n_tiles, first, n, layout, counter };
            weight::pack(&mut self.lock().pool, &segment, rows, k)?;
            segments.push(segment);
            first += n;
            n_bytes += bytes;
        }
        Ok(Weight::from_storage(Arc::new(Packed { segments }), self.id, parts, arrange, n_bytes))
    }

    fn alloc_kv(&self, shape: &KvShape) -> Result<KvPool> {
        Kv::pool(&self.allocated, self.id, shape)
    }

    fn tiling(&self, _shape: &KvShape, _n_heads: usize) -> Tiling {
        // Attention finds its work itself.
        Tiling::default()
    }

    fn compile_kernel(
        &self,
        name: &str,
        source: &KernelSource,
        constants: &[(String, f64)],
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        let language = match source {
            KernelSource::Rust(function) => {
                return Ok(Arc::new(CompiledKernel {
                    function: function.clone(),
                    constants: constants.into(),
                }));
            }
            KernelSource::Wgsl(_) => "WGSL",
            KernelSource::CudaC(_) => "CUDA C++",
        };
        Err(Error::KernelCompile {
            name: name.into(),
            device: "cpu".into(),
            message: format!("the source is {language}; the CPU device runs Rust functions"),
        })
    }

    fn encoder(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(CpuEncoder { commands: Vec::new() }))
    }

    fn submit(&self, commands: Vec<Box<dyn Any + Send>>) -> Result<Submission> {
        let mut queue = self.lock();
        for list in commands {
            let list: Box<Vec<Command>> =
                list.downcast().map_err(|_| argument("submit", "not of this device"))?;
            for commands in list.chunk_by(|a, b| matches!((a, b), (Command::Op(_), Command::Op(_)))) {
                match &commands[0] {
                    Command::Op(_) => {
                        let ops = commands.iter().filter_map(|command| match command {
                            Command::Op(op) => Some(op),
                            Command::Kernel { .. } => None,
                        });
                        self.reserve(&mut queue, ops.clone())?;
                        let checks = IndexCheck::of(ops.clone());
                        self.run_ops(&mut queue, ops, &checks)?;
                    }
                    Command::Kernel { name, kernel, groups, args } => {
                        Cpu::run_kernel(name, kernel, *groups, args, &mut queue)?;
                    }
                }
            }
        }
        Ok(Submission::new(Done::default()))
    }

    fn compile(&self, plan: &Plan) -> Result<Arc<dyn Compiled>> {
        self.reserve(&mut self.lock(), plan.ops().iter())?;
        Ok(Arc::new(CpuProgram::new(self.clone(), plan.clone())))
    }

    fn measure_read_bandwidth(&self) -> Result<f64> {
        bandwidth::measure(&mut self.lock().pool, self.isa, &self.allocated)
    }
}

struct CpuEncoder {
    commands: Vec<Command>,
}

impl Encode for CpuEncoder {
    fn op(&mut self, op: &Op) -> Result<()> {
        self.commands.push(Command::Op(op.clone()));
        Ok(())
    }

    fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()> {
        let compiled = kernel.compiled_as::<CompiledKernel>();
        let compiled =
            compiled.ok_or_else(|| argument("dispatch", "the kernel is of another kind of device"))?;
        let arg = |arg: &KernelArg<'_>| match *arg {
            KernelArg::Read(buffer) => Arg::Read(buffer.clone()),
            KernelArg::Write(buffer) => Arg::Write(buffer.clone()),
            KernelArg::Bytes(bytes) => Arg::Bytes(bytes.to_vec()),
        };
        let args = args.iter().map(arg).collect();
        let (name, kernel) = (kernel.name().to_string(), compiled.clone());
        self.commands.push(Command::Kernel { name, kernel, groups, args });
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(self.commands))
    }
}
