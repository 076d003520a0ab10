//! Which calls are refused, and whether the device works afterwards.

use crate::{device, fresh_device};
use recua_compute::{Arrange, DType, Error, GgmlType, RawMatrix, Record};
use recua_wgpu::{AdapterReport, Options, adapters, open};

#[test]
fn buffers_of_another_device_are_refused() {
    let (Some(device), Some(other)) = (device(), fresh_device()) else { return };
    let (x, out) = (other.alloc(DType::F32, &[1, 4]).unwrap(), device.alloc(DType::U32, &[1]).unwrap());
    let refused = device.plan().argmax(&x, &out);
    assert!(matches!(refused, Err(Error::WrongDevice { .. })), "{refused:?}");
    assert!(matches!(device.write(&x, &[1.0f32]), Err(Error::WrongDevice { .. })));
    assert!(matches!(device.run(&other.plan()), Err(Error::WrongDevice { .. })));
    let commands = other.command_encoder().unwrap().finish().unwrap();
    assert!(matches!(device.submit([commands]), Err(Error::WrongDevice { .. })));
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let Some(device) = fresh_device() else { return };
    let before = device.allocated_bytes();
    let refused = device.alloc(DType::F32, &[1 << 40]);
    assert!(matches!(refused, Err(Error::OutOfMemory { .. })), "{refused:?}");
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("4398046511104 bytes for a buffer (a buffer here holds at most"), "{text}");
    assert!(matches!(device.alloc(DType::F32, &[usize::MAX]), Err(Error::Argument { .. })));
    assert_eq!(device.allocated_bytes(), before);
    let x = device.alloc(DType::F32, &[4]).unwrap();
    assert_eq!(device.read_vec::<f32>(&x).unwrap(), [0.0; 4]);
    assert_eq!(device.allocated_bytes(), before + 16);
    drop(x);
    assert_eq!(device.allocated_bytes(), before);
}

/// The driver's own refusal, which a software adapter gives if the process may have no more memory. Runs in a process of its own.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_the_driver_does_not_have_is_an_error() {
    let Some(device) = fresh_device() else { return };
    const ALONE: &str = "RECUA_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let is_software = |adapter: &AdapterReport| adapter.is_chosen && adapter.kind == "software";
        if !adapters(&Options { allow_software: true, ..Options::default() }).iter().any(is_software) {
            println!("skipped: no limit of the process keeps {} from its memory", device.info().name);
            return;
        }
        let mut child = std::process::Command::new("sh");
        child.args(["-c", "ulimit -v 4000000 && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
        child.args(["--exact", "errors::memory_that_the_driver_does_not_have_is_an_error", "--nocapture"]);
        let output = child.env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{output:#?}");
        return;
    }
    let bytes = 64 << 20;
    let before = device.allocated_bytes();
    let mut held = Vec::new();
    let error = loop {
        match device.alloc(DType::U8, &[bytes]) {
            Ok(buffer) => held.push(buffer),
            Err(error) => break error,
        }
        assert!(held.len() < 64, "{} MiB in a process of 4000", held.len() << 6);
    };
    println!("after {} pieces of 64 MiB: {error}", held.len());
    assert!(
        matches!(error, Error::OutOfMemory { requested_bytes, .. } if requested_bytes == bytes),
        "{error:?}"
    );
    assert!(!held.is_empty());
    // What was allocated still works, and freed memory can be allocated again.
    assert_eq!(device.allocated_bytes(), before + (held.len() * bytes) as u64);
    let last = held.pop().unwrap();
    device.write(&last, &[7u8; 5]).unwrap();
    drop(held);
    assert_eq!(device.allocated_bytes(), before + bytes as u64);
    let other = device.alloc(DType::U8, &[bytes]).unwrap();
    let mut plan = device.plan();
    plan.copy(&last, &other).unwrap();
    device.run(&plan).unwrap().wait().unwrap();
    let found: Vec<u8> = device.read_vec(&other.view(0, &[8]).unwrap()).unwrap();
    assert_eq!(found, [7, 7, 7, 7, 7, 0, 0, 0]);
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
fn a_report_that_nobody_waited_for_comes_with_the_next_read() {
    let Some(device) = fresh_device() else { return };
    let x = device.alloc(DType::F32, &[2, 4]).unwrap();
    let indexes = device.upload(&[7u32], DType::U32, &[1]).unwrap();
    let out = device.alloc(DType::F32, &[1, 4]).unwrap();
    let mut plan = device.plan();
    plan.gather_rows(&x, &indexes, &out).unwrap();
    drop(device.run(&plan).unwrap());
    let found = device.read_vec::<f32>(&out);
    assert!(matches!(found, Err(Error::IndexOutOfRange { index: 7, limit: 2, .. })), "{found:?}");
    assert_eq!(device.read_vec::<f32>(&out).unwrap(), [0.0; 4]);
}

#[test]
fn a_report_is_not_lost_behind_many_others_that_nobody_waited_for() {
    let Some(device) = fresh_device() else { return };
    let x = device.alloc(DType::F32, &[2, 4]).unwrap();
    let indexes = device.upload(&[7u32], DType::U32, &[1]).unwrap();
    let out = device.alloc(DType::F32, &[1, 4]).unwrap();
    let mut plan = device.plan();
    plan.gather_rows(&x, &indexes, &out).unwrap();
    drop(device.run(&plan).unwrap());
    device.write(&indexes, &[1u32]).unwrap();
    (0..300).for_each(|_| drop(device.run(&plan).unwrap()));
    let found = device.read_vec::<f32>(&out);
    assert!(matches!(found, Err(Error::IndexOutOfRange { index: 7, limit: 2, .. })), "{found:?}");
    assert_eq!(device.read_vec::<f32>(&out).unwrap(), [0.0; 4]);
}

#[test]
fn an_adapter_that_is_not_there_is_named() {
    if device().is_none() {
        return;
    }
    let options =
        Options { adapter: Some("no such adapter".into()), allow_software: true, ..Options::default() };
    let error = open(options.clone()).map(drop).unwrap_err();
    assert!(matches!(error, Error::DeviceNotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("no such adapter"), "{error}");
    assert!(adapters(&options).iter().all(|adapter| !adapter.is_chosen));
    let options = Options { allow_software: true, ..Options::default() };
    let list = adapters(&options);
    assert_eq!(list.iter().filter(|adapter| adapter.is_chosen).count(), 1, "{list:#?}");
    let chosen = list.iter().find(|adapter| adapter.is_chosen).unwrap();
    println!("{}: {} ({})", chosen.name, chosen.detail, chosen.reason);
    let auto = adapters(&Options::default());
    assert!(auto.iter().all(|adapter| !adapter.is_chosen || adapter.kind != "software"));
    // Nor does a name lift that restriction.
    for adapter in list.iter().filter(|adapter| adapter.kind == "software") {
        let named = Options { adapter: Some(adapter.name.clone()), ..Options::default() };
        assert!(matches!(open(named.clone()).map(drop), Err(Error::DeviceNotFound { .. })));
        assert!(adapters(&named).iter().all(|adapter| !adapter.is_chosen));
    }
    assert!(list.iter().all(|adapter| !adapter.reason.is_empty()));
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
    assert!(found > 1e8 && found < 1e14, "{found}");
}
