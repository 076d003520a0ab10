//! What is refused, and what comes back afterwards.

use crate::{alone, device, fresh_device};
use recua_compute::{
    Arrange, DType, Error, GgmlType, KernelArg, KernelRegistry, KernelSource, RawMatrix, Record,
};
use recua_cuda::{Options, devices, open};

#[test]
fn buffers_of_another_device_are_refused() {
    let (Some(device), Some(other)) = (device(), fresh_device()) else { return };
    let (x, out) = (other.alloc(DType::F32, &[1, 4]).unwrap(), device.alloc(DType::F32, &[1, 4]).unwrap());
    let refused = device.plan().copy(&x, &out);
    assert!(matches!(refused, Err(Error::WrongDevice { .. })), "{refused:?}");
    assert!(matches!(device.write(&x, &[1.0f32]), Err(Error::WrongDevice { .. })));
    assert!(matches!(device.run(&other.plan()), Err(Error::WrongDevice { .. })));
    let commands = other.command_encoder().unwrap().finish().unwrap();
    assert!(matches!(device.submit([commands]), Err(Error::WrongDevice { .. })));
}

#[test]
fn memory_that_is_not_there_is_an_error_with_figures() {
    let Some(device) = fresh_device() else { return };
    let before = device.allocated_bytes();
    let refused = device.alloc(DType::F32, &[1 << 40]);
    assert!(matches!(refused, Err(Error::OutOfMemory { .. })), "{refused:?}");
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("4398046511104 bytes for a buffer (") && text.contains("bytes are free)"),
        "{text}"
    );
    assert!(matches!(device.alloc(DType::F32, &[usize::MAX]), Err(Error::Argument { .. })));
    assert_eq!(device.allocated_bytes(), before);
    let x = device.alloc(DType::F32, &[4]).unwrap();
    assert_eq!(device.read_vec::<f32>(&x).unwrap(), [0.0; 4]);
    assert_eq!(device.allocated_bytes(), before + 16);
    drop(x);
    assert_eq!(device.allocated_bytes(), before);
}

/// Most of it in pieces, freed, and again in others: what is freed can be had in any size.
#[test]
fn memory_that_is_freed_can_be_had_in_other_pieces() {
    alone("errors::memory_that_is_freed_can_be_had_in_other_pieces", allocate_in_pieces);
}

fn allocate_in_pieces() {
    let Some(device) = fresh_device() else { return };
    let promised = device.info().memory_bytes.unwrap() as usize;
    for pieces in [4, 3, 1] {
        let n = promised / 5 * 4 / pieces;
        let held: Vec<_> = (0..pieces).map(|_| device.alloc(DType::U8, &[n]).unwrap()).collect();
        device.write(&held[0].view(n - 8, &[8]).unwrap(), &[7u8; 8]).unwrap();
        assert_eq!(
            device.read_vec::<u8>(&held[0].view(n - 9, &[9]).unwrap()).unwrap(),
            [0, 7, 7, 7, 7, 7, 7, 7, 7]
        );
    }
}

#[test]
fn bytes_may_begin_and_end_anywhere() {
    let Some(device) = device() else { return };
    let x = device.upload(&(0..40u8).collect::<Vec<_>>(), DType::U8, &[40]).unwrap();
    let part = x.view(3, &[7]).unwrap();
    assert_eq!(device.read_vec::<u8>(&part).unwrap(), (3..10).collect::<Vec<u8>>());
    device.write(&part, &[99u8; 5]).unwrap();
    let mut expected: Vec<u8> = (0..40).collect();
    expected[3..8].fill(99);
    assert_eq!(device.read_vec::<u8>(&x).unwrap(), expected);
}

#[test]
fn large_writes_and_reads_go_in_pieces() {
    let Some(device) = device() else { return };
    // Two and a bit of the pieces that are staged, at an odd place.
    let n = (70 << 20) + 5;
    let values: Vec<u8> = (0..n).map(|i| (i * 7 + i / 251) as u8).collect();
    let x = device.alloc(DType::U8, &[n + 3]).unwrap();
    let part = x.view(3, &[n]).unwrap();
    device.write(&part, &values).unwrap();
    assert!(device.read_vec::<u8>(&part).unwrap() == values);
    assert_eq!(device.read_vec::<u8>(&x.view(0, &[3]).unwrap()).unwrap(), [0; 3]);
}

#[test]
fn a_report_that_nobody_waited_for_comes_with_the_next_read() {
    let Some(device) = fresh_device() else { return };
    let x = device.alloc(DType::F32, &[2, 4]).unwrap();
    let indexes = device.upload(&[7u32], DType::U32, &[1]).unwrap();
    let out = device.alloc(DType::F32, &[1, 4]).unwrap();
    let mut plan = device.plan();
    plan.gather_rows(&x, &indexes, &out).unwrap();
    drop(device.run(&plan).unwrap());
    // Nor behind many others that nobody waited for.
    device.write(&indexes, &[1u32]).unwrap();
    (0..300).for_each(|_| drop(device.run(&plan).unwrap()));
    let found = device.read_vec::<f32>(&out);
    assert!(matches!(found, Err(Error::IndexOutOfRange { index: 7, limit: 2, .. })), "{found:?}");
    assert_eq!(device.read_vec::<f32>(&out).unwrap(), [0.0; 4]);
}

#[test]
fn a_card_that_is_not_there_is_named() {
    if device().is_none() {
        return;
    }
    let error = open(Options { index: 99 }).map(drop).unwrap_err();
    assert!(matches!(error, Error::DeviceNotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("cuda:99"), "{error}");
    let list = devices().unwrap();
    for card in &list {
        println!("{card:?}");
    }
    assert!(list[0].problem.is_none() && list[0].memory_bytes > 0);
}

#[test]
fn a_weight_of_the_wrong_size_is_refused() {
    let Some(device) = device() else { return };
    let refused = device.upload_weight(&[RawMatrix::new(GgmlType::F32, 5, 6, &[0; 100])], Arrange::Stacked);
    assert!(matches!(refused, Err(Error::Argument { .. })), "{refused:?}");
}

#[test]
fn bandwidth_is_measured() {
    let Some(device) = fresh_device() else { return };
    let found = device.measure_read_bandwidth().unwrap();
    println!("{:.1} GB/s", found / 1e9);
    assert!(found > 1e10 && found < 1e14, "{found}");
}

/// A kernel that stops the card's context, as an illegal address does.
#[test]
fn a_device_that_is_lost_is_an_error_in_every_call() {
    alone("errors::a_device_that_is_lost_is_an_error_in_every_call", lose);
}

fn lose() {
    let Some(device) = fresh_device() else { return };
    let x = device.upload(&[1.0f32; 64], DType::F32, &[64]).unwrap();
    let y = device.alloc(DType::F32, &[64]).unwrap();
    let mut plan = device.plan();
    (0..5).for_each(|_| plan.copy(&x, &y).unwrap());
    let program = device.compile(&plan).unwrap();
    (0..3).for_each(|_| program.launch(&[], &[]).unwrap().wait().unwrap());
    let registry = KernelRegistry::new();
    let source = "extern \"C\" __global__ void trap(float* x) { asm volatile(\"trap;\"); }";
    registry.register("trap", KernelSource::CudaC(source.into()));
    let kernel = registry.get(&device, "trap", &[]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    encoder.dispatch(&kernel, [1; 3], &[KernelArg::Write(&x)]).unwrap();
    // The device may be so fast that the call itself finds it.
    let (under_way, behind) = (encoder.commit(), program.launch(&[], std::slice::from_ref(&y)));
    let first = under_way.and_then(|submission| submission.wait()).unwrap_err();
    assert!(matches!(first, Error::DeviceLost { .. }), "{first:?}");
    println!("{first}");
    if let Ok(behind) = behind {
        assert!(behind.wait().is_err() && behind.take(0, &mut [0.0f32; 64]).is_err());
    }
    let lost = [
        device.run(&plan).and_then(|submission| submission.wait()),
        program.launch(&[], &[]).and_then(|submission| submission.wait()),
        device.read_vec::<f32>(&x).map(drop),
        device.write(&x, &[2.0f32; 64]),
        device.alloc(DType::F32, &[64]).map(drop),
        device.upload_weight(&[RawMatrix::new(GgmlType::F32, 1, 64, &[0; 256])], Arrange::Stacked).map(drop),
        device.command_encoder().map(drop),
        device.measure_read_bandwidth().map(drop),
    ];
    for (i, result) in lost.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::DeviceLost { .. })), "call {i}: {result:?}");
        assert_eq!(result.unwrap_err().to_string(), first.to_string(), "call {i} says what it was first");
    }
}
