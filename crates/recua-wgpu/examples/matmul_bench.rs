//! Checks the products on this machine's GPU, then times them.
//!
//! `cargo run --release -p recua-wgpu --example matmul_bench [check] [time] [portable] [software] [ty=Q4_K,Q6_K] [rows=1,4,16] [n=4096] [mib=600]`
//!
//! The check compares every type with the decoded weights in f64 and with the portable kernels, and each row's bits across row
//! counts. The timing runs through enough different weights that the second-level cache does not hold them.

use recua_compute::{Activation, Buffer, DType, Device, GgmlType, MatmulPart, Plan, Record, Result, Weight};
use recua_wgpu::{Options, open};
use std::time::{Duration, Instant};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() % 4001) as f32 / 1000.0 - 2.0).collect()
    }

    /// Blocks of `ty` with small float scales.
    fn blocks(&mut self, ty: GgmlType, n: usize, k: usize) -> Vec<u8> {
        let mut raw: Vec<u8> = (0..n * ty.row_bytes(k).unwrap_or(0)).map(|_| self.next() as u8).collect();
        let halves: &[usize] = match ty {
            GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
            GgmlType::Q2_K => &[80, 82],
            GgmlType::Q3_K => &[108],
            GgmlType::Q6_K => &[208],
            _ => &[0],
        };
        for block in raw.chunks_exact_mut(ty.block_bytes()) {
            let value = (self.next() % 2000) as f32 / 1000.0 - 1.0;
            match ty {
                GgmlType::F32 => block.copy_from_slice(&value.to_le_bytes()),
                GgmlType::BF16 => block.copy_from_slice(&(value.to_bits() >> 16).to_le_bytes()[..2]),
                GgmlType::MXFP4 => block[0] = 120 + (self.next() % 8) as u8,
                _ => {
                    for &at in halves {
                        let bits = ((self.next() % 0x1000 + 0x1000) | ((self.next() & 1) << 15)) as u16;
                        block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                    }
                }
            }
        }
        raw
    }
}

fn upload(device: &Device, x: &[f32], k: usize) -> Result<Buffer> {
    device.upload(x, DType::F32, &[x.len() / k, k])
}

fn product(device: &Device, weight: &Weight, x: &[f32]) -> Result<Vec<f32>> {
    let x = upload(device, x, weight.k())?;
    let out = device.alloc(DType::F32, &[x.n_rows(), weight.n()])?;
    let mut plan = device.plan();
    plan.matmul(&x, [MatmulPart::new(weight, &out)])?;
    device.run(&plan)?.wait()?;
    device.read_vec(&out)
}

fn glu(device: &Device, gate: &Weight, up: &Weight, x: &[f32]) -> Result<Vec<f32>> {
    let x = upload(device, x, gate.k())?;
    let out = device.alloc(DType::F32, &[x.n_rows(), gate.n()])?;
    let mut plan = device.plan();
    plan.matmul_glu(&x, gate, up, Activation::Silu, &out)?;
    device.run(&plan)?.wait()?;
    device.read_vec(&out)
}

/// The root of the mean squared error, in units of the root of the sum of the squared products.
fn error(got: &[f32], x: &[f32], w: &[f32], n: usize, k: usize) -> f64 {
    let (mut error, mut norm) = (0.0f64, 0.0f64);
    for (i, got) in got.iter().enumerate() {
        let pairs = x[i / n * k..][..k].iter().zip(&w[i % n * k..][..k]);
        let exact: f64 = pairs.clone().map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
        norm += pairs.map(|(&x, &w)| (f64::from(x) * f64::from(w)).powi(2)).sum::<f64>();
        error += (f64::from(*got) - exact).powi(2);
    }
    (error / norm).sqrt()
}

/// The first row whose bits differ from the same row among all.
fn differing_row(part: &[f32], all: &[f32], n: usize) -> Option<usize> {
    part.iter().zip(all).position(|(a, b)| a.to_bits() != b.to_bits()).map(|i| i / n)
}

fn check(device: &Device, portable: &Device, types: &[GgmlType]) -> Result<bool> {
    let mut all_good = true;
    println!("{:8} {:>12} {:>12}  bits", "type", "error", "portable");
    for &ty in types {
        let mut random = Random(7);
        let (n, k, rows) = (173, 2304, 150);
        let (raw, raw_up) = (random.blocks(ty, n, k), random.blocks(ty, n, k));
        let mut decoded = vec![0.0f32; n * k];
        recua_gguf::decode(ty, &raw, &mut decoded).expect("whole blocks");
        let x = random.values(rows * k);
        let small: Vec<f32> = x.iter().map(|v| v * 0.01).collect();
        let weight = device.upload_weight(&raw, ty, n, k)?;
        let up = device.upload_weight(&raw_up, ty, n, k)?;
        let all = product(device, &weight, &x)?;
        let all_glu = glu(device, &weight, &up, &small)?;
        let other = product(portable, &portable.upload_weight(&raw, ty, n, k)?, &x)?;
        let mut differs = Vec::new();
        for batch in [1, 2, 3, 4, 5, 8, 16, 17, 32, 33, 64, 65, 128] {
            let start = batch.min(22);
            let part = product(device, &weight, &x[start * k..(start + batch) * k])?;
            if let Some(row) = differing_row(&part, &all[start * n..], n) {
                differs.push(format!("matmul {batch} row {row}"));
            }
            let part = glu(device, &weight, &up, &small[start * k..(start + batch) * k])?;
            if let Some(row) = differing_row(&part, &all_glu[start * n..], n) {
                differs.push(format!("glu {batch} row {row}"));
            }
        }
        let errors = [&all, &other].map(|got| error(got, &x, &decoded, n, k));
        // f16 activations and weights round to 2⁻¹²; `!(a <= b)` so that a NaN fails.
        let is_exact = errors[0] <= 1e-3 && errors[1] <= 1e-5;
        let bits = if differs.is_empty() { "same".to_string() } else { differs.join(", ") };
        println!(
            "{:8} {:12.2e} {:12.2e}  {bits}{}",
            ty.name(),
            errors[0],
            errors[1],
            if is_exact { "" } else { "  WRONG" }
        );
        all_good &= is_exact && differs.is_empty();
    }
    Ok(all_good)
}

/// The median of some runs, after enough of them for the clocks to rise.
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

/// Those of an 8B model: attention's output, q, k and v together, down, gate and up, the vocabulary.
const SHAPES: [(usize, usize, bool); 5] = [
    (4096, 4096, false),
    (6144, 4096, false),
    (4096, 14336, false),
    (14336, 4096, true),
    (128_256, 4096, false),
];

fn time(device: &Device, types: &[GgmlType], rows: &[usize], ns: &[usize], bytes: usize) -> Result<()> {
    let rows_max = rows.iter().copied().max().unwrap_or(1);
    println!("{:8} {:>14} {:>6} {:>10} {:>9} {:>9}", "type", "n x k", "rows", "us", "GB/s", "TFLOP/s");
    for &ty in types {
        for (n, k, is_glu) in SHAPES.into_iter().filter(|(n, ..)| ns.is_empty() || ns.contains(n)) {
            let mut random = Random(1);
            // Every 512 rows are the same.
            let mut raw = random.blocks(ty, n.min(512), k).repeat(n.div_ceil(512));
            raw.truncate(n * ty.row_bytes(k).unwrap_or(0));
            let n_weights = (bytes / raw.len()).clamp(2, 64);
            let weights = (0..n_weights).map(|_| device.upload_weight(&raw, ty, n, k));
            let weights = weights.collect::<Result<Vec<_>>>()?;
            let x = upload(device, &random.values(rows_max * k), k)?;
            let out = device.alloc(DType::F32, &[rows_max, n])?;
            for &rows in rows {
                let (x, out) = (x.rows(rows)?, out.rows(rows)?);
                // Fewer where one takes long anyway.
                let n_used = if rows > 256 { n_weights.min(4) } else { n_weights };
                let mut plan = device.plan();
                for pair in weights[..n_used / 2 * 2].chunks_exact(2) {
                    if is_glu {
                        plan.matmul_glu(&x, &pair[0], &pair[1], Activation::Silu, &out)?;
                    } else {
                        plan.matmul(&x, [MatmulPart::new(&pair[0], &out)])?;
                        plan.matmul(&x, [MatmulPart::new(&pair[1], &out)])?;
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

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let list = |name: &str| {
        let value = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.split(',').map(str::to_string).collect::<Vec<_>>())
    };
    let types = |default: &[GgmlType]| match list("ty") {
        Some(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
        None => default.to_vec(),
    };
    let options =
        Options { allow_software: has("software"), portable: has("portable"), ..Options::default() };
    let device = open(options.clone())?;
    println!("{device:?}: {}", device.info().detail);
    let everything = !has("check") && !has("time");
    if everything || has("check") {
        let decodable: Vec<GgmlType> = GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable()).collect();
        let portable = open(Options { portable: true, ..options })?;
        if !check(&device, &portable, &types(&decodable))? {
            println!("THE PRODUCTS ARE WRONG");
            std::process::exit(1);
        }
    }
    if everything || has("time") {
        let numbers = |name| -> Option<Vec<usize>> {
            list(name).map(|all| all.iter().filter_map(|n| n.parse().ok()).collect())
        };
        let rows: Vec<usize> = numbers("rows").unwrap_or_else(|| vec![1, 4, 16, 64, 512, 2048]);
        let ns: Vec<usize> = numbers("n").unwrap_or_default();
        let mib = numbers("mib").and_then(|mib| mib.first().copied()).unwrap_or(600);
        time(&device, &types(&[GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0]), &rows, &ns, mib << 20)?;
    }
    Ok(())
}
