//! What a card cannot be made to do: errors that are put in.

use super::*;
use crate::cache::Cache;
use crate::gpu::Gpu;
use recua_compute::{DType, Device, GgmlType, Record, cases};

const ILLEGAL_ADDRESS: u32 = 700;

#[test]
fn a_device_that_is_lost_is_an_error_in_every_call() {
    let Some(gpu) = cases::opened_or_skipped("cuda", Gpu::open(0)) else { return };
    let shared = Arc::new(Shared::new(gpu, Cache::of_user()).unwrap());
    let device = Device::new(Cuda { shared: shared.clone() });
    let x = device.upload(&[1.0f32; 64], DType::F32, &[1, 64]).unwrap();
    let y = device.alloc(DType::F32, &[1, 64]).unwrap();
    let mut plan = device.plan();
    plan.copy(&x, &y).unwrap();
    let program = device.compile(&plan).unwrap();
    let under_way = program.launch(&[], std::slice::from_ref(&x)).unwrap();
    let put_in = shared.gpu.context.faults.result("running attention", ILLEGAL_ADDRESS, || "bad".into());
    assert!(put_in.is_err());
    let lost = [
        under_way.wait(),
        under_way.take(0, &mut [0.0f32; 64]),
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
        let text = result.unwrap_err().to_string();
        assert!(text.ends_with("is lost: bad, found while running attention"), "call {i}: {text}");
    }
}
