//! Encoding on two threads: the worker encodes the second half of a list while the main thread encodes the first; one submission runs
//! both, in list order.
//!
//! `cargo run -p recua-compute --example 04-encoder-worker`

use recua_compute::cpu::{self, Options};
use recua_compute::hazards::Hazards;
use recua_compute::{Buffer, Commands, DType, Device, EncoderWorker, Op, Record, Result};
use std::error::Error;
use std::sync::mpsc::channel;
use std::time::Instant;

/// A chain of norms from buffer to buffer: each needs the one before.
const N_OPS: usize = 60;

fn encode(device: &Device, ops: &[Op]) -> Result<Commands> {
    let mut encoder = device.command_encoder()?;
    for op in ops {
        encoder.push(op.clone())?;
    }
    encoder.finish()
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = cpu::open(Options::default())?;
    let weight = device.upload(&[1.5f32; 256], DType::F32, &[256])?;
    let x: Vec<f32> = (0..1024).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut buffers: Vec<Buffer> = vec![device.upload(&x, DType::F32, &[4, 256])?];
    let mut plan = device.plan();
    for i in 0..N_OPS {
        buffers.push(device.alloc(DType::F32, &[4, 256])?);
        plan.rms_norm(&buffers[i], &weight, &buffers[i + 1], 1e-5)?;
    }
    println!("{N_OPS} ops in {} groups, one after the other", Hazards::of(plan.ops()).groups().len());

    device.submit([encode(&device, plan.ops())?])?.wait()?;
    let expected = device.read_vec::<f32>(&buffers[N_OPS])?;

    // The worker is started once and kept; a thread per pass would cost more than the encoding.
    let worker = EncoderWorker::spawn()?;
    let (done, second_half) = channel();
    let start = Instant::now();
    let (device_there, ops) = (device.clone(), plan.ops()[N_OPS / 2..].to_vec());
    worker.submit(move || {
        // The receiver is gone only if the main thread failed.
        let _ = done.send(encode(&device_there, &ops));
    })?;
    let first = encode(&device, &plan.ops()[..N_OPS / 2])?;
    let second = second_half.recv()??;
    println!("encoded on two threads in {:?}", start.elapsed());
    device.submit([first, second])?.wait()?;

    let same = device.read_vec::<f32>(&buffers[N_OPS])? == expected;
    println!("the same result as from one thread: {same}");
    Ok(())
}
