//! The command encoder: what it refuses, when work runs and in which order.

use crate::{device, f32s, problem};
use recua_compute::{
    Activation, Arrange, DType, Device, Error, GgmlType, INERT, KvPool, KvShape, KvType, Matmul,
    QuantizedMatmulParams, RawMatrix, Record, RopeStore, RopeStyle, RowMap, Weight,
};
use std::sync::Arc;
use std::sync::mpsc::channel;

/// A Q8_0 weight of `n` rows of 64 ones.
fn ones(device: &Device, n: usize) -> Weight {
    let mut raw = Vec::new();
    recua_gguf::encode(GgmlType::Q8_0, &vec![1.0; n * 64], &mut raw).expect("a small weight");
    let raw = RawMatrix::new(GgmlType::Q8_0, n, 64, &raw);
    device.upload_weight(&[raw], Arrange::Stacked).expect("a small weight")
}

#[test]
fn a_quantized_matmul_runs() {
    let device = device();
    let (w, y) = (ones(&device, 3), f32s(&device, &[2, 3]));
    let x = device.upload(&[0.5f32; 128], DType::F32, &[2, 64]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let params = QuantizedMatmulParams { m: 2, n: 3, k: 64, ggml_type: GgmlType::Q8_0 };
    encoder.quantized_matmul(&x, &w, &y, &params).unwrap();
    assert_eq!(device.read_vec::<f32>(&y).unwrap(), [0.0; 6], "nothing runs before the commit");
    let submission = encoder.commit().unwrap();
    submission.wait().unwrap();
    submission.wait().unwrap();
    assert!(submission.is_done());
    for value in device.read_vec::<f32>(&y).unwrap() {
        assert!((value - 32.0).abs() < 0.2, "{value}");
    }
}

#[test]
fn quantized_matmul_checks_every_argument() {
    let device = device();
    let (w, x, y) = (ones(&device, 3), f32s(&device, &[2, 64]), f32s(&device, &[2, 3]));
    let good = QuantizedMatmulParams { m: 2, n: 3, k: 64, ggml_type: GgmlType::Q8_0 };
    let mut encoder = device.command_encoder().unwrap();
    let named = |problem: String| {
        assert!(problem.starts_with("quantized_matmul: "), "{problem}");
        problem
    };
    let mut check =
        |params: QuantizedMatmulParams| named(problem(encoder.quantized_matmul(&x, &w, &y, &params)));
    assert_eq!(
        check(QuantizedMatmulParams { ggml_type: GgmlType::Q4_0, ..good }),
        "quantized_matmul: Q4_0[3, 64] was requested, the weight is Q8_0[3, 64]"
    );
    for n in [0, 2, 4] {
        check(QuantizedMatmulParams { n, ..good });
    }
    for k in [0, 32, 63, 128] {
        check(QuantizedMatmulParams { k, ..good });
    }
    for m in [3, usize::MAX] {
        check(QuantizedMatmulParams { m, ..good });
    }
    // Buffers that are too small, of another type, or the same.
    let short = f32s(&device, &[2, 63]);
    assert_eq!(
        problem(encoder.quantized_matmul(&short, &w, &y, &good)),
        "quantized_matmul: x f32[2, 63] does not hold [2, 64]"
    );
    named(problem(encoder.quantized_matmul(&x, &w, &f32s(&device, &[5]), &good)));
    named(problem(encoder.quantized_matmul(&x, &w, &x.view(0, &[2, 3]).unwrap(), &good)));
    let halves = device.alloc(DType::F16, &[2, 64]).unwrap();
    let result = encoder.quantized_matmul(&halves, &w, &y, &good);
    let wrong_type =
        |op, found, expected| op == "quantized_matmul" && (found, expected) == (DType::F16, DType::F32);
    assert!(
        matches!(result, Err(Error::WrongType { op, found, expected, .. }) if wrong_type(op, found, expected))
    );
    // Larger buffers and fewer rows are fine.
    encoder.quantized_matmul(&x, &w, &f32s(&device, &[100]), &good).unwrap();
    encoder.quantized_matmul(&x, &w, &y, &QuantizedMatmulParams { m: 1, ..good }).unwrap();
    encoder.commit_and_wait().unwrap();
}

#[test]
fn what_belongs_to_another_device_is_refused() {
    let (device, other) = (device(), device());
    let (w, x, y) = (ones(&device, 3), f32s(&device, &[2, 64]), f32s(&device, &[2, 3]));
    let params = QuantizedMatmulParams { m: 2, n: 3, k: 64, ggml_type: GgmlType::Q8_0 };
    let mut encoder = device.command_encoder().unwrap();
    let foreign = |result: Result<(), Error>| assert!(matches!(result, Err(Error::WrongDevice { .. })));
    foreign(encoder.quantized_matmul(&f32s(&other, &[2, 64]), &w, &y, &params));
    foreign(encoder.quantized_matmul(&x, &ones(&other, 3), &y, &params));
    foreign(encoder.quantized_matmul(&x, &w, &f32s(&other, &[2, 3]), &params));
    foreign(other.submit([encoder.finish().unwrap()]).map(drop));
    foreign(other.run(&device.plan()).map(drop));
}

#[test]
fn a_weight_that_the_device_did_not_make_is_an_error_of_the_op() {
    let device = device();
    let raw = || RawMatrix::new(GgmlType::F32, 4, 4, &[0; 64]);
    let forged = Weight::from_storage(Arc::new(()), device.id(), &[raw()], Arrange::Stacked, 64);
    let forged_glu =
        Weight::from_storage(Arc::new(()), device.id(), &[raw(), raw()], Arrange::Interleaved, 128);
    let (x, out) = (f32s(&device, &[1, 4]), f32s(&device, &[1, 4]));
    let tokens = device.alloc(DType::U32, &[1]).unwrap();
    let mut plans = [device.plan(), device.plan(), device.plan()];
    plans[0].matmul(Matmul::new(&x, &forged, &out)).unwrap();
    plans[1].matmul_glu(&x, &forged_glu, Activation::Silu, &out).unwrap();
    plans[2].embed(&forged, &tokens, &out).unwrap();
    for plan in plans {
        for result in [device.compile(&plan).map(drop), device.run(&plan).map(drop)] {
            assert!(matches!(result, Err(Error::WrongDevice { what: "a weight", .. })), "{result:?}\n{plan}");
        }
    }
}

/// A kernel may read from a table before it knows whether it needs the value, so the table must have elements.
#[test]
fn tables_and_caches_without_elements_are_refused() {
    let device = device();
    let u32s = |shape: &[usize]| device.alloc(DType::U32, shape).unwrap();
    let shape = KvShape { n_pages: 2, n_kv_heads: 1, head_dim: 8, kv_type: KvType::F32 };
    let row = || f32s(&device, &[1, 8]);
    let good = RopeStore {
        q: row(),
        k: row(),
        v: row(),
        norm: None,
        table: f32s(&device, &[4, 4, 2]),
        style: RopeStyle::Halves,
        rows: RowMap { positions: u32s(&[1]), sequences: u32s(&[1]), pages: u32s(&[1, 2]), work: u32s(&[4]) },
        cache: device.alloc_kv(&shape).unwrap(),
    };
    let check = |change: &dyn Fn(&mut RopeStore)| {
        let mut op = good.clone();
        change(&mut op);
        device.plan().rope_store(op)
    };
    check(&|_| ()).unwrap();
    for shape in [[0, 4, 2], [4, 0, 2], [1, 5, 2]] {
        let found = problem(check(&|op| op.table = f32s(&device, &[40]).view(0, &shape).unwrap()));
        assert!(found.ends_with("is not [positions, 1 to 4, 2]"), "{found}");
    }
    for shape in [[0, 2], [1, 0]] {
        let found = problem(check(&|op| op.rows.pages = u32s(&[2]).view(0, &shape).unwrap()));
        assert!(found.ends_with("is not [sequences, pages] of at least one each"), "{found}");
    }
    let found = problem(check(&|op| op.rows.work = u32s(&[3])));
    assert!(found.ends_with("has no room for a work list"), "{found}");
    for shape in [
        KvShape { n_pages: 0, ..shape },
        KvShape { n_kv_heads: 0, ..shape },
        KvShape { head_dim: 0, ..shape },
        KvShape { head_dim: 7, ..shape },
    ] {
        let found = problem(device.alloc_kv(&shape).map(drop));
        assert!(found.contains("at least one page"), "{found}");
    }
    let found = problem(device.alloc_kv(&KvShape { n_pages: usize::MAX / 64, ..shape }).map(drop));
    assert!(found.ends_with("is larger than memory can be"), "{found}");
}

#[test]
fn pages_are_copied_between_pools_that_are_alike() {
    let device = device();
    let shape = KvShape { n_pages: 3, n_kv_heads: 2, head_dim: 4, kv_type: KvType::F32 };
    let pool = |shape| device.alloc_kv(&shape).unwrap();
    let (a, b) = (pool(shape), pool(KvShape { n_pages: 5, ..shape }));
    let list = |pairs: &[u32]| device.upload(pairs, DType::U32, &[pairs.len() / 2, 2]).unwrap();
    let try_copy = |from: &KvPool, to: &KvPool, pairs: &[u32]| {
        let mut plan = device.plan();
        plan.copy_pages(from, to, &list(pairs))?;
        device.run(&plan)?.wait()
    };
    try_copy(&a, &b, &[0, 4, 2, 0, INERT, 9, 9, INERT]).unwrap();
    try_copy(&a, &a, &[0, 1]).unwrap();
    for (from, to, pairs, expected) in [
        (&a, &b, &[0, 1, 2, 1][..], "page 1 is written twice"),
        (&a, &a, &[0, 1, 1, 2], "page 1 is read and written"),
    ] {
        assert!(problem(try_copy(from, to, pairs)).ends_with(expected));
    }
    for other in [
        KvShape { n_kv_heads: 1, ..shape },
        KvShape { head_dim: 8, ..shape },
        KvShape { kv_type: KvType::F16, ..shape },
    ] {
        let found = problem(try_copy(&a, &pool(other), &[0, 0]));
        assert!(found.contains("cannot be pages of kv"), "{found}");
    }
    let flat = device.alloc(DType::U32, &[4]).unwrap();
    assert!(
        problem(device.plan().copy_pages(&a, &b, &flat))
            .ends_with("is not [pairs, 2] with at least one pair")
    );
    // A pool that the device did not make.
    let forged = KvPool::from_storage(Arc::new(()), Vec::new(), device.id(), shape).unwrap();
    let found = try_copy(&forged, &a, &[0, 0]);
    assert!(matches!(found, Err(Error::WrongDevice { what: "a cache", .. })), "{found:?}");
}

#[test]
fn overlaps_are_refused() {
    let device = device();
    let all = f32s(&device, &[3, 8]);
    let (a, b) = (all.rows(2).unwrap(), all.view(8, &[2, 8]).unwrap());
    let weight = f32s(&device, &[8]);
    let mut encoder = device.command_encoder().unwrap();
    problem(encoder.copy(&a, &b));
    problem(encoder.rms_norm(&a, &weight, &b, 1e-5));
    problem(encoder.rms_norm(&a, &all.view(0, &[8]).unwrap(), &a, 1e-5));
    encoder.rms_norm(&a, &weight, &a, 1e-5).unwrap();
}

#[test]
fn an_empty_recording_and_no_commands_are_fine() {
    let device = device();
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    device.submit([]).unwrap().wait().unwrap();
    device.run(&device.plan()).unwrap().wait().unwrap();
}

#[test]
fn a_dropped_encoder_abandons_its_work() {
    let device = device();
    let a = device.upload(&[7.0f32], DType::F32, &[1]).unwrap();
    let b = f32s(&device, &[1]);
    let mut encoder = device.command_encoder().unwrap();
    encoder.copy(&a, &b).unwrap();
    drop(encoder);
    let mut encoder = device.command_encoder().unwrap();
    encoder.copy(&a, &b).unwrap();
    drop(encoder.finish().unwrap());
    assert_eq!(device.read_vec::<f32>(&b).unwrap(), [0.0]);
}

#[test]
fn commands_run_in_list_order_whichever_thread_encoded_them() {
    let device = device();
    let x = |value: f32| device.upload(&[value; 64], DType::F32, &[64]).unwrap();
    let (one, two, out) = (x(1.0), x(2.0), f32s(&device, &[64]));
    for first_here in [true, false] {
        let worker = recua_compute::EncoderWorker::spawn().unwrap();
        let (done, encoded) = channel();
        let (device_there, two, target) = (device.clone(), two.clone(), out.clone());
        worker
            .submit(move || {
                let mut encoder = device_there.command_encoder().unwrap();
                encoder.copy(&two, &target).unwrap();
                done.send(encoder.finish().unwrap()).unwrap();
            })
            .unwrap();
        let mut encoder = device.command_encoder().unwrap();
        encoder.copy(&one, &out).unwrap();
        let (here, there) = (encoder.finish().unwrap(), encoded.recv().unwrap());
        let list = if first_here { [here, there] } else { [there, here] };
        device.submit(list).unwrap().wait().unwrap();
        let last = if first_here { 2.0 } else { 1.0 };
        assert_eq!(device.read_vec::<f32>(&out).unwrap(), [last; 64]);
    }
}

#[test]
fn an_encoder_made_in_the_worker_commits_there() {
    let device = device();
    let (w, y) = (ones(&device, 3), f32s(&device, &[1, 3]));
    let x = device.upload(&[2.0f32; 64], DType::F32, &[1, 64]).unwrap();
    let worker = recua_compute::EncoderWorker::spawn().unwrap();
    let (done, result) = channel();
    let (device_there, y_there) = (device.clone(), y.clone());
    worker
        .submit(move || {
            let run = || {
                let mut encoder = device_there.command_encoder()?;
                let params = QuantizedMatmulParams { m: 1, n: 3, k: 64, ggml_type: GgmlType::Q8_0 };
                encoder.quantized_matmul(&x, &w, &y_there, &params)?;
                encoder.commit_and_wait()
            };
            done.send(run()).unwrap();
        })
        .unwrap();
    result.recv().unwrap().unwrap();
    for value in device.read_vec::<f32>(&y).unwrap() {
        assert!((value - 128.0).abs() < 1.0, "{value}");
    }
}

#[test]
fn a_plan_can_be_run_in_parts() {
    let device = device();
    let a = device.upload(&[1.0f32, 2.0], DType::F32, &[2]).unwrap();
    let (b, c) = (f32s(&device, &[2]), f32s(&device, &[2]));
    let mut plan = device.plan();
    plan.copy(&a, &b).unwrap();
    plan.copy(&b, &c).unwrap();
    device.run(&plan.part(0, 1)).unwrap().wait().unwrap();
    assert_eq!(device.read_vec::<f32>(&c).unwrap(), [0.0, 0.0]);
    device.run(&plan.part(1, 9)).unwrap().wait().unwrap();
    assert_eq!(device.read_vec::<f32>(&c).unwrap(), [1.0, 2.0]);
    assert_eq!(plan.to_string().lines().count(), 2);
}
