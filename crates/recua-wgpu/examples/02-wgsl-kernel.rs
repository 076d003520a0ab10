//! A hand-written kernel in WGSL. The docs of `KernelSource::Wgsl` say how bindings, bytes and constants reach it.
//!
//! `cargo run -p recua-wgpu --example 02-wgsl-kernel`

use recua_compute::{DType, KernelArg, KernelRegistry, KernelSource, Result};
use recua_wgpu::{Options, open};

/// The sum of each row, one workgroup per row.
const ROW_SUMS: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
struct Args { n_cols: u32, factor: f32 }
var<immediate> args: Args;
override THREADS: u32 = 32u;
var<workgroup> parts: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn row_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    for (var i = thread; i < args.n_cols; i += THREADS) {
        parts[thread] += x[group.x * args.n_cols + i];
    }
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            parts[thread] += parts[thread + half];
        }
    }
    if thread == 0u {
        sums[group.x] = parts[0] * args.factor;
    }
}
";

fn main() -> Result<()> {
    let device = open(Options { allow_software: true, ..Options::default() })?;
    let registry = KernelRegistry::new();
    registry.register("row_sums", KernelSource::Wgsl(ROW_SUMS.into()));
    // Compiled now, once per set of constants.
    let kernel = registry.get(&device, "row_sums", &[("THREADS", 64.0)])?;

    let (n_rows, n_cols) = (5, 1000);
    let values: Vec<f32> = (0..n_rows * n_cols).map(|i| (i / n_cols) as f32).collect();
    let x = device.upload(&values, DType::F32, &[n_rows, n_cols])?;
    let sums = device.alloc(DType::F32, &[n_rows])?;

    // The kernel's struct, byte for byte: a u32, then an f32.
    let args = [(n_cols as u32).to_le_bytes(), 0.5f32.to_le_bytes()].concat();
    let args = [KernelArg::Read(&x), KernelArg::Write(&sums), KernelArg::Bytes(&args)];
    let mut encoder = device.command_encoder()?;
    encoder.dispatch(&kernel, [n_rows as u32, 1, 1], &args)?;
    // Wrong arguments are refused when they are recorded.
    if let Err(error) = encoder.dispatch(&kernel, [1, 1, 1], &args[..2]) {
        println!("refused: {error}");
    }
    encoder.commit_and_wait()?;
    println!("half of each row's sum: {:?}", device.read_vec::<f32>(&sums)?);

    registry
        .register("broken", KernelSource::Wgsl("@compute @workgroup_size(1) fn broken() { x = 1; }".into()));
    if let Err(error) = registry.get(&device, "broken", &[]) {
        println!("refused: {error}");
    }
    Ok(())
}
