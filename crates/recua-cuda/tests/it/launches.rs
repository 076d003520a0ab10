//! Programs: launched one by one, as graphs, under way at once, from several threads; and what they leave behind.

use crate::{alone, device, fresh_device};
use recua_compute::{Buffer, DType, Device, Error, Input, Plan, Program, Record, Submission};

/// Copies of a [`Chain`]: enough for a graph.
const LINKS: usize = 12;
const N: usize = 1000;

/// What an input says goes through many buffers, to the output.
struct Chain {
    plan: Plan,
    input: Buffer,
    output: Buffer,
}

impl Chain {
    fn new(device: &Device) -> Chain {
        let buffers: Vec<Buffer> = (0..=LINKS).map(|_| device.alloc(DType::U32, &[N]).unwrap()).collect();
        let mut plan = device.plan();
        buffers.windows(2).for_each(|pair| plan.copy(&pair[0], &pair[1]).unwrap());
        Chain { plan, input: buffers[0].clone(), output: buffers[LINKS].clone() }
    }

    fn launch(&self, program: &Program, seed: u32) -> Submission {
        let values = values(seed);
        let input = Input::new(&self.input, &values).unwrap();
        program.launch(&[input], std::slice::from_ref(&self.output)).unwrap()
    }
}

fn values(seed: u32) -> Vec<u32> {
    (0..N as u32).map(|i| i.wrapping_mul(2_654_435_761) ^ seed).collect()
}

fn check(submission: &Submission, seed: u32) {
    let mut found = vec![0u32; N];
    submission.take(0, &mut found).unwrap();
    assert!(found == values(seed), "launch {seed}");
}

#[test]
fn each_launch_has_its_own_inputs_and_outputs() {
    let Some(device) = device() else { return };
    let chain = Chain::new(device);
    let program = device.compile(&chain.plan).unwrap();
    for seed in 0..6 {
        let submission = chain.launch(&program, seed);
        check(&submission, seed);
        submission.wait().unwrap();
        assert!(submission.is_done());
        assert!(submission.gpu_time().is_some_and(|time| !time.is_zero() && time.as_secs() < 10));
    }
    let many: Vec<_> = (0..100).map(|seed| chain.launch(&program, seed)).collect();
    (0..100).rev().for_each(|seed| check(&many[seed as usize], seed));
    // What nobody waits for may be used again, but not before it is done.
    (0..300).for_each(|seed| drop(chain.launch(&program, seed)));
    check(&chain.launch(&program, 7), 7);
}

#[test]
fn outputs_of_all_sizes_come_back() {
    let Some(device) = device() else { return };
    let program = device.compile(&device.plan()).unwrap();
    let sizes = [1usize, 3, 16, 17, 4096, 16 << 10, (16 << 10) + 1, 5 << 20];
    for start in [0usize, 1, 16] {
        let data = |n: usize| -> Vec<u8> { (0..n).map(|i| (i * 31 + n + start) as u8).collect() };
        let buffers: Vec<_> = sizes.iter().map(|n| device.alloc(DType::U8, &[start + n]).unwrap()).collect();
        let views: Vec<_> = buffers.iter().zip(sizes).map(|(b, n)| b.view(start, &[n]).unwrap()).collect();
        let contents: Vec<_> = sizes.iter().map(|n| data(*n)).collect();
        // More than one kernel's worth of them.
        let places = (0..9).flat_map(|_| views.iter().zip(&contents));
        let inputs: Vec<_> = places.map(|(view, bytes)| Input::new(view, bytes).unwrap()).collect();
        let outputs: Vec<_> = (0..9).flat_map(|_| views.iter().cloned()).collect();
        let submission = program.launch(&inputs, &outputs).unwrap();
        for (i, output) in outputs.iter().enumerate() {
            let mut found = vec![0u8; output.n_bytes()];
            submission.take(i, &mut found).unwrap();
            assert!(found == contents[i % sizes.len()], "output {i} from byte {start}");
        }
    }
}

#[test]
fn outputs_that_are_not_there_are_refused() {
    let Some(device) = device() else { return };
    let chain = Chain::new(device);
    let submission = chain.launch(&device.compile(&chain.plan).unwrap(), 1);
    let refused = [submission.take(1, &mut [0u8; 4]), submission.take(0, &mut [0u8; 4])];
    for refused in refused {
        assert!(matches!(refused, Err(Error::Argument { op: "take", .. })), "{refused:?}");
    }
    check(&submission, 1);
}

#[test]
fn a_program_keeps_what_it_names_until_it_is_dropped() {
    let Some(device) = fresh_device() else { return };
    let before = device.allocated_bytes();
    let Chain { plan, input, output } = Chain::new(&device);
    let program = device.compile(&plan).unwrap();
    drop(plan);
    let launch = |seed: u32| {
        let values = values(seed);
        let input = Input::new(&input, &values).unwrap();
        program.launch(&[input], std::slice::from_ref(&output)).unwrap()
    };
    (0..4).for_each(|seed| check(&launch(seed), seed));
    let (last, held) = (launch(9), device.allocated_bytes());
    drop(program);
    assert!(device.allocated_bytes() < held, "a submission does not keep it");
    // What takes its memory comes after it.
    let _others: Vec<_> = (0..LINKS).map(|_| device.upload(&[1u32; N], DType::U32, &[N]).unwrap()).collect();
    check(&last, 9);
    drop((_others, input, output));
    assert_eq!(device.allocated_bytes(), before);
}

#[test]
fn threads_that_launch_at_the_same_time_do_not_mix_them_up() {
    let Some(device) = device() else { return };
    let shared = Chain::new(device);
    let program = device.compile(&shared.plan).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (shared, program) = (&shared, &program);
            scope.spawn(move || {
                for i in 0..20 {
                    let seed = thread * 1000 + i;
                    let chain = Chain::new(device);
                    let own = device.compile(&chain.plan).unwrap();
                    (0..3).for_each(|more| check(&chain.launch(&own, seed + more), seed + more));
                    // The same program, with the same buffers, each launch with its own values.
                    check(&shared.launch(program, seed), seed);
                }
            });
        }
    });
}

#[test]
fn long_runs_do_not_leak() {
    alone("launches::long_runs_do_not_leak", run_for_long);
}

fn run_for_long() {
    let Some(device) = fresh_device() else { return };
    let kept = Chain::new(&device);
    let program = device.compile(&kept.plan).unwrap();
    let allocated = device.allocated_bytes();
    let mut resident = 0;
    for i in 0..3000 {
        let submission = kept.launch(&program, i);
        if i % 7 != 0 {
            check(&submission, i);
        }
        // A plan of its own each time, with a graph, which the device must not keep for ever.
        let chain = Chain::new(&device);
        let own = device.compile(&chain.plan).unwrap();
        (0..3).for_each(|seed| drop(chain.launch(&own, seed)));
        if i == 1000 {
            resident = resident_bytes();
        }
    }
    device.read_vec::<u32>(&kept.output).unwrap();
    assert_eq!(device.allocated_bytes(), allocated);
    let grown = resident_bytes().saturating_sub(resident);
    assert!(grown < 48 << 20, "{grown} bytes more after 2000 steps");
}

/// Memory of this process, where the system tells.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
