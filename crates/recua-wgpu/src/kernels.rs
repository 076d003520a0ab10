//! The WGSL files.

/// The text of a file by its name without the ending.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    SOURCES.iter().chain(crate::matmul::SOURCES).find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// The files, but those of the products.
const SOURCES: &[(&str, &str)] = &[
    ("argmax", include_str!("kernels/argmax.wgsl")),
    ("attention", include_str!("kernels/attention.wgsl")),
    ("attention_common", include_str!("kernels/attention_common.wgsl")),
    ("attention_rows", include_str!("kernels/attention_rows.wgsl")),
    ("attention_tensor", include_str!("kernels/attention_tensor.wgsl")),
    ("bandwidth", include_str!("kernels/bandwidth.wgsl")),
    ("copy", include_str!("kernels/copy.wgsl")),
    ("gather_rows", include_str!("kernels/gather_rows.wgsl")),
    ("math", include_str!("kernels/math.wgsl")),
    ("rms_norm", include_str!("kernels/rms_norm.wgsl")),
    ("rope_store", include_str!("kernels/rope_store.wgsl")),
    ("row_map", include_str!("kernels/row_map.wgsl")),
    ("status", include_str!("kernels/status.wgsl")),
];
