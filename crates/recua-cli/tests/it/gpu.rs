//! The commands on GPUs: an adapter of wgpu, for which Mesa's software adapter is enough, and a CUDA card. The software adapter computes
//! only a few hundred rows a second, so the tests are short.

use std::sync::LazyLock;

use recua_compute::cases;

use crate::{Folder, golden, recua, recua_with_env, refused};

/// The devices there are. Without one the tests say so and go on without it, unless RECUA_REQUIRE_DEVICES lists it.
static DEVICES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let is_there = |name: &&str| cases::opened_or_skipped(name, recua::open_device(name)).is_some();
    ["wgpu", "cuda"].into_iter().filter(is_there).collect()
});

/// Runs a command on a device.
fn on(device: &str, args: &[&str]) -> crate::Ran {
    recua(&[args, &["--device", device]].concat()).ok()
}

#[test]
fn a_batch_has_the_answers_of_the_cpu() {
    let args =
        ["run", "demo", "What is 17 plus 25?", "Spell the word garden.", "-n", "8", "--format", "json"];
    for device in &*DEVICES {
        let (found, expected) = (on(device, &args), on("cpu", &args));
        assert_eq!(found.text().lines().count(), 2);
        assert_eq!(found.text(), expected.text(), "{device}");
    }
}

#[test]
fn a_seed_gives_the_same_text_in_a_batch_and_alone() {
    let prompts = ["What is 17 plus 25?", "Tell me a story about a fox."];
    let options = ["--temp", "1.5", "--seed", "3", "-n", "6", "--format", "json"];
    for device in &*DEVICES {
        let texts = |prompts: &[&str]| -> Vec<String> {
            let ran = on(device, &[&["run", "demo"], prompts, &options[..]].concat());
            let answers =
                ran.text().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            answers.map(|answer| answer["text"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(texts(&prompts)[1..], texts(&prompts[1..]), "{device}");
    }
}

#[test]
fn bench_says_which_device_ran_and_the_batch_changes_no_logits() {
    let model = golden("Q4_K_M");
    let args = ["bench", &model, "--batch", "1,3", "--prompt-len", "5", "--gen", "2", "--format", "json"];
    for name in &*DEVICES {
        let json = on(name, &args).json();
        let device = json["device"].as_str().unwrap();
        assert!(device.starts_with(name), "{device}");
        assert!(json["peak_bytes_per_s"].as_f64() > Some(1e6));
        let rows = json["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        // An adapter says whether it tells the time; a card always does.
        let tells_time = *name == "cuda" || device.contains("timestamps");
        for row in rows {
            assert!(row["step_ms"].as_f64() > Some(0.0) && row["memory_bytes"].as_f64() > Some(0.0), "{row}");
            let utilisation = row["gpu_utilisation"].as_f64();
            assert_eq!(utilisation.is_some(), tells_time, "{row}");
            assert!(utilisation.is_none_or(|part| part > 0.0 && part < 1.5), "{row}");
        }
        assert_eq!(rows[0]["logits_hash"], rows[1]["logits_hash"], "{device}");
    }
}

#[test]
fn the_logits_are_nearly_those_of_the_cpu() {
    let folder = Folder::new();
    let written = |device: &str| -> Vec<f32> {
        let out = folder.path(device);
        let model = golden("F16");
        on(device, &["logits", &model, "--tokens", "1,300,301,17", "--tokens", "7", "--out", &out]);
        let bytes = std::fs::read(out).unwrap();
        bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let expected = written("cpu");
    assert_eq!(expected.len(), 5 * 512);
    for device in &*DEVICES {
        let found = written(device);
        assert_eq!(found.len(), expected.len());
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let error = squares(&mut found.iter().zip(&expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let nmse = error / squares(&mut expected.iter().map(|v| f64::from(*v)));
        // Twice the accuracy bar of F16 weights: either device may be that far from the exact result.
        assert!(nmse <= 2.0 * 5e-6, "{device}: {nmse:e}");
    }
}

#[test]
fn verify_batch_finds_the_same_bits() {
    for device in &*DEVICES {
        let ran = on(device, &["verify-batch", &golden("Q8_0"), "--len", "4"]);
        assert!(ran.text().contains("batches of 16") && ran.text().contains("Verified:"), "{}", ran.text());
        let names_it =
            |line: &str| line.contains(&format!("{device}: ")) || line.contains(&format!("{device}:0: "));
        assert!(ran.stderr.lines().any(names_it), "{}", ran.stderr);
    }
}

#[test]
fn doctor_lists_the_cards() {
    if !DEVICES.contains(&"cuda") {
        return;
    }
    let json = on("cuda", &["doctor", "--json"]).json();
    let card = &json["cuda"]["cards"][0];
    assert_eq!((&card["index"], &card["problem"]), (&0.into(), &serde_json::Value::Null), "{json}");
    assert_eq!(card["name"], json["devices"][0]["name"], "{json}");
    assert!(json["devices"][0]["read_bytes_per_s"].as_f64() > Some(1e9), "{json}");
}

#[test]
fn a_card_that_is_not_there_is_the_users_mistake() {
    if DEVICES.contains(&"cuda") {
        refused(&["run", "demo", "Hi", "--device", "cuda:99"], &["cuda:99"]);
    }
}

#[test]
fn doctor_explains_the_choice_of_an_adapter() {
    if !DEVICES.contains(&"wgpu") {
        return;
    }
    let adapters = |args: &[&str], env: &[(&str, &str)]| {
        let json = recua_with_env(&[&["doctor", "--json"], args].concat(), env).ok().json();
        let list = json["adapters"].as_array().unwrap().clone();
        assert!(list.iter().all(|adapter| !adapter["reason"].as_str().unwrap().is_empty()), "{list:?}");
        list
    };
    let chosen = |list: &[serde_json::Value]| -> Vec<String> {
        let chosen = list.iter().filter(|adapter| adapter["chosen"] == true);
        chosen.map(|adapter| adapter["name"].as_str().unwrap().to_owned()).collect()
    };
    let list = adapters(&["--device", "wgpu"], &[]);
    let [best] = &chosen(&list)[..] else { panic!("{list:?}") };
    // The last adapter is not the default choice unless it is the only one, so naming it changes the choice.
    let last = list.last().unwrap()["name"].as_str().unwrap();
    let named = adapters(&["--device", &format!("wgpu:{}", last.to_uppercase())], &[]);
    let mark = named.iter().find(|adapter| adapter["chosen"] == true).unwrap();
    assert_eq!(mark["name"], last);
    assert!(mark["reason"].as_str().unwrap().contains("its name contains"), "{mark}");

    // The variable applies to commands that name no adapter; a name on the command line takes precedence.
    let variable = [("RECUA_WGPU_ADAPTER", "no such adapter")];
    let none = adapters(&["--device", "cpu"], &variable);
    assert!(chosen(&none).is_empty());
    let reason = none[0]["reason"].as_str().unwrap();
    assert!(reason.contains("RECUA_WGPU_ADAPTER") && reason.contains("no such adapter"), "{reason}");
    assert_eq!(chosen(&adapters(&["--device", &format!("wgpu:{best}")], &variable)), chosen(&list));
}

/// Nothing is written that only a desktop's session would silence.
#[cfg(target_os = "linux")]
#[test]
fn a_machine_without_a_session_is_quiet() {
    let output = std::process::Command::new(crate::program())
        .args(["doctor", "--device", "cpu"])
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}

#[test]
fn auto_does_not_go_past_the_adapter_that_is_named() {
    if !DEVICES.contains(&"wgpu") {
        return;
    }
    let variable = [("RECUA_WGPU_ADAPTER", "no such adapter")];
    let ran = recua_with_env(&["run", "demo", "Spell forest.", "--device", "auto"], &variable);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("RECUA_WGPU_ADAPTER") && ran.stderr.contains("no such adapter"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_adapter_that_is_not_there_is_the_users_mistake() {
    if !DEVICES.contains(&"wgpu") {
        return;
    }
    for command in [&["run", "demo", "Hi"][..], &["doctor"]] {
        let message =
            refused(&[command, &["--device", "wgpu:no such adapter"]].concat(), &["no such adapter"]);
        assert!(!message.contains("lost"), "{message}");
        let list = recua::adapters("wgpu");
        assert!(list.iter().all(|adapter| message.contains(&adapter.name)), "{message}");
    }
    let ran = recua_with_env(&["doctor", "--device", "wgpu"], &[("RECUA_WGPU_ADAPTER", "nor this")]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("RECUA_WGPU_ADAPTER") && ran.stderr.contains("nor this"), "{}", ran.stderr);
}
