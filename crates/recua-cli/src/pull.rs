//! `recua pull`: downloads a model, or brings it up to date.

use std::io::Write;

use crate::args::PullArgs;
use crate::failure::{Failure, Result};
use crate::output::{self, note};
use crate::store::cache::is_offline;
use crate::store::name::{FORMS, HubName};
use crate::store::{self, HUB, OLLAMA};

pub(crate) fn run(args: PullArgs) -> Result {
    let model = &args.model;
    if let Some(name) = model.strip_prefix(OLLAMA) {
        let path = store::ollama::find(name)?;
        note!("note: {OLLAMA}{name} is here; `ollama pull {name}` brings it up to date");
        return print(&path);
    }
    let Some(name) = model.strip_prefix(HUB) else {
        return Err(Failure::user(format!("{model}: is not on the Hugging Face Hub; {FORMS}")));
    };
    let name = HubName::parse(name)?;
    if is_offline() {
        return Err(Failure::user(format!("{name}: HF_HUB_OFFLINE forbids downloads; unset it")));
    }
    let located = store::pull(&name).map_err(|e| e.failure)?;
    print(&located.path())
}

fn print(path: &std::path::Path) -> Result {
    let mut out = output::stdout();
    // Byte for byte, so that it is the file's name whatever is in it.
    out.write_all(path.as_os_str().as_encoded_bytes())?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}
