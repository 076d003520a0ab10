//! The WGSL files: entry points by what they compute, what several of them import in `shared`.

use crate::ops::{AttentionArgs, CopyPagesArgs, RopeStoreArgs};

/// The text of a file by its name without the ending.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    SOURCES.iter().chain(crate::matmul::SOURCES).find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// The files, but those of the products; `args/` are made from the structures that the host fills.
pub(crate) const SOURCES: &[(&str, &str)] = &[
    ("args/attention", AttentionArgs::WGSL),
    ("args/copy_pages", CopyPagesArgs::WGSL),
    ("args/rope_store", RopeStoreArgs::WGSL),
    ("argmax", include_str!("kernels/rows/argmax.wgsl")),
    ("attention", include_str!("kernels/attention/attention.wgsl")),
    ("attention_common", include_str!("kernels/shared/attention_common.wgsl")),
    ("attention_prefill", include_str!("kernels/attention/attention_prefill.wgsl")),
    ("attention_tensor", include_str!("kernels/attention/attention_tensor.wgsl")),
    ("bandwidth", include_str!("kernels/bandwidth.wgsl")),
    ("copy", include_str!("kernels/rows/copy.wgsl")),
    ("copy_pages", include_str!("kernels/rows/copy_pages.wgsl")),
    ("gather_rows", include_str!("kernels/rows/gather_rows.wgsl")),
    ("math", include_str!("kernels/shared/math.wgsl")),
    ("rms_norm", include_str!("kernels/rows/rms_norm.wgsl")),
    ("rope_store", include_str!("kernels/rows/rope_store.wgsl")),
    ("row_map", include_str!("kernels/shared/row_map.wgsl")),
    ("status", include_str!("kernels/shared/status.wgsl")),
    ("top_k", include_str!("kernels/rows/top_k.wgsl")),
    ("work_list", include_str!("kernels/shared/work_list.wgsl")),
];
