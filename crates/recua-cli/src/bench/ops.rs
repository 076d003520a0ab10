//! `recua bench ops`: the time of each op of a step, beside the bytes it must move.

use std::io::Write;
use std::time::Instant;

use recua::compute::operands::Resource;
use recua::compute::{DType, Matmul, Op, Plan, Record, TOP_K_MAX};
use recua::{Batch, LlamaConfig, LlamaModel, Logits};
use serde::Serialize;

use super::cell::median;
use crate::args::{BenchOpsArgs, TableFormat};
use crate::failure::{Failure, OrFail, Result};
use crate::model::{self, ModelFile};
use crate::output::{self, note, write_json};
use crate::table::{Style, Table};
use recua::gguf::Random;

/// How often the plan is run, within limits, and for how long.
const RUNS_MIN: usize = 3;
const RUNS_MAX: usize = 200;
const SECONDS: f64 = 2.0;

#[derive(Serialize)]
struct Report {
    device: String,
    model: String,
    peak_bytes_per_s: f64,
    depth: usize,
    ops: Vec<Row>,
}

/// All ops of a plan that do the same work on other data, such as one projection of every layer.
#[derive(Serialize)]
struct Row {
    rows: usize,
    op: String,
    /// How many of them a step has.
    count: usize,
    /// The median of one, after others of its kind.
    us: f64,
    /// What the step takes less without those of this kind, for one; where the device has a clock of its own.
    us_in_step: Option<f64>,
    /// What one must read and write.
    bytes: u64,
    bytes_per_s: f64,
    peak_fraction: f64,
    /// Of the time of all ops.
    step_fraction: f64,
}

pub(super) fn run(args: BenchOpsArgs) -> Result {
    let file = ModelFile::open(&args.model)?;
    let context = super::check_context(&file, None, args.depth + 1)?;
    let device = model::open_device(&args.device)?;
    let peak_bytes_per_s = device.measure_read_bandwidth().or_other()?;
    let mut report = Report {
        device: model::device_line(&device),
        model: file.name.clone(),
        peak_bytes_per_s,
        depth: args.depth,
        ops: Vec::new(),
    };
    let config = LlamaConfig { max_seq_len: context, kv_type: args.kv.kv_type, ..LlamaConfig::default() };
    let mut model = file.load(device, config)?;
    for n_rows in &args.rows {
        note!("{n_rows} rows");
        report.ops.extend(measure(&mut model, *n_rows, args.depth, peak_bytes_per_s)?);
    }
    let mut out = output::stdout();
    match args.format {
        TableFormat::Json => write_json(&mut out, &report)?,
        TableFormat::Table => write_table(&mut out, &report, Style::Plain)?,
        TableFormat::Md => write_table(&mut out, &report, Style::Markdown)?,
    }
    out.flush()?;
    Ok(())
}

/// Times the ops of a step of `n_rows` sequences that hold `depth` tokens each.
fn measure(model: &mut LlamaModel, n_rows: usize, depth: usize, peak_bytes_per_s: f64) -> Result<Vec<Row>> {
    let failure = |e| model::failure(e, "");
    model.set_batch_size(n_rows).map_err(failure)?;
    // A real step, so that every index that the ops read is there and in range.
    fill(model, n_rows, depth)?;
    let mut plan = model.plan(n_rows, n_rows).map_err(failure)?;
    choose(model, &mut plan, n_rows)?;
    // The ops that do the same work, each with its place in the plan.
    let mut groups: Vec<(Row, Vec<usize>)> = Vec::new();
    for (i, op) in plan.ops().iter().enumerate() {
        let (name, bytes) = (name(op), op.bytes_moved(depth + 1));
        match groups.iter_mut().find(|(row, _)| row.op == name && row.bytes == bytes) {
            Some((_, places)) => places.push(i),
            None => {
                let row = Row {
                    rows: n_rows,
                    op: name,
                    count: 0,
                    us: 0.0,
                    us_in_step: None,
                    bytes,
                    bytes_per_s: 0.0,
                    peak_fraction: 0.0,
                    step_fraction: 0.0,
                };
                groups.push((row, vec![i]));
            }
        }
    }
    let places: Vec<&[usize]> = groups.iter().map(|(_, places)| &places[..]).collect();
    let (times, in_step) = match device_times(model, &plan, &places)? {
        Some(times) => (times, in_step_times(model, &plan, &places)?),
        None => (host_times(model, &plan, &places)?, None),
    };
    (0..n_rows).try_for_each(|slot| model.kv_cache_mut().clear_batch(slot)).map_err(failure)?;
    let total: f64 = groups.iter().zip(&times).map(|((_, places), time)| places.len() as f64 * time).sum();
    let finished = groups.into_iter().zip(times).enumerate().map(|(i, ((mut row, places), seconds))| {
        row.count = places.len();
        row.step_fraction = places.len() as f64 * seconds / total;
        row.us = seconds * 1e6;
        row.us_in_step = in_step.as_ref().map(|times| times[i] * 1e6);
        row.bytes_per_s = row.bytes as f64 / seconds;
        row.peak_fraction = row.bytes_per_s / peak_bytes_per_s;
        row
    });
    Ok(finished.collect())
}

/// Appends what a step ends in whose requests are greedy, and one whose requests draw from the likeliest few.
fn choose(model: &LlamaModel, plan: &mut Plan, n_rows: usize) -> Result {
    let Some(Op::Matmul(Matmul { out, .. })) = plan.ops().last() else {
        return Err(Failure::other("a step does not end in logits"));
    };
    let logits = out.clone();
    let u32s = |shape: &[usize]| model.device().alloc(DType::U32, shape).map_err(Failure::other);
    plan.argmax(&logits, &u32s(&[n_rows])?).map_err(Failure::other)?;
    plan.top_k(&logits, &u32s(&[n_rows, TOP_K_MAX, 2])?).map_err(Failure::other)
}

/// Runs a prompt of `depth` tokens and one token more in every slot.
fn fill(model: &mut LlamaModel, n_rows: usize, depth: usize) -> Result {
    let vocab = model.params().vocab;
    let sequences: Vec<_> =
        (0..n_rows).map(|slot| Random::new(slot as u64).indexes(depth + 1, vocab)).collect();
    for (start, end, logits) in [(0, depth, Logits::None), (depth, depth + 1, Logits::Last)] {
        if start < end {
            let mut batch = Batch::new();
            for (slot, tokens) in sequences.iter().enumerate() {
                batch.push_sequence(slot, start, &tokens[start..end], logits);
            }
            model.step(&batch).map_err(|e| model::failure(e, ""))?;
        }
    }
    Ok(())
}

/// The median time of an op of each group, in seconds, by the device's own clock; `None` where it has none. The ops of a group run one
/// after the other in one submission, as often as it takes to make its beginning and end small: starting a submission takes as long
/// as many an op. Weights are those of every layer in turn, so that a group of large ones does not run from a cache.
fn device_times(model: &LlamaModel, plan: &Plan, groups: &[&[usize]]) -> Result<Option<Vec<f64>>> {
    const OPS_MIN: usize = 64;
    let device = model.device();
    let mut all = Vec::new();
    for places in groups {
        let repeats = OPS_MIN.div_ceil(places.len());
        let mut list = device.plan();
        for place in places.repeat(repeats) {
            list.push(plan.ops()[place].clone()).map_err(Failure::other)?;
        }
        let Some(time) = device_time(model, &list)? else { return Ok(None) };
        all.push(time / list.ops().len() as f64);
    }
    Ok(Some(all))
}

/// What a step takes less without each group, for an op of it, in seconds: more than the op takes in a row of its kind, because kernels
/// that follow each other in a step push each other's code out of the caches, and what is left out warms the others.
fn in_step_times(model: &LlamaModel, plan: &Plan, groups: &[&[usize]]) -> Result<Option<Vec<f64>>> {
    let Some(step) = device_time(model, plan)? else { return Ok(None) };
    let mut all = Vec::new();
    for places in groups {
        let mut list = model.device().plan();
        for (_, op) in plan.ops().iter().enumerate().filter(|(place, _)| !places.contains(place)) {
            list.push(op.clone()).map_err(Failure::other)?;
        }
        let Some(without) = device_time(model, &list)? else { return Ok(None) };
        all.push((step - without) / places.len() as f64);
    }
    Ok(Some(all))
}

/// The median time of a plan by the device's own clock, in seconds; `None` where it has none.
fn device_time(model: &LlamaModel, plan: &Plan) -> Result<Option<f64>> {
    let program = model.device().compile(plan).map_err(Failure::other)?;
    let mut times = Vec::new();
    for run in 0..=RUNS_MIN {
        let submission = program.launch(&[], &[]).map_err(Failure::other)?;
        submission.wait().map_err(Failure::other)?;
        let Some(time) = submission.gpu_time() else { return Ok(None) };
        // The first run warms up.
        if run > 0 {
            times.push(time.as_secs_f64());
        }
    }
    Ok(Some(median(&mut times)))
}

/// The median time of an op of each group, in seconds, by the host's clock, with a submission for each op. The ops run in the plan's
/// order every time, so that their inputs are those of a real step and each finds the caches as a step leaves them.
fn host_times(model: &LlamaModel, plan: &Plan, groups: &[&[usize]]) -> Result<Vec<f64>> {
    let compile = |i| model.device().compile(&plan.part(i, i + 1)).map_err(Failure::other);
    let programs = (0..plan.ops().len()).map(compile).collect::<Result<Vec<_>>>()?;
    let mut all: Vec<Vec<f64>> = vec![Vec::new(); programs.len()];
    let begin = Instant::now();
    for run in 0..RUNS_MAX {
        if run > RUNS_MIN && begin.elapsed().as_secs_f64() > SECONDS {
            break;
        }
        for (program, times) in programs.iter().zip(&mut all) {
            let start = Instant::now();
            program.launch(&[], &[]).and_then(|submission| submission.wait()).map_err(Failure::other)?;
            // The first run warms up.
            if run > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let medians = all.iter_mut().map(|times| median(times)).collect::<Vec<f64>>();
    let of_group = |places: &&[usize]| median(&mut places.iter().map(|i| medians[*i]).collect::<Vec<f64>>());
    let times = groups.iter().map(of_group).collect();
    Ok(times)
}

/// An op's name with what sets its cost: the same for every layer.
fn name(op: &Op) -> String {
    let weights = op.operands().into_iter().filter_map(|operand| match operand.resource {
        Resource::Weight(weight) => Some(weight),
        _ => None,
    });
    let parts = weights.flat_map(|w| w.parts().iter().map(|part| (part, w.k())));
    let shapes: Vec<_> = parts.map(|(part, k)| format!("{} {}x{k}", part.ty, part.n)).collect();
    format!("{} {}", op.name(), shapes.join(" + ")).trim_end().to_owned()
}

fn write_table(out: &mut impl Write, report: &Report, style: Style) -> Result {
    writeln!(
        out,
        "{}; {:.1} GB/s read bandwidth; {} tokens in the cache of each row\n",
        output::printable(&report.device),
        report.peak_bytes_per_s / 1e9,
        report.depth
    )?;
    let mut table = Table::new(&[
        "rows",
        "<op",
        "a step",
        "us",
        "in the step",
        "bytes",
        "GB/s",
        "% of peak",
        "% of step",
    ]);
    for row in &report.ops {
        table.row([
            row.rows.to_string(),
            row.op.clone(),
            row.count.to_string(),
            format!("{:.1}", row.us),
            row.us_in_step.map_or("-".into(), |us| format!("{us:.1}")),
            row.bytes.to_string(),
            format!("{:.2}", row.bytes_per_s / 1e9),
            format!("{:.1}", row.peak_fraction * 100.0),
            format!("{:.1}", row.step_fraction * 100.0),
        ]);
    }
    table.write(out, style)?;
    Ok(())
}
