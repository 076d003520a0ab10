//! A product with quantized weights: encode a matrix as Q4_K blocks, upload it, multiply, compare.
//!
//! `cargo run -p recua-compute --example 02-quantized-matmul`

use recua_compute::cpu::{self, Options};
use recua_compute::{Arrange, DType, GgmlType, QuantizedMatmulParams, RawMatrix};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let device = cpu::open(Options::default())?;
    let (m, n, k, ggml_type) = (4, 8, 512, GgmlType::Q4_K);

    // A GGUF file holds such blocks; here they are made from numbers.
    let weights: Vec<f32> = (0..n * k).map(|i| ((i * 37 % 201) as f32 - 100.0) / 100.0).collect();
    let mut blocks = Vec::new();
    recua_gguf::encode(ggml_type, &weights, &mut blocks)?;
    println!("{} weights in {} bytes", weights.len(), blocks.len());

    // Checked, and converted once to this device's layout.
    let w = device.upload_weight(&[RawMatrix::new(ggml_type, n, k, &blocks)], Arrange::Stacked)?;

    let input: Vec<f32> = (0..m * k).map(|i| ((i * 11 % 31) as f32 - 15.0) / 15.0).collect();
    let x = device.upload(&input, DType::F32, &[m, k])?;
    let y = device.alloc(DType::F32, &[m, n])?;

    let mut encoder = device.command_encoder()?;
    encoder.quantized_matmul(&x, &w, &y, &QuantizedMatmulParams { m, n, k, ggml_type })?;
    let submission = encoder.commit()?;
    submission.wait()?;

    // The values of the blocks, multiplied in f64.
    let mut held = vec![0.0f32; n * k];
    recua_gguf::decode(ggml_type, &blocks, &mut held)?;
    let output = device.read_vec::<f32>(&y)?;
    for (row, out) in output.chunks(n).enumerate() {
        let exact = |j: usize| -> f64 {
            let (x, w) = (&input[row * k..][..k], &held[j * k..][..k]);
            x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        println!("row {row}: {:8.3} and exactly {:8.3}", out[0], exact(0));
    }
    Ok(())
}
