//! `recua inspect`: what is in a file. Everything shown comes from an untrusted file and may go to a terminal, so
//! every string passes through [`printable`] or [`write_json`].

mod json;

use std::collections::BTreeMap;
use std::io::Write;

use recua::gguf::{GgmlType, Gguf, Value};

use crate::args::InspectArgs;
use crate::failure::Result;
use crate::output::{self, abbreviated, bytes, count, printable, write_json};
use crate::source;
use crate::table::{Style, Table};

/// The most characters shown of a string; a chat template has thousands.
const TEXT_CHARS_MAX: usize = 72;
/// The most items shown of an array.
const ITEMS_MAX: usize = 6;

pub(crate) fn run(args: InspectArgs) -> Result {
    let gguf = source::open(&args.model)?;
    let mut out = output::stdout();
    if args.json {
        write_json(&mut out, &json::File::of(&gguf, &args.model))?;
    } else {
        write_pretty(&mut out, &gguf, &args.model)?;
    }
    out.flush()?;
    if args.strict {
        check_runnable(&gguf, &args.model)?;
    }
    Ok(())
}

/// Fails if recua cannot run the file, even though it is well-formed.
fn check_runnable(gguf: &Gguf, model: &str) -> Result {
    // This compares all counts, so that no tokenizer is built for a vocabulary that no tensor has.
    crate::model::check(gguf, model)?;
    crate::tokenize::tokenizer(gguf, model)?;
    let sampling = recua::SamplingDefaults::from_metadata(gguf.metadata());
    sampling.map(drop).map_err(|e| crate::model::failure(e, model))
}

fn write_pretty(out: &mut impl Write, gguf: &Gguf, model: &str) -> Result {
    writeln!(
        out,
        "{}: GGUF version {}, {} in {}, {}, {}, {} parameters",
        printable(model),
        gguf.version(),
        bytes(gguf.file_bytes()),
        count(gguf.n_files(), "file"),
        count(gguf.metadata().len(), "key"),
        count(gguf.tensors().len(), "tensor"),
        parameters(gguf),
    )?;
    if !gguf.metadata().is_empty() {
        writeln!(out)?;
        write_metadata(out, gguf)?;
    }
    if !gguf.tensors().is_empty() {
        writeln!(out)?;
        write_tensors(out, gguf)?;
        writeln!(out)?;
        write_types(out, gguf)?;
    }
    Ok(())
}

fn write_metadata(out: &mut impl Write, gguf: &Gguf) -> Result {
    let mut table = Table::new(&["<key", "<type", "<value"]);
    for (key, value) in gguf.metadata().iter() {
        table.row([abbreviated(key, TEXT_CHARS_MAX), value.type_name().to_owned(), shown(value)]);
    }
    table.write(out, Style::Plain)?;
    Ok(())
}

/// A value in one line.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => abbreviated(text, TEXT_CHARS_MAX),
        Value::Array(array) => {
            // `strings` walks the array once; `get` would walk it again for each item.
            let items: Vec<String> = match array.strings() {
                Some(strings) => strings.iter().take(ITEMS_MAX).map(quoted).collect(),
                None => {
                    (0..array.len().min(ITEMS_MAX)).filter_map(|i| Some(array.get(i)?.to_string())).collect()
                }
            };
            let more = if array.len() > ITEMS_MAX { ", …" } else { "" };
            format!("{} [{}{more}]", count(array.len(), "item"), items.join(", "))
        }
        other => other.to_string(),
    }
}

fn quoted(item: &[u8]) -> String {
    const CHARS_MAX: usize = 24;
    format!("\"{}\"", abbreviated(&String::from_utf8_lossy(item), CHARS_MAX))
}

fn write_tensors(out: &mut impl Write, gguf: &Gguf) -> Result {
    let mut table = Table::new(&["<tensor", "<type", "shape", "bytes"]);
    for tensor in gguf.tensors() {
        let shape: Vec<_> = tensor.dims().iter().map(u64::to_string).collect();
        table.row([
            abbreviated(&tensor.name, TEXT_CHARS_MAX),
            tensor.ty.to_string(),
            shape.join(" x "),
            tensor.n_bytes().to_string(),
        ]);
    }
    table.write(out, Style::Plain)?;
    Ok(())
}

fn write_types(out: &mut impl Write, gguf: &Gguf) -> Result {
    let mut table = Table::new(&["<type", "tensors", "parameters", "bytes", "bits a parameter"]);
    for (ty, sum) in by_type(gguf) {
        table.row([
            ty.to_string(),
            sum.n_tensors.to_string(),
            sum.n_elements.to_string(),
            sum.n_bytes.to_string(),
            format!("{:.2}", sum.n_bytes as f64 * 8.0 / sum.n_elements as f64),
        ]);
    }
    table.write(out, Style::Plain)?;
    Ok(())
}

/// The totals over all tensors of a type.
#[derive(Default)]
struct Sum {
    n_tensors: usize,
    // No sum overflows: every tensor's data lies in a file and overlaps no other.
    n_elements: u64,
    n_bytes: u64,
}

fn by_type(gguf: &Gguf) -> BTreeMap<GgmlType, Sum> {
    let mut sums = BTreeMap::<GgmlType, Sum>::new();
    for tensor in gguf.tensors() {
        let sum = sums.entry(tensor.ty).or_default();
        sum.n_tensors += 1;
        sum.n_elements += tensor.n_elements() as u64;
        sum.n_bytes += tensor.n_bytes() as u64;
    }
    sums
}

fn parameters(gguf: &Gguf) -> u64 {
    by_type(gguf).values().map(|sum| sum.n_elements).sum()
}
