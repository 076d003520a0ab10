//! Work that runs while the host does something else: submit, ask whether it is done, wait, and how long the device took.
//!
//! `cargo run -p recua-wgpu --example 03-async-and-gpu-time`

use recua_compute::{DType, Record, Result};
use recua_wgpu::{Options, open};
use std::time::Instant;

fn main() -> Result<()> {
    let device = open(Options { allow_software: true, ..Options::default() })?;
    let (rows, dim) = (512, 4096);
    let x = device.upload(&vec![3.0f32; rows * dim], DType::F32, &[rows, dim])?;
    let weight = device.upload(&vec![1.0f32; dim], DType::F32, &[dim])?;
    let y = device.alloc(DType::F32, &[rows, dim])?;

    let mut encoder = device.command_encoder()?;
    for _ in 0..4 {
        encoder.rms_norm(&x, &weight, &y, 1e-5)?;
    }
    let start = Instant::now();
    let submission = encoder.commit()?;
    println!("started after {:?}", start.elapsed());

    // Meanwhile the host is free. Asking never blocks.
    let mut asked = 1;
    while !submission.is_done() {
        asked += 1;
        std::thread::yield_now();
    }
    println!("done after {:?}, asked {asked} times", start.elapsed());

    // Waiting returns the result of the work. It may come at once, without asking first.
    submission.wait()?;
    match submission.gpu_time() {
        Some(time) => println!("the device worked for {time:?}"),
        None => println!("this adapter has no timestamps"),
    }

    // Submissions run in the order in which they were started, so only the last one needs to be waited for. A plan is recorded and compiled
    // once and launched any number of times; a launch can bring back outputs as they are when it ends.
    let mut plan = device.plan();
    plan.rms_norm(&x, &weight, &y, 1e-5)?;
    plan.copy(&y, &x)?;
    let (program, first_value) = (device.compile(&plan)?, x.view(0, &[1])?);
    let launch = |_| program.launch(&[], std::slice::from_ref(&first_value));
    let submissions = (0..8).map(launch).collect::<Result<Vec<_>>>()?;
    let mut value = [0.0f32];
    submissions[7].take(0, &mut value)?;
    println!("the first value is {:.3}", value[0]);
    println!("all are done: {}", submissions.iter().all(|submission| submission.is_done()));
    Ok(())
}
