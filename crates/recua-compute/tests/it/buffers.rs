//! Allocation, views, reading and writing.

use crate::{device, f32s, problem};
use recua_compute::{Activation, Arrange, BufferPool, DType, Error, GgmlType, Matmul, RawMatrix, Record};

#[test]
fn fresh_memory_is_zero() {
    let device = device();
    for n in [1, 63, 5000, 3 << 20] {
        // Dirty memory first, which the allocator may then reuse.
        device.write(&device.alloc(DType::U8, &[n]).unwrap(), &vec![0xffu8; n]).unwrap();
        let buffer = device.alloc(DType::U8, &[n]).unwrap();
        assert!(device.read_vec::<u8>(&buffer).unwrap().iter().all(|&byte| byte == 0));
    }
}

#[test]
fn memory_is_counted() {
    let device = device();
    let before = device.allocated_bytes();
    let buffer = device.alloc(DType::F16, &[100, 10]).unwrap();
    let view = buffer.view(10, &[10]).unwrap();
    drop(buffer);
    assert_eq!(device.allocated_bytes() - before, 2000, "a view keeps its allocation");
    drop(view);
    assert_eq!(device.allocated_bytes(), before);
    let raw = RawMatrix::new(GgmlType::Q8_0, 4, 32, &[0; 34 * 4]);
    let weight = device.upload_weight(&[raw], Arrange::Stacked).unwrap();
    assert_eq!(device.allocated_bytes() - before, weight.n_bytes() as u64);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let device = device();
    assert_eq!(problem(device.alloc(DType::F32, &[3, 0])), "alloc: f32[3, 0] has no elements");
    let huge = problem(device.alloc(DType::F32, &[usize::MAX, 2]));
    assert!(huge.ends_with("is larger than memory can be"), "{huge}");
    assert!(matches!(device.alloc(DType::U8, &[1 << 60]), Err(Error::OutOfMemory { .. })));
    assert!(problem(device.upload(&[1.0f32; 3], DType::F32, &[4])).contains("12 bytes"));
}

#[test]
fn views_are_checked() {
    let device = device();
    let buffer = f32s(&device, &[4, 8]);
    let view = buffer.view(8, &[2, 8]).unwrap();
    assert_eq!((view.shape(), view.offset_bytes(), view.n_bytes()), ([2, 8].as_slice(), 32, 64));
    assert!(buffer.overlaps(&view) && !view.is_same(&buffer));
    assert!(!view.overlaps(&buffer.view(0, &[8]).unwrap()));
    assert_eq!(problem(buffer.view(1, &[4, 8])), "view: [4, 8] from element 1 is outside f32[4, 8]");
    // A view of a view cannot leave it, even inside the allocation.
    problem(view.view(0, &[3, 8]));
    problem(buffer.view(usize::MAX, &[2]));
    problem(buffer.view(0, &[usize::MAX, 3]));
    assert_eq!(buffer.rows(3).unwrap().shape(), [3, 8]);
    problem(buffer.rows(5));
}

#[test]
fn reads_and_writes_are_checked() {
    let (device, other) = (device(), device());
    let buffer = f32s(&device, &[4]);
    device.write(&buffer.view(2, &[2]).unwrap(), &[5.0f32, 6.0]).unwrap();
    device.write(&buffer, &[1.0f32]).unwrap();
    assert_eq!(device.read_vec::<f32>(&buffer).unwrap(), [1.0, 0.0, 5.0, 6.0]);
    problem(device.write(&buffer, &[0.0f32; 5]));
    problem(device.write(&buffer, &[0u16; 2]));
    problem(device.read(&buffer, &mut [0u64; 2]));
    problem(device.read(&buffer, &mut [0.0f32; 5]));
    assert!(matches!(other.write(&buffer, &[0.0f32]), Err(Error::WrongDevice { .. })));
    assert!(matches!(other.read_vec::<f32>(&buffer), Err(Error::WrongDevice { .. })));
}

#[test]
fn columns_are_checked() {
    let device = device();
    let all = f32s(&device, &[3, 8]);
    device.write(&all, &(0..24).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let columns = all.columns(2..5).unwrap();
    assert_eq!((columns.shape(), columns.row_stride(), columns.offset_bytes()), ([3, 3].as_slice(), 8, 8));
    assert_eq!((columns.n_bytes(), columns.span_bytes(), columns.is_contiguous()), (36, 76, false));
    let last = columns.row_range(2..3).unwrap();
    assert!(last.is_contiguous() && columns.rows(2).unwrap().row_stride() == 8);
    assert_eq!(device.read_vec::<f32>(&last).unwrap(), [18.0, 19.0, 20.0]);
    assert_eq!(columns.columns(1..3).unwrap().offset_bytes(), 12);
    for refused in [
        all.columns(5..9),
        all.columns(std::ops::Range { start: 4, end: 3 }),
        all.row_range(0..4),
        all.view(0, &[24]).unwrap().columns(0..1),
    ] {
        problem(refused);
    }
    assert_eq!(
        problem(columns.view(0, &[9])),
        "view: f32[3, 3] are columns of a wider matrix: take its rows first"
    );
    let whole = "are columns of a wider matrix";
    assert!(problem(device.read_vec::<f32>(&columns)).contains(whole));
    assert!(problem(device.write(&columns, &[0.0f32])).contains(whole));
    let weight = device.upload(&[1.0f32; 3], DType::F32, &[3]).unwrap();
    let out = f32s(&device, &[3, 3]);
    assert_eq!(
        problem(device.plan().rms_norm(&columns, &weight, &out, 1e-5)),
        "rms_norm: x f32[3, 3] are columns of a wider matrix, a contiguous one is needed"
    );
    assert!(problem(device.plan().copy(&columns, &out)).contains(whole));
}

#[test]
fn weights_are_checked() {
    let device = device();
    let upload = |raw: RawMatrix<'_>| device.upload_weight(&[raw], Arrange::Stacked);
    let raw = |ty, n, k, raw: &'static [u8]| RawMatrix::new(ty, n, k, raw);
    assert_eq!(
        problem(upload(raw(GgmlType::Q8_0, 1, 32, &[0; 33]))),
        "upload_weight: Q8_0[1, 32] takes 34 bytes, 33 were given"
    );
    assert_eq!(
        problem(upload(raw(GgmlType::Q8_0, 1, 33, &[0; 34]))),
        "upload_weight: Q8_0 cannot be [1, 33]: blocks hold 32 values"
    );
    problem(upload(raw(GgmlType::F32, 0, 32, &[])));
    problem(upload(raw(GgmlType::F32, usize::MAX, 2, &[0; 4])));
    let result = upload(raw(GgmlType::IQ2_XXS, 1, 256, &[0; 66]));
    assert!(matches!(result, Err(Error::UnsupportedType { ty: GgmlType::IQ2_XXS, .. })));
    // Shards.
    let bytes: &[u8] = &[0; 34 * 3 * 4];
    let whole = || raw(GgmlType::Q8_0, 4, 96, bytes);
    let shard = upload(whole().rows(1..3).columns(32..96)).unwrap();
    assert_eq!((shard.n(), shard.k(), format!("{shard:?}")), (2, 64, "Q8_0[2, 64]".into()));
    assert_eq!(
        problem(upload(whole().columns(16..80))),
        "upload_weight: columns 16..80 of Q8_0[4, 96] are not whole blocks of 32; 0..96 would be"
    );
    assert_eq!(
        problem(upload(whole().rows(2..5))),
        "upload_weight: rows 2..5 of Q8_0[4, 96]: at least one row of [0, 4) is needed"
    );
    for refused in [
        whole().rows(2..2),
        whole().rows(std::ops::Range { start: 3, end: 2 }),
        whole().columns(0..0),
        whole().columns(32..128),
    ] {
        problem(upload(refused));
    }
    // Several matrices.
    let several = |parts: &[RawMatrix<'_>], arrange| problem(device.upload_weight(parts, arrange));
    assert_eq!(several(&[], Arrange::Stacked), "upload_weight: there is no matrix: at least one is needed");
    assert_eq!(
        several(&[whole(), whole().columns(0..64)], Arrange::Stacked),
        "upload_weight: matrices of 96 and of 64 columns: all matrices of a weight need the same number"
    );
    assert_eq!(
        several(&[whole(), whole().rows(0..3)], Arrange::Interleaved),
        "upload_weight: matrices of [4, 3] rows cannot be interleaved: two with the same number of rows can"
    );
    several(&[whole()], Arrange::Interleaved);
    let stacked = device.upload_weight(&[whole(), whole()], Arrange::Stacked).unwrap();
    let gate_up = device.upload_weight(&[whole(), whole()], Arrange::Interleaved).unwrap();
    assert_eq!((stacked.n(), stacked.ggml_type()), (8, Some(GgmlType::Q8_0)));
    let (x, out, half) = (f32s(&device, &[1, 96]), f32s(&device, &[1, 8]), f32s(&device, &[1, 4]));
    assert_eq!(
        problem(device.plan().matmul(Matmul::new(&x, &gate_up, &out))),
        "matmul: weight (Q8_0[4, 96] | Q8_0[4, 96]): a stacked one is needed"
    );
    problem(device.plan().matmul_glu(&x, &stacked, Activation::Silu, &half));
    problem(device.plan().matmul_glu(&x, &gate_up, Activation::Silu, &out));
    device.plan().matmul_glu(&x, &gate_up, Activation::Silu, &half).unwrap();
}

#[test]
fn a_pool_asks_the_device_only_in_the_first_round() {
    let device = device();
    let pool = BufferPool::new(&device);
    let mut allocated = 0;
    for round in 0..4 {
        let all: Vec<_> = (1..50).map(|n| pool.alloc(DType::F32, &[n, 64]).unwrap()).collect();
        if round == 0 {
            allocated = device.allocated_bytes();
        }
        assert_eq!(device.allocated_bytes(), allocated, "round {round}");
        assert_eq!((pool.n_in_use(), pool.n_free()), (49, 0));
        // Not the order in which they came.
        all.into_iter().rev().for_each(drop);
        assert_eq!(pool.free_bytes() as u64, allocated);
    }
    let kept = pool.alloc(DType::F32, &[64]).unwrap();
    drop(pool);
    assert_eq!(device.allocated_bytes(), 256, "the rest is given back");
    drop(kept);
    assert_eq!(device.allocated_bytes(), 0);
}

#[test]
fn a_pool_refuses_what_the_device_refuses() {
    let device = device();
    let pool = BufferPool::new(&device);
    drop(pool.alloc(DType::F32, &[64]).unwrap());
    assert_eq!(problem(pool.alloc(DType::F32, &[3, 0])), "alloc: f32[3, 0] has no elements");
    let huge = problem(pool.alloc(DType::F32, &[usize::MAX, 2]));
    assert!(huge.ends_with("is larger than memory can be"), "{huge}");
    assert_eq!(pool.n_free(), 1);
    assert!(matches!(pool.alloc(DType::U8, &[1 << 60]), Err(Error::OutOfMemory { .. })));
    assert_eq!(pool.n_free(), 0, "what was free was given back first");
}

#[test]
fn a_pool_is_shared_between_threads() {
    let device = device();
    let pool = BufferPool::new(&device);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (device, pool) = (&device, &pool);
            scope.spawn(move || {
                for i in 0..200 {
                    let buffer = pool.alloc(DType::U32, &[32]).unwrap();
                    device.write(&buffer, &[thread << 16 | i; 32]).unwrap();
                    assert_eq!(device.read_vec::<u32>(&buffer).unwrap(), [thread << 16 | i; 32]);
                }
            });
        }
    });
    assert!(pool.n_free() <= 4 && pool.n_in_use() == 0);
}
