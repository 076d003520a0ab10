//! MODEL on the command line: a path, `demo` or a name in the model store, with a helpful error for anything else.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};
use std::path::Path;

use recua::gguf::Gguf;

use crate::failure::{Failure, OrFail, Result};
use crate::store;

/// The name of the embedded model.
pub(crate) const DEMO: &str = "demo";

/// Whether MODEL means the embedded model.
pub(crate) fn is_demo(model: &str) -> bool {
    model == DEMO
}

/// Opens MODEL and checks the file's structure.
pub(crate) fn open(model: &str) -> Result<Gguf> {
    if is_demo(model) {
        return Gguf::from_bytes(recua::DEMO_MODEL).or_other();
    }
    let path = path(model)?;
    // A wrong path or file is the user's mistake; a machine without memory is not.
    Gguf::open(path).map_err(|e| match e.io_kind() {
        Some(ErrorKind::OutOfMemory | ErrorKind::UnexpectedEof) => Failure::other(e),
        _ => Failure::user(e),
    })
}

/// The file that MODEL means, after it was downloaded if need be. A file of that very name comes first.
pub(crate) fn path(model: &str) -> Result<Cow<'_, Path>> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.into());
    }
    Ok(store::locate(model)?.map_or(path.into(), Cow::Owned))
}

/// The bytes of a text file, verbatim.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Failure::user(format!("{}: {e}", path.display())))?;
    as_text(bytes, &path.display().to_string())
}

/// Standard input to its end, verbatim.
pub(crate) fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::other(format!("cannot read standard input: {e}")))?;
    as_text(bytes, "standard input")
}

fn as_text(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|e| Failure::user(format!("{name}: is not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
}
