//! The only list of the WGSL files: by name, without folder and ending, except that formats keep their folder.

use crate::args::{AttentionArgs, CopyPagesArgs, MatmulArgs, RopeStoreArgs};
use recua_compute::GgmlType;

/// The text of a file, or of a kernel's arguments: `args/NAME`.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    SOURCES.iter().chain(PRODUCTS).find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// The include of a type: the file's name, which is also the define that selects it, and its text.
pub(crate) fn format(ty: GgmlType) -> Option<(&'static str, &'static str)> {
    let is_its =
        |name: &str| name.strip_prefix("formats/").is_some_and(|name| name.eq_ignore_ascii_case(ty.name()));
    PRODUCTS.iter().copied().find(|(name, _)| is_its(name))
}

/// Lists ready texts, then files by folder and name.
macro_rules! files {
    ([$($text:expr),*] $($folder:literal [$($name:literal)*])*) => {
        &[$($text,)* $($(($name, include_str!(concat!("kernels/", $folder, $name, ".wgsl"))),)*)*]
    };
}

/// All files except those of the products. The `args/` texts are made from the structures that the host fills.
pub(crate) const SOURCES: &[(&str, &str)] = files! {
    [
        ("args/attention", AttentionArgs::WGSL),
        ("args/copy_pages", CopyPagesArgs::WGSL),
        ("args/rope_store", RopeStoreArgs::WGSL)
    ]
    "" ["bandwidth"]
    "attention/" ["attention" "attention_matrices" "attention_prefill" "attention_tensor"]
    "rows/" ["argmax" "copy" "copy_pages" "gather_rows" "rms_norm" "rope_store" "top_k"]
    "shared/" ["attention_common" "math" "row_map" "status" "work_list"]
};

/// The files of the products and of `embed`.
pub(crate) const PRODUCTS: &[(&str, &str)] = files! {
    [("args/matmul", MatmulArgs::WGSL)]
    "" ["embed"]
    "matmul/" [
        "matmul_activations" "matmul_ahead" "matmul_bindings" "matmul_coop_128" "matmul_coop_16" "matmul_coop_64"
        "matmul_glu" "matmul_sum" "matmul_tile" "matmul_vec" "matmul_write"
    ]
    "shared/" ["decode" "exponent" "half" "matrices"]
    "" [
        "formats/bf16" "formats/f16" "formats/f32" "formats/iq4_nl" "formats/iq4_xs" "formats/k_scales" "formats/mxfp4"
        "formats/q2_k" "formats/q3_k" "formats/q4_0" "formats/q4_1" "formats/q4_k" "formats/q5_0" "formats/q5_1"
        "formats/q5_k" "formats/q6_k" "formats/q8_0"
    ]
};
