//! The laboratory on a GPU adapter; Mesa's software adapter is enough.

use std::sync::OnceLock;

use recua_compute::cases;

use crate::{Ran, ran};

/// Whether there is an adapter. Without one, a test says so and passes, unless RECUA_REQUIRE_DEVICES lists `wgpu`.
fn has_adapter() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| cases::opened_or_skipped("wgpu", recua::open_device("wgpu")).is_some())
}

/// Runs an experiment on the GPU.
fn on_gpu(args: &[&str]) -> Ran {
    ran(&[args, &["--device", "wgpu"]].concat()).ok()
}

#[test]
fn encoding_runs_a_step_as_a_new_plan_and_says_on_how_many_threads() {
    if !has_adapter() {
        return;
    }
    let args = ["encoding", "--ops", "0", "--real-step", "tiny", "--workers", "1", "--trials", "2"];
    let json = on_gpu(&[&args[..], &["--json"]].concat()).json();
    let step = &json["experiments"][0];
    assert_eq!(step["outputs_equal"], true, "{step}");
    assert!(step["encoding_threads"].as_u64() > Some(0));
    let names = |list: &str, field: &str| -> Vec<String> {
        let list = step[list].as_array().unwrap().iter();
        list.map(|entry| entry[field].as_str().unwrap().to_owned()).collect()
    };
    let variants = ["serial", "serial in 2", "parallel 2", "kept plan", "new plan"];
    assert_eq!(names("variants", "name"), variants);
    assert!(names("pairs", "against").iter().any(|against| against == "new plan"));
    assert!(on_gpu(&args).stdout.contains("a step of a new shape on "));
}

#[test]
fn encoding_compares_outputs() {
    if !has_adapter() {
        return;
    }
    let args = ["encoding", "--ops", "4", "--type", "Q6_K", "-n", "256", "-k", "256", "--workers", "1"];
    let json = on_gpu(&[&args[..], &["--trials", "3", "--json"]].concat()).json();
    assert_eq!(json["works_in_submit"], false);
    let experiments = json["experiments"].as_array().unwrap();
    assert_eq!(experiments.len(), 2);
    for experiment in experiments {
        assert_eq!(experiment["outputs_equal"], true, "{experiment}");
        for variant in experiment["variants"].as_array().unwrap() {
            assert!(variant["encode_us"]["median"].as_f64() > Some(0.0), "{variant}");
        }
    }
}
