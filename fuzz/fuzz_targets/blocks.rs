//! Encodes arbitrary numbers and decodes arbitrary blocks: no panic, and finite numbers stay finite. Run with
//! `cargo +nightly fuzz run blocks`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use recua_gguf::{GgmlType, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let Some((id, rest)) = bytes.split_first() else { return };
    let ty = GgmlType::ALL[*id as usize % GgmlType::ALL.len()];

    let whole = rest.len() / ty.block_bytes();
    let mut decoded = vec![0.0; whole * ty.block_values()];
    let known = decode(ty, &rest[..whole * ty.block_bytes()], &mut decoded).is_ok();
    assert_eq!(known, ty.is_decodable());

    let numbers: Vec<f32> =
        rest.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let n = numbers.len() / ty.block_values() * ty.block_values();
    let mut blocks = Vec::new();
    if encode(ty, &numbers[..n], &mut blocks).is_ok() {
        let mut back = vec![f32::NAN; n];
        decode(ty, &blocks, &mut back).expect("what can be encoded can be decoded");
        assert!(back.iter().all(|x| x.is_finite()), "{ty}: a finite number became infinite");
    }
});
