//! Encoders, hand-written kernels, and several threads.

use crate::device;
use recua_compute::cases::Tolerance;
use recua_compute::cases::data::Random;
use recua_compute::{
    Arrange, Buffer, Commands, DType, Device, EncoderWorker, Error, GgmlType, KernelArg, KernelRegistry,
    KernelSource, Plan, QuantizedMatmulParams, RawMatrix, Record, Result, Weight, cpu,
};
use std::ops::Range;
use std::sync::mpsc::channel;

const SCALE: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
struct Args { n: u32, factor: f32 }
var<immediate> args: Args;
override ADDED: f32 = 0.0;

@compute @workgroup_size(64)
fn scale(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < args.n {
        y[id.x] = x[id.x] * args.factor + ADDED;
    }
}
";

/// The immediates of `SCALE`.
fn scale_args(n: u32, factor: f32) -> Vec<u8> {
    [n.to_le_bytes(), factor.to_le_bytes()].concat()
}

fn registry(source: &str) -> KernelRegistry {
    let registry = KernelRegistry::new();
    registry.register("scale", KernelSource::Wgsl(source.into()));
    registry
}

fn scale(device: &Device, registry: &KernelRegistry, x: &Buffer, y: &Buffer, factor: f32) -> Result<()> {
    let kernel = registry.get(device, "scale", &[("ADDED", 1.0)])?;
    let mut encoder = device.command_encoder()?;
    let args = scale_args(x.n_elements() as u32, factor);
    let groups = [x.n_elements().div_ceil(64) as u32, 1, 1];
    encoder.dispatch(&kernel, groups, &[KernelArg::Read(x), KernelArg::Write(y), KernelArg::Bytes(&args)])?;
    encoder.commit_and_wait()
}

#[test]
fn a_hand_written_kernel_runs() {
    let Some(device) = device() else { return };
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let x = device.upload(&values, DType::F32, &[1000]).unwrap();
    let y = device.alloc(DType::F32, &[1000]).unwrap();
    let registry = registry(SCALE);
    scale(device, &registry, &x, &y, 2.0).unwrap();
    let expected: Vec<f32> = values.iter().map(|x| x * 2.0 + 1.0).collect();
    assert_eq!(device.read_vec::<f32>(&y).unwrap(), expected);

    // Two views of one allocation, one read and one written.
    let (low, high) = (y.view(0, &[256]).unwrap(), y.view(512, &[256]).unwrap());
    scale(device, &registry, &low, &high, 0.0).unwrap();
    let y = device.read_vec::<f32>(&y).unwrap();
    assert!(y[512..768].iter().all(|&y| y == 1.0) && y[511] == expected[511] && y[768] == expected[768]);
}

#[test]
fn a_wrong_kernel_or_argument_is_an_error_that_names_it() {
    let Some(device) = device() else { return };
    let x = device.alloc(DType::F32, &[64]).unwrap();
    let y = device.alloc(DType::F32, &[64]).unwrap();
    let message = |source: &str| {
        let error = registry(source).get(device, "scale", &[]).map(drop).unwrap_err();
        assert!(matches!(error, Error::KernelCompile { .. }), "{error:?}");
        error.to_string()
    };
    let broken = message("@compute @workgroup_size(1) fn scale() { let a = nothing; }");
    assert!(broken.contains("'scale'") && broken.contains("nothing"), "{broken}");
    assert!(message("fn helper() {}").contains("no @compute entry point"));
    assert!(message(&SCALE.replace("binding(1)", "binding(3)")).contains("numbered"));
    assert!(message(&SCALE.replace("group(0) @binding(1)", "group(1) @binding(1)")).contains("@group(1)"));
    let registry = registry(SCALE);
    let error = registry.get(device, "scale", &[("NO_SUCH", 1.0)]).map(drop).unwrap_err();
    assert!(error.to_string().contains("NO_SUCH"), "{error}");
    let rust = KernelSource::Rust(std::sync::Arc::new(|_| Ok(())));
    registry.register("rust", rust);
    assert!(registry.get(device, "rust", &[]).map(drop).unwrap_err().to_string().contains("WGSL"));
    assert!(matches!(registry.get(device, "absent", &[]).map(drop), Err(Error::KernelNotFound { .. })));

    let kernel = registry.get(device, "scale", &[]).unwrap();
    let args = scale_args(64, 1.0);
    let wrong = |groups: [u32; 3], list: &[KernelArg<'_>]| {
        let mut encoder = device.command_encoder().unwrap();
        let error = encoder.dispatch(&kernel, groups, list).unwrap_err().to_string();
        assert!(error.contains("scale"), "{error}");
        error
    };
    let (read, write, bytes) = (KernelArg::Read(&x), KernelArg::Write(&y), KernelArg::Bytes(&args));
    assert!(wrong([1; 3], &[read, bytes]).contains("1 buffers for 2 bindings"));
    assert!(wrong([1; 3], &[read, write, write, bytes]).contains("overlaps"));
    assert!(wrong([1; 3], &[read, write]).contains("0 bytes for immediates of 8"));
    assert!(wrong([1; 3], &[read, KernelArg::Read(&y), bytes]).contains("read_write"));
    assert!(wrong([1 << 20, 1, 1], &[read, write, bytes]).contains("at most"));
    let unaligned = y.view(1, &[8]).unwrap();
    assert!(wrong([1; 3], &[read, KernelArg::Write(&unaligned), bytes]).contains("multiple"));
}

#[test]
fn a_buffer_too_small_for_what_a_kernel_declares_is_refused_by_name() {
    let Some(device) = device() else { return };
    let source = "
        struct Table { size: u32, entries: array<vec4<f32>, 4> }
        @group(0) @binding(0) var<storage, read> table: Table;
        @group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
        @compute @workgroup_size(1) fn scale() { y[0] = table.entries[table.size]; }";
    let kernel = registry(source).get(device, "scale", &[]).unwrap();
    let floats = |n: usize| device.alloc(DType::F32, &[n]).unwrap();
    let dispatch = |table: usize, y: usize| {
        let mut encoder = device.command_encoder().unwrap();
        let (table, y) = (floats(table), floats(y));
        encoder.dispatch(&kernel, [1; 3], &[KernelArg::Read(&table), KernelArg::Write(&y)])?;
        encoder.commit_and_wait()
    };
    dispatch(20, 4).unwrap();
    let small = |found: Result<()>| found.unwrap_err().to_string();
    let expected = "dispatch: kernel 'scale': argument 0 has 76 bytes, the kernel declares 80";
    assert_eq!(small(dispatch(19, 4)), expected);
    assert!(small(dispatch(20, 3)).contains("'scale': argument 1 has 12 bytes, the kernel declares 16"));
}

#[test]
fn two_halves_encoded_on_two_threads_run_in_list_order() {
    let Some(device) = device() else { return };
    let registry = registry(SCALE);
    let kernel = registry.get(device, "scale", &[("ADDED", 1.0)]).unwrap();
    let x = device.upload(&[3.0f32; 256], DType::F32, &[256]).unwrap();
    let (y, z) = (device.alloc(DType::F32, &[256]).unwrap(), device.alloc(DType::F32, &[256]).unwrap());
    let half = |from: &Buffer, to: &Buffer, factor: f32| {
        let mut encoder = device.command_encoder().unwrap();
        let args = scale_args(256, factor);
        let args = [KernelArg::Read(from), KernelArg::Write(to), KernelArg::Bytes(&args)];
        encoder.dispatch(&kernel, [4, 1, 1], &args).unwrap();
        encoder.finish().unwrap()
    };
    for _ in 0..20 {
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| half(&y, &z, 10.0));
            (half(&x, &y, 2.0), second.join().unwrap())
        });
        let submission = device.submit([first, second]).unwrap();
        submission.wait().unwrap();
        assert!(submission.is_done());
        submission.wait().unwrap();
        assert!(device.read_vec::<f32>(&z).unwrap().iter().all(|&z| z == 71.0));
    }
}

/// A chain of products `[m, 256] · [256, 256]`, each of the output before.
#[derive(Clone)]
struct Chain {
    device: Device,
    weights: Vec<Weight>,
    /// The decoded values of each weight.
    values: Vec<Vec<f32>>,
    /// The input, then each product.
    buffers: Vec<Buffer>,
    m: usize,
}

const CHAIN_TYPES: [GgmlType; 4] = [GgmlType::Q6_K, GgmlType::Q4_K, GgmlType::Q8_0, GgmlType::Q4_0];

impl Chain {
    fn new(device: &Device, m: usize) -> Chain {
        let mut random = Random::new(1);
        let (mut weights, mut values) = (Vec::new(), Vec::new());
        let mut buffers = vec![device.upload(&random.f32s(m * 256), DType::F32, &[m, 256]).unwrap()];
        for i in 0..12 {
            let ty = CHAIN_TYPES[i % 4];
            let (mut raw, mut held) = (Vec::new(), vec![0.0; 256 * 256]);
            // Small enough that the products stay about as large as the input.
            let w: Vec<f32> = random.f32s(256 * 256).iter().map(|w| w / 9.0).collect();
            recua_gguf::encode(ty, &w, &mut raw).unwrap();
            recua_gguf::decode(ty, &raw, &mut held).unwrap();
            weights
                .push(device.upload_weight(&[RawMatrix::new(ty, 256, 256, &raw)], Arrange::Stacked).unwrap());
            values.push(held);
            buffers.push(device.alloc(DType::F32, &[m, 256]).unwrap());
        }
        Chain { device: device.clone(), weights, values, buffers, m }
    }

    fn encode(&self, products: Range<usize>) -> Commands {
        let mut encoder = self.device.command_encoder().unwrap();
        for i in products {
            let params = QuantizedMatmulParams { m: self.m, n: 256, k: 256, ggml_type: CHAIN_TYPES[i % 4] };
            let (x, y) = (&self.buffers[i], &self.buffers[i + 1]);
            encoder.quantized_matmul(x, &self.weights[i], y, &params).unwrap();
        }
        encoder.finish().unwrap()
    }

    /// Runs the chain and returns the products, then overwrites them, so that the next run must compute its own.
    fn run(&self, commands: impl IntoIterator<Item = Commands>) -> Vec<Vec<f32>> {
        self.device.submit(commands).unwrap().wait().unwrap();
        let products = &self.buffers[1..];
        let found = products.iter().map(|y| self.device.read_vec(y).unwrap()).collect();
        products.iter().for_each(|y| self.device.write(y, &vec![f32::NAN; y.n_elements()]).unwrap());
        found
    }

    /// Fails unless each of `found`, the products of another device, is within the tolerance of this device's product of the same input.
    /// The eight-bit scale follows a row's largest value, so the unit of the error is the product's size for values spread evenly up to
    /// that maximum, as in the op cases: max |x| / √3 · |w|.
    fn check(&self, found: &[Vec<f32>]) {
        let tolerance = Tolerance::Q8_PRODUCT;
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        for (i, found) in found.iter().enumerate() {
            let x = self.device.read_vec::<f32>(&self.buffers[i]).unwrap();
            let expected = self.run([self.encode(i..i + 1)]).swap_remove(i);
            let (mut squares, mut max) = (0.0, 0.0f64);
            for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                let (row, n) = (at / 256, at % 256);
                let largest = x[row * 256..][..256].iter().fold(0.0f32, |max, x| max.max(x.abs()));
                let unit = f64::from(largest) / 3f64.sqrt() * norm(&self.values[i][n * 256..][..256]);
                let error = f64::from(a - b).abs() / unit;
                squares += error * error;
                max = if error <= max { max } else { error };
            }
            let rms = (squares / found.len() as f64).sqrt();
            let holds = rms <= tolerance.rms && max <= tolerance.max;
            assert!(holds, "product {i} of {} rows: rms {rms:.1e}, max {max:.1e}", self.m);
            self.device.write(&self.buffers[i + 1], found).unwrap();
        }
    }
}

#[test]
fn a_worker_encodes_half_of_a_chain_of_quantized_products() {
    let Some(device) = device() else { return };
    let cpu = cpu::open(cpu::Options::default()).unwrap();
    let worker = EncoderWorker::spawn().unwrap();
    for m in [1, 5, 40] {
        let chain = Chain::new(device, m);
        let serial = chain.run([chain.encode(0..12)]);
        for round in 0..4 {
            let (done, second_half) = channel();
            let there = chain.clone();
            worker.submit(move || done.send(there.encode(6..12)).unwrap()).unwrap();
            let first = chain.encode(0..6);
            let found = chain.run([first, second_half.recv().unwrap()]);
            let bits = |all: &[Vec<f32>]| all.concat().iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            assert!(bits(&found) == bits(&serial), "{m} rows, round {round}");
        }
        Chain::new(&cpu, m).check(&serial);
    }
    assert_eq!(worker.n_panics(), 0);
}

#[test]
fn an_empty_recording_is_fine() {
    let Some(device) = device() else { return };
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    device.submit([]).unwrap().wait().unwrap();
    device.run(&device.plan()).unwrap().wait().unwrap();
}

/// A plan that takes a while.
fn long_plan(device: &Device) -> (Plan, Buffer) {
    let x = device.upload(&vec![1.0f32; 1 << 20], DType::F32, &[1 << 10, 1 << 10]).unwrap();
    let weight = device.upload(&[1.0f32; 1 << 10], DType::F32, &[1 << 10]).unwrap();
    let mut plan = device.plan();
    for _ in 0..4 {
        plan.rms_norm(&x, &weight, &x, 1e-5).unwrap();
    }
    (plan, x)
}

#[test]
fn the_device_tells_how_long_it_worked_or_none() {
    let Some(device) = device() else { return };
    let (plan, _x) = long_plan(device);
    let submission = device.run(&plan).unwrap();
    submission.wait().unwrap();
    let has_timestamps = device.info().detail.contains("timestamps");
    match submission.gpu_time() {
        Some(time) => assert!(has_timestamps && !time.is_zero() && time.as_secs() < 60, "{time:?}"),
        None => assert!(!has_timestamps),
    }
}

#[test]
fn work_runs_behind_the_callers_back() {
    let Some(device) = device() else { return };
    let (plan, x) = long_plan(device);
    let submissions: Vec<_> = (0..8).map(|_| device.run(&plan).unwrap()).collect();
    submissions[7].wait().unwrap();
    assert!(submissions.iter().all(|submission| submission.is_done()));
    let x = device.read_vec::<f32>(&x).unwrap();
    assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-3));
}
