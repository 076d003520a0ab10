//! Accuracy and same bits of the golden models, on each device.

use crate::testdata;
use recua::gguf::Gguf;
use recua::{Batch, DEVICE_NAMES, Device, LlamaConfig, LlamaModel, Logits, open_device};
use recua_compute::cases;
use std::sync::LazyLock;

/// The normalized squared error allowed: 1.15 times llama.cpp's on the same file, or a bound that f16 activations meet easily.
const BARS: [(&str, f64); 6] = [
    ("F16", 5e-6),
    ("Q8_0", 1.15 * 1.9e-4),
    ("Q6_K", 1.15 * 4.4e-4),
    ("Q5_K_M", 1.15 * 4.2e-4),
    ("Q4_K_M", 1.15 * 4.1e-4),
    ("Q4_0", 3e-5),
];

/// The tests share the devices, so that a GPU's kernels are compiled once.
pub(crate) fn devices() -> impl Iterator<Item = (&'static str, Device)> {
    static DEVICES: LazyLock<Vec<(&str, Device)>> = LazyLock::new(|| {
        let names = DEVICE_NAMES.iter().copied().filter(|name| *name != "auto");
        names.filter_map(|name| Some((name, cases::opened_or_skipped(name, open_device(name))?))).collect()
    });
    DEVICES.iter().cloned()
}

fn path(file: &str) -> String {
    testdata(&format!("golden/{file}"))
}

fn model(device: &Device, ty: &str, config: LlamaConfig) -> LlamaModel {
    LlamaModel::load(&Gguf::open(path(&format!("tiny-{ty}.gguf"))).unwrap(), device.clone(), config).unwrap()
}

fn config(batch_size: usize) -> LlamaConfig {
    LlamaConfig { batch_size, max_seq_len: 96, ..LlamaConfig::default() }
}

/// Sixteen sequences; the first two are those of the golden files.
fn sequences() -> Vec<Vec<u32>> {
    let golden = [(0..48).map(|i| (37 * i + 11) % 512).collect(), vec![1, 300, 301, 17, 400, 5]];
    let lengths = [1, 2, 3, 7, 13, 31, 32, 33, 40, 64, 65, 69, 5, 20];
    let more = (0..).zip(lengths).map(|(s, n)| (0..n).map(|i| (i * i + 97 * s * i + s) % 512).collect());
    golden.into_iter().chain(more).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn golden_logits_are_within_the_bar() {
    for (name, device) in devices() {
        for (ty, bar) in BARS {
            let exact = std::fs::read(path(&format!("tiny-{ty}.exact.f32"))).unwrap();
            let exact = exact.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
            let exact: Vec<f64> = exact.collect();
            let sequences = sequences();
            let found = model(&device, ty, config(2)).forward_batch(&[&sequences[0], &sequences[1]]).unwrap();
            let found: Vec<f32> = found.into_iter().flat_map(|t| t.into_data()).collect();
            assert_eq!(found.len(), exact.len());
            let error: f64 = exact.iter().zip(&found).map(|(e, f)| (e - f64::from(*f)).powi(2)).sum();
            let error = error / exact.iter().map(|e| e * e).sum::<f64>();
            println!("{name} {ty}: nmse {error:.2e}, the bar is {bar:.2e}");
            assert!(error <= bar, "{name} {ty}: nmse {error:e} exceeds {bar:e}");
        }
    }
}

/// Batches of 2 to 16, each size in another order, whole and cut into two calls; then one token at a time in small passes.
#[test]
fn same_bits_whoever_shares_the_batch() {
    let sequences = sequences();
    for (name, device) in devices() {
        for (ty, _) in BARS {
            let mut single = model(&device, ty, config(1));
            let alone: Vec<Vec<u32>> =
                sequences.iter().map(|s| bits(single.forward(s).unwrap().data())).collect();
            let mut batched = model(&device, ty, config(16));
            for (size, stride) in [(2, 1), (3, 5), (5, 3), (8, 7), (16, 11)] {
                let order: Vec<usize> = (0..16).map(|i| (i * stride + size) % 16).collect();
                for order in order.chunks(size) {
                    let batch: Vec<&[u32]> = order.iter().map(|i| &sequences[*i][..]).collect();
                    let starts: Vec<usize> = batch.iter().map(|s| s.len() / 2).collect();
                    let whole = batched.forward_batch(&batch).unwrap();
                    let rest: Vec<&[u32]> = batch.iter().zip(&starts).map(|(s, n)| &s[*n..]).collect();
                    let rest = batched.forward_batch_with_positions(&rest, &starts).unwrap();
                    for (slot, i) in order.iter().enumerate() {
                        assert!(bits(whole[slot].data()) == alone[*i], "{name} {ty}: {i} in {order:?}");
                        let end = &alone[*i][starts[slot] * 512..];
                        assert!(bits(rest[slot].data()) == end, "{name} {ty}: the end of {i} in {order:?}");
                    }
                }
            }
            let small = LlamaConfig { step_tokens_max: 5, logits_rows_max: 2, ..config(16) };
            let mut decoding = model(&device, ty, small);
            for position in 0..48 {
                let mut batch = Batch::new();
                let longer = |i: &usize| sequences[*i].len() > position;
                let slots: Vec<usize> = (0..16).filter(longer).collect();
                for &slot in &slots {
                    batch.push_sequence(slot, position, &[sequences[slot][position]], Logits::Last);
                }
                let logits = decoding.step(&batch).unwrap();
                for (slot, row) in slots.iter().zip(logits.chunks_exact(512)) {
                    let expected = &alone[*slot][position * 512..][..512];
                    assert!(bits(row) == expected, "{name} {ty}: position {position} of {slot}, decoded");
                }
            }
        }
    }
}
