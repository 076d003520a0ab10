//! Hand-written kernels.

use crate::{device, f32s, problem};
use recua_compute::{CallArg, DType, Error, Kernel, KernelArg, KernelRegistry, KernelSource};
use std::sync::Arc;

/// `y = y * factor + x` over all elements, with the number of workgroups in the first element and immediate bytes in the second.
fn scale_add() -> KernelSource {
    KernelSource::Rust(Arc::new(|call| {
        let factor =
            call.constants.iter().find(|(name, _)| name == "factor").ok_or("no constant 'factor'")?.1;
        let [CallArg::Read(x), CallArg::Write(y), CallArg::Bytes(extra)] = &mut call.args[..] else {
            return Err("x, y and bytes are needed".into());
        };
        let (x, y): (&[f32], &mut [f32]) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y));
        for (x, y) in x.iter().zip(y.iter_mut()) {
            *y = *y * factor as f32 + x;
        }
        y[0] = call.groups.iter().product::<u32>() as f32;
        y[1] = f32::from(extra[0]);
        Ok(())
    }))
}

#[test]
fn a_rust_kernel_runs_with_its_constants() {
    let device = device();
    let registry = KernelRegistry::new();
    registry.register("scale_add", scale_add());
    let x = device.upload(&[1.0f32, 2.0, 3.0, 4.0], DType::F32, &[4]).unwrap();
    let y = device.upload(&[10.0f32, 20.0, 30.0, 40.0], DType::F32, &[4]).unwrap();
    for (factor, expected) in [(2.0, 63.0), (0.5, 34.5)] {
        let kernel = registry.get(&device, "scale_add", &[("factor", factor)]).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        let args = [KernelArg::Read(&x), KernelArg::Write(&y), KernelArg::Bytes(&[9])];
        encoder.dispatch(&kernel, [5, 2, 1], &args).unwrap();
        encoder.commit_and_wait().unwrap();
        let y = device.read_vec::<f32>(&y).unwrap();
        assert_eq!((y[0], y[1]), (10.0, 9.0), "groups and bytes arrive");
        assert_eq!(y[2], expected);
    }
}

/// Clones of one kernel share its name's memory.
fn same(a: &Kernel, b: &Kernel) -> bool {
    std::ptr::eq(a.name(), b.name())
}

#[test]
fn a_second_get_is_the_same_kernel_and_other_constants_are_another() {
    let (device, other) = (device(), device());
    let registry = KernelRegistry::new();
    registry.register("k", scale_add());
    let kernel = |device, factor| registry.get(device, "k", &[("factor", factor)]).unwrap();
    let (first, second) = (kernel(&device, 1.0), kernel(&device, 1.0));
    assert!(same(&first, &second));
    assert!(!same(&first, &kernel(&device, 2.0)));
    assert!(!same(&first, &kernel(&other, 1.0)));
    assert_eq!((first.name(), first.device()), ("k", device.id()));
    // Another source of the same name replaces it.
    registry.register("k", scale_add());
    assert!(!same(&first, &kernel(&device, 1.0)));
}

#[test]
fn unknown_names_and_wrong_languages_are_errors_that_say_so() {
    let device = device();
    let registry = KernelRegistry::new();
    let error = registry.get(&device, "nobody", &[]).err().unwrap();
    assert_eq!(error.to_string(), "kernel 'nobody' is not registered");
    registry.register("shader", KernelSource::Wgsl("fn main() {}".into()));
    registry.register("cuda", KernelSource::CudaC("__global__ void cuda() {}".into()));
    for (name, language) in [("shader", "WGSL"), ("cuda", "CUDA")] {
        let error = registry.get(&device, name, &[]).err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, Error::KernelCompile { .. }) && text.contains(language), "{text}");
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn a_kernel_that_fails_or_panics_is_an_error_and_the_device_goes_on() {
    let device = device();
    let registry = KernelRegistry::new();
    registry.register("fails", KernelSource::Rust(Arc::new(|_| Err("out of luck".into()))));
    registry.register("panics", KernelSource::Rust(Arc::new(|_| panic!("on purpose"))));
    for (name, message) in [("fails", "out of luck"), ("panics", "panicked")] {
        let kernel = registry.get(&device, name, &[]).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        encoder.dispatch(&kernel, [1, 1, 1], &[]).unwrap();
        let error = encoder.commit_and_wait().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::KernelRun { .. }), "{text}");
        assert!(text.contains(name) && text.contains(message), "{text}");
    }
    assert_eq!(device.read_vec::<f32>(&f32s(&device, &[1])).unwrap(), [0.0]);
}

#[test]
fn dispatches_are_checked() {
    let (device, other) = (device(), device());
    let registry = KernelRegistry::new();
    registry.register("nothing", KernelSource::Rust(Arc::new(|_| Ok(()))));
    let kernel = registry.get(&device, "nothing", &[]).unwrap();
    let all = f32s(&device, &[8]);
    let (low, high) = (all.view(0, &[5]).unwrap(), all.view(4, &[4]).unwrap());
    let mut encoder = device.command_encoder().unwrap();
    let mut dispatch = |args: &[KernelArg<'_>]| encoder.dispatch(&kernel, [1, 1, 1], args);
    dispatch(&[KernelArg::Read(&low), KernelArg::Read(&high)]).unwrap();
    problem(dispatch(&[KernelArg::Write(&low), KernelArg::Read(&high)]));
    problem(dispatch(&[KernelArg::Read(&low), KernelArg::Write(&high)]));
    problem(dispatch(&[KernelArg::Write(&low), KernelArg::Write(&low)]));
    let foreign = f32s(&other, &[8]);
    assert!(matches!(dispatch(&[KernelArg::Read(&foreign)]), Err(Error::WrongDevice { .. })));
    let result = other.command_encoder().unwrap().dispatch(&kernel, [1, 1, 1], &[]);
    assert!(matches!(result, Err(Error::WrongDevice { .. })));
}

#[test]
fn the_registry_is_shared_between_threads() {
    let device = device();
    let registry = KernelRegistry::new();
    registry.register("k", scale_add());
    let kernels: Vec<_> = std::thread::scope(|scope| {
        let get = || registry.get(&device, "k", &[("factor", 3.0)]).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(get)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(kernels.iter().all(|kernel| same(kernel, &kernels[0])));
}
