//! The matrix as a table, as JSON or as markdown, as it grows.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use recua::Device;
use recua::gguf::FileType;
use serde::Serialize;

use super::cell::Row;
use super::targets::Target;
use crate::args::TableFormat;
use crate::failure::Result;
use crate::model::{self, ModelFile};
use crate::output::{self, bytes, printable, write_json};
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

/// Writes what is measured: rows of a table at once, JSON when a model is done.
pub(super) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    format: TableFormat,
    table: Table,
    // Whether the table's head is written.
    begun: bool,
}

impl Printer {
    /// For the rows of these models.
    pub(super) fn new(files: &[ModelFile], format: TableFormat) -> Self {
        let longest = |texts: Vec<String>| {
            texts.into_iter().max_by_key(|text| text.chars().count()).unwrap_or_default()
        };
        let names = longest(files.iter().map(|file| short(&file.name)).collect());
        let types = longest(files.iter().map(|file| file_type(file).unwrap_or("?").to_owned()).collect());
        let room = [
            &*names,
            &types,
            "",
            "",
            "",
            "123456.7",
            "1234.567",
            "",
            "",
            "",
            "1023.99 MiB",
            "0123456789abcdef",
        ];
        Self { out: output::stdout(), format, table: Table::new(&TITLES).with_room_for(&room), begun: false }
    }

    /// Whether the rows are seen as they come.
    pub(super) fn streams(&self) -> bool {
        self.format != TableFormat::Json && io::stdout().is_terminal()
    }

    /// The latest row of a report.
    pub(super) fn row(&mut self, report: &Report) -> Result {
        let (Some(style), Some(row)) = (self.style(), report.rows.last()) else { return Ok(()) };
        self.table.row([
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
        if !self.begun {
            let peak = report.peak_bytes_per_s / 1e9;
            writeln!(self.out, "{}; {peak:.1} GB/s read bandwidth\n", printable(&report.device))?;
            self.table.write_head(&mut self.out, style)?;
            self.begun = true;
        }
        self.table.write_last(&mut self.out, style)?;
        Ok(self.out.flush()?)
    }

    /// A model's report, complete or as far as it went.
    pub(super) fn model(&mut self, report: &Report) -> Result {
        if self.format == TableFormat::Json && !report.rows.is_empty() {
            write_json(&mut self.out, report)?;
        }
        Ok(self.out.flush()?)
    }

    /// The verdicts of all models, if there are any.
    pub(super) fn end(&mut self, reports: &[Report]) -> Result {
        if let Some(style) = self.style()
            && reports.iter().any(|report| report.targets.is_some())
        {
            writeln!(self.out)?;
            verdicts(reports).write(&mut self.out, style)?;
        }
        Ok(self.out.flush()?)
    }

    /// How a table is written; `None` for JSON.
    fn style(&self) -> Option<Style> {
        match self.format {
            TableFormat::Json => None,
            TableFormat::Table => Some(Style::Plain),
            TableFormat::Md => Some(Style::Markdown),
        }
    }
}

const TITLES: [&str; 12] = [
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
];

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
