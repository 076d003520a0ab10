//! Attention by emulated cooperative matrices, and what it costs; and the launches of a tiny model.

use super::matmul::tests::opened_with;
use super::*;
use crate::tuning::Tuning;
use recua_compute::{
    Activation, Arrange, Attention, DType, Device, GgmlType, HEADER_WORDS, KvShape, KvType, Matmul,
    PAGE_TOKENS, Plan, RawMatrix, Record, RopeStore, RopeStyle, RowMap, cases,
};

fn check_attention(tuning: Tuning) {
    let Some((device, _)) = opened_with(tuning) else { return };
    let report = cases::check_attention(device);
    println!("{report}");
    report.assert();
}

#[test]
fn attention_by_cooperative_matrices_has_its_indexes_right() {
    check_attention(Tuning { emulated: true, ..Tuning::default() });
}

#[test]
fn a_cache_in_several_allocations_has_no_matrices() {
    check_attention(Tuning { emulated: true, kv_allocations: 2, ..Tuning::default() });
}

/// Resizing a cache must change no bit, so pages of matrices cannot be copied to a pool without matrices.
#[test]
fn pages_do_not_change_their_layout() {
    let tuning = Tuning { emulated: true, kv_allocations: 2, ..Tuning::default() };
    let Some((device, shared)) = opened_with(tuning) else { return };
    let pool = |n_pages| device.alloc_kv(&KvShape { n_pages, ..SHAPE }).unwrap();
    let list = device.alloc(DType::U32, &[1, 2]).unwrap();
    let copied = |from: usize, to: usize| {
        let mut plan = device.plan();
        plan.copy_pages(&pool(from), &pool(to), &list).unwrap();
        lower(shared, plan.ops()).map(drop)
    };
    copied(1, 1).unwrap();
    copied(4, 3).unwrap();
    let problem = copied(1, 4).unwrap_err().to_string();
    assert!(problem.contains("load the model with the larger cache"), "{problem}");
}

const SHAPE: KvShape = KvShape { n_pages: 4, n_kv_heads: 2, head_dim: 64, kv_type: KvType::F16 };

/// Attention of `n_rows` rows whose sequences could have up to `max_seq_len` tokens.
fn attention_of(device: &Device, n_rows: usize, max_seq_len: usize) -> Plan {
    let u32s = |shape: &[usize]| device.alloc(DType::U32, shape).unwrap();
    let q = || device.alloc(DType::F32, &[n_rows, 8 * 64]).unwrap();
    let rows = RowMap {
        positions: u32s(&[n_rows]),
        sequences: u32s(&[n_rows]),
        pages: u32s(&[n_rows, max_seq_len / PAGE_TOKENS]),
        work: u32s(&[HEADER_WORDS]),
    };
    let cache = device.alloc_kv(&SHAPE).unwrap();
    let mut plan = device.plan();
    plan.attention(Attention { q: q(), rows, cache, scale: 1.0, out: q() }).unwrap();
    plan
}

/// Neither the workgroups nor the scratch of a step depend on the possible lengths.
#[test]
fn attention_does_not_depend_on_the_longest_sequence_there_could_be() {
    for emulated in [false, true] {
        let Some((device, shared)) = opened_with(Tuning { emulated, ..Tuning::default() }) else { return };
        let cost = |max_seq_len: usize| {
            [1, 15, 64, 512].map(|n_rows| {
                let launches = lower(shared, attention_of(device, n_rows, max_seq_len).ops()).unwrap();
                let scratch: usize = launches.scratch.iter().map(|memory| memory.n_bytes()).sum();
                (launches.to_string(), scratch)
            })
        };
        assert_eq!(cost(1024), cost(131_072));
    }
}

#[test]
fn a_cache_that_fits_no_allocations_is_refused_with_what_fits() {
    let Some((device, shared)) = opened_with(Tuning::default()) else { return };
    let limits = &shared.gpu.limits;
    let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) as usize;
    let fits = limit / SHAPE.page_bytes().unwrap() * 4;
    let refused = device.alloc_kv(&KvShape { n_pages: fits + 1, ..SHAPE }).unwrap_err().to_string();
    assert!(refused.ends_with(&format!("{fits} pages fit")), "{refused}");
}

/// A model of one layer, recorded as a model records its passes: `rows` rows of two sequences, and their logits.
fn tiny_model(device: &Device, rows: usize) -> Plan {
    const DIM: usize = 64;
    let upload = |parts: &[usize], k: usize, arrange: Arrange| {
        let raw = |n: &usize| vec![0u8; n * GgmlType::Q8_0.row_bytes(k).unwrap()];
        let raws: Vec<Vec<u8>> = parts.iter().map(raw).collect();
        let parts = parts.iter().zip(&raws).map(|(&n, raw)| RawMatrix::new(GgmlType::Q8_0, n, k, raw));
        device.upload_weight(&parts.collect::<Vec<_>>(), arrange).unwrap()
    };
    let weight = |n: usize, k: usize| upload(&[n], k, Arrange::Stacked);
    let matrix = |n: usize| device.alloc(DType::F32, &[rows, n]).unwrap();
    let u32s = |shape: &[usize]| device.alloc(DType::U32, shape).unwrap();
    let shape = KvShape { n_pages: 8, n_kv_heads: 1, head_dim: DIM / 2, kv_type: KvType::F16 };
    let cache = device.alloc_kv(&shape).unwrap();
    let norm = device.alloc(DType::F32, &[DIM]).unwrap();
    let (x, normed, qkv, attn) = (matrix(DIM), matrix(DIM), matrix(2 * DIM), matrix(DIM));
    let columns = |first, n| qkv.columns(first..first + n).unwrap();
    let (q, k, v) = (columns(0, DIM), columns(DIM, DIM / 2), columns(DIM + DIM / 2, DIM / 2));
    let (glu, logits) = (matrix(2 * DIM), matrix(256));
    let map = RowMap {
        positions: u32s(&[rows]),
        sequences: u32s(&[rows]),
        pages: u32s(&[2, 4]),
        work: u32s(&[HEADER_WORDS]),
    };
    let mut plan = device.plan();
    plan.embed(&weight(256, DIM), &u32s(&[rows]), &x).unwrap();
    plan.rms_norm(&x, &norm, &normed, 1e-5).unwrap();
    let w_qkv = upload(&[DIM, DIM / 2, DIM / 2], DIM, Arrange::Stacked);
    plan.matmul(Matmul::new(&normed, &w_qkv, &qkv)).unwrap();
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
    plan.matmul(Matmul::new(&attn, &weight(DIM, DIM), &x).with_add(&x)).unwrap();
    plan.rms_norm(&x, &norm, &normed, 1e-5).unwrap();
    let gate_up = upload(&[2 * DIM, 2 * DIM], DIM, Arrange::Interleaved);
    plan.matmul_glu(&normed, &gate_up, Activation::Silu, &glu).unwrap();
    plan.matmul(Matmul::new(&glu, &weight(DIM, 2 * DIM), &x).with_add(&x)).unwrap();
    plan.gather_rows(&x, &u32s(&[rows]), &normed).unwrap();
    plan.rms_norm(&normed, &norm, &normed, 1e-5).unwrap();
    plan.matmul(Matmul::new(&normed, &weight(256, DIM), &logits)).unwrap();
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
    // Fewer workgroups keep a software adapter busy.
    let busy = if shared.gpu.is_software { "16" } else { "512" };
    assert_eq!(lines(&found), lines(&expected.trim().replace("BUSY", busy)), "{found}");
}

#[test]
fn the_launches_of_a_step_without_matrices() {
    check_launches(
        Tuning::default(),
        2,
        r"
        0 embed: embed formats/q8_0 in 1 x 2 x 1
        1 rms_norm: rms_norm WIDE in 2 x 1 x 1
        2 matmul: matmul_vec formats/q8_0 ROWS_2 X_VECTORS in 4 x 1 x 1
        3 rope_store: rope_store CACHE_F16 WIDE HALVES HEAD_MAX=64 in 6 x 1 x 1
        4 attention: attention CACHE_F16 WIDE HEAD_MAX=64 in BUSY x 1 x 1
        5 attention: attention_merge CACHE_F16 WIDE HEAD_MAX=64 in 2 x 1 x 1
        6 matmul: matmul_vec formats/q8_0 ROWS_2 X_VECTORS in 2 x 1 x 1
        7 rms_norm: rms_norm WIDE in 2 x 1 x 1
        8 matmul_glu: matmul_vec formats/q8_0 ROWS_2 X_VECTORS in 8 x 1 x 1
        9 matmul: matmul_vec formats/q8_0 ROWS_2 X_VECTORS in 2 x 1 x 1
        10 gather_rows: gather_rows in 2 x 1 x 1
        11 rms_norm: rms_norm IN_PLACE WIDE in 2 x 1 x 1
        12 matmul: matmul_vec formats/q8_0 ROWS_2 X_VECTORS in 8 x 1 x 1
        13 argmax: argmax in 2 x 1 x 1
        ",
    );
}

/// Each norm writes the f16 copy (`ACTIVATIONS`) that the product after it reads (`X_HALF`); for products of other rows,
/// `matmul_activations` makes the copy.
#[test]
fn the_launches_of_a_step_with_matrices() {
    check_launches(
        Tuning { emulated: true, ..Tuning::default() },
        5,
        r"
        0 embed: embed formats/q8_0 in 1 x 5 x 1
        1 rms_norm: rms_norm WIDE ACTIVATIONS in 5 x 1 x 1
        2 matmul: matmul_coop_16 formats/q8_0 X_HALF EMULATED in 4 x 1 x 1
        3 rope_store: rope_store CACHE_F16 WIDE TENSOR HALVES HEAD_MAX=64 in 15 x 1 x 1
        4 attention: attention_tensor EMULATED HEAD_DIM=32 in BUSY x 1 x 1
        5 attention: attention_tensor_merge EMULATED HEAD_DIM=32 in 5 x 1 x 1
        6 matmul: matmul_activations X_VECTORS in 16 x 1 x 1
        7 matmul: matmul_coop_16 formats/q8_0 X_HALF EMULATED in 2 x 1 x 1
        8 rms_norm: rms_norm WIDE ACTIVATIONS in 5 x 1 x 1
        9 matmul_glu: matmul_coop_16 formats/q8_0 X_HALF EMULATED in 8 x 1 x 1
        10 matmul: matmul_activations X_VECTORS in 16 x 1 x 1
        11 matmul: matmul_coop_16 formats/q8_0 X_HALF EMULATED in 2 x 1 x 1
        12 gather_rows: gather_rows in 5 x 1 x 1
        13 rms_norm: rms_norm IN_PLACE WIDE ACTIVATIONS in 5 x 1 x 1
        14 matmul: matmul_coop_16 formats/q8_0 X_HALF EMULATED in 8 x 1 x 1
        15 argmax: argmax in 5 x 1 x 1
        ",
    );
}
