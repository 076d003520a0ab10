//! `recua-bench encoding`: every promised field, times that add up, and refusals.

use crate::{ran, refused};

const SMALL: [&str; 14] = [
    "encoding", "--device", "cpu", "--ops", "6", "--type", "Q4_K", "-n", "256", "-k", "256", "--trials", "7",
    "--json",
];

fn names<'a>(list: &'a serde_json::Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap()).collect()
}

#[test]
fn json_has_every_field() {
    let args = [&SMALL[..], &["--workers", "2,1,2", "--real-step", "tiny", "-m", "2"]].concat();
    let ran = ran(&args).ok();
    assert!(ran.stderr.contains("fewer than 30 trials"), "{}", ran.stderr);
    let json = ran.json();
    assert!(json["device"].as_str().unwrap().starts_with("cpu"));
    assert_eq!((json["works_in_submit"].as_bool(), json["trials"].as_u64()), (Some(true), Some(7)));
    assert!(json["warm_up"].as_u64() > Some(0));
    let experiments = &json["experiments"];
    assert_eq!(names(experiments, "name"), ["independent", "chained", "step tiny"]);
    let field =
        |name: &str| experiments.as_array().unwrap().iter().map(|e| e[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("n_ops"), [6, 6, 4 + 4 * 8]);
    // The ops of a chain must wait for each other, and so must nearly all of a step.
    assert_eq!(field("n_groups")[..2], [1, 6]);
    assert!(field("n_groups")[2].as_u64() > Some(25));
    for experiment in experiments.as_array().unwrap() {
        assert_eq!(experiment["outputs_equal"], true, "{experiment}");
        assert_eq!(experiment["differing"], serde_json::json!([]));
        assert!(experiment["encoding_threads"].is_null(), "the CPU encodes nothing");
        assert!(experiment["weight_bytes"].as_u64() > Some(100_000));
        assert!(experiment["description"].as_str().unwrap().contains("Q4_K"));
        let has_plan = experiment["name"] == "step tiny";
        let mut variants = vec!["serial", "serial in 2", "parallel 2", "serial in 3", "parallel 3"];
        variants.extend(has_plan.then_some("kept plan"));
        assert_eq!(names(&experiment["variants"], "name"), variants);
        for variant in experiment["variants"].as_array().unwrap() {
            let median = |name: &str| variant[name]["median"].as_f64();
            let is_plan = variant["name"] == "kept plan";
            assert!(variant["gpu_us"].is_null(), "the CPU has no GPU time, and null is not 0: {variant}");
            assert_eq!(variant["encoders"].is_null(), is_plan);
            assert!(variant["workers"].as_u64() <= Some(2));
            assert_eq!(variant["encode_us"].is_null(), is_plan);
            assert!(is_plan || median("encode_us") > Some(0.0));
            for name in ["submit_us", "wait_us", "total_us"] {
                // The CPU device has nothing left to wait for.
                assert!(median(name) >= Some(0.0), "{name} of {variant}");
                let [low, high] = [0, 1].map(|i| variant[name]["interval"][i].as_f64());
                assert!(low <= median(name) && median(name) <= high, "{name} of {variant}");
            }
            assert!(median("total_us") >= median("submit_us"), "{variant}");
        }
        let pairs = experiment["pairs"].as_array().unwrap();
        assert_eq!(pairs.len(), if has_plan { 2 + 4 + 2 + 1 } else { 2 + 4 });
        for pair in pairs {
            assert!(pair["speedup"]["median"].as_f64() > Some(0.0), "{pair}");
            assert!(pair["speedup"]["interval"].is_array());
            let with_plan = pair["variant"] == "kept plan" || pair["against"] == "kept plan";
            assert_eq!(pair["encode_speedup"].is_null(), with_plan);
            assert_eq!(pair["verdict"], "not-decided", "7 trials decide nothing");
        }
        assert!(pairs.iter().any(|p| p["variant"] == "parallel 2" && p["against"] == "serial"));
        assert!(pairs.iter().any(|p| p["variant"] == "parallel 3" && p["against"] == "serial in 3"));
    }
}

#[test]
fn tables() {
    let args = [&SMALL[..SMALL.len() - 1], &["--workers", "1"]].concat();
    let ran = ran(&args).ok();
    let rows = ran.stdout.lines().filter(|line| line.starts_with("| "));
    // Two lists of ops: a head, a rule and three variants; a head, a rule and three pairs.
    assert_eq!(rows.count(), 2 * (5 + 5), "{}", ran.stdout);
    for words in
        ["works inside submit", "| parallel 2", "not decided", "equal, bit for bit", "6 ops in 1 group(s)"]
    {
        assert!(ran.stdout.contains(words), "{words:?} is not in {}", ran.stdout);
    }
}

#[test]
fn products_that_need_no_square_weight() {
    let args = [&SMALL[..], &["--workers", "1", "-n", "512", "--dependency", "independent"]].concat();
    let cleaned: Vec<&str> =
        args.iter().enumerate().filter(|(i, _)| !(7..9).contains(i)).map(|(_, a)| *a).collect();
    let json = ran(&cleaned).ok().json();
    assert_eq!(names(&json["experiments"], "name"), ["independent"]);
    let without_products =
        ["encoding", "--device", "cpu", "--ops", "0", "--real-step", "tiny", "--trials", "1"];
    let ran = ran(&[&without_products[..], &["--json"]].concat()).ok();
    assert_eq!(names(&ran.json()["experiments"], "name"), ["step tiny"]);
    assert!(
        ran.json()["experiments"][0]["variants"][0]["total_us"]["interval"].is_null(),
        "one trial has none"
    );
}

#[test]
fn mistakes() {
    let refused = |args: &[&str], words: &[&str]| refused(&[&["encoding"], args].concat(), words);
    refused(&["-n", "256", "-k", "512"], &["chained", "256 is not 512", "--dependency independent"]);
    refused(&["-n", "100", "-k", "100"], &["k = 100", "256", "Q6_K"]);
    refused(&["--type", "IQ1_S"], &["IQ1_S"]);
    refused(&["--ops", "0"], &["nothing"]);
    refused(&["--ops", "2", "--workers", "2"], &["2 ops", "2 workers"]);
    refused(&["--ops", "0", "--real-step", "tiny", "--workers", "33"], &["33", "32"]);
    refused(&["-m", "9999999999999999999"], &["too large"]);
    refused(&["-n", "9999999999999999999", "--dependency", "independent"], &["too large"]);
    for args in
        [["--type", "Q7_X"], ["--real-step", "9b"], ["--workers", "0"], ["--trials", "0"], ["--device", "no"]]
    {
        let ran = ran(&[&["encoding"][..], &args].concat());
        assert_eq!((ran.code, ran.stdout.len()), (2, 0), "{args:?}: {}", ran.stderr);
    }
}
