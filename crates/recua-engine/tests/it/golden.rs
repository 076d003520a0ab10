//! Accuracy: the golden models against exact logits, and every supported kind of model against [`reference`].

use crate::reference;
use crate::support::{Random, Tiny, config, cpu, golden, golden_path, load, nmse};
use recua_engine::{KvType, LlamaConfig, LlamaModel};
use recua_gguf::{GgmlType, Gguf};

fn exact(ty: &str) -> Vec<f32> {
    let bytes = std::fs::read(golden_path(&format!("tiny-{ty}.exact.f32"))).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The two sequences of `testdata/golden`.
pub(crate) fn sequences() -> [Vec<u32>; 2] {
    [(0..48).map(|i| (37 * i + 11) % 512).collect(), vec![1, 300, 301, 17, 400, 5]]
}

/// The bound: 1.15 times the normalized squared error of llama.cpp on the same file, or one that f16 activations easily meet.
#[test]
fn golden_logits_are_within_the_bar() {
    let mut failures = Vec::new();
    for (ty, bar) in [
        ("Q4_K_M", 1.15 * 4.1e-4),
        ("Q5_K_M", 1.15 * 4.2e-4),
        ("Q6_K", 1.15 * 4.4e-4),
        ("Q8_0", 1.15 * 1.9e-4),
        ("Q4_0", 3e-5),
        ("F16", 5e-6),
    ] {
        let mut model = load(&golden(ty), config(2, 64));
        let [a, b] = sequences();
        let logits = model.forward_batch(&[&a, &b]).unwrap();
        let found: Vec<f32> = logits.into_iter().flat_map(|t| t.into_data()).collect();
        let error = nmse(&exact(ty), &found);
        println!("tiny-{ty}: nmse {error:.2e}, the bound is {bar:.2e}");
        if error.is_nan() || error > bar {
            failures.push(format!("tiny-{ty}: {error:e} > {bar:e}"));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// The reference agrees with exact logits from another source, so it can serve for models without any.
#[test]
fn the_reference_is_exact() {
    for ty in ["F16", "Q4_K_M"] {
        let gguf = golden(ty);
        let found: Vec<f32> = sequences().iter().flat_map(|s| reference::logits(&gguf, s)).collect();
        let error = nmse(&exact(ty), &found);
        assert!(error < 1e-12, "{ty}: {error:e}");
    }
}

/// Compares 70 tokens (three pages), cut in the middle and run beside a companion, with the reference.
fn check(what: &str, gguf: &Gguf, kv_type: KvType, bar: f64) {
    let config = LlamaConfig { kv_type, ..config(2, 96) };
    let mut model = LlamaModel::load(gguf, cpu(), config).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut random = Random(3);
    let tokens = random.tokens(70, model.params().vocab);
    let companion = random.tokens(9, model.params().vocab);
    let first = model.forward_batch(&[&tokens[..40], &companion]).unwrap();
    let second = model.forward_with_position(&tokens[40..], 40).unwrap();
    let found = [first[0].data(), second.data()].concat();
    let error = nmse(&reference::logits(gguf, &tokens), &found);
    assert!(error < bar, "{what}: nmse {error:e}, the bound is {bar:e}");
}

#[test]
fn every_architecture_agrees_with_the_reference() {
    let llama = || Tiny::new("llama");
    let cases = [
        ("llama", llama()),
        ("one head of all", Tiny { n_heads: 1, n_kv_heads: 1, ..llama() }),
        ("no groups", Tiny { n_kv_heads: 4, ..llama() }),
        ("one KV head", Tiny { n_kv_heads: 1, ..llama() }),
        ("groups of three", Tiny { n_heads: 6, n_kv_heads: 2, head_dim: Some(16), ..llama() }),
        ("tied", Tiny { tied: true, ..llama() }),
        ("biased", Tiny { bias: true, ..llama() }),
        ("heads of 6", Tiny { n_heads: 5, n_kv_heads: 5, head_dim: Some(6), ..llama() }),
        (
            "heads of 10",
            Tiny { n_heads: 4, n_kv_heads: 2, head_dim: Some(10), n_embd: 44, n_ff: 70, ..llama() },
        ),
        ("heads of 80", Tiny { n_heads: 2, n_kv_heads: 1, head_dim: Some(80), ..llama() }),
        ("heads of 128", Tiny { n_heads: 2, n_kv_heads: 2, head_dim: Some(128), ..llama() }),
        ("half rotated", Tiny { n_rot: Some(8), ..llama() }),
        ("another base", Tiny { rope_base: 500_000.0, ..llama() }),
        ("linear scaling", Tiny { rope_factor: Some(4.0), ..llama() }),
        ("llama 3 scaling", Tiny { rope_freqs: true, rope_base: 500_000.0, ..llama() }),
        ("qwen2", Tiny::new("qwen2")),
        ("qwen2 tied", Tiny { tied: true, ..Tiny::new("qwen2") }),
        ("qwen2 without biases", Tiny { bias: false, ..Tiny::new("qwen2") }),
        ("qwen2 half rotated", Tiny { n_rot: Some(8), ..Tiny::new("qwen2") }),
        ("qwen3", Tiny { head_dim: Some(32), ..Tiny::new("qwen3") }),
        ("qwen3 tied, wide heads", Tiny { head_dim: Some(64), tied: true, ..Tiny::new("qwen3") }),
    ];
    for (what, tiny) in cases {
        let gguf = tiny.gguf();
        check(what, &gguf, KvType::F32, 1e-10);
        check(what, &gguf, KvType::F16, 1e-5);
    }
}

#[test]
fn a_tensors_own_type_decides_its_kernel() {
    for (ty, bar) in
        [(GgmlType::F16, 5e-6), (GgmlType::BF16, 5e-5), (GgmlType::Q8_0, 1e-3), (GgmlType::Q4_0, 1e-3)]
    {
        for tied in [false, true] {
            let tiny = Tiny { ty, tied, ..Tiny::new("llama") };
            check(&format!("{ty:?}, tied: {tied}"), &tiny.gguf(), KvType::F16, bar);
        }
    }
}
