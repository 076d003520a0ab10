//! Every format against the scalar decoder, and all row counts against each other bit for bit.

mod permutations;

use super::*;
use crate::adapter::{self, Options};
use crate::device::Wgpu;
use crate::shared::Shared;
use crate::tuning::Tuning;
use recua_compute::cases::data::{blocks, values as random_values};
use recua_compute::{Arrange, DType, Device, GgmlType, Plan, RawMatrix, Record, cases};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

/// The kernels for cooperative matrices, emulated; the one for many rows is used as early as possible.
const EMULATED: Tuning = Tuning {
    emulated: true,
    tiles_enough: 160,
    many_enough: 0,
    few_workgroups: 2,
    kv_allocations: 1,
    part_launches: 40,
};

thread_local! {
    /// The tuning of this test's [`device`].
    static TUNING: Cell<Tuning> = Cell::new(Tuning::default());
}

/// A device and its internals.
pub(crate) type Opened = (Device, Arc<Shared>);

/// A device with this tuning, if there is an adapter. The tests share it.
pub(crate) fn opened_with(tuning: Tuning) -> Option<&'static Opened> {
    static DEVICES: LazyLock<Mutex<HashMap<Tuning, Option<&'static Opened>>>> = LazyLock::new(Mutex::default);
    let options = Options { allow_software: true, ..Options::default() };
    *DEVICES.lock().unwrap().entry(tuning).or_insert_with(|| {
        let opened = cases::opened_or_skipped("wgpu", adapter::open(&options))?;
        let wgpu = Wgpu::new(opened, tuning).unwrap();
        let shared = wgpu.shared.clone();
        Some(Box::leak(Box::new((Device::new(wgpu), shared))))
    })
}

/// The device with this test's tuning, if there is an adapter.
fn opened() -> Option<&'static Device> {
    opened_with(TUNING.get()).map(|(device, _)| device)
}

/// For tests that first check that there is an [`opened`] device.
fn device() -> &'static Device {
    opened().expect("there is an adapter")
}

fn decodable() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable())
}

fn random_blocks(ty: GgmlType, n: usize, k: usize, seed: u64) -> Vec<u8> {
    blocks(ty, n * k, seed).unwrap()
}

fn weight_of(raw: &[u8], ty: GgmlType, n: usize, k: usize) -> Weight {
    device().upload_weight(&[RawMatrix::new(ty, n, k, raw)], Arrange::Stacked).unwrap()
}

/// A GLU weight with `n` rows each of gate and up.
fn glu_weight_of(gate: (&[u8], GgmlType), up: (&[u8], GgmlType), n: usize, k: usize) -> Weight {
    let raw = |(raw, ty)| RawMatrix::new(ty, n, k, raw);
    device().upload_weight(&[raw(gate), raw(up)], Arrange::Interleaved).unwrap()
}

fn decoded(ty: GgmlType, raw: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; n];
    recua_gguf::decode(ty, raw, &mut out).unwrap();
    out
}

fn upload(values: &[f32], columns: usize) -> Buffer {
    device().upload(values, DType::F32, &[values.len() / columns, columns]).unwrap()
}

fn product(weight: &Weight, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / weight.k();
    let x = upload(x, weight.k());
    let out = device().alloc(DType::F32, &[rows, weight.n()]).unwrap();
    let mut plan = device().plan();
    plan.matmul(Matmul::new(&x, weight, &out)).unwrap();
    device().run(&plan).unwrap().wait().unwrap();
    device().read_vec(&out).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Fails unless each row of `got` is the product of `x` and `w` within the error that the kernels may make.
fn check_products(what: &str, got: &[f32], x: &[f32], w: &[f32], k: usize) {
    let n = w.len() / k;
    for (r, (got, x)) in got.chunks_exact(n).zip(x.chunks_exact(k)).enumerate() {
        let (mut error, mut norm) = (0.0f64, 0.0f64);
        for (got, w) in got.iter().zip(w.chunks_exact(k)) {
            let pairs = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
            error += (f64::from(*got) - pairs.clone().sum::<f64>()).powi(2);
            norm += pairs.map(|v| v.powi(2)).sum::<f64>();
        }
        let tolerance = if is_tensor() { 1e-3 } else { 2e-6 };
        assert!(error.sqrt() <= tolerance * norm.sqrt(), "{what}, row {r}: {error} of {norm}");
    }
}

fn is_tensor() -> bool {
    TUNING.get().emulated || device().info().detail.contains(crate::adapter::TENSOR)
}

#[test]
fn every_format_is_the_decoded_product_with_the_same_bits_for_any_rows() {
    if opened().is_none() {
        return;
    }
    for ty in decodable() {
        let block = ty.block_values();
        let mut shapes = vec![(33, 1280), (7, 3 * block)];
        if block == 1 {
            shapes.push((20, 101));
        }
        for (n, k) in shapes {
            let raw = random_blocks(ty, n, k, 7 + n as u64);
            let weight = weight_of(&raw, ty, n, k);
            let rows = 35;
            let x = random_values(rows * k, 3);
            let all = product(&weight, &x);
            check_products(&format!("{ty} [{n}, {k}]"), &all, &x, &decoded(ty, &raw, n * k), k);
            for batch in [1, 2, 3, 5, 16] {
                let start = batch.min(3);
                let part = product(&weight, &x[start * k..(start + batch) * k]);
                assert_eq!(
                    bits(&part),
                    bits(&all[start * n..(start + batch) * n]),
                    "{ty} [{n}, {k}], {batch} rows"
                );
            }
        }
    }
}

#[test]
fn every_tiled_kernel_gives_the_same_bits() {
    if opened().is_none() {
        return;
    }
    for (ty, n, k) in [(GgmlType::Q4_K, 133, 2304), (GgmlType::Q8_0, 133, 672), (GgmlType::F16, 133, 101)] {
        let raw = random_blocks(ty, n, k, 7);
        let rows = 70;
        let x = random_values(rows * k, 3);
        let all_rows = |tiles_enough| {
            TUNING.set(Tuning { tiles_enough, ..Tuning::default() });
            product(&weight_of(&raw, ty, n, k), &x)
        };
        let large = all_rows(0);
        check_products(&format!("{ty}"), &large, &x, &decoded(ty, &raw, n * k), k);
        assert_eq!(bits(&all_rows(usize::MAX)), bits(&large), "{ty}, smaller tiles, split");
        TUNING.set(Tuning::default());
        let weight = weight_of(&raw, ty, n, k);
        for batch in [1, 8, 9, 16, 17, 32] {
            let part = product(&weight, &x[2 * k..(2 + batch) * k]);
            assert_eq!(bits(&part), bits(&large[2 * n..(2 + batch) * n]), "{ty}, {batch} rows");
        }
    }
    // Enough weight rows for a workgroup to take all ranges of K.
    let (n, k, rows) = (TILE_SPLIT_BELOW * 64 + 5, 64, 20);
    let raw = random_blocks(GgmlType::Q8_0, n, k, 7);
    let weight = weight_of(&raw, GgmlType::Q8_0, n, k);
    let x = random_values(rows * k, 3);
    let all = product(&weight, &x);
    check_products("many weight rows", &all, &x, &decoded(GgmlType::Q8_0, &raw, n * k), k);
    for batch in [2, 9] {
        assert_eq!(bits(&product(&weight, &x[..batch * k])), bits(&all[..batch * n]));
    }
}

#[test]
fn a_row_of_the_layout_is_the_decoded_row() {
    if opened().is_none() {
        return;
    }
    for ty in decodable() {
        let (n, k) = (TILE + 3, 3 * ty.block_values().max(32));
        let raw = random_blocks(ty, n, k, 11);
        let decoded = decoded(ty, &raw, n * k);
        let weight = weight_of(&raw, ty, n, k);
        let tokens: Vec<u32> = (0..n as u32).rev().collect();
        let tokens = device().upload(&tokens, DType::U32, &[n]).unwrap();
        let out = device().alloc(DType::F32, &[n, k]).unwrap();
        let mut plan = device().plan();
        plan.embed(&weight, &tokens, &out).unwrap();
        device().run(&plan).unwrap().wait().unwrap();
        let got: Vec<f32> = device().read_vec(&out).unwrap();
        for i in 0..n {
            for (a, b) in got[(n - 1 - i) * k..][..k].iter().zip(&decoded[i * k..][..k]) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(0.1), "{ty} row {i}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn bias_and_residual_are_added() {
    if opened().is_none() {
        return;
    }
    let (n, k, rows) = (45, 96, 3);
    let raw = random_blocks(GgmlType::Q8_0, n, k, 5);
    let weight = weight_of(&raw, GgmlType::Q8_0, n, k);
    let (x, bias, add) = (random_values(rows * k, 1), random_values(n, 2), random_values(rows * n, 3));
    let plain = product(&weight, &x);
    let x = upload(&x, k);
    let bias_buffer = device().upload(&bias, DType::F32, &[n]).unwrap();
    for has_bias in [false, true] {
        let bias_at = |i: usize| if has_bias { bias[i] } else { 0.0 };
        // In place, and from a separate buffer.
        for in_place in [false, true] {
            let add_buffer = upload(&add, n);
            let out =
                if in_place { add_buffer.clone() } else { device().alloc(DType::F32, &[rows, n]).unwrap() };
            let mut plan = device().plan();
            let op = Matmul::new(&x, &weight, &out).with_bias(has_bias.then_some(&bias_buffer));
            plan.matmul(op.with_add(&add_buffer)).unwrap();
            device().run(&plan).unwrap().wait().unwrap();
            let got: Vec<f32> = device().read_vec(&out).unwrap();
            for (i, got) in got.iter().enumerate() {
                assert_eq!(*got, plain[i] + bias_at(i % n) + add[i], "{i}");
            }
        }
    }
}

#[test]
fn parts_are_products_of_their_own() {
    if opened().is_none() {
        return;
    }
    let (k, rows) = (256, 5);
    let x = random_values(rows * k, 1);
    let types = [GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q4_K, GgmlType::Q4_K, GgmlType::Q4_K];
    for has_bias in [false, true] {
        let x_buffer = upload(&x, k);
        let (mut expected, mut raws, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        for (i, ty) in types.into_iter().enumerate() {
            let n = 20 + 17 * i;
            let raw = random_blocks(ty, n, k, i as u64);
            let bias = random_values(n, 9);
            let mut values = product(&weight_of(&raw, ty, n, k), &x);
            if has_bias {
                values.iter_mut().enumerate().for_each(|(j, value)| *value += bias[j % n]);
            }
            expected.push((n, values));
            biases.extend(bias);
            raws.push((ty, n, raw));
        }
        let parts: Vec<_> = raws.iter().map(|(ty, n, raw)| RawMatrix::new(*ty, *n, k, raw)).collect();
        let weight = device().upload_weight(&parts, Arrange::Stacked).unwrap();
        let out = device().alloc(DType::F32, &[rows, weight.n()]).unwrap();
        let bias = device().upload(&biases, DType::F32, &[weight.n()]).unwrap();
        let mut plan = device().plan();
        let op = Matmul::new(&x_buffer, &weight, &out).with_bias(has_bias.then_some(&bias));
        plan.matmul(op).unwrap();
        device().run(&plan).unwrap().wait().unwrap();
        let out: Vec<f32> = device().read_vec(&out).unwrap();
        let mut first = 0;
        for (i, (n, expected)) in expected.iter().enumerate() {
            let found: Vec<f32> =
                out.chunks_exact(weight.n()).flat_map(|row| row[first..first + n].iter().copied()).collect();
            assert_eq!(bits(&found), bits(expected), "part {i}, bias {has_bias}");
            first += n;
        }
    }
}

#[test]
fn glu_of_one_and_of_two_formats() {
    if opened().is_none() {
        return;
    }
    let (n, k) = (40, 512);
    for (gate_type, up_type) in [(GgmlType::Q4_K, GgmlType::Q4_K), (GgmlType::Q8_0, GgmlType::Q4_0)] {
        let gate = random_blocks(gate_type, n, k, 1);
        let up = random_blocks(up_type, n, k, 2);
        let gate_up = glu_weight_of((&gate, gate_type), (&up, up_type), n, k);
        let gate = weight_of(&gate, gate_type, n, k);
        let up = weight_of(&up, up_type, n, k);
        for rows in [1, 4, 19, 70] {
            let x: Vec<f32> = random_values(rows * k, 3).iter().map(|v| v * 0.01).collect();
            let (gates, ups) = (product(&gate, &x), product(&up, &x));
            let out = device().alloc(DType::F32, &[rows, n]).unwrap();
            let mut plan = device().plan();
            plan.matmul_glu(&upload(&x, k), &gate_up, Activation::Silu, &out).unwrap();
            device().run(&plan).unwrap().wait().unwrap();
            let got: Vec<f32> = device().read_vec(&out).unwrap();
            for ((got, gate), up) in got.iter().zip(gates).zip(ups) {
                let expected = gate / (1.0 + (-gate).exp()) * up;
                assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{got} is not {expected}");
            }
        }
    }
}

#[test]
fn rows_from_the_middle_of_a_buffer() {
    if opened().is_none() {
        return;
    }
    // 6 columns, so that rows of x do not begin at whole vectors.
    let (n, k) = (9, 6);
    let raw = random_blocks(GgmlType::F32, n, k, 1);
    let weight = weight_of(&raw, GgmlType::F32, n, k);
    let x = random_values(5 * k, 2);
    let expected = product(&weight, &x[3 * k..]);
    let x = upload(&x, k).view(3 * k, &[2, k]).unwrap();
    let out = device().alloc(DType::F32, &[7, n]).unwrap();
    let part = out.view(3 * n, &[2, n]).unwrap();
    let mut plan = device().plan();
    plan.matmul(Matmul::new(&x, &weight, &part)).unwrap();
    device().run(&plan).unwrap().wait().unwrap();
    let got: Vec<f32> = device().read_vec(&out).unwrap();
    assert_eq!(bits(&got[3 * n..5 * n]), bits(&expected));
    assert!(got[..3 * n].iter().chain(&got[5 * n..]).all(|&value| value == 0.0));
}

#[test]
fn a_norm_and_the_products_behind_it_have_the_bits_of_each_alone() {
    if opened().is_none() {
        return;
    }
    for tuning in [Tuning::default(), EMULATED] {
        TUNING.set(tuning);
        for (ty, k) in
            [(GgmlType::Q4_K, 768), (GgmlType::Q8_0, 4448), (GgmlType::F16, 676), (GgmlType::F16, 670)]
        {
            let n = 40;
            let raw = random_blocks(ty, n, k, 7);
            let weight = weight_of(&raw, ty, n, k);
            let gate_up = glu_weight_of((&raw, ty), (&raw, ty), n, k);
            let norm = device().upload(&random_values(k, 5), DType::F32, &[k]).unwrap();
            for rows in [3, 5, 20, 70] {
                let values = random_values(rows * k, rows as u64);
                let run = |record: &dyn Fn(&mut Plan)| {
                    let mut plan = device().plan();
                    record(&mut plan);
                    device().run(&plan).unwrap().wait().unwrap();
                };
                let x = upload(&values, k);
                let normed = device().alloc(DType::F32, &[rows, k]).unwrap();
                run(&|plan| plan.rms_norm(&x, &norm, &normed, 1e-5).unwrap());
                let normed: Vec<f32> = device().read_vec(&normed).unwrap();
                let products = product(&weight, &normed);
                let glus = device().alloc(DType::F32, &[rows, n]).unwrap();
                let normed_buffer = upload(&normed, k);
                run(&|plan| plan.matmul_glu(&normed_buffer, &gate_up, Activation::Silu, &glus).unwrap());
                let glus: Vec<f32> = device().read_vec(&glus).unwrap();
                // Now the copy that the device keeps between ops belongs to another x.
                product(&weight, &random_values(rows * k, 99));
                for in_place in [false, true] {
                    let x = upload(&values, k);
                    let out =
                        if in_place { x.clone() } else { device().alloc(DType::F32, &[rows, k]).unwrap() };
                    let [y, glu] = [0, 1].map(|_| device().alloc(DType::F32, &[rows, n]).unwrap());
                    run(&|plan| {
                        plan.rms_norm(&x, &norm, &out, 1e-5).unwrap();
                        plan.matmul(Matmul::new(&out, &weight, &y)).unwrap();
                    });
                    let x = upload(&values, k);
                    let out = if in_place { x.clone() } else { out };
                    run(&|plan| {
                        plan.rms_norm(&x, &norm, &out, 1e-5).unwrap();
                        plan.matmul_glu(&out, &gate_up, Activation::Silu, &glu).unwrap();
                    });
                    for (what, got, expected) in
                        [("norm", out, &normed), ("matmul", y, &products), ("glu", glu, &glus)]
                    {
                        let got: Vec<f32> = device().read_vec(&got).unwrap();
                        assert_eq!(
                            bits(&got),
                            bits(expected),
                            "{what}, {ty}, {rows} rows of {k}, in place: {in_place}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_weight_larger_than_a_binding_is_cut() {
    if opened().is_none() {
        return;
    }
    // 150 MB, more than the 128 MiB that a software adapter binds at once; bytes that decode fast, and only a few rows are compared.
    let (n, k) = (36_620, 1024);
    let ty = GgmlType::F32;
    let row = |i: usize| (0..k).map(move |j| ((i * 7 + j * 3) % 17) as f32 - 8.0);
    let raw: Vec<u8> = (0..n).flat_map(row).flat_map(f32::to_le_bytes).collect();
    let weight = weight_of(&raw, ty, n, k);
    let x = random_values(k, 1);
    let got = product(&weight, &x);
    let tokens: Vec<u32> = vec![0, 17, 32_736, 32_767, 32_768, n as u32 - 1];
    for &i in &tokens {
        let expected: f64 = row(i as usize).zip(&x).map(|(w, &x)| f64::from(w) * f64::from(x)).sum();
        assert!((f64::from(got[i as usize]) - expected).abs() < 1e-2, "row {i}");
    }
    let out = device().alloc(DType::F32, &[tokens.len(), k]).unwrap();
    let buffer = device().upload(&tokens, DType::U32, &[tokens.len()]).unwrap();
    let mut plan = device().plan();
    plan.embed(&weight, &buffer, &out).unwrap();
    device().run(&plan).unwrap().wait().unwrap();
    let rows: Vec<f32> = device().read_vec(&out).unwrap();
    for (token, got) in tokens.iter().zip(rows.chunks_exact(k)) {
        assert!(got.iter().copied().eq(row(*token as usize)), "row {token}");
    }
}

#[test]
fn a_token_out_of_range_is_an_error() {
    if opened().is_none() {
        return;
    }
    let raw = random_blocks(GgmlType::Q4_0, 5, 64, 1);
    let weight = weight_of(&raw, GgmlType::Q4_0, 5, 64);
    let tokens = device().upload(&[4u32, 5], DType::U32, &[2]).unwrap();
    let out = device().alloc(DType::F32, &[2, 64]).unwrap();
    let mut plan = device().plan();
    plan.embed(&weight, &tokens, &out).unwrap();
    let error = device().run(&plan).unwrap().wait().unwrap_err().to_string();
    assert_eq!(error, "embed: token 5 is out of range, the limit is 5");
}

#[test]
fn rows_of_any_size_are_as_exact_in_f16() {
    let Some((device, _)) = opened_with(EMULATED) else { return };
    cases::check_any_size(device).assert();
    let Some((device, _)) = opened_with(Tuning { many_enough: 1000, ..EMULATED }) else { return };
    cases::check_any_size(device).assert();
}

#[test]
fn the_kernels_of_cooperative_matrices_have_their_indexes_right() {
    if opened().is_none() {
        return;
    }
    TUNING.set(EMULATED);
    for ty in [GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0, GgmlType::F16, GgmlType::Q2_K] {
        // More than one workgroup of many tiles, an incomplete last tile, and ranges of different lengths.
        let (n, k) = (133, if ty.block_values() == 256 { 768 } else { 672 });
        let raw = random_blocks(ty, n, k, 7);
        let weight = weight_of(&raw, ty, n, k);
        let rows = 130;
        let x = random_values(rows * k, 3);
        let all = product(&weight, &x);
        check_products(&format!("{ty}, many rows"), &all, &x, &decoded(ty, &raw, n * k), k);
        for batch in [1, 3, 7, 20, 40, 70] {
            let part = product(&weight, &x[2 * k..(2 + batch) * k]);
            assert_eq!(bits(&part), bits(&all[2 * n..(2 + batch) * n]), "{ty}, {batch} rows");
        }
        TUNING.set(Tuning { many_enough: 1000, ..EMULATED });
        let weight = weight_of(&raw, ty, n, k);
        assert_eq!(bits(&product(&weight, &x)), bits(&all), "{ty}, many rows by workgroups for few");
        TUNING.set(EMULATED);
    }
    // Enough weight rows for a workgroup to take all ranges of K. The software driver ends a workgroup's loops after 65,535 iterations in
    // total, so there are more workgroups here.
    TUNING.set(Tuning { few_workgroups: 132, ..EMULATED });
    let (n, k, rows) = (SOME_SPLIT_BELOW * SOME_N + 5, 64, 20);
    let raw = random_blocks(GgmlType::Q8_0, n, k, 7);
    let weight = weight_of(&raw, GgmlType::Q8_0, n, k);
    let x = random_values(rows * k, 3);
    let all = product(&weight, &x);
    check_products("many weight rows", &all, &x, &decoded(GgmlType::Q8_0, &raw, n * k), k);
    assert_eq!(bits(&product(&weight, &x[..2 * k])), bits(&all[..2 * n]));
    bias_and_residual_are_added();
    glu_of_one_and_of_two_formats();
    parts_are_products_of_their_own();
}
