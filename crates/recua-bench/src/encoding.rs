//! `recua-bench encoding`: whether encoding on several threads pays, for products and for a real decode step.
//!
//! Traps that it avoids: kernels compiled inside a trial, independent ops where a model's depend on each other, one variant always first,
//! verdicts from the fastest of a few trials, and results that nobody compares.

pub(crate) mod args;
mod report;
mod stats;
mod step;
mod trial;
mod work;

use args::{Dependency, EncodingArgs};
use recua::Device;
use recua::compute::EncoderWorker;
use report::{Experiment, Report};
use trial::{Outcome, Way};
use work::{List, Work};

use crate::{Mistake, Result};

pub(crate) fn run(mut args: EncodingArgs) -> Result {
    args.workers.sort_unstable();
    args.workers.dedup();
    check(&args)?;
    if args.trials < stats::TRIALS_MIN {
        eprintln!("fewer than {} trials decide nothing", stats::TRIALS_MIN);
    }
    let device = recua::open_device(&args.device).map_err(|e| Mistake(e.to_string()))?;
    let workers = trial::spawn(args.workers.last().copied().unwrap_or(0))?;
    let info = device.info();
    let about = format!("{} ({}): {}", info.kind, info.name, info.detail);
    let mut report = Report::new(about, info.runs_in_submit, args.trials);
    if args.ops > 0 {
        eprintln!("{} products of {}", args.ops, args.ggml_type);
        let weights = work::product_weights(&device, &args)?;
        for dependency in &args.dependency {
            let work = work::products(&device, &args, &weights, *dependency)?;
            report.experiments.push(measure(&device, &workers, work, &args)?);
        }
    }
    for shape in &args.real_step {
        eprintln!("a step of {shape}");
        report.experiments.push(measure(&device, &workers, step::work(&device, *shape, args.m)?, &args)?);
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    let differing: Vec<_> = report.experiments.iter().flat_map(|e| &e.differing).cloned().collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(format!("the outputs of these differ from the serial ones: {}", differing.join(", ")).into())
}

fn mistake(text: impl Into<String>) -> crate::Failure {
    Mistake(text.into()).into()
}

/// Finds mistakes before the device is opened.
fn check(args: &EncodingArgs) -> Result {
    let EncodingArgs { ops, ggml_type, m, n, k, .. } = *args;
    if ops == 0 && args.real_step.is_empty() {
        return Err(mistake("--ops 0 without --real-step leaves nothing to encode"));
    }
    let most = args.workers.iter().max().copied().unwrap_or(0);
    if ops > 0 {
        if args.dependency.contains(&Dependency::Chained) && n != k {
            return Err(mistake(format!(
                "chained products need n = k, and {n} is not {k}; give --dependency independent"
            )));
        }
        if !ggml_type.is_encodable() {
            return Err(mistake(format!("recua cannot make {ggml_type} weights, only read them")));
        }
        work::n_bytes(ggml_type, n, k).map_err(mistake)?;
        if ops <= most {
            return Err(mistake(format!("{ops} ops are too few for {most} workers and the main thread")));
        }
    }
    // The smallest shape has more ops than this.
    const WORKERS_MAX: usize = 32;
    if most > WORKERS_MAX {
        return Err(mistake(format!("--workers {most} exceeds {WORKERS_MAX}")));
    }
    let largest = m.checked_mul(n.max(k)).and_then(|values| values.checked_mul(size_of::<f32>()));
    largest.map(drop).ok_or_else(|| mistake(format!("{m} rows of {} are too large", n.max(k))))
}

/// All variants for one list.
fn measure(
    device: &Device,
    workers: &[EncoderWorker],
    work: Work,
    args: &EncodingArgs,
) -> Result<Experiment> {
    let mut ways = vec![Way::Serial];
    ways.extend(args.workers.iter().flat_map(|n| [Way::Split(n + 1), Way::Parallel(*n)]));
    let is_plan = matches!(work.list, List::Ops(_));
    let encodes = !device.info().runs_in_submit;
    ways.extend(is_plan.then_some(Way::Plan));
    ways.extend((is_plan && encodes).then_some(Way::NewPlan));
    let encoding_threads = (is_plan && encodes).then_some(1);
    let about = work.about.clone();
    eprintln!("{}: {} variants, {} trials", about.name, ways.len(), args.trials);
    let Outcome { times, differing } = trial::run(device, workers, work, &ways, args.trials)?;
    Ok(Experiment::new(about, encoding_threads, &ways, &times, &differing))
}
