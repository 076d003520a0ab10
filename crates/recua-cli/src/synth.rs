//! `recua synth`: a model with random weights in the shape of a real one.

use recua::gguf::{FileType, Shape, synth};

use crate::args::SynthArgs;
use crate::failure::{OrFail, Result};
use crate::output::{bytes, note, printable};

pub(crate) fn run(args: SynthArgs) -> Result {
    let shape: Shape = args.shape.parse().or_user()?;
    let file_type: FileType = args.quant.parse().or_user()?;
    crate::quantize::check_output(&args.out)?;
    crate::interrupt::remove_unfinished_outputs()?;
    let n_bytes = synth(shape, file_type, &args.out, args.seed).map_err(crate::quantize::failure)?;
    let name = printable(&args.out.display().to_string());
    note!("{name}: {shape} {file_type}, {}, seed {}", bytes(n_bytes), args.seed);
    Ok(())
}
