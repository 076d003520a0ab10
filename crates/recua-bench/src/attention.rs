//! `recua-bench attention`: times the ops that are not products on this machine's adapter, at the sizes of an 8B model and of a 1B model:
//! by the device's own time if it reports it, otherwise by the host's.
#![allow(clippy::unwrap_used, reason = "a bench may fail where it stands")]

use clap::Args;
use recua_compute::cases::data::{blocks, values};
use recua_compute::*;
use std::time::{Duration, Instant};

/// Time attention and the ops on rows, on a GPU or a software adapter
#[derive(Args)]
pub(crate) struct AttentionArgs {
    /// Fewer sizes: a software adapter takes minutes for all of them
    #[arg(long)]
    short: bool,
    /// Only the attention of prompts
    #[arg(long)]
    prompts: bool,
    /// Use the kernels for adapters without cooperative matrices
    #[arg(long)]
    portable: bool,
}

const REPEATS: usize = 20;

fn time(device: &Device, record: impl Fn(&mut Plan)) -> Duration {
    let mut plan = device.plan();
    (0..REPEATS).for_each(|_| record(&mut plan));
    let program = device.compile(&plan).unwrap();
    let run = || {
        let start = Instant::now();
        let submission = program.launch(&[], &[]).unwrap();
        submission.wait().unwrap();
        submission.gpu_time().unwrap_or_else(|| start.elapsed()) / REPEATS as u32
    };
    // Run until the clocks have risen.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(200) {
        run();
    }
    let mut times: Vec<Duration> = (0..7).map(|_| run()).collect();
    times.sort_unstable();
    times[3]
}

/// A cache of sequences, and rows at the ends of the sequences.
struct World {
    rows: RowMap,
    cache: KvPool,
    q: Buffer,
    k: Buffer,
    out: Buffer,
    table: Buffer,
}

impl World {
    fn new(
        device: &Device,
        heads: [usize; 3],
        n_sequences: usize,
        rows_each: usize,
        context: usize,
    ) -> World {
        let [n_heads, n_kv_heads, head_dim] = heads;
        let pages_each = context.div_ceil(PAGE_TOKENS);
        let n = n_sequences * rows_each;
        let n_pages = n_sequences * pages_each;
        let shape = KvShape { n_pages, n_kv_heads, head_dim, kv_type: KvType::F16 };
        let cache = device.alloc_kv(&shape).unwrap();
        for memory in cache.memory() {
            device.write(memory, &blocks(GgmlType::F16, memory.n_bytes() / 2, 1).unwrap()).unwrap();
        }
        let runs = (0..n_sequences).map(|s| RowRun {
            first_row: s * rows_each,
            n_rows: rows_each,
            start: context - rows_each,
        });
        let mut list = WorkList::new();
        let work = list.build(&device.tiling(&shape, n_heads), n, runs).unwrap().to_vec();
        let n_words = work.len();
        let u32s = |values: Vec<u32>, shape: &[usize]| device.upload(&values, DType::U32, shape).unwrap();
        let positions = (0..n).map(|i| (context - rows_each + i % rows_each) as u32).collect();
        let f32s = |rows: usize, columns: usize| {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i % 1021) as f32 / 511.0 - 1.0).collect();
            device.upload(&values, DType::F32, &[rows, columns]).unwrap()
        };
        World {
            rows: RowMap {
                positions: u32s(positions, &[n]),
                sequences: u32s((0..n).map(|i| (i / rows_each) as u32).collect(), &[n]),
                work: u32s(work, &[n_words]),
                pages: u32s((0..n_pages as u32).collect(), &[n_sequences, pages_each]),
            },
            cache,
            q: f32s(n, n_heads * head_dim),
            k: f32s(n, n_kv_heads * head_dim),
            out: device.alloc(DType::F32, &[n, n_heads * head_dim]).unwrap(),
            table: f32s(1, context * head_dim).view(0, &[context, head_dim / 2, 2]).unwrap(),
        }
    }

    fn attention(&self) -> Attention {
        let (q, rows, cache) = (self.q.clone(), self.rows.clone(), self.cache.clone());
        Attention { q, rows, cache, scale: 0.1, out: self.out.clone() }
    }

    fn rope_store(&self) -> RopeStore {
        RopeStore {
            q: self.q.clone(),
            k: self.k.clone(),
            v: self.k.clone(),
            norm: None,
            table: self.table.clone(),
            style: RopeStyle::Interleaved,
            rows: self.rows.clone(),
            cache: self.cache.clone(),
        }
    }
}

fn attention(device: &Device, heads: [usize; 3], n_sequences: usize, rows_each: usize, context: usize) {
    let [n_heads, n_kv_heads, head_dim] = heads;
    let world = World::new(device, heads, n_sequences, rows_each, context);
    let took = time(device, |plan| plan.attention(world.attention()).unwrap()).as_secs_f64();
    // On average, each row sees the context minus half of the rows of its own pass.
    let seen = n_sequences * rows_each * (2 * context - rows_each + 1) / 2;
    let bytes = (2 * n_sequences * context * n_kv_heads * head_dim * 2) as f64;
    let flops = (4 * seen * n_heads * head_dim) as f64;
    println!(
        "attention {n_sequences:>3} sequences x {rows_each:>3} rows, context {context:>5}, heads {heads:?}: {:>8.1} us, {:>6.0} GB/s, {:>6.1} TFLOP/s",
        took * 1e6,
        bytes / took / 1e9,
        flops / took / 1e12
    );
}

pub(crate) fn run(args: &AttentionArgs) -> crate::Result {
    let options = recua_wgpu::Options { allow_software: true, portable: args.portable, ..Default::default() };
    let device = recua_wgpu::open(options)?;
    println!("{}: {}", device.info().name, device.info().detail);
    let contexts: &[usize] = if args.short { &[512] } else { &[128, 512, 2048, 4096] };
    for heads in [[32, 8, 128], [32, 8, 64]] {
        for n_sequences in [1, 4, 16, 64].into_iter().filter(|_| !args.prompts) {
            for &context in contexts {
                attention(&device, heads, n_sequences, 1, context);
            }
        }
        let prompts: &[usize] = if args.short { &[512] } else { &[512, 2048, 4096] };
        prompts.iter().for_each(|&context| attention(&device, heads, 1, 512, context));
    }
    if args.prompts {
        return Ok(());
    }
    for n in [1, 4, 16, 64, 512] {
        let world = World::new(&device, [32, 8, 128], n, 1, 128);
        let took = time(&device, |plan| plan.rope_store(world.rope_store()).unwrap());
        println!("rope_store {n} rows: {took:.1?}");
    }
    for n in [1, 64, 512] {
        let x = device.alloc(DType::F32, &[n, 4096]).unwrap();
        let weight = device.alloc(DType::F32, &[4096]).unwrap();
        let out = device.alloc(DType::F32, &[n, 4096]).unwrap();
        let took = time(&device, |plan| plan.rms_norm(&x, &weight, &out, 1e-5).unwrap());
        println!("rms_norm [{n}, 4096]: {took:.1?}");
        let indexes = device.alloc(DType::U32, &[n]).unwrap();
        let took = time(&device, |plan| plan.gather_rows(&x, &indexes, &out).unwrap());
        println!("gather_rows [{n}, 4096]: {took:.1?}");
    }
    for n in [1, 64] {
        let values = values(n * 128_256, 1);
        let x = device.upload(&values, DType::F32, &[n, 128_256]).unwrap();
        let out = device.alloc(DType::U32, &[n]).unwrap();
        let took = time(&device, |plan| plan.argmax(&x, &out).unwrap());
        println!("argmax [{n}, 128256]: {took:.1?}");
        let out = device.alloc(DType::U32, &[n, TOP_K_MAX, 2]).unwrap();
        let took = time(&device, |plan| plan.top_k(&x, &out).unwrap());
        println!("top_k [{n}, 128256]: {took:.1?}");
    }
    Ok(())
}
