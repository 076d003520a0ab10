//! Ops become [`Launches`]: one `match`, and one file per family of ops. The kernels document what they compute.

mod attention;
mod copy;
mod copy_pages;
pub(crate) mod matmul;
mod rope_store;
mod rows;

pub(crate) use attention::tiling;
pub(crate) use copy::copy_bytes;

use crate::launch::{Launches, Recorder};
use crate::shared::Shared;
use recua_compute::{Op, Result};

/// Lowers a list of ops and allocates their workspaces, which the launches use from then on.
pub(crate) fn lower(shared: &Shared, ops: &[Op]) -> Result<Launches> {
    loop {
        let generation = shared.workspaces.generation();
        let mut recorder = Recorder::new(shared);
        for (i, op) in ops.iter().enumerate() {
            lower_op(op, reader(ops, i), &mut recorder)?;
        }
        // If a workspace grew, earlier launches still use the smaller one and would keep it alive: lower again.
        if shared.workspaces.generation() == generation {
            return Ok(recorder.finish());
        }
    }
}

/// The only fusion: a norm directly before the product that reads its rows. The norm also writes the f16 copy that the product reads, and
/// the product makes none. All such copies share a workspace, so no op may come between the two.
fn reader(ops: &[Op], i: usize) -> Option<&Op> {
    let Op::RmsNorm(norm) = &ops[i] else { return None };
    ops.get(i + 1).filter(|next| match next {
        Op::Matmul(next) => next.x.is_same(&norm.out),
        Op::MatmulGlu(next) => next.x.is_same(&norm.out),
        _ => false,
    })
}

/// Appends the launches of an op; `reader` is the product with which a norm may fuse.
pub(crate) fn lower_op(op: &Op, reader: Option<&Op>, recorder: &mut Recorder<'_>) -> Result<()> {
    recorder.begin(op.name());
    match op {
        Op::Embed(op) => matmul::embed(op, recorder),
        Op::RmsNorm(op) => rows::rms_norm(op, reader, recorder),
        Op::Matmul(op) => matmul::matmul(op, recorder),
        Op::MatmulGlu(op) => matmul::matmul_glu(op, recorder),
        Op::RopeStore(op) => rope_store::rope_store(op, recorder),
        Op::Attention(op) => attention::attention(op, recorder),
        Op::GatherRows(op) => rows::gather_rows(op, recorder),
        Op::Argmax(op) => rows::argmax(op, recorder),
        Op::TopK(op) => rows::top_k(op, recorder),
        Op::Copy(op) => copy::copy(op, recorder),
        Op::CopyPages(op) => copy_pages::copy_pages(op, recorder),
    }
}

#[cfg(test)]
pub(crate) mod tests;
