//! `recua doctor`: what this machine offers, in the form that a bug report needs.

use std::io::Write;

use recua::compute::cpu::Isa;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::failure::{OrFail, Result};
use crate::model;
use crate::output::{self, bytes, printable, write_json};

#[derive(Serialize)]
struct Report {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    cores: usize,
    instruction_sets: Vec<InstructionSet>,
    devices: Vec<Device>,
    /// The GPU adapters that the device `wgpu` chooses from.
    adapters: Vec<Adapter>,
    /// What the device `cuda` has.
    cuda: Cuda,
    /// Devices that recua is meant to support but this build lacks.
    devices_missing: Vec<&'static str>,
}

#[derive(Serialize)]
struct InstructionSet {
    name: &'static str,
    available: bool,
}

#[derive(Serialize)]
struct Adapter {
    name: String,
    detail: String,
    /// Why `wgpu` chooses it or does not.
    reason: String,
    chosen: bool,
}

#[derive(Serialize)]
struct Cuda {
    cards: Vec<Card>,
    /// The run-time compiler and where it is; null if there is none.
    compiler: Option<String>,
    /// Why there are no cards, or no compiler for them; null if there are.
    problem: Option<String>,
}

#[derive(Serialize)]
struct Card {
    index: usize,
    name: String,
    detail: String,
    /// Why it cannot be opened; null if it can.
    problem: Option<String>,
}

#[derive(Serialize)]
struct Device {
    kind: String,
    name: String,
    detail: String,
    memory_bytes: Option<u64>,
    read_bytes_per_s: f64,
}

pub(crate) fn run(args: DoctorArgs) -> Result {
    let report = examine(&args)?;
    let mut out = output::stdout();
    if args.json {
        write_json(&mut out, &report)?;
    } else {
        write_pretty(&mut out, &report)?;
    }
    out.flush()?;
    Ok(())
}

fn examine(args: &DoctorArgs) -> Result<Report> {
    let device = model::open_device(&args.device)?;
    let info = device.info();
    let missing = ["wgpu", "cuda"].into_iter().filter(|name| !recua::DEVICE_NAMES.contains(name));
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        cores: model::cores(),
        instruction_sets: Isa::ALL
            .map(|isa| InstructionSet { name: isa.name(), available: isa.is_available() })
            .into(),
        devices: vec![Device {
            kind: info.kind.clone(),
            name: info.name.clone(),
            detail: info.detail.clone(),
            memory_bytes: info.memory_bytes,
            read_bytes_per_s: device.measure_read_bandwidth().or_other()?,
        }],
        adapters: recua::adapters(args.device.name()).into_iter().map(adapter).collect(),
        cuda: cuda(recua::cuda_report()),
        devices_missing: missing.collect(),
    })
}

fn cuda(report: recua::CudaReport) -> Cuda {
    let card = |card: recua::Card| {
        let recua::Card { index, name, detail, problem } = card;
        Card { index, name, detail, problem }
    };
    let (cards, compiler, problem) = match (report.cards, report.compiler) {
        (Err(problem), _) => (Vec::new(), None, Some(problem)),
        (Ok(cards), Some(Err(problem))) => (cards, None, Some(problem)),
        (Ok(cards), compiler) => (cards, compiler.and_then(std::result::Result::ok), None),
    };
    Cuda { cards: cards.into_iter().map(card).collect(), compiler, problem }
}

fn adapter(adapter: recua::Adapter) -> Adapter {
    let recua::Adapter { name, detail, reason, is_chosen } = adapter;
    Adapter { name, detail, reason, chosen: is_chosen }
}

fn write_pretty(out: &mut impl Write, report: &Report) -> Result {
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let sets = report.instruction_sets.iter().filter(|set| set.available).map(|set| set.name);
    writeln!(out, "recua             {} on {} {}", report.version, report.os, report.arch)?;
    writeln!(out, "cores             {}", report.cores)?;
    writeln!(out, "instruction sets  {}", list(sets.collect()))?;
    for device in &report.devices {
        let memory = device.memory_bytes.map_or("unknown".to_owned(), bytes);
        writeln!(
            out,
            "device {:<10} {}, {}",
            device.kind,
            printable(&device.name),
            printable(&device.detail)
        )?;
        writeln!(out, "  free memory     {memory}")?;
        writeln!(out, "  read bandwidth  {:.1} GB/s, measured now", device.read_bytes_per_s / 1e9)?;
    }
    for adapter in &report.adapters {
        let mark = if adapter.chosen { "chosen by wgpu" } else { "not chosen" };
        let [name, detail, reason] =
            [&adapter.name, &adapter.detail, &adapter.reason].map(|text| printable(text));
        writeln!(out, "adapter           {name}, {detail}")?;
        writeln!(out, "  {mark}: {reason}")?;
    }
    for card in &report.cuda.cards {
        let [name, detail] = [&card.name, &card.detail].map(|text| printable(text));
        writeln!(out, "card cuda:{:<7} {name}, {detail}", card.index)?;
        if let Some(problem) = &card.problem {
            writeln!(out, "  cannot be used  {}", printable(problem))?;
        }
    }
    if let Some(compiler) = &report.cuda.compiler {
        writeln!(out, "cuda compiler     {}", printable(compiler))?;
    }
    if let Some(problem) = &report.cuda.problem {
        writeln!(out, "cuda              {}", printable(problem))?;
    }
    writeln!(out, "not in this build {}", list(report.devices_missing.clone()))?;
    Ok(())
}
