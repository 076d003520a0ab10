//! `recua logits`: the file holds the library's own bits, and they are as exact as they should be.

use recua::gguf::{GgmlType, Gguf, Header, Writer, decode};
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
    let (found, stderr) = written_by(&golden(ty), &["--device", "cpu"], folder);
    assert!(!stderr.contains("warning"), "{stderr}");
    found
}

/// The same of any model with any options, and what the program said.
fn written_by(model: &str, options: &[&str], folder: &Folder) -> (Vec<f32>, String) {
    let [a, b] = sequences().map(|tokens| text(&tokens));
    let out = folder.path("logits.f32");
    let args = [&["logits", model, "--tokens", &a, "--tokens", &b, "--out", &out], options].concat();
    let ran = recua(&args).ok();
    assert!(ran.stdout.is_empty());
    (floats(&std::fs::read(out).unwrap()), ran.stderr)
}

/// The normalized squared error against the exact logits of the golden model of this type.
fn error_of(found: &[f32], ty: &str) -> f64 {
    let exact = floats(&std::fs::read(testdata(&format!("golden/tiny-{ty}.exact.f32"))).unwrap());
    assert_eq!(found.len(), exact.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = squares(&mut found.iter().zip(&exact).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    error / squares(&mut exact.iter().map(|v| f64::from(*v)))
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
        let nmse = error_of(&found, ty);
        assert!(nmse <= bound, "{ty}: {nmse:e} > {bound:e}");
    }
}

/// The golden model of F16 with values of 2²⁰ times the size, and the product behind them a 2²⁰th: its exact logits are the same.
fn with_large_values() -> Vec<u8> {
    let model = Gguf::open(golden("F16")).unwrap();
    let factor = |name: &str| match name {
        name if name.ends_with("attn_v.weight") => Some(2f32.powi(20)),
        name if name.ends_with("attn_output.weight") => Some(2f32.powi(-20)),
        _ => None,
    };
    let mut header = Header::new();
    header.copy_metadata(model.metadata(), |_| true).unwrap();
    for tensor in model.tensors() {
        let ty = if factor(&tensor.name).is_some() { GgmlType::F32 } else { tensor.ty };
        header.tensor(&tensor.name, ty, tensor.dims()).unwrap();
    }
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    for tensor in model.tensors() {
        let mut bytes = model.data(tensor).to_vec().unwrap();
        if let Some(factor) = factor(&tensor.name) {
            let mut values = vec![0.0; tensor.n_elements()];
            decode(tensor.ty, &bytes, &mut values).unwrap();
            bytes = values.iter().flat_map(|x| (x * factor).to_le_bytes()).collect();
        }
        writer.write(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// An f16 cache cuts them, and says so; one of f32 has no need to.
#[test]
fn values_beyond_the_range_of_f16() {
    let folder = Folder::new();
    let model = folder.write("large.gguf", &with_large_values());
    let (found, stderr) = written_by(&model, &["--device", "cpu"], &folder);
    assert!(found.iter().all(|x| x.is_finite()));
    assert_eq!(stderr.matches("beyond the range of f16 and were cut").count(), 1, "{stderr}");
    assert!(stderr.contains("--kv-type f32"), "{stderr}");
    assert!(error_of(&found, "F16") > 1e-3, "nothing was cut");
    let (found, stderr) = written_by(&model, &["--device", "cpu", "--kv-type", "f32"], &folder);
    assert!(!stderr.contains("warning"), "{stderr}");
    let nmse = error_of(&found, "F16");
    assert!(nmse <= 5e-6, "{nmse:e}");
    let ran = recua(&["logits", &model, "--tokens", "1", "--out", "x", "--kv-type", "q8"]);
    assert!(ran.code == 2 && ran.stderr.contains("f16, f32"), "{}", ran.stderr);
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
