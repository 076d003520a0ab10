//! Every kernel of this crate, in every permutation, through the writers of the languages that the test machine cannot run.

use super::*;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Parses, validates and writes a kernel as SPIR-V, MSL and HLSL, as it is and with inputs that share an output's allocation.
pub(crate) fn translate(key: &KernelKey, capabilities: Capabilities) {
    let source = key.source().unwrap_or_else(|e| panic!("{key:?}: {e}"));
    write(key, &source, capabilities);
    let widened = (0..32)
        .filter(|binding| source.contains(&format!("@binding({binding}) var<storage, read>")))
        .fold(0, |mask, binding| mask | 1u32 << binding);
    let mut source = source;
    widen(&mut source, Access { n_bindings: 32, writes: widened, widened }).unwrap();
    write(key, &source, capabilities);
}

fn write(key: &KernelKey, source: &str, capabilities: Capabilities) {
    let module = naga::front::wgsl::parse_str(source);
    let module = module.unwrap_or_else(|e| panic!("{key:?}: {}", e.emit_to_string(source)));
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.unwrap_or_else(|e| panic!("{key:?}: {}", e.emit_to_string(source)));
    let constants = key.constants.iter().map(|&(name, value)| (name.to_string(), f64::from(value))).collect();
    let entry = Some((naga::ShaderStage::Compute, key.entry));
    let (module, info) = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .unwrap_or_else(|e| panic!("{key:?}: {e}"));
    assert_eq!(module.entry_points.len(), 1, "{key:?}");

    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{key:?}: {e}"));

    let options = msl::Options {
        lang_version: if source.contains("@coherent") { (3, 2) } else { (2, 4) },
        ..Default::default()
    };
    let text = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
    let (text, _) = text.unwrap_or_else(|e| panic!("{key:?}: {e}"));
    assert!(text.contains("kernel void"), "{text}");

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

/// Every subset of `defines`.
fn permutations(kernel: &KernelKey, defines: &[&'static str]) -> Vec<KernelKey> {
    (0..1usize << defines.len())
        .map(|set| {
            let chosen = defines.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
            chosen.fold(kernel.clone(), |key, (_, name)| key.define(name))
        })
        .collect()
}

#[test]
fn every_kernel_can_be_written_in_every_language() {
    let new = KernelKey::new;
    let mut kernels = vec![new("bandwidth"), new("gather_rows")];
    kernels.extend(["argmax", "argmax_part", "argmax_merge"].map(|entry| new("argmax").entry(entry)));
    kernels.extend(permutations(&new("rms_norm"), &["IN_PLACE", "WIDE"]));
    let with_activations = new("rms_norm").define("WIDE").define("ACTIVATIONS");
    for kernel in permutations(&with_activations, &["IN_PLACE"]) {
        translate(&kernel, Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16);
    }
    kernels.extend(permutations(&new("copy"), &["ALIGNED"]));
    kernels.extend(permutations(&new("rope_store"), &["CACHE_F16", "HEAD_NORM", "HALVES", "WIDE"]));
    let tensor = new("rope_store").define("TENSOR").define("CACHE_F16").define("WIDE");
    kernels.extend(permutations(&tensor, &["HEAD_NORM", "HALVES"]));
    for head_max in [64, 128, 256] {
        let attention = new("attention").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&attention, &["CACHE_F16", "SPLIT", "WINDOWS", "WIDE", "ROWS"]));
        for teams in ["TEAMS_2", "TEAMS_4"] {
            let with_teams = attention.clone().define(teams);
            kernels.extend(permutations(&with_teams, &["CACHE_F16", "WINDOWS", "WIDE", "ROWS"]));
        }
        let last_merges = attention.clone().define("SPLIT").define("LAST_MERGES");
        for kernel in permutations(&last_merges, &["CACHE_F16", "WIDE", "ROWS"]) {
            let coherent = Capabilities::MEMORY_DECORATION_COHERENT;
            translate(&kernel, Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32 | coherent);
        }
        let merge = attention.define("SPLIT").entry("attention_merge");
        kernels.extend(permutations(&merge, &["CACHE_F16", "WINDOWS", "WIDE"]));
        let rows = new("attention_rows").constant("HEAD_MAX", head_max);
        kernels.extend(permutations(&rows, &["CACHE_F16", "WINDOWS", "WIDE", "TWO_QUADS"]));
    }
    for kernel in kernels {
        let float_16 = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SHADER_FLOAT16;
        translate(&kernel, Capabilities::IMMEDIATES | float_16);
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
