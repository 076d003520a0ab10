//! [`Launch`]: one kernel as data. [`Recorder`] is what the files of the ops write launches into. Nothing is compiled here.

use crate::function::Function;
use crate::gpu::Gpu;
use crate::kernels::KernelKey;
use crate::memory::Memory;
use crate::shared::Shared;
use bytemuck::Pod;
use recua_compute::{Buffer, DType, Error, Op, Result, hazards};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// One launch. Whoever has it has to keep the memory that its parameters point to.
pub(crate) struct Launch {
    /// The op that it belongs to.
    pub(crate) op: &'static str,
    pub(crate) kernel: Kernel,
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) block: u32,
    /// Shared memory beside what the kernel declares.
    pub(crate) shared_bytes: u32,
    /// Whether it may begin before the launch before it is done (programmatic dependent launch): the kernel itself calls
    /// `griddepcontrol.wait` before it reads what earlier launches wrote or writes what they read. A card below 9.0 does not know of it.
    pub(crate) is_dependent: bool,
    /// The block of the kernel's parameters: for one of ours the bytes of its single by-value structure.
    pub(crate) params: Vec<u8>,
}

/// The code of a launch.
pub(crate) enum Kernel {
    /// One of this crate's kernels.
    Ours(KernelKey),
    /// A hand-written kernel, compiled.
    Theirs(String, Arc<Function>),
}

/// Launches in order.
#[derive(Default)]
pub(crate) struct Launches {
    pub(crate) list: Vec<Launch>,
    /// Whether a kernel may report an index that is out of range.
    pub(crate) uses_status: bool,
    /// The workspaces that the launches name, held here; buffers and weights are held by whoever has the ops.
    #[allow(dead_code, reason = "held to be dropped")]
    pub(crate) scratch: Vec<Arc<Memory>>,
    /// What the ops so far have written of buffers that may hold indexes.
    written: Vec<Buffer>,
}

impl fmt::Display for Launches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().enumerate().try_for_each(|(i, launch)| writeln!(f, "{i:>4} {launch}"))
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        write!(f, "{}: {} in {x} x {y} x {z} blocks of {}", self.op, self.kernel, self.block)?;
        if self.shared_bytes > 0 {
            write!(f, ", {} bytes shared", self.shared_bytes)?;
        }
        f.write_str(if self.is_dependent { ", dependent" } else { "" })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Ours(key) => write!(f, "{key}"),
            Kernel::Theirs(name, _) => f.write_str(name),
        }
    }
}

/// The most blocks in each dimension.
const GRID_MAX: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

/// The most threads of a block.
const BLOCK_MAX: u32 = 1024;

/// Which of the two places for rows of products: a product that writes the rows of the next one reads one and writes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Second,
}

impl Place {
    pub(crate) fn other(self) -> Place {
        match self {
            Place::First => Place::Second,
            Place::Second => Place::First,
        }
    }
}

/// Appends launches.
pub(crate) struct Recorder<'a> {
    pub(crate) gpu: &'a Gpu,
    shared: &'a Shared,
    op: &'static str,
    launches: Launches,
    scratch: RefCell<Vec<Arc<Memory>>>,
    /// Rows that the op before has also written as products read them.
    pub(crate) packed: Option<(Buffer, Place)>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Recorder<'a> {
        Recorder::resume(shared, Launches::default())
    }

    /// Goes on after `launches`.
    pub(crate) fn resume(shared: &'a Shared, mut launches: Launches) -> Recorder<'a> {
        let scratch = RefCell::new(std::mem::take(&mut launches.scratch));
        Recorder { gpu: &shared.gpu, shared, op: "", launches, scratch, packed: None }
    }

    /// What follows belongs to this op.
    pub(crate) fn begin(&mut self, op: &'static str) {
        self.op = op;
    }

    /// What was appended.
    pub(crate) fn finish(self) -> Launches {
        Launches { scratch: self.scratch.into_inner(), ..self.launches }
    }

    /// Appends `grid` blocks of `block` threads of one of this crate's kernels. `params` is the structure that the kernel takes by value,
    /// with the same fields in the same places. See [`Launch::is_dependent`].
    pub(crate) fn launch(
        &mut self,
        kernel: &KernelKey,
        grid: [u32; 3],
        block: u32,
        shared_bytes: u32,
        is_dependent: bool,
        params: &impl Pod,
    ) -> Result<()> {
        self.push(Launch {
            op: self.op,
            kernel: Kernel::Ours(kernel.clone()),
            grid,
            block,
            shared_bytes,
            is_dependent,
            params: bytemuck::bytes_of(params).to_vec(),
        })
    }

    /// Notes what an op has written, for launches that read inputs before their wait.
    pub(crate) fn wrote(&mut self, op: &Op) {
        let is_indexes = |buffer: &&Buffer| buffer.dtype() != DType::F32;
        self.launches.written.extend(hazards::writes(op).into_iter().filter(is_indexes).cloned());
    }

    /// Whether no op so far has written any of these buffers: they are as they were when the first launch began.
    pub(crate) fn are_inputs(&self, buffers: &[&Buffer]) -> bool {
        let is_written =
            |buffer: &&Buffer| self.launches.written.iter().any(|written| written.overlaps(buffer));
        !buffers.iter().any(is_written)
    }

    /// Appends a launch of any kernel.
    pub(crate) fn push(&mut self, launch: Launch) -> Result<()> {
        let Launch { ref kernel, grid, block, shared_bytes, .. } = launch;
        let shared_max = self.gpu.shared_bytes_max;
        let problem = if grid.contains(&0) || grid.iter().zip(GRID_MAX).any(|(n, max)| *n > max) {
            format!("{grid:?} blocks, from 1 to {GRID_MAX:?} are possible")
        } else if block == 0 || block > BLOCK_MAX {
            format!("blocks of {block} threads, from 1 to {BLOCK_MAX} are possible")
        } else if shared_bytes as usize > shared_max {
            format!("{shared_bytes} bytes of shared memory, a block here has at most {shared_max}")
        } else {
            self.launches.list.push(launch);
            return Ok(());
        };
        Err(Error::Argument { op: "dispatch", problem: format!("{kernel}: {problem}") })
    }

    /// Where kernels report an index that is out of range: the words of a [`recua_compute::IndexReport`].
    pub(crate) fn status(&mut self) -> u64 {
        self.launches.uses_status = true;
        self.shared.status.pointer()
    }

    /// Scratch that all ops share which ask by this name, of zeros when it is made; see [`crate::workspace::Workspaces`].
    pub(crate) fn workspace(&self, what: &'static str, n_bytes: usize) -> Result<Arc<Memory>> {
        let memory = self.shared.workspaces.get(self.gpu, what, n_bytes)?;
        let mut held = self.scratch.borrow_mut();
        if !held.iter().any(|held| Arc::ptr_eq(held, &memory)) {
            held.push(memory.clone());
        }
        Ok(memory)
    }
}
