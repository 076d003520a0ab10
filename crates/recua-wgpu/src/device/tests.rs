use super::*;
use crate::adapter::{self, Options};
use recua_compute::{Arrange, DType, Device, GgmlType, RawMatrix, Record, cases};

#[test]
fn a_device_that_is_gone_is_an_error() {
    let options = Options { allow_software: true, ..Options::default() };
    let Some(opened) = cases::opened_or_skipped("wgpu", adapter::open(&options)) else { return };
    let wgpu = Wgpu::new(opened, Tuning::default()).unwrap();
    let shared = wgpu.shared.clone();
    let device = Device::new(wgpu);
    let x = device.upload(&[1.0f32; 64], DType::F32, &[1, 64]).unwrap();
    let weight = device.upload(&[1.0f32; 64], DType::F32, &[64]).unwrap();
    let mut plan = device.plan();
    plan.rms_norm(&x, &weight, &x, 1e-5).unwrap();
    // The commands of the third run have been encoded by now.
    let program = device.compile(&plan).unwrap();
    (0..2).for_each(|_| program.launch(&[], &[]).unwrap().wait().unwrap());
    let under_way = program.launch(&[], std::slice::from_ref(&x)).unwrap();

    shared.gpu.device.destroy();
    let _ = under_way.wait();
    let _ = under_way.take(0, &mut [0.0f32; 64]);
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
    }
}
