//! The WGSL files, the one list of them.

use recua_compute::GgmlType;

/// The text of a file by its name without the ending.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    SOURCES.iter().chain(PRODUCTS).find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// The files, but those of the products.
pub(crate) const SOURCES: &[(&str, &str)] = &[
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
    ("top_k", include_str!("kernels/top_k.wgsl")),
];

macro_rules! sources {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("kernels/", $name, ".wgsl")))),*] };
}

/// The files of the products and of `embed`.
pub(crate) const PRODUCTS: &[(&str, &str)] = sources! {
    "embed" "matmul" "matmul_activations" "matmul_bindings" "matmul_decode" "matmul_half" "matmul_k_scales" "matmul_matrices" "matmul_sum" "matmul_tensor" "matmul_tensor_many"
    "matmul_tensor_some" "matmul_tile"
    "formats/bf16" "formats/f16" "formats/f32" "formats/iq4_nl" "formats/iq4_xs" "formats/mxfp4"
    "formats/q2_k" "formats/q3_k" "formats/q4_0" "formats/q4_1" "formats/q4_k" "formats/q5_0" "formats/q5_1" "formats/q5_k"
    "formats/q6_k" "formats/q8_0"
};

/// The include of a type: the file's name, which is also its define, and its text.
pub(crate) fn format(ty: GgmlType) -> Option<(&'static str, &'static str)> {
    let is_its =
        |name: &str| name.strip_prefix("formats/").is_some_and(|name| name.eq_ignore_ascii_case(ty.name()));
    PRODUCTS.iter().copied().find(|(name, _)| is_its(name))
}
