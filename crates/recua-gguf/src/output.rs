//! A file that appears under its name only when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes to a temporary file beside the target. [`commit`] renames it to the target; dropping it without a
/// commit removes it.
///
/// [`commit`]: Self::commit
pub(crate) struct Output {
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    target: PathBuf,
}

impl Output {
    pub(crate) fn create(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| {
            Error::other("not a file name; give the path of the file to write").in_file(target)
        })?;
        // A killed process may have left its temporary file here, and in a container the next process often has
        // the same id.
        let (temporary, file) = (0..u16::MAX)
            .map(|i| {
                let mut temporary = std::ffi::OsString::from(".");
                temporary.push(name);
                temporary.push(format!(".{}-{i}.gguf.tmp", std::process::id()));
                let temporary = target.with_file_name(temporary);
                let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
                (temporary, file)
            })
            .find(|(_, file)| !matches!(file, Err(e) if e.kind() == ErrorKind::AlreadyExists))
            .ok_or_else(|| {
                Error::other("too many temporary files beside it; remove the old .gguf.tmp files")
                    .in_file(target)
            })?;
        let file = file.map_err(|e| Error::from(e).in_file(&temporary))?;
        // Large writes go straight through; the buffer only gathers padding.
        let file = Some(BufWriter::new(file));
        Ok(Self { file, temporary, target: target.to_path_buf() })
    }

    /// Syncs the file to disk and gives it its name, replacing any older file.
    pub(crate) fn commit(mut self) -> Result<()> {
        let named = |e: std::io::Error| Error::from(e).in_file(&self.target);
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(|e| named(e.into_error()))?;
            file.sync_all().map_err(named)?;
        }
        fs::rename(&self.temporary, &self.target).map_err(named)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Ok(0),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.file = None;
        // After a commit the temporary file is gone; if removing it fails, there is nothing more to try.
        let _ = fs::remove_file(&self.temporary);
    }
}
