//! `recua bench`: a model's speed and memory on this machine, always compared with what the machine can do.

mod cell;
mod fit;
pub(crate) mod memory;
mod ops;
mod report;
mod targets;

use std::time::Instant;

use recua::{Device, LlamaConfig};

use crate::args::{BenchArgs, BenchWhat};
use crate::failure::{Failure, Result};
use crate::interrupt::{self, UnderWay};
use crate::model::{self, ModelFile};
use crate::output::{bytes, note};
use cell::Cell;
use report::{Printer, Report};

/// The largest batch that the model is loaded for from the start.
const STEP_TOKENS_MAX: usize = 1 << 16;

pub(crate) fn run(args: BenchArgs) -> Result {
    match args.what {
        Some(BenchWhat::Ops(args)) => ops::run(args),
        None => matrix(args),
    }
}

fn matrix(args: BenchArgs) -> Result {
    let files = args.models.iter().map(|model| ModelFile::open(model)).collect::<Result<Vec<_>>>()?;
    let positions = positions(&args);
    for file in &files {
        check_context(file, args.size.ctx_size, positions)?;
    }
    let device = model::open_device(&args.device)?;
    note!("{}", model::device_line(&device));
    let peak_bytes_per_s = device.measure_read_bandwidth().map_err(Failure::other)?;
    note!("{:.1} GB/s read bandwidth, measured now", peak_bytes_per_s / 1e9);
    interrupt::handle()?;
    let under_way = interrupt::under_way();
    let mut printer = Printer::new(&files, args.format);
    let mut reports = Vec::new();
    for file in &files {
        let mut report = Report::new(file, &device, peak_bytes_per_s);
        let measured = measure(file, &args, device.clone(), &under_way, &mut printer, &mut report);
        // A cell that fails, perhaps for lack of memory, or Ctrl-C does not cost the rows that were measured before.
        printer.model(&report)?;
        reports.push(report);
        if let Err(failure) = measured {
            printer.end(&reports)?;
            return Err(if under_way.is_to_end() { Failure::Interrupted } else { failure });
        }
    }
    printer.end(&reports)?;
    model::note_kv_cut(&device)?;
    let failed =
        reports.iter().flat_map(|r| &r.targets).flatten().any(|t| t.verdict == targets::Verdict::Fail);
    if failed { Err(Failure::Verdict) } else { Ok(()) }
}

/// The positions of the longest sequence. What cannot be counted is longer than any context.
fn positions(args: &BenchArgs) -> usize {
    let longest = args.prompt_len.iter().max().copied().unwrap_or(1);
    longest.saturating_add(cell::N_WARM_UP).saturating_add(args.gen_len)
}

/// The cache must hold a prompt and everything generated after it.
fn check_context(file: &ModelFile, asked: Option<usize>, positions: usize) -> Result<usize> {
    let context = file.context(asked, positions)?;
    if positions > context {
        return Err(Failure::user(format!(
            "{}: the longest prompt and the steps after it need {positions} positions, but the context \
             holds {context}; lower --prompt-len or --gen",
            file.name
        )));
    }
    Ok(context)
}

/// Measures all cells of one model. If one fails, `report` keeps the rows before it.
fn measure(
    file: &ModelFile,
    args: &BenchArgs,
    device: Device,
    under_way: &UnderWay,
    printer: &mut Printer,
    report: &mut Report,
) -> Result {
    let context = check_context(file, args.size.ctx_size, positions(args))?;
    let first = args.batch.first().copied().unwrap_or(1);
    let defaults = LlamaConfig::default();
    // A generated step is one pass. Batches that no memory holds are refused in their own cell, after those before them.
    let batches = args.batch.iter().copied().filter(|batch| *batch <= STEP_TOKENS_MAX);
    let step_tokens_max = batches.fold(defaults.step_tokens_max, usize::max);
    let config = LlamaConfig {
        batch_size: first,
        max_seq_len: context,
        step_tokens_max,
        kv_type: args.kv.kv_type,
        ..defaults
    };
    let start = Instant::now();
    let mut model = file.load(device, config)?;
    report.load_s = start.elapsed().as_secs_f64();
    let weights = bytes(model.weight_bytes_per_step());
    note!("{}: loaded in {:.2} s, {weights} of weights a step", file.name, report.load_s);
    for batch in &args.batch {
        model.set_batch_size(*batch).map_err(|e| model::failure(e, &file.name))?;
        for prompt_len in &args.prompt_len {
            let cell = Cell { batch: *batch, prompt_len: *prompt_len, gen_len: args.gen_len };
            let row = cell::measure(&mut model, cell, report.peak_bytes_per_s, under_way)?;
            if !printer.streams() {
                note!("batch {batch}, prompt {prompt_len}: {:.2} ms a step", row.step_ms);
            }
            report.rows.push(row);
            printer.row(report)?;
        }
    }
    if args.targets {
        // Frees the model's memory for the fresh processes.
        drop(model);
        let measured = memory::in_fresh_processes(&file.name, &args.batch, context, args.kv, &args.device)?;
        report.targets = Some(targets::judge(&report.rows, &measured));
    }
    Ok(())
}
