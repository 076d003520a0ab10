//! Launches: whole, in parts, and encoded ahead.

use super::*;
use crate::adapter::{self, Options};
use crate::device::Wgpu;
use crate::tuning::Tuning;
use recua_compute::{Arrange, DType, Device, Error, GgmlType, Matmul, Program, RawMatrix, Record, cases};
use std::sync::atomic::Ordering;

/// Values per row.
const DIM: usize = 64;
/// Products and norms of a [`Chain`].
const LINKS: usize = 40;

/// A separate device that cuts programs into such parts, and its internals.
fn device(part_launches: usize) -> Option<(Device, Arc<Shared>)> {
    let options = Options { allow_software: true, ..Options::default() };
    let opened = cases::opened_or_skipped("wgpu", adapter::open(&options))?;
    let wgpu = Wgpu::new(opened, Tuning { part_launches, ..Tuning::default() }).unwrap();
    let shared = wgpu.shared.clone();
    Some((Device::new(wgpu), shared))
}

/// Tokens become rows, each op reads what the one before it wrote, and one row of the last is gathered.
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

    fn compile(&self, device: &Device) -> Program {
        device.compile(&self.plan).unwrap()
    }

    /// The bits of the output, which is then overwritten on the device.
    fn bits(&self, device: &Device, submission: &Submission) -> Vec<u32> {
        submission.wait().unwrap();
        let has_timestamps = device.info().detail.contains("timestamps");
        assert_eq!(submission.gpu_time().is_some_and(|time| !time.is_zero()), has_timestamps);
        let mut out = vec![0.0f32; 2 * DIM];
        submission.take(0, &mut out).unwrap();
        device.write(&self.out, &[f32::NAN; 2 * DIM]).unwrap();
        out.iter().map(|y| y.to_bits()).collect()
    }

    /// Launches a program of the chain.
    fn launch(&self, program: &Program) -> Submission {
        program.launch(&[], std::slice::from_ref(&self.out)).unwrap()
    }
}

/// What a [`Chain`] computes on a device.
fn expected(device: &Device) -> Vec<u32> {
    let chain = Chain::new(device);
    let bits = chain.bits(device, &chain.launch(&chain.compile(device)));
    assert!(bits.iter().all(|bits| f32::from_bits(*bits).is_finite()));
    bits
}

#[test]
fn parts_compute_what_the_whole_does() {
    let Some((whole, _)) = device(usize::MAX) else { return };
    let expected = expected(&whole);
    for part_launches in [1, 5, 8, 40, usize::MAX] {
        let (device, shared) = device(part_launches).unwrap();
        let chain = Chain::new(&device);
        for _ in 0..3 {
            // New, then with bind groups, then with commands encoded ahead.
            let program = chain.compile(&device);
            for run in 0..5 {
                let found = chain.bits(&device, &chain.launch(&program));
                assert!(found == expected, "run {run} in parts of {part_launches}");
            }
        }
        // And several launches at once.
        let program = chain.compile(&device);
        let submissions: Vec<_> = (0..5).map(|_| chain.launch(&program)).collect();
        submissions.iter().rev().for_each(|submission| submission.wait().unwrap());
        assert!(chain.bits(&device, &submissions[2]) == expected);
        let gone = Arc::downgrade(&shared);
        drop((device, shared, submissions, chain));
        assert!(gone.upgrade().is_some(), "the program keeps the device");
        drop(program);
        assert!(gone.upgrade().is_none(), "something else keeps the device");
    }
}

#[test]
fn a_launch_is_one_submission_and_allocates_nothing() {
    let Some((device, shared)) = device(40) else { return };
    let expected = expected(&device);
    let chain = Chain::new(&device);
    let program = chain.compile(&device);
    let (n_submissions, n_made) = (&shared.gpu.n_submissions, &shared.readbacks.n_made);
    let n_submissions = || n_submissions.load(Ordering::Relaxed);
    let n_made = || n_made.load(Ordering::Relaxed);
    let good = [5u32, 0, 63];
    let launch = |tokens: &[u32], outputs: &[Buffer]| {
        program.launch(&[Input::new(&chain.tokens, tokens).unwrap()], outputs).unwrap()
    };
    let outputs = [chain.out.clone(), chain.tokens.clone()];
    let mut made = 0;
    let allocated = device.allocated_bytes();
    for i in 0..12 {
        let before = n_submissions();
        let submission = launch(&good, &outputs);
        let (mut out, mut tokens) = ([0.0f32; 2 * DIM], [0u32; 3]);
        submission.take(1, &mut tokens).unwrap();
        submission.take(0, &mut out).unwrap();
        submission.wait().unwrap();
        assert!(tokens == good && out.iter().map(|y| y.to_bits()).eq(expected.iter().copied()), "launch {i}");
        // The first two have no encoded commands and are submitted in parts.
        if i >= 2 {
            assert_eq!(n_submissions(), before + 1, "launch {i}: upload, run and outputs");
        }
        if i == 3 {
            made = n_made();
        }
    }
    assert_eq!(n_made(), made, "staging is reused");
    // Outputs other than those that commands encoded ahead assume, then an output larger than they allow, then none.
    let large = device.upload(&vec![7u32; 100_000], DType::U32, &[100_000]).unwrap();
    let before = n_submissions();
    for outputs in [&outputs[..1], &[large.clone(), chain.out.clone()], &[], &outputs] {
        let submission = launch(&good, outputs);
        submission.wait().unwrap();
        for (i, output) in outputs.iter().enumerate() {
            let mut found = vec![0u8; output.n_bytes()];
            submission.take(i, &mut found).unwrap();
            assert_eq!(found, device.read_vec::<u8>(output).unwrap());
        }
    }
    assert_eq!(n_submissions(), before + 4 + 5, "and a read each");
    assert_eq!(device.allocated_bytes(), allocated + 400_000);
    let refused = launch(&good, &outputs).take(2, &mut [0u8; 4]);
    assert!(matches!(refused, Err(Error::Argument { op: "take", .. })), "{refused:?}");
    let refused = launch(&good, &outputs).take(1, &mut [0u8; 4]);
    assert!(matches!(refused, Err(Error::Argument { op: "take", .. })), "{refused:?}");
    // Also a byte in the middle of a word.
    let bytes = device.upload(&[9u8; 8], DType::U8, &[8]).unwrap();
    let (middle, all) = (bytes.view(3, &[2]).unwrap(), bytes.view(1, &[6]).unwrap());
    let submission = program.launch(&[Input::new(&middle, &[1u8, 2]).unwrap()], &[all]).unwrap();
    let mut found = [0u8; 6];
    submission.take(0, &mut found).unwrap();
    assert_eq!(found, [9, 9, 1, 2, 9, 9]);
}

#[test]
fn an_index_out_of_range_is_reported_whichever_part_found_it() {
    for part_launches in [8, 40] {
        let Some((device, _)) = device(part_launches) else { return };
        let chain = Chain::new(&device);
        let program = chain.compile(&device);
        for _ in 0..3 {
            for (buffer, good, bad, op) in
                [(&chain.tokens, [5, 0], [5, 64], "embed"), (&chain.gathered, [2, 0], [3, 0], "gather_rows")]
            {
                let launch = |indexes: &[u32]| {
                    program
                        .launch(&[Input::new(buffer, indexes).unwrap()], std::slice::from_ref(&chain.out))
                        .unwrap()
                };
                let submission = launch(&bad);
                for found in [submission.wait(), submission.take(0, &mut [0.0f32; 2 * DIM])] {
                    let is_found =
                        matches!(found, Err(Error::IndexOutOfRange { op: found, .. }) if found == op);
                    assert!(is_found, "{found:?} of {op}");
                }
                launch(&good).wait().unwrap();
                // Nobody waits: the next read reports it.
                drop(launch(&bad));
                let found = device.read_vec::<f32>(&chain.out);
                assert!(matches!(found, Err(Error::IndexOutOfRange { .. })), "{found:?} of {op}");
                launch(&good).wait().unwrap();
            }
        }
    }
}

#[test]
fn a_run_lets_go_of_its_plan_when_it_returns() {
    let Some((device, _)) = device(4) else { return };
    let before = device.allocated_bytes();
    for _ in 0..20 {
        let chain = Chain::new(&device);
        device.run(&chain.plan).unwrap();
        drop(chain);
        // Only workspaces remain, which are allocated with the first program.
        let left = device.allocated_bytes() - before;
        assert!(left < (DIM * DIM) as u64, "{left} bytes are still there");
    }
}

#[test]
fn a_program_keeps_what_it_names_until_it_is_dropped() {
    let Some((device, _)) = device(40) else { return };
    let expected = expected(&device);
    let before = device.allocated_bytes();
    let chain = Chain::new(&device);
    let program = chain.compile(&device);
    let Chain { plan, tokens, gathered, out } = chain;
    drop((plan, tokens, gathered));
    // A larger pass replaces the workspaces; the program keeps its own.
    let (x, y) = (device.alloc(DType::F32, &[1, 1 << 20]).unwrap(), device.alloc(DType::U32, &[1]).unwrap());
    let mut plan = device.plan();
    plan.argmax(&x, &y).unwrap();
    device.run(&plan).unwrap().wait().unwrap();
    let mut submission = program.launch(&[], std::slice::from_ref(&out)).unwrap();
    for _ in 0..4 {
        let mut found = [0.0f32; 2 * DIM];
        submission.take(0, &mut found).unwrap();
        assert!(found.iter().map(|y| y.to_bits()).eq(expected.iter().copied()));
        submission = program.clone().launch(&[], std::slice::from_ref(&out)).unwrap();
    }
    drop((plan, x, y));
    let held = device.allocated_bytes();
    // A submission does not keep the program alive.
    drop((program, out));
    assert!(device.allocated_bytes() + (LINKS / 2 * DIM * DIM) as u64 <= held);
    submission.wait().unwrap();
    assert!(device.allocated_bytes() - before < 1 << 16, "but for workspaces");
}

#[test]
fn threads_that_launch_at_the_same_time_do_not_mix_them_up() {
    let Some((device, _)) = device(6) else { return };
    let expected = expected(&device);
    let shared = Chain::new(&device);
    let program = shared.compile(&device);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let chain = Chain::new(&device);
                    let own = chain.compile(&device);
                    (0..4).for_each(|_| assert!(chain.bits(&device, &chain.launch(&own)) == expected));
                    // The same program, with the same input and output.
                    let mut out = [0.0f32; 2 * DIM];
                    shared.launch(&program).take(0, &mut out).unwrap();
                    assert!(out.iter().map(|y| y.to_bits()).eq(expected.iter().copied()));
                }
            });
        }
    });
}

#[test]
fn a_program_that_comes_again_is_encoded_ahead() {
    let Some((device, shared)) = device(40) else { return };
    let chain = Chain::new(&device);
    let program = WgpuProgram::new(&shared, &chain.plan).unwrap();
    let has_ahead = || lock(&program.0.next).ahead.is_some();
    let launch = || program.launch(&[], std::slice::from_ref(&chain.out)).unwrap();
    launch().wait().unwrap();
    assert!(!has_ahead(), "what has run once may never come again");
    for _ in 0..3 {
        let submission = launch();
        assert!(!has_ahead());
        submission.wait().unwrap();
        assert!(has_ahead());
    }
    // Two in flight: the second has to be encoded.
    let [first, second] = [launch(), launch()];
    second.wait().unwrap();
    first.wait().unwrap();
    assert!(has_ahead());
}

#[test]
fn cuts() {
    for part_launches in [0, 1, 2, 7, 20, 40, 100, usize::MAX] {
        for n in [0, 1, 2, 5, 41, 200] {
            let parts = parts(n, part_launches);
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(parts.iter().all(|part| !part.is_empty()));
            assert_eq!(parts.first().map_or(0, |part| part.start), 0);
            assert_eq!(parts.last().map_or(0, |part| part.end), n);
            assert!(parts.len() < 2 || parts[0].len() <= parts[1].len());
            assert!(part_launches < n || parts.len() <= 1);
        }
    }
}
