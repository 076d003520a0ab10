//! [`Launch`]: one dispatch as data. [`Recorder`] collects the launches of the ops. Nothing is compiled or bound here.

use crate::gpu::Gpu;
use crate::memory::{Binding, Memory};
use crate::pipelines::{Access, KernelKey, Pipeline};
use crate::shared::Shared;
use recua_compute::{Buffer, Error, Result};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// One dispatch.
pub(crate) struct Launch {
    /// The op it belongs to.
    pub(crate) op: &'static str,
    pub(crate) kernel: Kernel,
    pub(crate) access: Access,
    pub(crate) bindings: Vec<Bound>,
    /// Fills `var<immediate>`; at most 128 bytes.
    pub(crate) immediates: Vec<u8>,
    /// Workgroups.
    pub(crate) groups: [u32; 3],
}

/// The code that a launch runs.
pub(crate) enum Kernel {
    /// One of this crate's kernels.
    Ours(KernelKey),
    /// A hand-written kernel, already compiled.
    Theirs(String, Arc<Pipeline>),
}

/// The bytes of a binding. Whoever holds the launch must keep the memory alive.
pub(crate) struct Bound {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// Launches in order.
#[derive(Default)]
pub(crate) struct Launches {
    pub(crate) list: Vec<Launch>,
    /// Whether a kernel may report an index that is out of range.
    pub(crate) uses_status: bool,
    /// The workspaces that the launches use, kept alive here; whoever holds the ops keeps buffers and weights.
    #[allow(dead_code, reason = "held to be dropped")]
    pub(crate) scratch: Vec<Arc<Memory>>,
}

impl fmt::Display for Launches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().enumerate().try_for_each(|(i, launch)| writeln!(f, "{i:>4} {launch}"))
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.groups;
        write!(f, "{}: {} in {x} x {y} x {z}", self.op, self.kernel)
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

/// Appends launches.
pub(crate) struct Recorder<'a> {
    pub(crate) gpu: &'a Gpu,
    shared: &'a Shared,
    op: &'static str,
    launches: Launches,
    scratch: RefCell<Vec<Arc<Memory>>>,
    /// Rows whose f16 copy, which products read, the op before has already written.
    converted: Option<Buffer>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Recorder<'a> {
        Recorder::resume(shared, Launches::default())
    }

    /// Continues after `launches`.
    pub(crate) fn resume(shared: &'a Shared, mut launches: Launches) -> Recorder<'a> {
        let scratch = RefCell::new(std::mem::take(&mut launches.scratch));
        Recorder { gpu: &shared.gpu, shared, op: "", launches, scratch, converted: None }
    }

    /// Launches appended from now on belong to this op.
    pub(crate) fn begin(&mut self, op: &'static str) {
        self.op = op;
    }

    /// The launches so far.
    pub(crate) fn finish(self) -> Launches {
        Launches { scratch: self.scratch.into_inner(), ..self.launches }
    }

    /// Appends `groups` workgroups of one of this crate's kernels. `bindings[i]` is `@group(0) @binding(i)`; the source must declare an
    /// input with exactly the words `var<storage, read>`. `immediates` fill `var<immediate>`, at most 128 bytes.
    pub(crate) fn dispatch(
        &mut self,
        kernel: &KernelKey,
        bindings: &[Binding<'_>],
        immediates: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        let is_emulated =
            self.gpu.tuning.emulated && ["tensor", "coop"].iter().any(|name| kernel.file.contains(name));
        let kernel = kernel.clone().define_if(is_emulated, "EMULATED");
        self.push(Kernel::Ours(kernel), bindings, immediates, groups)
    }

    /// Appends workgroups of any kernel.
    pub(crate) fn push(
        &mut self,
        kernel: Kernel,
        bindings: &[Binding<'_>],
        immediates: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        let groups_max = self.gpu.limits.max_compute_workgroups_per_dimension;
        if groups.iter().any(|&n| n > groups_max) {
            return Err(Error::Argument {
                op: "dispatch",
                problem: format!("{kernel}: {groups:?} workgroups, at most {groups_max} in a dimension"),
            });
        }
        let bound = |part: &Binding<'_>| Bound {
            buffer: part.memory.buffer().clone(),
            offset: part.offset,
            size: part.size,
        };
        self.launches.list.push(Launch {
            op: self.op,
            kernel,
            access: access(bindings),
            bindings: bindings.iter().map(bound).collect(),
            immediates: immediates.to_vec(),
            groups,
        });
        Ok(())
    }

    /// Where kernels that `#import status` report indexes: their `@binding(0)`.
    pub(crate) fn status(&mut self) -> Binding<'a> {
        self.launches.uses_status = true;
        Binding::all(&self.shared.status, true)
    }

    /// Records that this op has also written the f16 copy of `x` that the next product reads.
    pub(crate) fn set_converted(&mut self, x: &Buffer) {
        self.converted = Some(x.clone());
    }

    /// Whether the op before recorded this for `x`.
    pub(crate) fn take_converted(&mut self, x: &Buffer) -> bool {
        self.converted.take().is_some_and(|converted| converted.is_same(x))
    }

    /// Scratch shared by all ops that use this name; see [`crate::workspace::Workspaces`].
    pub(crate) fn workspace(&self, what: &'static str, n_bytes: usize) -> Result<Arc<Memory>> {
        let memory = self.shared.workspaces.get(self.gpu, what, n_bytes)?;
        let mut held = self.scratch.borrow_mut();
        if !held.iter().any(|held| Arc::ptr_eq(held, &memory)) {
            held.push(memory.clone());
        }
        Ok(memory)
    }
}

/// The access of a dispatch to its bindings.
pub(crate) fn access(bindings: &[Binding<'_>]) -> Access {
    let (mut writes, mut widened) = (0, 0);
    for (i, part) in bindings.iter().enumerate() {
        let is_shared = || bindings.iter().any(|other| other.write && other.memory.id() == part.memory.id());
        if part.write || is_shared() {
            writes |= 1 << i;
            widened |= u32::from(!part.write) << i;
        }
    }
    Access { n_bindings: bindings.len() as u32, writes, widened }
}
