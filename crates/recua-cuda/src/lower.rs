//! Ops become [`Launches`]: one `match`, and a file for each family of ops. The kernels tell what they do.

mod copy;

use crate::kernels::KernelKey;
use crate::launch::{Launches, Recorder};
use crate::shared::Shared;
use recua_compute::{Error, Op, Result};

/// The launches of a list of ops. Workspaces are allocated; the result names them as they are then.
pub(crate) fn lower(shared: &Shared, ops: &[Op]) -> Result<Launches> {
    loop {
        let generation = shared.workspaces.generation();
        let mut recorder = Recorder::new(shared);
        for op in ops {
            lower_op(op, &mut recorder)?;
        }
        // If a workspace grew, the launches made before name the smaller one as well, and would keep it.
        if shared.workspaces.generation() == generation {
            return Ok(recorder.finish());
        }
    }
}

/// Appends the launches of an op.
pub(crate) fn lower_op(op: &Op, recorder: &mut Recorder<'_>) -> Result<()> {
    recorder.begin(op.name());
    match op {
        Op::Copy(op) => copy::copy(op, recorder),
        other => Err(Error::Argument { op: other.name(), problem: "there is no kernel for CUDA yet".into() }),
    }
}

/// Every kernel in every permutation that may be launched: tests compile all of them.
#[allow(dead_code, reason = "for tests")]
pub(crate) fn permutations() -> Vec<KernelKey> {
    copy::kernels().into_iter().chain(crate::bandwidth::kernels()).chain(crate::transfer::kernels()).collect()
}
