//! `recua tokenize`: a text's token ids on one line.

use std::io::{IsTerminal, Write};

use recua::gguf::Gguf;
use recua::tokenizer::Tokenizer;

use crate::args::TokenizeArgs;
use crate::failure::{Failure, OrFail, Result};
use crate::{output, source};

pub(crate) fn run(args: TokenizeArgs) -> Result {
    let gguf = source::open(&args.model)?;
    let tokenizer = tokenizer(&gguf, &args.model)?;
    let text = text(&args)?;
    let ids = tokenizer.encode(&text, args.bos, args.special).or_user()?;
    let mut out = output::stdout();
    for (i, id) in ids.iter().enumerate() {
        write!(out, "{}{id}", if i == 0 { "" } else { " " })?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// The tokenizer of a file; the error names the file.
pub(crate) fn tokenizer(gguf: &Gguf, model: &str) -> Result<Tokenizer> {
    Tokenizer::from_metadata(gguf.metadata()).map_err(|e| Failure::user(format!("{model}: {e}")))
}

fn text(args: &TokenizeArgs) -> Result<String> {
    if let Some(text) = &args.text {
        return Ok(text.clone());
    }
    if let Some(path) = &args.file {
        return source::read_text(path);
    }
    if std::io::stdin().is_terminal() {
        return Err(Failure::user("no text; give one as an argument, with --file, or on standard input"));
    }
    source::read_stdin()
}
