//! Attention by cooperative matrices, on an adapter that has none.

use crate::pipelines::KernelKey;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use recua_compute::{Device, cases};
use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    /// Whether attention goes through the kernel of cooperative matrices, whatever the adapter has.
    pub(super) static EMULATED: Cell<bool> = const { Cell::new(false) };
}

fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let open = || crate::open(crate::Options { allow_software: true, ..Default::default() }).ok();
    DEVICE.get_or_init(open).as_ref()
}

#[test]
fn attention_by_cooperative_matrices_has_its_indexes_right() {
    let Some(device) = device() else { return };
    EMULATED.set(true);
    let report = cases::check_attention(device);
    println!("{report}");
    report.assert();
}

/// SPIR-V is the one language that these kernels are meant for.
#[test]
fn the_kernels_of_cooperative_matrices_can_be_written_as_spir_v() {
    let capabilities = Capabilities::IMMEDIATES
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SUBGROUP
        | Capabilities::SUBGROUP_BARRIER
        | Capabilities::COOPERATIVE_MATRIX
        | Capabilities::MEMORY_DECORATION_COHERENT;
    let key = KernelKey::new("attention_tensor");
    let merge = key.clone().define("SPLIT").entry("attention_tensor_merge");
    let last_merges = key.clone().define("SPLIT").define("LAST_MERGES");
    for key in [key.clone(), key.clone().define("SPLIT"), key.define("TWO_TILES"), last_merges, merge] {
        let source = key.source().unwrap();
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|e| panic!("{key:?}: {}", e.emit_to_string(&source)));
        let mut validator = Validator::new(ValidationFlags::all(), capabilities);
        let info =
            validator.validate(&module).unwrap_or_else(|e| panic!("{key:?}: {}", e.emit_to_string(&source)));
        let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
        let constants = [("HEAD_DIM".to_string(), 128.0)].into_iter().collect();
        let (module, info) =
            naga::back::pipeline_constants::process_overrides(&module, &info, None, &constants).unwrap();
        naga::back::spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{key:?}: {e}"));
    }
}
