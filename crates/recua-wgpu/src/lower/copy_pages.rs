//! `copy_pages`: one dispatch for each pair of allocations, usually one.

use crate::args::CopyPagesArgs;
use crate::kv::Kv;
use crate::launch::Recorder;
use crate::memory::{Binding, u32_of};
use crate::pipelines::KernelKey;
use bytemuck::bytes_of;
use recua_compute::{CopyPages, Error, Result};

/// Vectors that a workgroup copies before it takes more.
const VECTORS: u64 = 1024;

/// See [`CopyPages`].
pub(crate) fn copy_pages(op: &CopyPages, recorder: &mut Recorder<'_>) -> Result<()> {
    const NAME: &str = "copy_pages";
    let gpu = recorder.gpu;
    let (from, to) = (Kv::of(NAME, &op.from)?, Kv::of(NAME, &op.to)?);
    if from.layout != to.layout {
        let problem = format!(
            "pages of {} have another layout than those of {}, which do not fit into one allocation on {}; load the model with the larger \
             cache from the start",
            op.from.shape(),
            op.to.shape(),
            gpu.info.name
        );
        return Err(Error::Argument { op: NAME, problem });
    }
    let (list, list_start) = Binding::read(gpu, &op.list)?;
    let n_pairs = u32_of(NAME, "a number of pairs", op.list.n_rows())?;
    let vectors = from.page_bytes / 16;
    let groups_max = gpu.limits.max_compute_workgroups_per_dimension;
    let groups = [vectors.div_ceil(VECTORS).min(u64::from(groups_max)) as u32, n_pairs.min(groups_max), 1];
    for src in from.allocations(false) {
        for dst in to.allocations(true) {
            let args = CopyPagesArgs {
                list_start,
                n_pairs,
                n_from: op.from.shape().n_pages as u32,
                n_to: op.to.shape().n_pages as u32,
                from_first: src.first_page,
                from_pages: src.n_pages,
                to_first: dst.first_page,
                to_pages: dst.n_pages,
                page_vectors: vectors as u32,
            };
            let bindings = [recorder.status(), list, src.k, src.v, dst.k, dst.v];
            recorder.dispatch(&KernelKey::new(NAME).unchecked(), &bindings, bytes_of(&args), groups)?;
        }
    }
    Ok(())
}
