//! Encoders, hand-written kernels, several threads.

use crate::device;
use recua_compute::{
    Buffer, DType, Device, EncoderWorker, Error, KernelArg, KernelRegistry, KernelSource, Record, Result,
};
use std::sync::mpsc::channel;

const SCALE: &str = "
struct Args { unsigned n; float factor; };
#ifndef ADDED
#define ADDED 0
#endif

extern \"C\" __global__ void scale(const float* x, float* y, Args args) {
    unsigned i = blockIdx.x * BLOCK_SIZE + threadIdx.x;
    if (i < args.n) y[i] = x[i] * args.factor + ADDED;
}
";

/// The last parameter of `SCALE`.
fn scale_args(n: u32, factor: f32) -> Vec<u8> {
    [n.to_le_bytes(), factor.to_le_bytes()].concat()
}

fn registry(source: &str) -> KernelRegistry {
    let registry = KernelRegistry::new();
    registry.register("scale", KernelSource::CudaC(source.into()));
    registry
}

fn scale(device: &Device, registry: &KernelRegistry, x: &Buffer, y: &Buffer, factor: f32) -> Result<()> {
    let kernel = registry.get(device, "scale", &[("ADDED", 1.0), ("BLOCK_SIZE", 64.0)])?;
    let mut encoder = device.command_encoder()?;
    let args = scale_args(x.n_elements() as u32, factor);
    let groups = [x.n_elements().div_ceil(64) as u32, 1, 1];
    encoder.dispatch(&kernel, groups, &[KernelArg::Read(x), KernelArg::Write(y), KernelArg::Bytes(&args)])?;
    encoder.commit_and_wait()
}

#[test]
fn a_hand_written_kernel_runs() {
    let Some(device) = device() else { return };
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let x = device.upload(&values, DType::F32, &[1000]).unwrap();
    let y = device.alloc(DType::F32, &[1000]).unwrap();
    // Named as the kernel, or the only one, whatever its name.
    let other = SCALE.replace("extern \"C\" __global__ void scale", "__global__ void other");
    for source in [SCALE, &other] {
        let registry = registry(source);
        scale(device, &registry, &x, &y, 2.0).unwrap();
        let expected: Vec<f32> = values.iter().map(|x| x * 2.0 + 1.0).collect();
        assert_eq!(device.read_vec::<f32>(&y).unwrap(), expected);

        // Two views of one allocation, one read and one written.
        let (low, high) = (y.view(0, &[256]).unwrap(), y.view(512, &[256]).unwrap());
        scale(device, &registry, &low, &high, 0.0).unwrap();
        let found = device.read_vec::<f32>(&y).unwrap();
        assert!(found[512..768].iter().all(|&y| y == 1.0));
        assert!(found[511] == expected[511] && found[768] == expected[768]);
    }
}

#[test]
fn a_wrong_kernel_or_argument_is_an_error_that_names_it() {
    let Some(device) = device() else { return };
    let x = device.alloc(DType::F32, &[64]).unwrap();
    let y = device.alloc(DType::F32, &[64]).unwrap();
    let message = |source: &str| {
        let error = registry(source).get(device, "scale", &[]).map(drop).unwrap_err();
        assert!(matches!(error, Error::KernelCompile { .. }), "{error:?}");
        error.to_string()
    };
    let broken = message("extern \"C\" __global__ void scale() { int a = nothing; }");
    assert!(broken.contains("'scale'") && broken.contains("nothing"), "{broken}");
    let none = message("__device__ void helper() {}");
    assert!(none.contains("no __global__ function"), "{none}");
    let two = message("__global__ void a() {} __global__ void b() {}");
    assert!(two.contains("no one of 2 __global__ functions"), "{two}");
    let registry = registry(SCALE);
    let error = registry.get(device, "scale", &[("BLOCK_SIZE", 2048.0)]).map(drop).unwrap_err();
    assert!(error.to_string().contains("BLOCK_SIZE is 2048"), "{error}");
    registry.register("wgsl", KernelSource::Wgsl("fn f() {}".into()));
    assert!(registry.get(device, "wgsl", &[]).map(drop).unwrap_err().to_string().contains("CUDA C++"));
    assert!(matches!(registry.get(device, "absent", &[]).map(drop), Err(Error::KernelNotFound { .. })));

    let kernel = registry.get(device, "scale", &[]).unwrap();
    let args = scale_args(64, 1.0);
    let wrong = |groups: [u32; 3], list: &[KernelArg<'_>]| {
        let mut encoder = device.command_encoder().unwrap();
        let error = encoder.dispatch(&kernel, groups, list).unwrap_err().to_string();
        assert!(error.contains("scale"), "{error}");
        error
    };
    let (read, write, bytes) = (KernelArg::Read(&x), KernelArg::Write(&y), KernelArg::Bytes(&args));
    assert!(wrong([1; 3], &[read, bytes]).contains("2 arguments for 3 parameters"));
    assert!(wrong([1; 3], &[read, write, write, bytes]).contains("overlaps"));
    let half = KernelArg::Bytes(&args[..4]);
    assert!(wrong([1; 3], &[read, write, half]).contains("argument 2 has 4 bytes"));
    assert!(wrong([1; 3], &[read, half, bytes]).contains("argument 1 has 4 bytes"));
    assert!(wrong([1, 1 << 20, 1], &[read, write, bytes]).contains("are possible"));
}

#[test]
fn two_halves_encoded_on_two_threads_run_in_list_order() {
    let Some(device) = device() else { return };
    let registry = registry(SCALE);
    let kernel = registry.get(device, "scale", &[("ADDED", 1.0)]).unwrap();
    let x = device.upload(&[3.0f32; 256], DType::F32, &[256]).unwrap();
    let (y, z) = (device.alloc(DType::F32, &[256]).unwrap(), device.alloc(DType::F32, &[256]).unwrap());
    let half = {
        let kernel = kernel.clone();
        move |from: &Buffer, to: &Buffer, factor: f32| {
            let mut encoder = device.command_encoder().unwrap();
            let args = scale_args(256, factor);
            let args = [KernelArg::Read(from), KernelArg::Write(to), KernelArg::Bytes(&args)];
            encoder.dispatch(&kernel, [1, 1, 1], &args).unwrap();
            encoder.finish().unwrap()
        }
    };
    let worker = EncoderWorker::spawn().unwrap();
    for _ in 0..20 {
        let (done, second_half) = channel();
        let there = (half.clone(), y.clone(), z.clone());
        worker.submit(move || done.send(there.0(&there.1, &there.2, 10.0)).unwrap()).unwrap();
        let first = half(&x, &y, 2.0);
        let submission = device.submit([first, second_half.recv().unwrap()]).unwrap();
        submission.wait().unwrap();
        assert!(submission.is_done());
        submission.wait().unwrap();
        assert!(device.read_vec::<f32>(&z).unwrap().iter().all(|&z| z == 71.0));
        device.write(&z, &[0.0f32; 256]).unwrap();
    }
    assert_eq!(worker.n_panics(), 0);
}

#[test]
fn commands_hold_what_they_name_until_they_are_submitted() {
    let Some(device) = device() else { return };
    let registry = registry(SCALE);
    let kernel = registry.get(device, "scale", &[("ADDED", 1.0)]).unwrap();
    let out = device.alloc(DType::F32, &[256]).unwrap();
    let commands = {
        let x = device.upload(&[3.0f32; 256], DType::F32, &[256]).unwrap();
        let y = device.alloc(DType::F32, &[256]).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        let args = scale_args(256, 2.0);
        let args = [KernelArg::Read(&x), KernelArg::Write(&y), KernelArg::Bytes(&args)];
        encoder.dispatch(&kernel, [1, 1, 1], &args).unwrap();
        encoder.copy(&y, &out).unwrap();
        encoder.finish().unwrap()
    };
    // Memory of the same size, which the freed one would have been.
    let _others: Vec<_> =
        (0..8).map(|_| device.upload(&[9.0f32; 256], DType::F32, &[256]).unwrap()).collect();
    device.submit([commands]).unwrap().wait().unwrap();
    assert!(device.read_vec::<f32>(&out).unwrap().iter().all(|&y| y == 7.0));
}

#[test]
fn an_empty_recording_is_fine() {
    let Some(device) = device() else { return };
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    device.submit([]).unwrap().wait().unwrap();
    device.run(&device.plan()).unwrap().wait().unwrap();
}
