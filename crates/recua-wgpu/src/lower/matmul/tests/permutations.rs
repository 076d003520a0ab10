//! Every kernel of the products, in every permutation, through naga's writers for the languages that the test machine cannot run.

use super::*;
use crate::kernels::PRODUCTS;
use crate::pipelines::tests::{
    ALL_LANGUAGES, Language, assert_listed, assert_sources_are_used, noted, translate,
};
use std::collections::HashSet;

/// The kernels of the products, found by lowering products of every kind: those for adapters without cooperative matrices, those with
/// emulated matrices, and the latter with real ones. Empty without an adapter. The second result is the other kernels found on the way.
fn kernels() -> (Vec<KernelKey>, HashSet<KernelKey>) {
    if opened().is_none() {
        return Default::default();
    }
    let mut found = HashSet::new();
    for emulated in [true, false] {
        TUNING.set(Tuning { emulated, tiles_enough: 0, ..EMULATED });
        let (_, shared) = opened_with(TUNING.get()).expect("there is an adapter");
        let launches = |ty| crate::lower::lower(shared, every_product(ty).ops()).unwrap();
        decodable().for_each(|ty| found.extend(noted(&launches(ty))));
    }
    let is_product = |key: &KernelKey| PRODUCTS.iter().any(|(file, _)| *file == key.file);
    let (found, others): (HashSet<_>, HashSet<_>) = found.into_iter().partition(is_product);
    let real = |key: &KernelKey| {
        let mut key = key.clone();
        key.defines.retain(|define| *define != "EMULATED");
        key
    };
    let mut kernels: Vec<KernelKey> = found.iter().cloned().collect();
    // Weights of many rows are not split over K.
    let whole = |key: &&KernelKey| {
        ["matmul_coop_64", "matmul_tile"].contains(&key.file) && key.defines.contains(&"SPLIT")
    };
    for key in found.iter().filter(whole) {
        let mut key = key.clone();
        key.defines.retain(|define| *define != "SPLIT");
        kernels.push(key);
    }
    let found: HashSet<_> = kernels.iter().cloned().collect();
    kernels.extend(found.iter().map(real).filter(|key| !found.contains(key)));
    (kernels, others)
}

/// Products of weights of `ty`: alone and together, with bias and residual and in a GLU, after a norm and before another product, for every
/// number of rows that makes a difference, with rows that are whole vectors and rows that are not.
fn every_product(ty: GgmlType) -> Plan {
    let k = 256;
    let other_ty = if ty == GgmlType::Q8_0 { GgmlType::Q4_0 } else { GgmlType::Q8_0 };
    let (raw, other) = (random_blocks(ty, k, k, 1), random_blocks(other_ty, k, k, 1));
    let weight = weight_of(&raw, ty, k, k);
    let (one, other) = ((&raw[..], ty), (&other[..], other_ty));
    let glu_weights =
        [(one, one), (one, other), (other, one)].map(|(gate, up)| glu_weight_of(gate, up, k, k));
    let alloc = |rows: usize| device().alloc(DType::F32, &[rows, k]).unwrap();
    let (norm, bias) = (alloc(1), alloc(1));
    let (norm, bias) = (norm.view(0, &[k]).unwrap(), bias.view(0, &[k]).unwrap());
    let tokens = device().alloc(DType::U32, &[1]).unwrap();
    let mut plan = device().plan();
    plan.embed(&weight, &tokens, &alloc(1)).unwrap();
    for rows in [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 70] {
        let (stream, both, outs) = (alloc(rows), alloc(rows + 1), [alloc(rows), alloc(rows)]);
        for (start, has_norm) in [(0, false), (1, false), (0, true), (1, true)] {
            let x = both.view(start, &[rows, k]).unwrap();
            let begin = |plan: &mut Plan| {
                if has_norm {
                    plan.rms_norm(&stream, &norm, &x, 1e-5).unwrap();
                }
            };
            for bias in [None, Some(&bias)] {
                let op = Matmul::new(&x, &weight, &outs[0]).with_bias(bias);
                for add in [None, Some(&outs[0]), Some(&outs[1])] {
                    begin(&mut plan);
                    plan.matmul(Matmul { add: add.cloned(), ..op.clone() }).unwrap();
                }
            }
            for gate_up in &glu_weights {
                for has_next in [false, true] {
                    begin(&mut plan);
                    plan.matmul_glu(&x, gate_up, Activation::Silu, &outs[0]).unwrap();
                    if has_next {
                        plan.matmul(Matmul::new(&outs[0], &weight, &outs[1])).unwrap();
                    }
                }
            }
        }
    }
    plan
}

/// Only SPIR-V has cooperative matrices of 16x16; for the other languages the emulated kernels are written.
#[test]
fn every_product_can_be_written_in_every_language() {
    if opened().is_none() {
        return;
    }
    let (kernels, others) = kernels();
    assert_sources_are_used(&kernels, PRODUCTS);
    assert_listed(others);
    println!("{} kernels", kernels.len());
    let is_real = |key: &&KernelKey| key.file.contains("coop") && !key.defines.contains(&"EMULATED");
    let (real, others): (Vec<&KernelKey>, Vec<&KernelKey>) = kernels.iter().partition(is_real);
    translate(real, &[Language::SpirV], true);
    translate(others, ALL_LANGUAGES, false);
}
