//! Long runs give back what they take: the device's memory, and this process's.

use crate::fresh_device;
use recua_compute::{
    Activation, Argmax, Arrange, Attention, Buffer, BufferPool, DType, Device, GgmlType, Input, KvPool,
    KvShape, KvType, Matmul, Op, PAGE_TOKENS, Plan, RawMatrix, Record, RopeStore, RopeStyle, RowMap, RowRun,
    Weight, WorkList,
};

/// Runs a test in a process of its own, because all tests share the memory of a process.
fn alone(name: &str, test: fn()) {
    const ALONE: &str = "RECUA_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let this = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(this);
    let output = child.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    assert!(output.status.success(), "{output:#?}");
}

#[test]
fn long_runs_do_not_leak() {
    alone("leaks::long_runs_do_not_leak", run_for_long);
}

#[test]
fn steps_of_changing_shapes_do_not_leak() {
    alone("leaks::steps_of_changing_shapes_do_not_leak", run_steps);
}

fn run_for_long() {
    let Some(device) = fresh_device() else { return };
    let x = device.upload(&[1.0f32, 3.0, 2.0], DType::F32, &[1, 3]).unwrap();
    let out = device.alloc(DType::U32, &[1]).unwrap();
    let mut plan = device.plan();
    plan.push(Op::Argmax(Argmax { x: x.clone(), out: out.clone() })).unwrap();
    let program = device.compile(&plan).unwrap();
    let allocated = device.allocated_bytes();
    let mut resident = 0;
    for i in 0..4000 {
        let input = Input::new(&x, &[1.0f32, 3.0, 2.0]).unwrap();
        let submission = program.launch(&[input], std::slice::from_ref(&out)).unwrap();
        if i % 7 == 0 {
            // Dropped without waiting.
            continue;
        }
        submission.wait().unwrap();
        if i % 10 == 0 {
            let mut found = [0u32];
            submission.take(0, &mut found).unwrap();
            assert_eq!((found, device.read_vec::<u32>(&out).unwrap()), ([1], vec![1]));
        }
        // A new plan each time, which the device must not keep for ever.
        let other = device.upload(&[5.0f32, 3.0], DType::F32, &[1, 2]).unwrap();
        let mut plan = device.plan();
        plan.argmax(&other, &out).unwrap();
        device.run(&plan).unwrap().wait().unwrap();
        drop((plan, other));
        if i == 1000 {
            resident = resident_bytes();
        }
    }
    assert_eq!(device.allocated_bytes(), allocated);
    let grown = resident_bytes().saturating_sub(resident);
    assert!(grown < 48 << 20, "{grown} bytes more after 3000 steps");
}

/// What a model's step needs besides the buffers of its own shape.
struct Layer {
    device: Device,
    /// `[DIM, DIM]`, the last one `[DIM / 2, DIM]`.
    weights: [Weight; 4],
    norm: Buffer,
    table: Buffer,
    pages: Buffer,
    cache: KvPool,
}

/// The width of a row: two heads.
const DIM: usize = 64;
/// Pages of the only sequence: enough for its attention to be split.
const PAGES: usize = 6;

impl Layer {
    fn new(device: &Device) -> Layer {
        let weight = |ty: GgmlType, n: usize| {
            let values: Vec<f32> = (0..n * DIM).map(|i| (i * 37 % 101) as f32 / 400.0 - 0.125).collect();
            let mut raw = Vec::new();
            recua_gguf::encode(ty, &values, &mut raw).unwrap();
            (ty, n, raw)
        };
        let upload = |parts: &[&(GgmlType, usize, Vec<u8>)], arrange| {
            let parts: Vec<_> = parts.iter().map(|(ty, n, raw)| RawMatrix::new(*ty, *n, DIM, raw)).collect();
            device.upload_weight(&parts, arrange).unwrap()
        };
        let types = [GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::F32, GgmlType::Q8_0];
        let raws: [_; 4] = std::array::from_fn(|i| weight(types[i], if i == 3 { DIM / 2 } else { DIM }));
        let shape = KvShape { n_pages: PAGES, n_kv_heads: 1, head_dim: DIM / 2, kv_type: KvType::F16 };
        let angles = [1.0f32, 0.0].repeat(PAGES * PAGE_TOKENS * DIM / 4);
        Layer {
            device: device.clone(),
            weights: [
                upload(&[&raws[0]], Arrange::Stacked),
                upload(&[&raws[1], &raws[3], &raws[3]], Arrange::Stacked),
                upload(&[&raws[2]], Arrange::Stacked),
                upload(&[&raws[0], &raws[1]], Arrange::Interleaved),
            ],
            norm: device.upload(&[1.0f32; DIM], DType::F32, &[DIM]).unwrap(),
            table: device.upload(&angles, DType::F32, &[PAGES * PAGE_TOKENS, DIM / 4, 2]).unwrap(),
            pages: device.upload(&(0..PAGES as u32).collect::<Vec<_>>(), DType::U32, &[1, PAGES]).unwrap(),
            cache: device.alloc_kv(&shape).unwrap(),
        }
    }

    /// Every op over the first `rows` positions, in separate buffers; and the resulting tokens.
    fn step(&self, rows: usize) -> (Plan, Buffer) {
        let Layer { device, weights: [a, qkv_weight, c, gate_up], norm, .. } = self;
        let matrix = |n: usize| device.alloc(DType::F32, &[rows, n]).unwrap();
        let u32s = |values: Vec<u32>| device.upload(&values, DType::U32, &[rows]).unwrap();
        let (x, normed, qkv) = (matrix(DIM), matrix(DIM), matrix(2 * DIM));
        let columns = |first, n| qkv.columns(first..first + n).unwrap();
        let (q, k, v) = (columns(0, DIM), columns(DIM, DIM / 2), columns(DIM + DIM / 2, DIM / 2));
        let (attended, glu, gathered) = (matrix(DIM), matrix(DIM), matrix(DIM));
        let positions = u32s((0..rows as u32).collect());
        let run = RowRun { first_row: 0, n_rows: rows, start: 0 };
        let mut list = WorkList::new();
        let work = list.build(&device.tiling(self.cache.shape(), 2), rows, [run]).unwrap();
        let map = RowMap {
            positions: positions.clone(),
            sequences: u32s(vec![0; rows]),
            pages: self.pages.clone(),
            work: device.upload(work, DType::U32, &[work.len()]).unwrap(),
        };
        let tokens = u32s((0..rows as u32).map(|i| i * 7 % DIM as u32).collect());
        let mut plan = device.plan();
        plan.embed(a, &tokens, &x).unwrap();
        plan.rms_norm(&x, norm, &normed, 1e-5).unwrap();
        plan.matmul(Matmul::new(&normed, qkv_weight, &qkv)).unwrap();
        plan.rope_store(RopeStore {
            q: q.clone(),
            k,
            v,
            norm: None,
            table: self.table.clone(),
            style: RopeStyle::Halves,
            rows: map.clone(),
            cache: self.cache.clone(),
        })
        .unwrap();
        let cache = self.cache.clone();
        plan.attention(Attention { q, rows: map, cache, scale: 0.2, out: attended.clone() }).unwrap();
        plan.matmul(Matmul::new(&attended, c, &x).with_add(&x)).unwrap();
        plan.matmul_glu(&x, gate_up, Activation::Silu, &glu).unwrap();
        plan.gather_rows(&glu, &positions, &gathered).unwrap();
        plan.argmax(&gathered, &tokens).unwrap();
        (plan, tokens)
    }
}

fn run_steps() {
    let Some(device) = fresh_device() else { return };
    let layer = Layer::new(&device);
    let pool = BufferPool::new(&device);
    let kept = device.compile(&layer.step(2).0).unwrap();
    let (mut allocated, mut resident) = (0, 0);
    for round in 0..60 {
        for rows in [1, 3, 17, 70, 5] {
            // Launched often enough in a row for its next commands to be encoded ahead; and then never again.
            let (plan, tokens) = layer.step(rows);
            let program = device.compile(&plan).unwrap();
            for i in 0..3 {
                let submission = program.launch(&[], &[]).unwrap();
                if (i + rows) % 2 == 0 {
                    submission.wait().unwrap();
                }
            }
            assert_eq!(device.read_vec::<u32>(&tokens).unwrap().len(), rows);
            kept.launch(&[], &[]).unwrap();
            // By hand, with reused memory; every other command list is thrown away.
            let scratch = pool.alloc(DType::U32, &[rows]).unwrap();
            let mut encoder = device.command_encoder().unwrap();
            encoder.copy(&tokens, &scratch).unwrap();
            let commands = encoder.finish().unwrap();
            if round % 2 == 0 {
                device.submit([commands]).unwrap();
            }
        }
        if round == 20 {
            (allocated, resident) = (device.allocated_bytes(), resident_bytes());
        }
    }
    assert_eq!(device.allocated_bytes(), allocated);
    let grown = resident_bytes().saturating_sub(resident);
    assert!(grown < 8 << 20, "{grown} bytes more after 40 rounds");
}

/// The memory of this process, if the system reports it.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
