//! A file that appears under its name only when it is complete.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// The ending of all temporary files.
const ENDING: &str = ".gguf.tmp";

/// The most symbolic links that are followed; systems follow about as many.
const LINKS_MAX: usize = 40;

/// The temporary files of this process that exist now.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes the temporary files of all models that this process is writing, for a program that is about to end because of a signal. Whatever
/// writes a model afterwards waits forever, so nothing can come after it but the end.
pub fn discard_unfinished_outputs() {
    let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for path in unfinished.iter() {
        // If it cannot be removed, there is nothing more to try.
        let _ = fs::remove_file(path);
    }
    // Never unlocked: no temporary file can be made, or be given its name, any more.
    std::mem::forget(unfinished);
}

/// Writes to a temporary file beside the target. [`commit`] renames it to the target; dropping it without a commit removes it. What is no
/// regular file (a named pipe, a device) is written in place instead, and links are followed.
///
/// The temporary file is locked as long as its process lives, which is how others know one that was left behind by a process that was killed.
///
/// [`commit`]: Self::commit
pub(crate) struct Output {
    file: BufWriter<File>,
    // As the caller named it, for messages.
    name: PathBuf,
    // The temporary file, and what it will be called.
    pending: Option<(PathBuf, PathBuf)>,
}

impl Output {
    pub(crate) fn create(name: &Path) -> Result<Self> {
        let named = |e: std::io::Error| Error::from(e).in_file(name);
        let target = follow_links(name)?;
        match fs::metadata(&target) {
            Ok(meta) if meta.is_dir() => {
                return Err(Error::other("is a folder; give the path of the file to write").in_file(name));
            }
            Ok(meta) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(&target).map_err(named)?;
                return Ok(Self { file: BufWriter::new(file), name: name.to_owned(), pending: None });
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(named(e)),
        }
        let target_name = target.file_name().ok_or_else(|| {
            Error::other("not a file name; give the path of the file to write").in_file(name)
        })?;
        remove_strays(&target);
        for i in 0..u16::MAX {
            let temporary = target.with_file_name(temporary_name(target_name, i));
            // Until the file is on the list, no signal may end the process.
            let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::from(e).in_file(&temporary)),
                Ok(file) => {
                    // A file system without locks has no strays that could be known.
                    let _ = file.lock();
                    // Another process may have taken it for a stray before it was locked.
                    if temporary.exists() {
                        unfinished.push(temporary.clone());
                        // Large writes go straight through; the buffer only gathers padding.
                        let file = BufWriter::new(file);
                        return Ok(Self { file, name: name.to_owned(), pending: Some((temporary, target)) });
                    }
                }
            }
        }
        let message = format!("too many temporary files beside it; remove the old {ENDING} files");
        Err(Error::other(message).in_file(name))
    }

    /// Syncs the file to disk and gives it its name, replacing any older file.
    pub(crate) fn commit(mut self) -> Result<()> {
        let named = |e: std::io::Error| Error::from(e).in_file(&self.name);
        self.file.flush().map_err(named)?;
        let Some((temporary, target)) = &self.pending else { return Ok(()) };
        self.file.get_ref().sync_all().map_err(named)?;
        let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        fs::rename(temporary, target).map_err(named)?;
        unfinished.retain(|path| path != temporary);
        drop(unfinished);
        self.pending = None;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((temporary, _)) = self.pending.take() {
            let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            // If it cannot be removed, there is nothing more to try.
            let _ = fs::remove_file(&temporary);
            unfinished.retain(|path| *path != temporary);
        }
    }
}

/// The file that `path` leads to, which need not exist.
fn follow_links(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&target) {
            // A relative link starts in the folder of the link.
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(Error::other("too many links lead from one to the next; give the path of the file itself")
        .in_file(path))
}

/// `.NAME.PROCESS-I.gguf.tmp`
fn temporary_name(name: &OsStr, i: u16) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{i}{ENDING}", std::process::id()));
    temporary
}

/// True for names as [`temporary_name`] makes them, by any process.
fn is_temporary(name: &OsStr) -> bool {
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let name = name.to_string_lossy();
    let middle = name.strip_prefix('.').and_then(|name| name.strip_suffix(ENDING));
    let end = middle.and_then(|middle| Some(middle.rsplit_once('.')?.1)).and_then(|end| end.split_once('-'));
    end.is_some_and(|(process, i)| is_number(process) && is_number(i))
}

/// Removes what killed processes have left in the folder of `target`. What can be locked has no owner any more.
fn remove_strays(target: &Path) {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary(&entry.file_name())) {
        // Not a link or a pipe of such a name, which nobody here has made and which may block.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let file = OpenOptions::new().write(true).open(entry.path());
        // The lock is held until the file is gone, so nobody can have it for a new one meanwhile.
        if let Ok(file) = file
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}
