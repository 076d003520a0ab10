//! The matrix as a table, as JSON or as markdown.

use std::io::Write;

use recua::Device;
use recua::gguf::FileType;
use serde::Serialize;

use super::cell::Row;
use super::targets::Target;
use crate::args::TableFormat;
use crate::failure::Result;
use crate::model::{self, ModelFile};
use crate::output::{bytes, printable, write_json};
use crate::table::{Style, Table};

/// All figures of one model. Serialized, it is the JSON object that bench/README.md describes.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) device: String,
    pub(super) model: String,
    /// From `general.file_type`; null if the file has none or it is unknown.
    pub(super) file_type: Option<&'static str>,
    pub(super) peak_bytes_per_s: f64,
    /// Seconds that loading took, from the opened file to the model on the device.
    pub(super) load_s: f64,
    pub(super) rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) targets: Option<Vec<Target>>,
}

impl Report {
    /// A report without rows.
    pub(super) fn new(file: &ModelFile, device: &Device, peak_bytes_per_s: f64) -> Self {
        Self {
            device: model::device_line(device),
            model: file.name.clone(),
            file_type: file_type(file),
            peak_bytes_per_s,
            load_s: 0.0,
            rows: Vec::new(),
            targets: None,
        }
    }
}

/// The file type that the metadata names, if any.
fn file_type(file: &ModelFile) -> Option<&'static str> {
    let id = file.gguf.metadata().u32("general.file_type").ok()??;
    FileType::from_id(id).map(FileType::name)
}

/// Writes the reports of all models: as JSON one object a line, otherwise one table.
pub(super) fn write(out: &mut impl Write, reports: &[Report], format: TableFormat) -> Result {
    match format {
        TableFormat::Json => Ok(reports.iter().try_for_each(|report| write_json(out, report))?),
        TableFormat::Table => write_tables(out, reports, Style::Plain),
        TableFormat::Md => write_tables(out, reports, Style::Markdown),
    }
}

fn write_tables(out: &mut impl Write, reports: &[Report], style: Style) -> Result {
    if let Some(report) = reports.first() {
        let peak = report.peak_bytes_per_s / 1e9;
        writeln!(out, "{}; {peak:.1} GB/s read bandwidth\n", printable(&report.device))?;
    }
    matrix(reports).write(out, style)?;
    if reports.iter().any(|report| report.targets.is_some()) {
        writeln!(out)?;
        verdicts(reports).write(out, style)?;
    }
    Ok(())
}

fn matrix(reports: &[Report]) -> Table {
    let mut table = Table::new(&[
        "<model",
        "<type",
        "batch",
        "prompt",
        "prefill t/s",
        "decode t/s",
        "ms/step",
        "% of peak",
        "GPU %",
        "host us",
        "memory",
        "<logits hash",
    ]);
    for report in reports {
        for row in &report.rows {
            table.row([
                short(&report.model),
                report.file_type.unwrap_or("?").to_owned(),
                row.batch.to_string(),
                row.prompt_len.to_string(),
                format!("{:.1}", row.prefill_tps),
                format!("{:.1}", row.decode_tps),
                format!("{:.3}", row.step_ms),
                format!("{:.1}", row.peak_fraction * 100.0),
                row.gpu_utilisation.map_or("-".to_owned(), |u| format!("{:.0}", u * 100.0)),
                row.host_us.map_or("-".to_owned(), |us| format!("{us:.0}")),
                bytes(row.memory_bytes),
                row.logits_hash.clone(),
            ]);
        }
    }
    table
}

fn verdicts(reports: &[Report]) -> Table {
    let mut table = Table::new(&["<model", "<target", "<wanted", "<verdict", "<measured"]);
    for report in reports {
        for target in report.targets.iter().flatten() {
            table.row([
                short(&report.model),
                target.name.to_owned(),
                target.wanted.to_owned(),
                target.verdict.name().to_owned(),
                target.measured.clone(),
            ]);
        }
    }
    table
}

/// The file name of a path.
fn short(model: &str) -> String {
    let name = std::path::Path::new(model).file_name().and_then(|name| name.to_str()).unwrap_or(model);
    printable(name)
}
