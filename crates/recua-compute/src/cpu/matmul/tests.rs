//! Every format against the scalar decoder, and every instruction set and row count against each other, bit for bit.

use super::planes::TILE;
use crate::cases::data::{blocks, values};
use crate::cpu::{Isa, Options, open};
use crate::{Arrange, DType, Device, GgmlType, Matmul, RawMatrix, Record};

fn product(device: &Device, raw: &[u8], ty: GgmlType, n: usize, k: usize, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / k;
    let weight = device.upload_weight(&[RawMatrix::new(ty, n, k, raw)], Arrange::Stacked).unwrap();
    let x = device.upload(x, DType::F32, &[rows, k]).unwrap();
    let out = device.alloc(DType::F32, &[rows, n]).unwrap();
    let mut plan = device.plan();
    plan.matmul(Matmul::new(&x, &weight, &out)).unwrap();
    device.run(&plan).unwrap().wait().unwrap();
    device.read_vec(&out).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_format_is_the_decoded_product_with_the_same_bits_everywhere() {
    for ty in GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable()) {
        let block = ty.block_values();
        for (n, k) in [(1, 256), (16, 512), (33, 1280), (50, block), (20, 3 * block), (17, 9 * block)] {
            let raw = blocks(ty, n * k, 7 + n as u64).unwrap();
            let mut decoded = vec![0.0f32; n * k];
            recua_gguf::decode(ty, &raw, &mut decoded).unwrap();
            let rows = 21;
            let x = values(rows * k, 3);
            let mut first: Option<Vec<u32>> = None;
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                for threads in [1, 3] {
                    let device = open(Options { threads: Some(threads), isa: Some(isa) }).unwrap();
                    let all = product(&device, &raw, ty, n, k, &x);
                    for batch in [1, 2, 3, 5, 8, 16] {
                        for start in (0..rows).step_by(batch).take(2) {
                            let end = rows.min(start + batch);
                            let part = product(&device, &raw, ty, n, k, &x[start * k..end * k]);
                            assert_eq!(
                                bits(&part),
                                bits(&all[start * n..end * n]),
                                "{ty} [{n}, {k}], {batch} rows"
                            );
                        }
                    }
                    if let Some(first) = &first {
                        assert_eq!(*first, bits(&all), "{ty} [{n}, {k}] on {isa} with {threads} threads");
                        continue;
                    }
                    // The other instruction sets give the same bits, so their errors are the same.
                    first = Some(bits(&all));
                    for r in 0..rows {
                        let (mut error, mut norm) = (0.0f64, 0.0f64);
                        for i in 0..n {
                            let pairs = x[r * k..][..k].iter().zip(&decoded[i * k..][..k]);
                            let exact: f64 = pairs.clone().map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                            error += (f64::from(all[r * n + i]) - exact).powi(2);
                            norm += pairs.map(|(&x, &w)| (f64::from(x) * f64::from(w)).powi(2)).sum::<f64>();
                        }
                        // An 8-bit code of the row's largest value is off by at most half of 1/127 of it.
                        let tolerance = if ty.is_quantized() { 0.02 } else { 1e-5 };
                        assert!(
                            error.sqrt() <= tolerance * norm.sqrt(),
                            "{ty} [{n}, {k}] row {r}: {error} of {norm}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_of_the_layout_is_the_decoded_row() {
    let device = open(Options { threads: Some(2), isa: None }).unwrap();
    for ty in GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable()) {
        let (n, k) = (TILE + 3, 3 * ty.block_values().max(32));
        let raw = blocks(ty, n * k, 11).unwrap();
        let mut decoded = vec![0.0f32; n * k];
        recua_gguf::decode(ty, &raw, &mut decoded).unwrap();
        let weight = device.upload_weight(&[RawMatrix::new(ty, n, k, &raw)], Arrange::Stacked).unwrap();
        let tokens: Vec<u32> = (0..n as u32).rev().collect();
        let tokens = device.upload(&tokens, DType::U32, &[n]).unwrap();
        let out = device.alloc(DType::F32, &[n, k]).unwrap();
        let mut plan = device.plan();
        plan.embed(&weight, &tokens, &out).unwrap();
        device.run(&plan).unwrap().wait().unwrap();
        let got: Vec<f32> = device.read_vec(&out).unwrap();
        for i in 0..n {
            for (a, b) in got[(n - 1 - i) * k..][..k].iter().zip(&decoded[i * k..][..k]) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(0.1), "{ty} row {i}: {a} is not {b}");
            }
        }
    }
}
