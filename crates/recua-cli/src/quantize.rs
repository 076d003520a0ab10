//! `recua quantize`: the same model in another type.

use std::path::Path;

use recua::gguf::{FileType, quantize};

use crate::args::QuantizeArgs;
use crate::failure::{Failure, OrFail, Result};
use crate::interrupt;
use crate::output::{bytes, count, note, printable};
use crate::progress::Progress;
use crate::{model, source};

pub(crate) fn run(args: QuantizeArgs) -> Result {
    let file_type: FileType = args.file_type.parse().or_user()?;
    check_output(&args.output)?;
    let input = source::open(&args.input)?;
    interrupt::remove_unfinished_outputs()?;
    let threads = args.threads.map_or_else(model::cores, model::threads_within_cores);
    let sizes: Vec<u64> = input.tensors().iter().map(|tensor| tensor.n_bytes() as u64).collect();
    let all = sizes.iter().fold(0u64, |n, size| n.saturating_add(*size));
    let mut bar = Progress::waiting("");
    let mut progress = |n_done: usize, _: usize, name: &str| {
        let done = sizes.iter().take(n_done).fold(0u64, |n, size| n.saturating_add(*size));
        bar.bytes(done, all, name);
    };
    let report = quantize(&input, &args.output, file_type, threads, &mut progress);
    drop(bar);
    let report = report.map_err(failure)?;
    let types: Vec<_> = report
        .types
        .iter()
        .map(|(ty, n, size)| format!("{} of {ty} ({})", count(*n, "tensor"), bytes(*size)))
        .collect();
    note!(
        "{}: {} to {}; {}",
        printable(&args.output.display().to_string()),
        bytes(report.bytes_in),
        bytes(report.bytes_out),
        types.join(", ")
    );
    Ok(())
}

/// Refuses an output path that cannot work, before time is spent on its content.
pub(crate) fn check_output(path: &Path) -> Result {
    if path.is_dir() {
        return Err(Failure::user(format!("{}: is a folder; give the name of a file", path.display())));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(Failure::user(format!("{}: the folder {} does not exist", path.display(), folder.display())))
        }
        _ => Ok(()),
    }
}

/// A full disk or a machine without memory is not the user's mistake; a model that cannot be converted is.
pub(crate) fn failure(e: recua::gguf::Error) -> Failure {
    if e.is_io() { Failure::other(e) } else { Failure::user(e) }
}
