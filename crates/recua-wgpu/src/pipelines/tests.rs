//! Every kernel of this crate, in every permutation, through the writers of the languages that the test machine cannot run.

use super::*;
use crate::matmul::tests::{EMULATED, opened};
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use recua_compute::cases;
use std::cell::RefCell;
use std::collections::HashSet;

thread_local! {
    static NOTED: RefCell<Option<HashSet<KernelKey>>> = const { RefCell::new(None) };
}

/// Whether this thread is inside [`kernels_of`]: the kernel is noted there, and must not be dispatched.
pub(crate) fn is_only_noted(kernel: &KernelKey) -> bool {
    NOTED.with_borrow_mut(|noted| noted.as_mut().map(|noted| noted.insert(sorted(kernel))).is_some())
}

/// The kernels that ops lead to which `f` records or runs on this thread. Nothing is compiled, and results are garbage.
pub(crate) fn kernels_of(f: impl FnOnce()) -> HashSet<KernelKey> {
    NOTED.set(Some(HashSet::new()));
    f();
    NOTED.take().unwrap()
}

/// The key with its defines in order, for comparisons.
fn sorted(kernel: &KernelKey) -> KernelKey {
    let mut kernel = kernel.clone();
    kernel.defines.sort_unstable();
    if ["matmul_vec", "matmul_tile"].contains(&kernel.file) {
        // It has no matrices to emulate, but is recorded among those that have.
        kernel.defines.retain(|define| *define != "EMULATED");
    }
    kernel.constants.sort_unstable();
    // Only the driver's compiler looks at this.
    kernel.unchecked = false;
    kernel
}

/// A language of the writers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Language {
    SpirV,
    Msl,
    Hlsl,
}

pub(crate) const ALL_LANGUAGES: &[Language] = &[Language::SpirV, Language::Msl, Language::Hlsl];

/// What kernels may use, cooperative matrices with `has_matrices`.
fn capabilities(has_matrices: bool) -> Capabilities {
    let mut capabilities =
        Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SHADER_FLOAT16;
    if has_matrices {
        capabilities |=
            Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER | Capabilities::COOPERATIVE_MATRIX;
    }
    capabilities
}

/// Parses, validates and writes a kernel, as it is and with inputs that share an output's allocation.
pub(crate) fn translate(key: &KernelKey, languages: &[Language], has_matrices: bool) {
    let source = key.source().unwrap_or_else(|e| panic!("{key:?}: {e}"));
    write(key, &source, languages, has_matrices);
    let widened = (0..32)
        .filter(|binding| source.contains(&format!("@binding({binding}) var<storage, read>")))
        .fold(0, |mask, binding| mask | 1u32 << binding);
    let mut source = source;
    widen(&mut source, Access { n_bindings: 32, writes: widened, widened }).unwrap();
    write(key, &source, languages, has_matrices);
}

fn write(key: &KernelKey, source: &str, languages: &[Language], has_matrices: bool) {
    let module = naga::front::wgsl::parse_str(source);
    let module = module.unwrap_or_else(|e| panic!("{key:?}: {}", e.emit_to_string(source)));
    let info = Validator::new(ValidationFlags::all(), capabilities(has_matrices)).validate(&module);
    let info = info.unwrap_or_else(|e| panic!("{key:?}: {}", e.emit_to_string(source)));
    let constants = key.constants.iter().map(|&(name, value)| (name.to_string(), f64::from(value))).collect();
    let entry = Some((naga::ShaderStage::Compute, key.entry));
    let (module, info) = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .unwrap_or_else(|e| panic!("{key:?}: {e}"));
    assert_eq!(module.entry_points.len(), 1, "{key:?}");
    for language in languages {
        match language {
            Language::SpirV => {
                let options = spv::Options { lang_version: (1, 3), ..Default::default() };
                spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{key:?}: {e}"));
            }
            Language::Msl => {
                let lang_version = if source.contains("@coherent") { (3, 2) } else { (2, 4) };
                let options = msl::Options { lang_version, ..Default::default() };
                let text = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
                let (text, _) = text.unwrap_or_else(|e| panic!("{key:?}: {e}"));
                assert!(text.contains("kernel void"), "{text}");
            }
            Language::Hlsl => {
                let immediates_target = Some(hlsl::BindTarget { space: 7, ..Default::default() });
                let shader_model = hlsl::ShaderModel::V6_2;
                let options = hlsl::Options { shader_model, immediates_target, ..Default::default() };
                let pipeline = hlsl::PipelineOptions::default();
                let mut text = String::new();
                hlsl::Writer::new(&mut text, &options, &pipeline)
                    .write(&module, &info, None)
                    .unwrap_or_else(|e| panic!("{key:?}: {e}"));
                assert!(text.contains("numthreads"), "{text}");
            }
        }
    }
}

/// Every subset of `defines`.
fn permutations(kernel: &KernelKey, defines: &[&'static str]) -> Vec<KernelKey> {
    (0..1usize << defines.len())
        .map(|set| {
            let chosen = defines.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
            chosen.fold(kernel.clone(), |key, (_, name)| key.define(name))
        })
        .collect()
}

/// Every kernel but those of the products, in every permutation.
fn other_kernels() -> Vec<KernelKey> {
    let new = KernelKey::new;
    let mut kernels = vec![new("bandwidth"), new("gather_rows")];
    kernels.extend(["argmax", "argmax_part", "argmax_merge"].map(|entry| new("argmax").entry(entry)));
    kernels.extend(permutations(&new("rms_norm"), &["IN_PLACE", "WIDE"]));
    kernels.extend(permutations(&new("rms_norm").define("WIDE").define("ACTIVATIONS"), &["IN_PLACE"]));
    kernels.extend(permutations(&new("copy"), &["ALIGNED"]));
    kernels.extend(permutations(&new("top_k"), &["MERGE"]));
    let tensor = new("rope_store").define("TENSOR").define("CACHE_F16").define("WIDE");
    for head_dim in [16, 32, 64, 80, 128] {
        let tensor = new("attention_tensor").constant("HEAD_DIM", head_dim).define("EMULATED");
        kernels.extend(permutations(&tensor, &["SPLIT", "TWO_TILES"]));
        let merge = tensor.define("SPLIT").entry("attention_tensor_merge");
        kernels.extend(permutations(&merge, &["TWO_TILES"]));
    }
    for head_max in [64, 128, 256, 512, 1024] {
        let tensor = tensor.clone().constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&tensor, &["HEAD_NORM", "HALVES"]));
        let rope_store = new("rope_store").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&rope_store, &["CACHE_F16", "HEAD_NORM", "HALVES", "WIDE"]));
        let attention = new("attention").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&attention, &["CACHE_F16", "SPLIT", "WINDOWS", "WIDE", "ROWS"]));
        for teams in ["TEAMS_2", "TEAMS_4"] {
            let with_teams = attention.clone().define(teams);
            kernels.extend(permutations(&with_teams, &["CACHE_F16", "WINDOWS", "WIDE", "ROWS"]));
        }
        let merge = attention.define("SPLIT").entry("attention_merge");
        kernels.extend(permutations(&merge, &["CACHE_F16", "WINDOWS", "WIDE", "ROWS"]));
        let rows = new("attention_rows").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&rows, &["CACHE_F16", "WINDOWS", "WIDE", "TWO_QUADS"]));
    }
    kernels
}

#[test]
fn every_kernel_can_be_written_in_every_language() {
    let kernels = other_kernels();
    let is_other = |file: &str| !crate::matmul::tests::is_product(file);
    let sources: Vec<_> = kernels::SOURCES.iter().copied().filter(|(file, _)| is_other(file)).collect();
    assert_sources_are_used(&kernels, &sources);
    for kernel in kernels {
        translate(&kernel, ALL_LANGUAGES, false);
        // 16x16 matrices exist in SPIR-V alone.
        if kernel.defines.contains(&"EMULATED") {
            let mut real = kernel.clone();
            real.defines.retain(|define| *define != "EMULATED");
            translate(&real, &[Language::SpirV], true);
        }
    }
}

/// Fails if none of the kernels is of a file that has any, or sets a define that a file looks at: then there are permutations that nobody
/// writes.
pub(crate) fn assert_sources_are_used(kernels: &[KernelKey], sources: &[(&str, &str)]) {
    let directives = |name: &str| -> HashSet<&str> {
        let lines = sources.iter().flat_map(|(_, text)| text.lines());
        lines
            .filter_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(' '))
            .map(str::trim)
            .collect()
    };
    let mut missing = directives("#ifdef");
    missing.retain(|name| !directives("#define").contains(name));
    kernels.iter().flat_map(|kernel| &kernel.defines).for_each(|name| {
        missing.remove(name);
    });
    assert!(missing.is_empty(), "no kernel that is written has {missing:?}");
    for (file, _) in sources.iter().filter(|(_, text)| text.contains("@compute")) {
        assert!(kernels.iter().any(|kernel| kernel.file == *file), "no kernel that is written is of {file}");
    }
}

/// Fails if [`other_kernels`] lacks one of these.
pub(crate) fn assert_listed(found: impl IntoIterator<Item = KernelKey>) {
    let listed: HashSet<KernelKey> = other_kernels().iter().map(sorted).collect();
    let missing: Vec<KernelKey> = found.into_iter().filter(|kernel| !listed.contains(kernel)).collect();
    assert!(missing.is_empty(), "not listed: {missing:#?}");
}

/// The shared cases of the ops lead to no kernel that is not listed here; those of the products are not.
#[test]
fn ops_lead_to_no_kernel_that_is_not_listed() {
    let Some(device) = opened() else { return };
    for is_emulated in [true, false] {
        EMULATED.set(is_emulated);
        crate::ops::tests::EMULATED.set(is_emulated);
        let mut found = kernels_of(|| {
            cases::check_all(device);
            cases::check_same_bits(device);
        });
        found.retain(|kernel| !crate::matmul::tests::is_product(kernel.file));
        assert!(found.len() > 20, "{}", found.len());
        assert_listed(found);
    }
}

#[test]
fn an_input_is_widened_only_where_it_is_declared() {
    let mut source = "@binding(1) var<storage, read> x: u32;".to_string();
    let access = |widened| Access { n_bindings: 3, writes: widened, widened };
    assert!(widen(&mut source, access(2)).is_ok());
    assert_eq!(source, "@binding(1) var<storage, read_write> x: u32;");
    assert!(widen(&mut source, access(4)).is_err());
}
