//! `recua bench` and `recua doctor`: every promised field, and figures that can be true.

use crate::{golden, recua};

#[test]
fn json_has_every_field() {
    let model = golden("Q8_0");
    let args =
        ["bench", &model, "--batch", "1,2,3", "--prompt-len", "1,40", "--gen", "3", "--format", "json"];
    let args = [&args[..], &["--device", "cpu"]].concat();
    let json = recua(&args).ok().json();
    assert!(json["device"].as_str().unwrap().starts_with("cpu"));
    assert_eq!(json["model"], model);
    assert!(json["peak_bytes_per_s"].as_f64() > Some(1e6));
    assert!(json["load_s"].as_f64() > Some(0.0));
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_eq!(row["gen"], 3);
        for field in [
            "batch",
            "prompt_len",
            "prefill_tps",
            "decode_tps",
            "step_ms",
            "mean_step_ms",
            "peak_fraction",
            "memory_bytes",
        ] {
            assert!(row[field].as_f64() > Some(0.0), "{field} of {row}");
        }
        assert!(row["gpu_utilisation"].is_null() && row["host_us"].is_null());
        let tps = row["batch"].as_f64().unwrap() / row["step_ms"].as_f64().unwrap() * 1e3;
        assert!((tps / row["decode_tps"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{row}");
    }
    // The first sequence's logits are the same in every batch, and differ between prompts.
    let hash = |i: usize| rows[i]["logits_hash"].as_str().unwrap();
    assert_eq!(hash(0).len(), 16);
    assert!(hash(0) == hash(2) && hash(2) == hash(4) && hash(1) == hash(3) && hash(3) == hash(5));
    assert_ne!(hash(0), hash(1));
}

#[test]
fn a_failed_cell_keeps_the_rows_before_it() {
    let model = golden("Q8_0");
    // The second batch size is refused, whatever memory there is.
    let args = ["bench", &model, "--batch", "1,1000000000000", "--prompt-len", "1", "--gen", "2"];
    let ran = recua(&[&args[..], &["--device", "cpu", "--format", "json"]].concat());
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.lines().last().is_some_and(|line| line.starts_with("error: ")), "{}", ran.stderr);
    let json = ran.json();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!((rows.len(), rows[0]["batch"].as_u64()), (1, Some(1)));
    // Without any row there is no table either.
    let none = recua(&["bench", &model, "--batch", "1000000000000", "--prompt-len", "1", "--device", "cpu"]);
    assert!(none.code != 0 && none.stdout.is_empty(), "{}", none.text());
}

#[test]
fn targets_are_judged() {
    let model = golden("Q8_0");
    let args = ["bench", &model, "--batch", "1,2,4", "--prompt-len", "1", "--gen", "3", "--device", "cpu"];
    let ran = recua(&[&args[..], &["--targets", "--format", "json"]].concat());
    let json = ran.json();
    let targets = json["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 3);
    let verdict = |i: usize| targets[i]["verdict"].as_str().unwrap();
    assert!(["pass", "fail", "not measured"].contains(&verdict(0)));
    // Allocation does not depend on how busy the machine is.
    assert_eq!(verdict(1), "pass", "{}", targets[1]);
    assert_eq!(verdict(2), "not measured");
    assert_eq!(ran.code, i32::from(verdict(0) == "fail"));
}

#[test]
fn tables_of_several_models() {
    let (a, b) = (golden("Q8_0"), golden("Q4_K_M"));
    let ran =
        recua(&["bench", &a, &b, "--batch", "1", "--prompt-len", "1", "--gen", "2", "--format", "md"]).ok();
    let lines: Vec<&str> = ran.text().lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(lines.len(), 4, "{}", ran.text());
    assert!(lines[2].contains("tiny-Q8_0.gguf") && lines[3].contains("tiny-Q4_K_M.gguf"));
}

#[test]
fn ops_add_up_to_a_step() {
    let json =
        recua(&["bench", "ops", &golden("Q4_K_M"), "--rows", "1,3", "--depth", "5", "--format", "json"])
            .ok()
            .json();
    let ops = json["ops"].as_array().unwrap();
    for n_rows in [1, 3] {
        let of_step: Vec<_> = ops.iter().filter(|op| op["rows"] == n_rows).collect();
        let total: f64 = of_step.iter().map(|op| op["step_fraction"].as_f64().unwrap()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
        let names = ["embed Q4_K", "rms_norm", "matmul Q6_K", "matmul_glu", "rope_store", "attention"];
        for name in names.into_iter().chain(["argmax", "top_k"]) {
            assert!(of_step.iter().any(|op| op["op"].as_str().unwrap().starts_with(name)), "{name}");
        }
        assert!(of_step.iter().all(|op| op["us"].as_f64() > Some(0.0) && op["bytes"].as_u64() > Some(0)));
    }
}

#[test]
fn doctor_describes_the_machine() {
    let json = recua(&["doctor", "--json", "--device", "cpu"]).ok().json();
    assert!(json["devices"][0]["read_bytes_per_s"].as_f64() > Some(1e6));
    let sets = json["instruction_sets"].as_array().unwrap();
    assert!(sets.iter().any(|set| set["name"] == "scalar" && set["available"] == true));
    let text = recua(&["doctor", "-t", "1", "--device", "cpu"]).ok();
    assert!(text.text().contains("1 threads") && text.text().contains("GB/s"), "{}", text.text());
}
