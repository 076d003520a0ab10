//! The crate's only error type. Every message names the thing at fault (file, byte offset, key, tensor or type)
//! and, where that is known, what would work.

use std::fmt;
use std::path::{Path, PathBuf};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a file could not be read or written, or values could not be encoded or decoded.
#[derive(Debug)]
pub struct Error {
    path: Option<PathBuf>,
    kind: Box<Kind>,
}

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{0}")]
    Io(#[source] std::io::Error),
    #[error("byte {offset}: {message}")]
    Offset { offset: u64, message: String },
    #[error("key {key:?}: {message}")]
    Key { key: String, message: String },
    #[error("tensor {name:?}: {message}")]
    Tensor { name: String, message: String },
    #[error("the first {0} bytes are needed")]
    HeadTooShort(usize),
    #[error("{0}")]
    Other(String),
}

impl Error {
    fn new(kind: Kind) -> Self {
        Self { path: None, kind: Box::new(kind) }
    }

    pub(crate) fn offset(offset: usize, message: impl Into<String>) -> Self {
        Self::new(Kind::Offset { offset: offset as u64, message: message.into() })
    }

    pub(crate) fn key(key: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Key { key: shorten(key), message: message.into() })
    }

    pub(crate) fn tensor(name: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Tensor { name: shorten(name), message: message.into() })
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other(message.into()))
    }

    /// More of the file must be in memory: its first `n_bytes`. The reader acts on it, so nobody sees it.
    pub(crate) fn head_too_short(n_bytes: usize) -> Self {
        Self::new(Kind::HeadTooShort(n_bytes))
    }

    /// How many of the file's first bytes must be in memory, if that is what was missing.
    pub(crate) fn head_bytes(&self) -> Option<usize> {
        if let Kind::HeadTooShort(n_bytes) = *self.kind { Some(n_bytes) } else { None }
    }

    /// Adds the key that the error is about, unless it already names one.
    pub(crate) fn in_key(self, key: &str) -> Self {
        match *self.kind {
            Kind::Key { .. } | Kind::HeadTooShort(_) => self,
            _ => Self::key(key, self.to_string()),
        }
    }

    /// Adds the tensor that the error is about, unless it already names one.
    pub(crate) fn in_tensor(self, name: &str) -> Self {
        match *self.kind {
            Kind::Tensor { .. } | Kind::HeadTooShort(_) => self,
            _ => Self::tensor(name, self.to_string()),
        }
    }

    /// Adds the file that the error is about, unless it already names one.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        self.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// True if the operating system failed (file missing, disk full, no memory, no thread), false if the content is at fault.
    pub fn is_io(&self) -> bool {
        matches!(*self.kind, Kind::Io(_))
    }

    /// How the operating system failed, if it did.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        if let Kind::Io(e) = &*self.kind { Some(e.kind()) } else { None }
    }

    /// The file the error is about, if it came from a path.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::new(Kind::Io(e))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.kind)
    }
}

/// Shortens a name from a file for a message, so that a hostile file's megabyte-long key does not make a megabyte-long message.
pub fn shorten(name: &str) -> String {
    const CHARS_MAX: usize = 80;
    match name.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

/// A vector with room for exactly `n` items, or an error if the machine lacks the memory.
pub(crate) fn try_vec<T>(n: usize) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| no_memory(n.saturating_mul(size_of::<T>())))?;
    Ok(v)
}

/// The machine lacks the memory.
pub(crate) fn no_memory(n_bytes: usize) -> Error {
    let message = format!("not enough memory for {n_bytes} bytes");
    Error::from(std::io::Error::new(std::io::ErrorKind::OutOfMemory, message))
}
