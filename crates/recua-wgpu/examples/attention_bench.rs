//! How long attention and the small ops take on this machine's adapter, at the sizes of an 8B model: the device's own time where it
//! tells, else the host's.
#![allow(clippy::unwrap_used, reason = "a bench may fail where it stands")]

use recua_compute::*;
use std::time::{Duration, Instant};

const HEADS: [usize; 3] = [32, 8, 128];
const REPEATS: usize = 20;

fn time(device: &Device, record: impl Fn(&mut Plan)) -> Duration {
    let mut plan = device.plan();
    (0..REPEATS).for_each(|_| record(&mut plan));
    device.prepare(&plan).unwrap();
    let mut times: Vec<Duration> = (0..7)
        .map(|_| {
            let start = Instant::now();
            let submission = device.run(&plan).unwrap();
            submission.wait().unwrap();
            submission.gpu_time().unwrap_or_else(|| start.elapsed()) / REPEATS as u32
        })
        .collect();
    times.sort_unstable();
    times[3]
}

fn attention(device: &Device, n_sequences: usize, rows_each: usize, context: usize) {
    let [n_heads, n_kv_heads, head_dim] = HEADS;
    let pages_each = context.div_ceil(PAGE_TOKENS);
    let n = n_sequences * rows_each;
    let shape = [n_sequences * pages_each, n_kv_heads, PAGE_TOKENS, head_dim];
    let cache = || device.alloc(DType::F16, &shape).unwrap();
    let cache = KvLayer { k: cache(), v: cache() };
    let u32s = |values: Vec<u32>, shape: &[usize]| device.upload(&values, DType::U32, shape).unwrap();
    let positions = (0..n).map(|i| (context - rows_each + i % rows_each) as u32).collect();
    let rows = RowMap {
        positions: u32s(positions, &[n]),
        sequences: u32s((0..n).map(|i| (i / rows_each) as u32).collect(), &[n]),
        pages: u32s((0..shape[0] as u32).collect(), &[n_sequences, pages_each]),
    };
    let q = device.alloc(DType::F32, &[n, n_heads * head_dim]).unwrap();
    let out = device.alloc(DType::F32, &[n, n_heads * head_dim]).unwrap();
    let took = time(device, |plan| {
        let (q, rows, cache, out) = (q.clone(), rows.clone(), cache.clone(), out.clone());
        plan.attention(Attention { q, rows, cache, scale: 0.1, out }).unwrap();
    });
    let bytes = (2 * n_sequences * context * n_kv_heads * head_dim * 2) as f64;
    let rate = bytes / took.as_secs_f64() / 1e9;
    println!(
        "attention {n_sequences:>3} sequences, {rows_each:>3} rows each, context {context:>5}: {took:>10.1?}, {rate:.0} GB/s"
    );
}

fn main() {
    let options = recua_wgpu::Options { allow_software: true, ..Default::default() };
    let device = recua_wgpu::open(options).unwrap();
    println!("{}: {}", device.info().name, device.info().detail);
    for (n_sequences, rows, context) in
        [(1, 1, 512), (1, 1, 4096), (16, 1, 512), (64, 1, 512), (64, 1, 2048), (1, 512, 512), (1, 512, 4096)]
    {
        attention(&device, n_sequences, rows, context);
    }
    for n in [1, 64, 512] {
        let x = device.alloc(DType::F32, &[n, 4096]).unwrap();
        let weight = device.alloc(DType::F32, &[4096]).unwrap();
        let out = device.alloc(DType::F32, &[n, 4096]).unwrap();
        let took = time(&device, |plan| plan.rms_norm(&x, &weight, &out, 1e-5).unwrap());
        println!("rms_norm [{n}, 4096]: {took:.1?}");
    }
    for n in [1, 64] {
        let x = device.alloc(DType::F32, &[n, 128_256]).unwrap();
        let out = device.alloc(DType::U32, &[n]).unwrap();
        let took = time(&device, |plan| plan.argmax(&x, &out).unwrap());
        println!("argmax [{n}, 128256]: {took:.1?}");
    }
}
