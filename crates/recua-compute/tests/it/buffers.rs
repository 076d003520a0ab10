//! Allocation, views, reading and writing.

use crate::{device, f32s, problem};
use recua_compute::{BufferPool, DType, Error, GgmlType};

#[test]
fn fresh_memory_is_zero() {
    let device = device();
    for n in [1, 63, 5000, 3 << 20] {
        // Dirty memory first, so that the allocator has some to give back.
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
    let weight = device.upload_weight(&[0; 34 * 4], GgmlType::Q8_0, 4, 32).unwrap();
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
fn weights_are_checked() {
    let device = device();
    assert_eq!(
        problem(device.upload_weight(&[0; 33], GgmlType::Q8_0, 1, 32)),
        "upload_weight: Q8_0[1, 32] takes 34 bytes, 33 came"
    );
    assert_eq!(
        problem(device.upload_weight(&[0; 34], GgmlType::Q8_0, 1, 33)),
        "upload_weight: Q8_0 cannot be [1, 33]: blocks hold 32 values"
    );
    problem(device.upload_weight(&[], GgmlType::F32, 0, 32));
    problem(device.upload_weight(&[0; 4], GgmlType::F32, usize::MAX, 2));
    let result = device.upload_weight(&[0; 66], GgmlType::IQ2_XXS, 1, 256);
    assert!(matches!(result, Err(Error::UnsupportedType { ty: GgmlType::IQ2_XXS, .. })));
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
