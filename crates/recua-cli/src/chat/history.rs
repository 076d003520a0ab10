//! The lines of earlier conversations, in the user's folder for such things.

use std::fs;
use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;

use crate::output::{bytes, note, printable};

/// Names another file; empty, no history is kept.
const VARIABLE: &str = "RECUA_HISTORY";

/// The number of entries that are kept.
pub(super) const ENTRIES_MAX: usize = 1000;

/// A file that is larger is not ours.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The file, if there is to be one.
pub(super) struct History {
    path: Option<PathBuf>,
}

impl History {
    /// Reads the user's history into an editor.
    pub(super) fn load(editor: &mut DefaultEditor) -> Self {
        let path = path().filter(|path| match usable(path) {
            Ok(()) => true,
            Err(problem) => {
                note!(
                    "note: no history is kept: {}: {}",
                    printable(&path.display().to_string()),
                    printable(&problem)
                );
                false
            }
        });
        // The first one finds none.
        if let Some(path) = path.as_ref().filter(|path| path.exists())
            && let Err(e) = editor.load_history(path)
        {
            note!("note: {}: {}", printable(&path.display().to_string()), printable(&e.to_string()));
        }
        Self { path }
    }

    /// Adds what was typed. It is on disk at once, because a program may end anyhow.
    pub(super) fn add(&mut self, editor: &mut DefaultEditor, typed: &str) {
        // What cannot be added is still answered.
        let _ = editor.add_history_entry(typed);
        if let Some(path) = &self.path
            && let Err(e) = editor.append_history(path)
        {
            note!(
                "note: no history is kept: {}: {}",
                printable(&path.display().to_string()),
                printable(&e.to_string())
            );
            self.path = None;
        }
    }
}

fn path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(path) = std::env::var_os(VARIABLE) {
        return if path.is_empty() { None } else { Some(path.into()) };
    }
    let folder = if cfg!(windows) {
        absolute("LOCALAPPDATA")?
    } else {
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?
    };
    Some(folder.join("recua").join("history"))
}

/// Makes the file's folder, and refuses whatever is in the file's place that is no file of text: its permissions would be changed.
fn usable(path: &Path) -> Result<(), String> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(|e| e.to_string())?;
    }
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err("is not a file".into()),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            Err(format!("is larger than {}", bytes(FILE_BYTES_MAX)))
        }
        _ => Ok(()),
    }
}
