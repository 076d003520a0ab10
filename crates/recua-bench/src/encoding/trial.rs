//! The ways to encode a list, and their times. Nothing is compiled and no thread is started while a trial is timed: the device's kernels
//! are warm, and the workers and the list exist.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use recua::Device;
use recua::compute::{Commands, EncoderWorker, Program, Submission};

use super::work::{List, Work};
use crate::Result;

/// Rounds that are not counted: the first one compiles kernels and fills caches.
pub(super) const WARM_UP: usize = 3;

/// One way to encode a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The main thread, one encoder.
    Serial,
    /// The main thread, this many encoders one after the other: what more command buffers cost.
    Split(usize),
    /// The main thread and this many workers at the same time, with one encoder each.
    Parallel(usize),
    /// A launch of the compiled plan: what a model does in a step of a known shape.
    Plan,
    /// The same plan compiled and launched: what a model does in a step of a new shape.
    NewPlan,
}

impl Way {
    pub(super) fn name(self) -> String {
        match self {
            Self::Serial => "serial".into(),
            Self::Split(n) => format!("serial in {n}"),
            Self::Parallel(n) => format!("parallel {}", n + 1),
            Self::Plan => "kept plan".into(),
            Self::NewPlan => "new plan".into(),
        }
    }

    pub(super) fn encoders(self) -> Option<usize> {
        match self {
            Self::Serial => Some(1),
            Self::Split(n) => Some(n),
            Self::Parallel(n) => Some(n + 1),
            Self::Plan | Self::NewPlan => None,
        }
    }

    pub(super) fn workers(self) -> usize {
        if let Self::Parallel(n) = self { n } else { 0 }
    }
}

/// Times of one trial of one way, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From the start until all parts are finished; `None` if it cannot be separated from the submission.
    pub(super) encode: Option<f64>,
    /// Until `submit` returns.
    pub(super) submit: f64,
    /// Until the work is done.
    pub(super) wait: f64,
    /// The total.
    pub(super) total: f64,
    /// The device's own working time; `None` if it does not report it.
    pub(super) gpu: Option<f64>,
}

/// Runs ways to encode one list.
pub(super) struct Bench<'a> {
    device: &'a Device,
    workers: &'a [EncoderWorker],
    list: Arc<List>,
    /// For a list that is a plan.
    program: Option<Program>,
}

/// The times of each way, one value per trial, and the ways whose results differ from the first one's.
pub(super) struct Outcome {
    pub(super) times: Vec<Vec<Times>>,
    pub(super) differing: Vec<Way>,
}

/// Runs every way `n_trials` times, in turn, and then compares what they compute.
pub(super) fn run(
    device: &Device,
    workers: &[EncoderWorker],
    work: Work,
    ways: &[Way],
    n_trials: usize,
) -> Result<Outcome> {
    let program = match &work.list {
        List::Ops(plan) => Some(device.compile(plan)?),
        List::Products(_) => None,
    };
    let bench = Bench { device, workers, list: Arc::new(work.list), program };
    let mut times = vec![Vec::with_capacity(n_trials); ways.len()];
    for trial in 0..WARM_UP + n_trials {
        for i in order(trial, ways.len()) {
            let measured = bench.once(ways[i])?;
            if trial >= WARM_UP {
                times[i].push(measured);
            }
        }
    }
    let mut differing = Vec::new();
    let mut first: Option<Vec<Vec<f32>>> = None;
    for way in ways {
        // The previous way's results must not pass for this one's.
        for output in &work.outputs {
            device.write(output, &vec![f32::NAN; output.n_elements()])?;
        }
        bench.once(*way)?;
        let read = |y| device.read_vec::<f32>(y);
        let outputs = work.outputs.iter().map(read).collect::<recua::compute::Result<Vec<_>>>()?;
        match &first {
            None => {
                check_sense(&outputs)?;
                first = Some(outputs);
            }
            Some(first) if is_same(first, &outputs) => {}
            Some(_) => differing.push(*way),
        }
    }
    Ok(Outcome { times, differing })
}

/// The order of the ways: each pair of trials starts with another one, and the second of a pair runs backwards, so that none is always
/// first or always after the same one.
fn order(trial: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| (if trial.is_multiple_of(2) { i } else { n - 1 - i } + trial / 2) % n)
}

/// Equal zeros would prove nothing.
fn check_sense(outputs: &[Vec<f32>]) -> Result {
    let makes_sense = |y: &Vec<f32>| y.iter().all(|v| v.is_finite()) && y.iter().any(|v| *v != 0.0);
    if outputs.iter().all(makes_sense) {
        return Ok(());
    }
    Err("an output is all zeros or holds a value that is not a finite number".into())
}

fn is_same(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    let bits = |y: &[Vec<f32>]| y.iter().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
    bits(a) == bits(b)
}

impl Bench<'_> {
    /// One trial of one way.
    fn once(&self, way: Way) -> Result<Times> {
        let start = Instant::now();
        let (encoded, submission) = match (way, &*self.list) {
            (Way::NewPlan, List::Ops(plan)) => (None, self.device.run(plan)?),
            (Way::Plan, List::Ops(_)) => {
                let program = self.program.as_ref().ok_or("the plan is not compiled")?;
                (None, program.launch(&[], &[])?)
            }
            (Way::Plan | Way::NewPlan, List::Products(_)) => {
                return Err("products are not a plan".into());
            }
            (Way::Serial, _) => self.submit(start, self.split(1)?)?,
            (Way::Split(n), _) => self.submit(start, self.split(n)?)?,
            (Way::Parallel(n), _) => self.submit(start, self.parallel(n)?)?,
        };
        let submitted = start.elapsed().as_secs_f64();
        submission.wait()?;
        let total = start.elapsed().as_secs_f64();
        Ok(Times {
            encode: encoded,
            submit: submitted - encoded.unwrap_or(0.0),
            wait: total - submitted,
            total,
            gpu: submission.gpu_time().map(|time| time.as_secs_f64()),
        })
    }

    /// Submits what is encoded, and records how long encoding took.
    fn submit(&self, start: Instant, commands: Vec<Commands>) -> Result<(Option<f64>, Submission)> {
        let encoded = start.elapsed().as_secs_f64();
        Ok((Some(encoded), self.device.submit(commands)?))
    }

    fn split(&self, n: usize) -> recua::compute::Result<Vec<Commands>> {
        (0..n).map(|i| self.list.encode(self.device, self.list.part(i, n))).collect()
    }

    /// The main thread encodes the first part while the workers encode the others.
    fn parallel(&self, n_workers: usize) -> Result<Vec<Commands>> {
        let n = n_workers + 1;
        let parts = self.workers.iter().take(n_workers).zip(1..).map(|(worker, i)| {
            // One channel per part: it closes if the worker's closure panics, so nothing waits for ever.
            let (done, finished) = channel();
            let (device, list) = (self.device.clone(), self.list.clone());
            worker.submit(move || {
                // The receiver is gone only if the main thread failed.
                let _ = done.send(list.encode(&device, list.part(i, n)));
            })?;
            Ok(finished)
        });
        let parts = parts.collect::<recua::compute::Result<Vec<_>>>()?;
        let mut commands = vec![self.list.encode(self.device, self.list.part(0, n))?];
        for finished in parts {
            let part = finished.recv().map_err(|_| "an encoder worker panicked")?;
            commands.push(part?);
        }
        Ok(commands)
    }
}

/// Starts the workers, once for all trials.
pub(super) fn spawn(n: usize) -> recua::compute::Result<Vec<EncoderWorker>> {
    (0..n).map(|_| EncoderWorker::spawn()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::work::About;
    use crate::encoding::work::weight;
    use recua::compute::{DType, Matmul, Record};
    use recua::gguf::GgmlType;

    #[test]
    fn every_way_comes_in_every_place_and_after_others() {
        for n in 1..8 {
            let mut places = vec![vec![0; n]; n];
            let mut before = std::collections::HashSet::new();
            for trial in 0..2 * n {
                let order: Vec<usize> = order(trial, n).collect();
                order.iter().enumerate().for_each(|(place, way)| places[*way][place] += 1);
                before.extend(order.windows(2).map(|pair| (pair[0], pair[1])));
            }
            assert!(places.iter().flatten().all(|&times| times == 2), "{places:?}");
            assert_eq!(before.len(), if n > 2 { 2 * n } else { n * (n - 1) }, "{n}");
        }
    }

    #[test]
    fn bits_are_compared_and_not_values() {
        assert!(is_same(&[vec![f32::NAN, 1.0]], &[vec![f32::NAN, 1.0]]));
        assert!(!is_same(&[vec![0.0]], &[vec![-0.0]]));
        assert!(check_sense(&[vec![0.0, 1.0]]).is_ok());
        assert!(check_sense(&[vec![1.0], vec![0.0]]).is_err() && check_sense(&[vec![f32::NAN]]).is_err());
    }

    /// An op list that accumulates a sum computes something else each time it runs.
    #[test]
    fn differing_results_are_found() {
        let device = recua::open_device("cpu").unwrap();
        let weight = weight(&device, &mut recua::gguf::Random::new(1), GgmlType::F32, 8, 8, 1.0).unwrap();
        let x = device.upload(&[1f32; 8], DType::F32, &[1, 8]).unwrap();
        let [sum, y] = [0, 1].map(|_| device.alloc(DType::F32, &[1, 8]).unwrap());
        let outcome = |keeps_sum: bool| {
            let mut plan = device.plan();
            let op = Matmul::new(&x, &weight, &sum);
            plan.matmul(if keeps_sum { op.with_add(&sum) } else { op }).unwrap();
            plan.copy(&sum, &y).unwrap();
            let work = Work::step(About::default(), plan, vec![y.clone()]);
            let ways = [Way::Serial, Way::Split(2), Way::Parallel(1), Way::Plan, Way::NewPlan];
            run(&device, &spawn(1).unwrap(), work, &ways, 2).unwrap()
        };
        assert_eq!(outcome(true).differing, [Way::Split(2), Way::Parallel(1), Way::Plan, Way::NewPlan]);
        let outcome = outcome(false);
        assert!(outcome.differing.is_empty());
        assert!(outcome.times.iter().all(|times| times.len() == 2));
    }
}
