//! Plans that run without commands encoded ahead. They are encoded in parts, and each is submitted at once: the device begins with the
//! first while the host is at the second. Several threads encode parts at the same time where a step was measured to be faster so.

use crate::gpu::{Gpu, lock};
use crate::record::{Recording, Step, works_ahead};
use crate::submission::{Encoded, InFlight, Receipt};
use recua_compute::{EncoderWorker, Error, Pending, Plan, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How plans are cut, and who encodes the parts.
pub(crate) struct Parts {
    /// Threads beside the one that runs a plan.
    pub(crate) workers: Vec<EncoderWorker>,
    /// Steps of a part.
    pub(crate) n_steps: usize,
}

/// What is cut: the ops of a plan, which have to be recorded, or the steps of a recording.
pub(crate) enum Source {
    New(Plan),
    Kept(Arc<Recording>),
}

/// A cut plan; its parts may be encoded on any thread.
struct Cut {
    source: Source,
    ranges: Vec<Range<usize>>,
    receipt: Option<Receipt>,
}

/// An encoded part, with its recording if there was none.
struct Part {
    commands: wgpu::CommandBuffer,
    recording: Option<Recording>,
}

/// Steps of a part: enough to encode for several times as long as it costs to submit one, which was 15 to 40 microseconds of the host's
/// time and 25 of the device's where this was tried (`bench/record`); 30 and 60 did as well.
const N_STEPS: usize = 40;
/// Threads that are tried, the calling one among them.
const THREADS_MAX: usize = 4;
/// Trials of each way, all in turn, for as long as [`TUNE_TIME`]; fewer than [`TRIALS_MIN`] decide nothing.
const TRIALS_MAX: usize = 9;
const TRIALS_MIN: usize = 5;
const TUNE_TIME: Duration = Duration::from_millis(300);
/// Encoding is little beside a pass that takes longer than this.
const SLOW: Duration = Duration::from_millis(50);
/// How many times as fast a way must be to be taken: what `recua bench encoding` calls a win.
const WIN: f64 = 1.05;

impl Parts {
    pub(crate) fn on_this_thread(n_steps: usize) -> Parts {
        Parts { workers: Vec::new(), n_steps }
    }

    /// Runs a plan, each time as a new one, and takes the way in which it is clearly fastest: in parts encoded on one thread or on
    /// several, or whole. The time is that of all of it, until the device is done: encoding alone is often faster on several threads
    /// where the whole is not, because most of it is hidden behind the device's work anyway.
    pub(crate) fn tuned(gpu: &Arc<Gpu>, plan: &Plan) -> Result<Parts> {
        let trial = |plan: &Plan, workers: &[EncoderWorker], n_steps| -> Result<Duration> {
            let start = Instant::now();
            let (in_flight, _freed_later) = gpu.run_in_parts(workers, n_steps, Source::New(plan.clone()))?;
            in_flight.wait()?;
            Ok(start.elapsed())
        };
        let n_parts = Cut::new(Source::New(plan.clone()), N_STEPS, None).ranges.len();
        if n_parts == 1 {
            return Ok(Parts::on_this_thread(N_STEPS));
        }
        // How long it takes, from a small part of it: on a slow device even one pass may take many seconds.
        const SMALL: usize = 16;
        let small = plan.part(0, plan.ops().len() / SMALL);
        let times = (0..3).map(|_| trial(&small, &[], usize::MAX)).collect::<Result<Vec<_>>>()?;
        if times.into_iter().min() > Some(SLOW / SMALL as u32) {
            return Ok(Parts::on_this_thread(N_STEPS));
        }
        let n_processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads_max = THREADS_MAX.min(n_processors).min(n_parts);
        // A thread that cannot be had is done without.
        let mut workers: Vec<_> = (1..threads_max).map_while(|_| EncoderWorker::spawn().ok()).collect();
        let mut ways = vec![(0, N_STEPS), (0, usize::MAX)];
        ways.extend((1..=workers.len()).map(|n_workers| (n_workers, N_STEPS)));
        let mut times = vec![Vec::new(); ways.len()];
        let begin = Instant::now();
        for round in 0..=TRIALS_MAX {
            if begin.elapsed() > TUNE_TIME {
                break;
            }
            for i in 0..ways.len() {
                let way = (round + i) % ways.len();
                let (n_workers, n_steps) = ways[way];
                let time = trial(plan, &workers[..n_workers], n_steps)?;
                // The first round warms up.
                if round > 0 {
                    times[way].push(time.as_secs_f64());
                }
            }
        }
        let (n_workers, n_steps) = ways[clearly_fastest(&times)];
        workers.truncate(n_workers);
        Ok(Parts { workers, n_steps })
    }
}

/// Which of the ways whose times these are to take, a time of each round: the first, unless another wins.
fn clearly_fastest(times: &[Vec<f64>]) -> usize {
    (1..times.len()).fold(0, |best, way| if wins(&times[way], &times[best]) { way } else { best })
}

/// Whether `new` is clearly faster than `old`: by the median of the rounds, and not in some of them alone.
fn wins(new: &[f64], old: &[f64]) -> bool {
    let mut ratios: Vec<f64> = old.iter().zip(new).map(|(old, new)| old / new).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let n = ratios.len();
    n >= TRIALS_MIN && ratios[n / 2] > WIN && ratios[n / 8] > 1.0
}

impl Cut {
    /// Into parts of `n_steps`, but the first are shorter, so that the device need not wait long.
    fn new(source: Source, n_steps: usize, receipt: Option<Receipt>) -> Cut {
        let (n, part_max) = match &source {
            // Recording takes longer than encoding.
            Source::New(plan) => (plan.ops().len(), n_steps / 2),
            Source::Kept(recording) => (recording.steps.len(), n_steps),
        };
        let part_max = part_max.max(4);
        let mut len = if n / 2 > part_max { part_max / 4 } else { n };
        let mut ranges = Vec::new();
        let mut start = 0;
        while start < n || ranges.is_empty() {
            let mut end = start.saturating_add(len).min(n);
            // What an op does of the next one's work must be known where that is recorded.
            if let Source::New(plan) = &source {
                while end < n && works_ahead(&plan.ops()[end - 1]) {
                    end += 1;
                }
            }
            ranges.push(start..end);
            start = end;
            len = len.saturating_mul(2).min(part_max);
        }
        Cut { source, ranges, receipt }
    }

    /// Encodes part `i`, and records it before if nobody has.
    fn part(&self, gpu: &Gpu, i: usize) -> Result<Part> {
        let (is_first, is_last) = (i == 0, i + 1 == self.ranges.len());
        let encode = |steps: &[Step]| gpu.encode_steps(steps, is_first, is_last, self.receipt.as_ref());
        let range = self.ranges[i].clone();
        Ok(match &self.source {
            Source::New(plan) => {
                let recording = gpu.record(plan.ops(), range)?;
                Part { commands: encode(&recording.steps)?, recording: Some(recording) }
            }
            Source::Kept(recording) => Part { commands: encode(&recording.steps[range])?, recording: None },
        })
    }
}

/// Encodes all parts, on this thread and the workers by turns, and gives them to `take` in order.
fn each_part(
    gpu: &Arc<Gpu>,
    workers: &[EncoderWorker],
    cut: Cut,
    mut take: impl FnMut(Part) -> Result<()>,
) -> Result<()> {
    let n_parts = cut.ranges.len();
    let n_threads = n_parts.min(workers.len() + 1);
    let cut = Arc::new(cut);
    let queues = (1..n_threads).zip(workers).map(|(first, worker)| {
        let (done, parts) = channel();
        let (gpu, cut) = (gpu.clone(), cut.clone());
        worker.submit(move || {
            for i in (first..n_parts).step_by(n_threads) {
                let part = cut.part(&gpu, i);
                let failed = part.is_err();
                if done.send(part).is_err() || failed {
                    break;
                }
            }
            drop((gpu, cut));
            drop(done);
        })?;
        Ok(parts)
    });
    let queues = queues.collect::<Result<Vec<_>>>()?;
    let panicked = |_| Error::KernelRun {
        name: "a list of commands".into(),
        message: "the thread that encoded it panicked".into(),
    };
    let result = (0..n_parts).try_for_each(|i| match i % n_threads {
        0 => take(cut.part(gpu, i)?),
        worker => take(queues[worker - 1].recv().map_err(panicked)??),
    });
    // A worker's channel closes when it has let go of the plan, whose buffers the caller may free.
    queues.iter().for_each(|parts| while parts.recv().is_ok() {});
    result
}

impl Gpu {
    /// Starts what has no commands yet, and gives its recording back if it is new and can be kept.
    pub(crate) fn run_in_parts(
        self: &Arc<Self>,
        workers: &[EncoderWorker],
        n_steps: usize,
        source: Source,
    ) -> Result<(InFlight, Option<Recording>)> {
        let receipt = match &source {
            // Whether a step uses the status is not known before the last is recorded.
            Source::New(plan) if plan.ops().is_empty() => None,
            Source::New(_) => self.receipt(true),
            Source::Kept(recording) => self.receipt_of(recording),
        };
        let generation = self.workspace_generation();
        let cut = Cut::new(source, n_steps, receipt.clone());
        let mut n_left = cut.ranges.len();
        let mut recordings = Vec::new();
        let mut in_flight = None;
        // What another thread submits comes before all of it or behind: the parts share a status and workspaces.
        let order = lock(&self.order);
        each_part(self, workers, cut, |Part { commands, recording }| {
            recordings.extend(recording);
            n_left -= 1;
            if n_left > 0 {
                self.check()?;
                self.queue.submit([commands]);
                return Ok(());
            }
            let receipt = receipt.clone();
            in_flight =
                Some(self.start_in_order(vec![Encoded { commands, receipt, named: Vec::new() }], &order)?);
            Ok(())
        })?;
        drop(order);
        let in_flight = in_flight.expect("a cut has at least one part");
        // A workspace that has grown meanwhile is not the one that the first parts name.
        let is_new = !recordings.is_empty() && self.workspace_generation() == generation;
        Ok((in_flight, is_new.then(|| Recording::join(recordings))))
    }
}

#[cfg(test)]
mod tests;
