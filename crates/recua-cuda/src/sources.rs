//! The CUDA C++ files, the one list of them. A kernel's file may `#include` any header by its name; nothing else is found.

/// The text of a kernel's file, by name without folder and ending.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    KERNELS.iter().find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// Names of files in folders, those of headers with their ending, and their texts.
macro_rules! files {
    (".cu" $($rest:tt)*) => { files! { @ ".cu" "" $($rest)* } };
    (".cuh" $($rest:tt)*) => { files! { @ ".cuh" ".cuh" $($rest)* } };
    (@ $ending:literal $named:literal $($folder:literal [$($name:literal)*])*) => {
        &[$($((concat!($name, $named), include_str!(concat!("kernels/", $folder, $name, $ending))),)*)*]
    };
}

/// The files with entry points.
pub(crate) const KERNELS: &[(&str, &str)] = files! { ".cu"
    "" [
        "attention" "attention_f32" "bandwidth" "copy" "embed" "f32" "layout" "matmul" "rope_store" "rows" "sample" "transfer"
    ]
};

/// What they include, by the names they include it by: with the ending.
pub(crate) const HEADERS: &[(&str, &str)] = files! { ".cuh"
    "" ["activations" "base" "cache" "status" "tile" "wgmma" "work_list"]
    "formats/" [
        "bf16" "f16" "iq4_nl" "iq4_xs" "k_scales" "mxfp4" "q2_k" "q3_k" "q4_0" "q4_1" "q4_k" "q5_0" "q5_1" "q5_k" "q6_k" "q8_0"
    ]
};
