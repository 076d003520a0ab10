//! Memory on a device: allocate, view, write, read.
//!
//! `cargo run -p recua-compute --example 01-buffers`

use recua_compute::cpu::{self, Options};
use recua_compute::{DType, Record, Result};

fn main() -> Result<()> {
    // The processors of this machine as a device. A GPU crate's `open` gives the same type.
    let device = cpu::open(Options::default())?;
    println!("{}: {}, {}", device.info().kind, device.info().name, device.info().detail);

    // New memory is zero.
    let matrix = device.alloc(DType::F32, &[3, 4])?;
    println!("{matrix:?} takes {} bytes", matrix.n_bytes());

    // A view shares the memory; one that would leave it is an error.
    let second_row = matrix.view(4, &[4])?;
    device.write(&second_row, &[1.0f32, 2.0, 3.0, 4.0])?;
    println!("the whole: {:?}", device.read_vec::<f32>(&matrix)?);
    if let Err(error) = matrix.view(9, &[4]) {
        println!("refused: {error}");
    }

    // Ops are checked when they are recorded, and run later.
    let copy = device.alloc(DType::F32, &[4])?;
    let mut encoder = device.command_encoder()?;
    encoder.copy(&second_row, &copy)?;
    if let Err(error) = encoder.copy(&matrix, &copy) {
        println!("refused: {error}");
    }
    encoder.commit_and_wait()?;
    println!("the copy: {:?}", device.read_vec::<f32>(&copy)?);

    println!("{} bytes are allocated", device.allocated_bytes());
    drop(matrix);
    println!("{} after dropping the matrix, whose view still lives", device.allocated_bytes());
    drop(second_row);
    println!("{} after dropping the view", device.allocated_bytes());
    Ok(())
}
