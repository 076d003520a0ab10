//! `recua logits`: the file holds the library's own bits, and they are as exact as they should be.

use recua::{LlamaConfig, LlamaModel};

use crate::{Folder, golden, recua, refused, testdata};

/// The two sequences of the golden files.
fn sequences() -> [Vec<u32>; 2] {
    [(0..48).map(|i| (37 * i + 11) % 512).collect(), vec![1, 300, 301, 17, 400, 5]]
}

fn text(tokens: &[u32]) -> String {
    tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Runs the command on both sequences.
fn written(ty: &str, folder: &Folder) -> Vec<f32> {
    let [a, b] = sequences();
    let out = folder.path(&format!("{ty}.f32"));
    let (a, b) = (text(&a), text(&b));
    let args = ["logits", &golden(ty), "--device", "cpu", "--tokens", &a, "--tokens", &b, "--out", &out];
    let ran = recua(&args).ok();
    assert!(ran.stdout.is_empty());
    floats(&std::fs::read(out).unwrap())
}

#[test]
fn the_file_holds_the_bits_of_the_library() {
    let folder = Folder::new();
    let [a, b] = sequences();
    let config = LlamaConfig { batch_size: 2, ..LlamaConfig::default() };
    let mut model = LlamaModel::from_gguf_with_config(golden("Q4_K_M"), config).unwrap();
    let tensors = model.forward_batch(&[&a, &b]).unwrap();
    let expected: Vec<u32> = tensors.iter().flat_map(|t| t.data()).map(|v| v.to_bits()).collect();
    let found: Vec<u32> = written("Q4_K_M", &folder).iter().map(|v| v.to_bits()).collect();
    assert_eq!(found.len(), (48 + 6) * 512);
    assert!(found == expected, "the bits differ");
}

/// 1.15 times llama.cpp's normalized squared error for the same file; Q4_0 and F16 have bounds of their own.
#[test]
fn the_logits_are_as_exact_as_they_should_be() {
    let folder = Folder::new();
    let bounds = [
        ("Q4_K_M", 1.15 * 4.1e-4),
        ("Q5_K_M", 1.15 * 4.2e-4),
        ("Q6_K", 1.15 * 4.4e-4),
        ("Q8_0", 1.15 * 1.9e-4),
        ("Q4_0", 3e-5),
        ("F16", 5e-6),
    ];
    for (ty, bound) in bounds {
        let found = written(ty, &folder);
        let exact = floats(&std::fs::read(testdata(&format!("golden/tiny-{ty}.exact.f32"))).unwrap());
        assert_eq!(found.len(), exact.len());
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let error = squares(&mut found.iter().zip(&exact).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let nmse = error / squares(&mut exact.iter().map(|v| f64::from(*v)));
        assert!(nmse <= bound, "{ty}: {nmse:e} > {bound:e}");
    }
}

/// More rows than a pass holds come out in one piece.
#[test]
fn long_sequences_are_written_pass_by_pass() {
    let folder = Folder::new();
    let tokens: Vec<u32> = (0..700).map(|i| (i * 7 + 3) % 512).collect();
    let out = folder.path("long.f32");
    recua(&["logits", &golden("Q4_0"), "--tokens", &text(&tokens), "--tokens", "5,6", "-o", &out]).ok();
    let found = floats(&std::fs::read(&out).unwrap());
    assert_eq!(found.len(), 702 * 512);
    let alone = folder.path("alone.f32");
    recua(&["logits", &golden("Q4_0"), "--tokens", "5,6", "-o", &alone]).ok();
    assert!(found[700 * 512..] == floats(&std::fs::read(&alone).unwrap()));
}

#[cfg(unix)]
#[test]
fn the_file_may_be_a_device() {
    let ran = recua(&["logits", &golden("Q8_0"), "--tokens", "1,2,3", "--out", "/dev/stdout"]).ok();
    assert_eq!(ran.stdout.len(), 3 * 512 * 4);
}

#[test]
fn impossible_outputs_are_refused() {
    let folder = Folder::new();
    refused(&["logits", &golden("Q8_0"), "--tokens", "1", "--out", &folder.path("")], &["folder"]);
    refused(
        &["logits", &golden("Q8_0"), "--tokens", "1", "--out", &folder.path("no/x")],
        &["does not exist"],
    );
}
