//! `recua synth`: a model with random weights in the shape of a real one.

use recua::gguf::{FileType, Shape, synth};

use crate::args::SynthArgs;
use crate::failure::{OrFail, Result};
use crate::output::{bytes, note, printable};
use crate::progress::Progress;

pub(crate) fn run(args: SynthArgs) -> Result {
    let shape: Shape = args.shape.parse().or_user()?;
    let file_type: FileType = args.quant.parse().or_user()?;
    crate::quantize::check_output(&args.out)?;
    crate::interrupt::remove_unfinished_outputs()?;
    let name = printable(&args.out.display().to_string());
    let mut progress = Progress::waiting(&name);
    let mut tell = |done, all| progress.bytes(done, all, &name);
    let written = synth(shape, file_type, &args.out, args.seed, &mut tell);
    drop(progress);
    let n_bytes = written.map_err(crate::quantize::failure)?;
    note!("{name}: {shape} {file_type}, {}, seed {}", bytes(n_bytes), args.seed);
    Ok(())
}
