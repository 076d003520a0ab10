//! A hand-written kernel, through the registry. For the CPU device it is a Rust function; a GPU device takes WGSL or CUDA C++.
//!
//! `cargo run -p recua-compute --example 03-hand-written-kernel`

use recua_compute::cpu::{self, Options};
use recua_compute::{CallArg, DType, KernelArg, KernelCall, KernelRegistry, KernelSource, Result};
use std::sync::Arc;

/// `y = min(max(x, -limit), limit)`
fn clamp(call: &mut KernelCall<'_>) -> Result<(), String> {
    let limit =
        call.constants.iter().find(|(name, _)| name == "limit").ok_or("no constant 'limit'")?.1 as f32;
    let [CallArg::Read(x), CallArg::Write(y)] = &mut call.args[..] else {
        return Err("clamp takes x and y".into());
    };
    let (x, y): (&[f32], &mut [f32]) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y));
    for (x, y) in x.iter().zip(y) {
        *y = x.clamp(-limit, limit);
    }
    Ok(())
}

fn main() -> Result<()> {
    let device = cpu::open(Options::default())?;

    // One registry serves all threads. A source is compiled on first use, once for each set of constants.
    let registry = KernelRegistry::new();
    registry.register("clamp", KernelSource::Rust(Arc::new(clamp)));
    let narrow = registry.get(&device, "clamp", &[("limit", 1.0)])?;
    let wide = registry.get(&device, "clamp", &[("limit", 2.0)])?;

    let x = device.upload(&[-3.0f32, -1.5, 0.0, 0.5, 2.5], DType::F32, &[5])?;
    let (a, b) = (device.alloc(DType::F32, &[5])?, device.alloc(DType::F32, &[5])?);
    let mut encoder = device.command_encoder()?;
    // Saying what is read and what is written lets the encoder refuse overlaps and the device order the work.
    encoder.dispatch(&narrow, [1, 1, 1], &[KernelArg::Read(&x), KernelArg::Write(&a)])?;
    encoder.dispatch(&wide, [1, 1, 1], &[KernelArg::Read(&x), KernelArg::Write(&b)])?;
    encoder.commit_and_wait()?;
    println!("limit 1: {:?}", device.read_vec::<f32>(&a)?);
    println!("limit 2: {:?}", device.read_vec::<f32>(&b)?);

    // The wrong language for a device is an error.
    registry.register("shader", KernelSource::Wgsl("@compute @workgroup_size(1) fn shader() {}".into()));
    if let Err(error) = registry.get(&device, "shader", &[]) {
        println!("refused: {error}");
    }
    Ok(())
}
