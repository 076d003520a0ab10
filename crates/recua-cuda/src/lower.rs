//! Ops become [`Launches`]: one `match`, and a file for each family of ops. The kernels tell what they do.

pub(crate) mod attention;
mod cache;
mod copy;
mod matmul;
mod rows;

use crate::kernels::KernelKey;
use crate::launch::{Launches, Recorder};
use crate::shared::Shared;
use recua_compute::{Op, Result};

/// The launches of a list of ops. Workspaces are allocated; the result names them as they are then.
pub(crate) fn lower(shared: &Shared, ops: &[Op]) -> Result<Launches> {
    loop {
        let generation = shared.workspaces.generation();
        let mut recorder = Recorder::new(shared);
        for (i, op) in ops.iter().enumerate() {
            lower_op(op, reader(ops, i), &mut recorder)?;
        }
        // If a workspace grew, the launches made before name the smaller one as well, and would keep it.
        if shared.workspaces.generation() == generation {
            return Ok(recorder.finish());
        }
    }
}

/// The product that reads next what a norm or a GLU has written. The op then writes what the product reads along with its own
/// rows. All products read the same workspaces, so there may be no op between the two.
fn reader(ops: &[Op], i: usize) -> Option<&Op> {
    let out = match &ops[i] {
        Op::RmsNorm(op) => &op.out,
        Op::MatmulGlu(op) => &op.out,
        _ => return None,
    };
    ops.get(i + 1).filter(|next| match next {
        Op::Matmul(next) => next.x.is_same(out),
        Op::MatmulGlu(next) => next.x.is_same(out),
        _ => false,
    })
}

/// Appends the launches of an op; `reader` is what it may fuse with.
pub(crate) fn lower_op(op: &Op, reader: Option<&Op>, recorder: &mut Recorder<'_>) -> Result<()> {
    recorder.begin(op.name());
    lower_alone(op, reader, recorder)?;
    recorder.wrote(op);
    Ok(())
}

/// The one `match`.
fn lower_alone(op: &Op, reader: Option<&Op>, recorder: &mut Recorder<'_>) -> Result<()> {
    match op {
        Op::Embed(op) => rows::embed(op, recorder),
        Op::RmsNorm(op) => rows::rms_norm(op, reader, recorder),
        Op::Matmul(op) => matmul::matmul(op, recorder),
        Op::MatmulGlu(op) => matmul::matmul_glu(op, reader, recorder),
        Op::RopeStore(op) => cache::rope_store(op, recorder),
        Op::Attention(op) => attention::attention(op, recorder),
        Op::GatherRows(op) => rows::gather_rows(op, recorder),
        Op::Argmax(op) => rows::argmax(op, recorder),
        Op::TopK(op) => rows::top_k(op, recorder),
        Op::Copy(op) => copy::copy(op, recorder),
        Op::CopyPages(op) => cache::copy_pages(op, recorder),
    }
}

/// Every kernel in every permutation that may be launched: tests compile all of them.
#[allow(dead_code, reason = "for tests")]
pub(crate) fn permutations() -> Vec<KernelKey> {
    let ops = [attention::kernels(), cache::kernels(), copy::kernels(), matmul::kernels(), rows::kernels()];
    let others = [crate::bandwidth::kernels(), crate::transfer::kernels(), crate::weight::kernels()];
    ops.into_iter().chain(others).flatten().collect()
}
