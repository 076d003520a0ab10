//! Attention by cooperative matrices, on an adapter that has none; and the launches of a tiny model.

use super::matmul::tests::opened_with;
use super::*;
use crate::tuning::Tuning;
use recua_compute::{
    Activation, Attention, DType, Device, GgmlType, KvLayer, MatmulPart, PAGE_TOKENS, Plan, Record,
    RopeStore, RopeStyle, RowMap, cases,
};

#[test]
fn attention_by_cooperative_matrices_has_its_indexes_right() {
    let emulated = Tuning { emulated: true, ..Tuning::default() };
    let Some((device, _)) = opened_with(emulated) else { return };
    let report = cases::check_attention(device);
    println!("{report}");
    report.assert();
}

/// A model of one layer, as a model records its passes: `rows` rows of two sequences, and their logits.
fn tiny_model(device: &Device, rows: usize) -> Plan {
    const DIM: usize = 64;
    let weight = |n: usize, k: usize| {
        let raw = vec![0u8; n * GgmlType::Q8_0.row_bytes(k).unwrap()];
        device.upload_weight(&raw, GgmlType::Q8_0, n, k).unwrap()
    };
    let matrix = |n: usize| device.alloc(DType::F32, &[rows, n]).unwrap();
    let u32s = |shape: &[usize]| device.alloc(DType::U32, shape).unwrap();
    let cache = || device.alloc(DType::F16, &[8, 1, PAGE_TOKENS, DIM / 2]).unwrap();
    let cache = KvLayer { k: cache(), v: cache() };
    let norm = device.alloc(DType::F32, &[DIM]).unwrap();
    let (x, normed, q, k, v, attn) =
        (matrix(DIM), matrix(DIM), matrix(DIM), matrix(DIM / 2), matrix(DIM / 2), matrix(DIM));
    let (glu, logits) = (matrix(2 * DIM), matrix(256));
    let map = RowMap { positions: u32s(&[rows]), sequences: u32s(&[rows]), pages: u32s(&[2, 4]) };
    let mut plan = device.plan();
    plan.embed(&weight(256, DIM), &u32s(&[rows]), &x).unwrap();
    plan.rms_norm(&x, &norm, &normed, 1e-5).unwrap();
    let parts = [(DIM, &q), (DIM / 2, &k), (DIM / 2, &v)];
    plan.matmul(&normed, parts.map(|(n, out)| MatmulPart::new(&weight(n, DIM), out))).unwrap();
    plan.rope_store(RopeStore {
        q: q.clone(),
        k,
        v,
        norm: None,
        table: device.alloc(DType::F32, &[128, DIM / 4, 2]).unwrap(),
        style: RopeStyle::Halves,
        rows: map.clone(),
        cache: cache.clone(),
    })
    .unwrap();
    plan.attention(Attention { q, rows: map, cache, scale: 0.2, out: attn.clone() }).unwrap();
    plan.matmul(&attn, [MatmulPart::new(&weight(DIM, DIM), &x).with_add(&x)]).unwrap();
    plan.rms_norm(&x, &norm, &normed, 1e-5).unwrap();
    let [gate, up] = [0, 1].map(|_| weight(2 * DIM, DIM));
    plan.matmul_glu(&normed, &gate, &up, Activation::Silu, &glu).unwrap();
    plan.matmul(&glu, [MatmulPart::new(&weight(DIM, 2 * DIM), &x).with_add(&x)]).unwrap();
    plan.gather_rows(&x, &u32s(&[rows]), &normed).unwrap();
    plan.rms_norm(&normed, &norm, &normed, 1e-5).unwrap();
    plan.matmul(&normed, [MatmulPart::new(&weight(256, DIM), &logits)]).unwrap();
    plan.argmax(&logits, &u32s(&[rows])).unwrap();
    plan
}

/// Fails unless a pass of `rows` rows has these launches.
fn check_launches(tuning: Tuning, rows: usize, expected: &str) {
    let Some((device, shared)) = opened_with(tuning) else { return };
    if device.info().detail.contains(crate::adapter::TENSOR) && !tuning.emulated {
        println!("skipped: this adapter has matrices");
        return;
    }
    let found = lower(shared, tiny_model(device, rows).ops()).unwrap().to_string();
    let lines = |text: &str| text.lines().map(|line| line.trim().to_string()).collect::<Vec<_>>();
    assert_eq!(lines(&found), lines(expected.trim()), "{found}");
}

#[test]
fn the_launches_of_a_step_without_matrices() {
    check_launches(
        Tuning::default(),
        2,
        r"
        0 embed: embed formats/q8_0 in 1 x 2 x 1
        1 rms_norm: rms_norm WIDE in 2 x 1 x 1
        2 matmul: matmul formats/q8_0 PARTS_3 ROWS_2 X_VECTORS in 4 x 1 x 1
        3 rope_store: rope_store CACHE_F16 WIDE HALVES HEAD_MAX=64 in 6 x 1 x 1
        4 attention: attention CACHE_F16 WIDE HEAD_MAX=64 in 2 x 1 x 1
        5 matmul: matmul formats/q8_0 PARTS_1 ADD ROWS_2 X_VECTORS in 2 x 1 x 1
        6 rms_norm: rms_norm WIDE in 2 x 1 x 1
        7 matmul_glu: matmul formats/q8_0 PARTS_1 GLU ROWS_2 X_VECTORS in 4 x 1 x 1
        8 matmul: matmul formats/q8_0 PARTS_1 ADD ROWS_2 X_VECTORS in 2 x 1 x 1
        9 gather_rows: gather_rows in 2 x 1 x 1
        10 rms_norm: rms_norm IN_PLACE WIDE in 2 x 1 x 1
        11 matmul: matmul formats/q8_0 PARTS_1 ROWS_2 X_VECTORS in 8 x 1 x 1
        12 argmax: argmax in 2 x 1 x 1
        ",
    );
}

/// Each norm writes the f16 copy (`ACTIVATIONS`) that the product after it reads (`X_HALF`); products of other rows have theirs made
/// (`matmul_activations`).
#[test]
fn the_launches_of_a_step_with_matrices() {
    check_launches(
        Tuning { emulated: true, ..Tuning::default() },
        5,
        r"
        0 embed: embed formats/q8_0 in 1 x 5 x 1
        1 rms_norm: rms_norm WIDE ACTIVATIONS in 5 x 1 x 1
        2 matmul: matmul_tensor formats/q8_0 PARTS_3 X_HALF EMULATED in 4 x 1 x 1
        3 rope_store: rope_store CACHE_F16 WIDE TENSOR HALVES HEAD_MAX=64 in 15 x 1 x 1
        4 attention: attention_tensor EMULATED HEAD_DIM=32 in 5 x 1 x 1
        5 matmul: matmul_activations in 1 x 16 x 1
        6 matmul: matmul_tensor formats/q8_0 PARTS_1 ADD X_HALF EMULATED in 2 x 1 x 1
        7 rms_norm: rms_norm WIDE ACTIVATIONS in 5 x 1 x 1
        8 matmul_glu: matmul_tensor formats/q8_0 PARTS_1 GLU TILES_2 X_HALF EMULATED in 4 x 1 x 1
        9 matmul: matmul_activations in 1 x 16 x 1
        10 matmul: matmul_tensor formats/q8_0 PARTS_1 ADD X_HALF EMULATED in 2 x 1 x 1
        11 gather_rows: gather_rows in 5 x 1 x 1
        12 rms_norm: rms_norm IN_PLACE WIDE ACTIVATIONS in 5 x 1 x 1
        13 matmul: matmul_tensor formats/q8_0 PARTS_1 X_HALF EMULATED in 8 x 1 x 1
        14 argmax: argmax in 5 x 1 x 1
        ",
    );
}
