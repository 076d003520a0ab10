//! `recua-bench matmul`: times the products on this machine's GPU. The timing goes through more weights than the second-level cache holds.

use crate::Result;
use clap::Args;
use recua_compute::cases::data::{blocks, values};
use recua_compute::{
    Activation, Arrange, Buffer, DType, Device, GgmlType, Matmul, Plan, RawMatrix, Record, cases,
};
use recua_wgpu::{Options, open};
use std::time::{Duration, Instant};

/// Time products on a GPU
#[derive(Args)]
pub(crate) struct MatmulArgs {
    /// First run the shared op cases on the device: every type against f64, and the same bits for each row across row counts
    #[arg(long)]
    check: bool,
    /// Use the kernels for adapters without cooperative matrices
    #[arg(long)]
    portable: bool,
    /// Allow a software adapter
    #[arg(long)]
    software: bool,
    /// Types of weights, separated by commas
    #[arg(long = "type", value_name = "LIST", value_delimiter = ',', default_value = "Q4_K,Q6_K,Q8_0")]
    types: Vec<GgmlType>,
    /// Rows of activations, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4,16,64,512,2048")]
    rows: Vec<usize>,
    /// Only the shapes with this many weight rows
    #[arg(short, value_name = "LIST", value_delimiter = ',')]
    n: Vec<usize>,
    /// Total size of the weights to go through, in MiB
    #[arg(long, value_name = "N", default_value_t = 600)]
    mib: usize,
}

fn upload(device: &Device, x: &[f32], k: usize) -> recua_compute::Result<Buffer> {
    device.upload(x, DType::F32, &[x.len() / k, k])
}

/// The median of some runs, after enough runs for the clocks to rise.
fn median(device: &Device, plan: &Plan) -> Result<Duration> {
    let program = device.compile(plan)?;
    let run = || -> Result<Duration> {
        let start = Instant::now();
        let submission = program.launch(&[], &[])?;
        submission.wait()?;
        Ok(submission.gpu_time().unwrap_or_else(|| start.elapsed()))
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(400) {
        run()?;
    }
    let mut times = (0..15).map(|_| run()).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// The shapes of an 8B model: attention's output, q, k and v together, down, gate and up, the vocabulary.
const SHAPES: [(usize, usize, bool); 5] = [
    (4096, 4096, false),
    (6144, 4096, false),
    (4096, 14336, false),
    (14336, 4096, true),
    (128_256, 4096, false),
];

fn time(device: &Device, types: &[GgmlType], rows: &[usize], ns: &[usize], bytes: usize) -> Result {
    let rows_max = rows.iter().copied().max().unwrap_or(1);
    println!("{:8} {:>14} {:>6} {:>10} {:>9} {:>9}", "type", "n x k", "rows", "us", "GB/s", "TFLOP/s");
    for &ty in types {
        for (n, k, is_glu) in SHAPES.into_iter().filter(|(n, ..)| ns.is_empty() || ns.contains(n)) {
            // The rows repeat every 512.
            let mut raw = blocks(ty, n.min(512) * k, 1)?.repeat(n.div_ceil(512));
            raw.truncate(n * ty.row_bytes(k).unwrap_or(0));
            let n_weights = (bytes / raw.len()).clamp(2, 64);
            let matrix = || RawMatrix::new(ty, n, k, &raw);
            let pairs = (0..n_weights / 2).map(|_| match is_glu {
                true => Ok(vec![device.upload_weight(&[matrix(), matrix()], Arrange::Interleaved)?]),
                false => (0..2).map(|_| device.upload_weight(&[matrix()], Arrange::Stacked)).collect(),
            });
            let pairs = pairs.collect::<recua_compute::Result<Vec<_>>>()?;
            let x = upload(device, &values(rows_max * k, 2), k)?;
            let out = device.alloc(DType::F32, &[rows_max, n])?;
            for &rows in rows {
                let (x, out) = (x.rows(rows)?, out.rows(rows)?);
                // Fewer runs if each takes long.
                let n_used = if rows > 256 { n_weights.min(4) } else { n_weights };
                let mut plan = device.plan();
                for weight in pairs[..n_used / 2].iter().flatten() {
                    if is_glu {
                        plan.matmul_glu(&x, weight, Activation::Silu, &out)?;
                    } else {
                        plan.matmul(Matmul::new(&x, weight, &out))?;
                    }
                }
                let seconds = median(device, &plan)?.as_secs_f64() / (n_used / 2 * 2) as f64;
                let shape = format!("{}{n}x{k}", if is_glu { "glu " } else { "" });
                println!(
                    "{:8} {shape:>14} {rows:6} {:10.2} {:9.0} {:9.2}",
                    ty.name(),
                    seconds * 1e6,
                    raw.len() as f64 / seconds / 1e9,
                    2.0 * (rows * n * k) as f64 / seconds / 1e12
                );
            }
        }
    }
    Ok(())
}

pub(crate) fn run(args: &MatmulArgs) -> Result {
    let options = Options { allow_software: args.software, portable: args.portable, ..Options::default() };
    let device = open(options)?;
    println!("{device:?}: {}", device.info().detail);
    if args.check {
        for report in [cases::check_all(&device), cases::check_same_bits(&device)] {
            println!("{report}");
            report.assert();
        }
    }
    time(&device, &args.types, &args.rows, &args.n, args.mib << 20)
}
