//! [`BufferPool`]: free memory is reused, memory in use is not, and work in flight keeps its order.

use super::data::upload_f32;
use super::{Measured, Report};
use crate::buffer::{Buffer, DType};
use crate::buffer_pool::BufferPool;
use crate::device::Device;
use crate::error::{Result, argument};
use crate::plan::Record;

pub(super) fn check(device: &Device, report: &mut Report) {
    report.case("buffer_pool", "what is free is used again", || used_again(device));
    report.case("buffer_pool", "what is held is not", || held(device));
    report.case("buffer_pool", "work under way", || under_way(device));
}

/// Where a buffer's allocation is.
fn place(buffer: &Buffer) -> usize {
    std::sync::Arc::as_ptr(buffer.storage()).cast::<()>() as usize
}

fn expect(condition: bool, what: &str) -> Result<()> {
    if condition { Ok(()) } else { Err(argument("buffer_pool", what)) }
}

fn used_again(device: &Device) -> Result<Vec<Measured>> {
    let pool = BufferPool::new(device);
    let a = pool.alloc(DType::F32, &[5, 20])?;
    expect((a.shape(), a.dtype(), a.offset_bytes()) == (&[5, 20], DType::F32, 0), "another buffer came")?;
    let fresh = Measured::exact("fresh memory", &device.read_vec::<f32>(&a)?, &[0.0; 100]);
    let first = place(&a);
    device.write(&a, &[3.0f32; 100])?;
    let clone = a.clone();
    drop(a);
    expect((pool.n_in_use(), pool.n_free(), pool.free_bytes()) == (1, 0, 0), "a clone holds it")?;
    drop(clone);
    expect((pool.n_in_use(), pool.n_free(), pool.free_bytes()) == (0, 1, 512), "it is free")?;
    // Another type and shape of the same class.
    let b = pool.alloc(DType::U16, &[200])?;
    expect(place(&b) == first && b.n_elements() == 200, "it is used again")?;
    let c = pool.alloc(DType::F32, &[100])?;
    let larger = pool.alloc(DType::F32, &[200])?;
    expect(place(&c) != first && place(&larger) != first, "nothing is handed out twice")?;
    drop((b, c));
    expect((pool.n_in_use(), pool.n_free(), pool.free_bytes()) == (1, 2, 1024), "two are free")?;
    let borrowed = pool.alloc(DType::U8, &[256])?;
    expect((pool.n_in_use(), pool.n_free()) == (2, 1), "one of twice the size serves")?;
    let smaller = pool.alloc(DType::U8, &[255])?;
    drop((borrowed, smaller));
    pool.clear();
    expect((pool.n_in_use(), pool.n_free()) == (1, 0), "free ones go, the others stay")?;
    drop(larger);
    let small = pool.alloc(DType::U8, &[256])?;
    expect(pool.n_free() == 1 && small.n_bytes() == 256, "one of four times the size does not")?;
    Ok(vec![fresh])
}

fn held(device: &Device) -> Result<Vec<Measured>> {
    let pool = BufferPool::new(device);
    let ones = upload_f32(device, &[1.0; 64], &[64])?;
    let scratch = || pool.alloc(DType::F32, &[64]);
    // Held by a view.
    let a = scratch()?;
    let (first, view) = (place(&a), a.view(60, &[4])?);
    drop(a);
    expect(place(&scratch()?) != first, "a view holds it")?;
    drop(view);
    // Held by a plan.
    pool.clear();
    let a = scratch()?;
    let (first, mut plan) = (place(&a), device.plan());
    plan.copy(&ones, &a)?;
    drop(a);
    expect(place(&scratch()?) != first, "a plan holds it")?;
    drop(plan);
    // Held by an encoder, and by commands that are not yet submitted.
    pool.clear();
    let a = scratch()?;
    let (first, mut encoder) = (place(&a), device.command_encoder()?);
    encoder.copy(&ones, &a)?;
    drop(a);
    let b = scratch()?;
    expect(place(&b) != first, "an encoder holds it")?;
    let commands = encoder.finish()?;
    let c = scratch()?;
    expect(place(&c) != first, "finished commands hold it")?;
    device.write(&c, &[7.0f32; 64])?;
    device.submit([commands])?.wait()?;
    expect(pool.n_free() == 1 && place(&scratch()?) == first, "it is free after the submission")?;
    Ok(vec![Measured::exact("another buffer", &device.read_vec::<f32>(&c)?, &[7.0; 64])])
}

fn under_way(device: &Device) -> Result<Vec<Measured>> {
    let pool = BufferPool::new(device);
    let n = 1 << 18;
    let ones = upload_f32(device, &vec![1.0; n], &[n])?;
    let mut expected = Vec::new();
    let mut found = Vec::new();
    for round in 0..6 {
        // What this pass writes, and what it reads, is dropped while it runs.
        let (a, b) = (pool.alloc(DType::F32, &[n])?, pool.alloc(DType::F32, &[n])?);
        let out = device.alloc(DType::F32, &[n])?;
        device.write(&a, &vec![round as f32; n])?;
        let mut plan = device.plan();
        plan.copy(&a, &b)?;
        plan.copy(&ones, &a)?;
        plan.copy(&b, &out)?;
        device.run(&plan)?;
        drop((a, b, plan));
        expected.push(round as f32);
        found.push(out);
    }
    expect(pool.n_free() == 2, "two buffers served all rounds")?;
    let mut measured = Vec::new();
    for (out, expected) in found.iter().zip(&expected) {
        measured.push(Measured::exact("a round", &device.read_vec::<f32>(out)?, &vec![*expected; n]));
    }
    Ok(measured)
}
