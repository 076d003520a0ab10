//! Scratch memory that is reused: a step takes buffers and drops them, and the next step gets the same memory.
//!
//! `cargo run -p recua-compute --example 05-buffer-pool`

use recua_compute::cpu::{self, Options};
use recua_compute::{BufferPool, DType, Record, Result};

fn main() -> Result<()> {
    let device = cpu::open(Options::default())?;
    let pool = BufferPool::new(&device);
    let weight = device.upload(&[1.0f32; 256], DType::F32, &[256])?;

    for rows in [4, 3, 2, 4] {
        // Only the first step allocates on the device. Reused memory holds what was last in it.
        let x = pool.alloc(DType::F32, &[rows, 256])?;
        let normed = pool.alloc(DType::F32, &[rows, 256])?;
        device.write(&x, &vec![2.0f32; rows * 256])?;
        let mut encoder = device.command_encoder()?;
        encoder.rms_norm(&x, &weight, &normed, 1e-5)?;
        // The commands hold their buffers until they are submitted, so the pool does not hand them out before that.
        drop(x);
        println!("{rows} rows: {} in use, {} free", pool.n_in_use(), pool.n_free());
        encoder.commit_and_wait()?;
        println!("  the first is {:.3}", device.read_vec::<f32>(&normed)?[0]);
    }

    println!("{} bytes are free, {} allocated in all", pool.free_bytes(), device.allocated_bytes());
    pool.clear();
    println!("{} allocated after clearing the pool", device.allocated_bytes());
    Ok(())
}
