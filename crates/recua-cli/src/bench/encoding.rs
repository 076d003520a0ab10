//! `recua bench encoding`: whether encoding on several threads pays, for products and for a real decode step.
//!
//! Traps it stays out of: kernels compiled inside a trial, independent ops where a model's depend on each other, one
//! variant always first, verdicts from the fastest of a few trials, and results nobody compares.

mod report;
mod stats;
mod step;
mod trial;
mod weights;
mod work;

use std::io::Write;

use recua::Device;
use recua::compute::EncoderWorker;

use crate::args::{BenchEncodingArgs, Dependency, TableFormat};
use crate::failure::{Failure, OrFail, Result};
use crate::model;
use crate::output::{self, note, write_json};
use crate::table::Style;
use report::{Experiment, Report};
use trial::{Outcome, Way};
use work::{List, Work};

pub(super) fn run(mut args: BenchEncodingArgs) -> Result {
    args.workers.sort_unstable();
    args.workers.dedup();
    check(&args)?;
    if args.trials < stats::TRIALS_MIN {
        note!("fewer than {} trials decide nothing", stats::TRIALS_MIN);
    }
    let device = model::open_device(&args.device)?;
    let workers = trial::spawn(args.workers.last().copied().unwrap_or(0))?;
    let works_in_submit = device.info().runs_in_submit;
    let mut report = Report::new(model::device_line(&device), works_in_submit, args.trials);
    if args.ops > 0 {
        note!("{} products of {}", args.ops, args.ggml_type);
        let weights = work::product_weights(&device, &args).or_other()?;
        for dependency in &args.dependency {
            let work = work::products(&device, &args, &weights, *dependency).or_other()?;
            report.experiments.push(measure(&device, &workers, work, &args)?);
        }
    }
    for shape in &args.real_step {
        note!("a step of {shape}");
        let work = step::work(&device, shape, args.m).or_other()?;
        report.experiments.push(measure(&device, &workers, work, &args)?);
    }
    let mut out = output::stdout();
    match args.format {
        TableFormat::Json => write_json(&mut out, &report)?,
        TableFormat::Table => report::write(&mut out, &report, Style::Plain)?,
        TableFormat::Md => report::write(&mut out, &report, Style::Markdown)?,
    }
    out.flush()?;
    let differing: Vec<_> = report.experiments.iter().flat_map(|e| &e.differing).cloned().collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Failure::other(format!("the outputs of these differ from the serial ones: {}", differing.join(", "))))
}

/// Finds mistakes before the device is opened.
fn check(args: &BenchEncodingArgs) -> Result {
    let BenchEncodingArgs { ops, ggml_type, m, n, k, .. } = *args;
    if ops == 0 && args.real_step.is_empty() {
        return Err(Failure::user("--ops 0 without --real-step leaves nothing to encode"));
    }
    let most = args.workers.iter().max().copied().unwrap_or(0);
    if ops > 0 {
        if args.dependency.contains(&Dependency::Chained) && n != k {
            return Err(Failure::user(format!(
                "chained products need n = k, and {n} is not {k}; give --dependency independent"
            )));
        }
        if !ggml_type.is_encodable() {
            return Err(Failure::user(format!("recua cannot make {ggml_type} weights, only read them")));
        }
        weights::n_bytes(ggml_type, n, k).or_user()?;
        if ops <= most {
            return Err(Failure::user(format!(
                "{ops} ops are too few for {most} workers and the main thread"
            )));
        }
    }
    // The smallest shape has more ops than this.
    const WORKERS_MAX: usize = 32;
    if most > WORKERS_MAX {
        return Err(Failure::user(format!("--workers {most} exceeds {WORKERS_MAX}")));
    }
    let largest = m.checked_mul(n.max(k)).and_then(|values| values.checked_mul(size_of::<f32>()));
    largest.map(drop).ok_or_else(|| Failure::user(format!("{m} rows of {} are too large", n.max(k))))
}

/// All variants of one list.
fn measure(
    device: &Device,
    workers: &[EncoderWorker],
    work: Work,
    args: &BenchEncodingArgs,
) -> Result<Experiment> {
    let mut ways = vec![Way::Serial];
    ways.extend(args.workers.iter().flat_map(|n| [Way::Split(n + 1), Way::Parallel(*n)]));
    let is_plan = matches!(work.list, List::Ops(_));
    let encodes = !device.info().runs_in_submit;
    ways.extend(is_plan.then_some(Way::Plan));
    ways.extend((is_plan && encodes).then_some(Way::NewPlan));
    let encoding_threads = (is_plan && encodes).then_some(1);
    let about = work.about.clone();
    note!("{}: {} variants, {} trials", about.name, ways.len(), args.trials);
    let Outcome { times, differing } = trial::run(device, workers, work, &ways, args.trials)?;
    Ok(Experiment::new(about, encoding_threads, &ways, &times, &differing))
}
