use super::*;
use crate::adapter::{self, Options};
use crate::run::Wgpu;
use recua_compute::{Arrange, Buffer, DType, Device, GgmlType, Matmul, RawMatrix, Record, cases};

/// Values a row has.
const DIM: usize = 64;
/// Products and norms of a [`Chain`].
const LINKS: usize = 40;

/// A device that cuts plans into parts of `n_steps` for so many threads.
fn device(n_threads: usize, n_steps: usize) -> Option<(Device, Arc<Gpu>)> {
    let options = Options { allow_software: true, ..Options::default() };
    let wgpu = Wgpu::new(cases::opened_or_skipped("wgpu", adapter::open(&options))?).unwrap();
    let workers = (1..n_threads).map(|_| EncoderWorker::spawn().unwrap()).collect();
    wgpu.set_parts(Parts { workers, n_steps });
    let gpu = wgpu.gpu().clone();
    Some((Device::new(wgpu), gpu))
}

/// Tokens become rows, each op takes what the one before it wrote, and a row of the last is gathered.
struct Chain {
    plan: Plan,
    tokens: Buffer,
    gathered: Buffer,
    out: Buffer,
}

impl Chain {
    fn new(device: &Device) -> Chain {
        let weight = |seed: usize| {
            let values: Vec<f32> =
                (0..DIM * DIM).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 200.0 - 0.25).collect();
            let mut raw = Vec::new();
            recua_gguf::encode(GgmlType::Q8_0, &values, &mut raw).unwrap();
            device.upload_weight(&[RawMatrix::new(GgmlType::Q8_0, DIM, DIM, &raw)], Arrange::Stacked).unwrap()
        };
        let matrix = || device.alloc(DType::F32, &[3, DIM]).unwrap();
        let u32s = |values: &[u32]| device.upload(values, DType::U32, &[values.len()]).unwrap();
        let norm = device.upload(&[1.5f32; DIM], DType::F32, &[DIM]).unwrap();
        let (tokens, gathered) = (u32s(&[5, 0, 63]), u32s(&[2, 0]));
        let (x, normed, out) = (matrix(), matrix(), device.alloc(DType::F32, &[2, DIM]).unwrap());
        let mut plan = device.plan();
        plan.embed(&weight(0), &tokens, &x).unwrap();
        for i in 1..=LINKS / 2 {
            plan.rms_norm(&x, &norm, &normed, 1e-5).unwrap();
            plan.matmul(Matmul::new(&normed, &weight(i), &x).with_add(&x)).unwrap();
        }
        plan.gather_rows(&x, &gathered, &out).unwrap();
        Chain { plan, tokens, gathered, out }
    }

    /// Runs it and forgets what came out.
    fn run(&self, device: &Device) -> Vec<u32> {
        let submission = device.run(&self.plan).unwrap();
        submission.wait().unwrap();
        let has_timestamps = device.info().detail.contains("timestamps");
        assert_eq!(submission.gpu_time().is_some_and(|time| !time.is_zero()), has_timestamps);
        let out = device.read_vec::<f32>(&self.out).unwrap();
        device.write(&self.out, &[f32::NAN; 2 * DIM]).unwrap();
        out.iter().map(|y| y.to_bits()).collect()
    }
}

#[test]
fn parts_compute_what_the_whole_does() {
    let Some((whole, _)) = device(1, usize::MAX) else { return };
    let expected = Chain::new(&whole).run(&whole);
    assert!(expected.iter().all(|bits| f32::from_bits(*bits).is_finite()));
    for (n_threads, n_steps) in [(1, 8), (2, 8), (3, 5), (4, 1), (3, usize::MAX)] {
        let (device, gpu) = device(n_threads, n_steps).unwrap();
        for _ in 0..5 {
            let chain = Chain::new(&device);
            // New, kept, and then with commands encoded ahead.
            for run in 0..4 {
                let found = chain.run(&device);
                assert!(found == expected, "run {run} on {n_threads} threads in parts of {n_steps}");
            }
        }
        // And all at once.
        let chain = Chain::new(&device);
        let submissions: Vec<_> = (0..5).map(|_| device.run(&chain.plan).unwrap()).collect();
        submissions.iter().rev().for_each(|submission| submission.wait().unwrap());
        assert!(chain.run(&device) == expected);
        assert_eq!(device.encoding_threads(), Some(n_threads));
        let gone = Arc::downgrade(&gpu);
        drop((device, gpu, submissions));
        assert!(gone.upgrade().is_none(), "a worker holds the device");
    }
}

#[test]
fn an_index_out_of_range_is_reported_whichever_part_found_it() {
    for n_threads in [1, 3] {
        let Some((device, _)) = device(n_threads, 8) else { return };
        let chain = Chain::new(&device);
        for _ in 0..3 {
            for (buffer, good, bad, op) in
                [(&chain.tokens, [5, 0], [5, 64], "embed"), (&chain.gathered, [2, 0], [3, 0], "gather_rows")]
            {
                device.write(buffer, &bad).unwrap();
                let found = device.run(&chain.plan).unwrap().wait();
                let is_found = matches!(found, Err(Error::IndexOutOfRange { op: found, .. }) if found == op);
                assert!(is_found, "{found:?} of {op}");
                device.write(buffer, &good).unwrap();
                device.run(&chain.plan).unwrap().wait().unwrap();
                // Nobody waits: the next read says it.
                device.write(buffer, &bad).unwrap();
                drop(device.run(&chain.plan).unwrap());
                let found = device.read_vec::<f32>(&chain.out);
                assert!(matches!(found, Err(Error::IndexOutOfRange { .. })), "{found:?} of {op}");
                device.write(buffer, &good).unwrap();
            }
        }
    }
}

#[test]
fn a_run_lets_go_of_its_plan_when_it_returns() {
    let Some((device, _)) = device(3, 4) else { return };
    let before = device.allocated_bytes();
    for _ in 0..20 {
        let chain = Chain::new(&device);
        device.run(&chain.plan).unwrap();
        drop(chain);
        // But for workspaces, which come with the first.
        let left = device.allocated_bytes() - before;
        assert!(left < (DIM * DIM) as u64, "{left} bytes are still there");
    }
}

#[test]
fn threads_that_run_plans_at_the_same_time_do_not_mix_them_up() {
    let Some((device, _)) = device(2, 6) else { return };
    let expected = Chain::new(&device).run(&device);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let chain = Chain::new(&device);
                    (0..4).for_each(|_| assert!(chain.run(&device) == expected));
                }
            });
        }
    });
}

#[test]
fn cuts() {
    let Some((device, gpu)) = device(1, 1) else { return };
    let chain = Chain::new(&device);
    let ops = chain.plan.ops();
    for n_steps in [0, 1, 2, 7, 20, 40, 100, usize::MAX] {
        let recording = Arc::new(gpu.record(ops, 0..ops.len()).unwrap());
        for source in [Source::New(chain.plan.clone()), Source::Kept(recording.clone())] {
            let n = if let Source::New(_) = source { ops.len() } else { recording.steps.len() };
            let is_new = matches!(source, Source::New(_));
            let ranges = Cut::new(source, n_steps, None).ranges;
            assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, n));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|range| !range.is_empty()));
            assert!(!is_new || ranges.iter().all(|range| !works_ahead(&ops[range.end - 1])));
            assert!(ranges.len() == 1 || ranges[0].len() < ranges[1].len());
            assert!(if n_steps < n / 4 { ranges.len() > 1 } else { n_steps < n || ranges.len() == 1 });
        }
    }
    assert_eq!(Cut::new(Source::New(device.plan()), 8, None).ranges.len(), 1, "nothing is a part, too");
}

#[test]
fn how_plans_are_cut_is_chosen_by_measurement() {
    let options = Options { allow_software: true, ..Options::default() };
    let Some(opened) = cases::opened_or_skipped("wgpu", adapter::open(&options)) else { return };
    let device = Device::new(Wgpu::new(opened).unwrap());
    let chain = Chain::new(&device);
    let expected = chain.run(&device);
    assert_eq!(device.encoding_threads(), None);
    let begin = Instant::now();
    device.tune(&chain.plan).unwrap();
    // A round may have begun just before the time was over, and other tests may hold the processors.
    assert!(begin.elapsed() < 20 * TUNE_TIME, "{:?}", begin.elapsed());
    assert!((1..=THREADS_MAX).contains(&device.encoding_threads().unwrap()));
    assert!(chain.run(&device) == expected && Chain::new(&device).run(&device) == expected);

    // A slow round is slow for all.
    let rounds = [1.0, 1.1, 9.0, 1.0, 1.2, 1.0, 1.0, 1.3, 1.0];
    let chosen = |ways: &[f64]| {
        let times: Vec<Vec<f64>> = ways.iter().map(|way| rounds.iter().map(|r| r * way).collect()).collect();
        clearly_fastest(&times)
    };
    assert_eq!(chosen(&[1.0]), 0);
    assert_eq!(chosen(&[1.0, 0.96, 0.96, 0.953]), 0, "not clearly faster");
    assert_eq!(chosen(&[1.0, 0.8, 0.78, 0.77]), 1, "the others are not clearly faster than that");
    assert_eq!(chosen(&[1.0, 1.2, 0.7, 0.5]), 3);
    let often = [0.8, 1.1, 0.8, 0.8, 1.1, 0.8, 0.8, 0.8, 0.8];
    assert_eq!(clearly_fastest(&[vec![1.0; 9], often.to_vec()]), 0, "slower in two rounds");
    assert_eq!(clearly_fastest(&[vec![1.0; 4], vec![0.1; 4]]), 0, "too few trials");
}
