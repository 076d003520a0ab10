//! Where a model's bytes are: in memory, or in a file that is read by position, never mapped. A file that gets shorter while it is read is
//! therefore an error like any other.

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, try_vec};

/// Bytes in memory: a whole model, or what lies before the tensor data of a file.
pub(crate) enum Bytes {
    Owned(Vec<u8>),
    Embedded(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// An open file of a model.
pub(crate) struct ModelFile {
    file: File,
    path: PathBuf,
    /// Its size when it was opened.
    len: u64,
}

impl ModelFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let named = |e: io::Error| Error::from(e).in_file(path);
        // Opening a named pipe waits for its writer, so what it is comes first, and is asked again of what was opened.
        check_kind(&fs::metadata(path).map_err(named)?).map_err(|e| e.in_file(path))?;
        let file = File::open(path).map_err(named)?;
        let meta = file.metadata().map_err(named)?;
        check_kind(&meta).map_err(|e| e.in_file(path))?;
        Ok(Self { file, path: path.to_owned(), len: meta.len() })
    }

    /// Its size in bytes when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the bytes from `start` on. Any number of threads may read at once.
    pub(crate) fn read(&self, start: u64, out: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, out, start).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                let message = format!("the file got shorter while it was read; it had {} bytes", self.len);
                Error::from(io::Error::new(io::ErrorKind::UnexpectedEof, message)).in_file(&self.path)
            }
            _ => Error::from(e).in_file(&self.path),
        })
    }

    /// True if `path` leads to this very file, whatever its name.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let identity = |meta: io::Result<Metadata>| meta.ok().map(|meta| (meta.dev(), meta.ino()));
            let own = identity(self.file.metadata());
            own.is_some() && own == identity(fs::metadata(path))
        }
        #[cfg(not(unix))]
        {
            matches!((self.path.canonicalize(), path.canonicalize()), (Ok(a), Ok(b)) if a == b)
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, start)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut start: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !out.is_empty() {
        match file.seek_read(out, start) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => (out, start) = (&mut out[n..], start + n as u64),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Refuses what cannot be read by position.
fn check_kind(meta: &Metadata) -> Result<()> {
    let kind = meta.file_type();
    if kind.is_file() {
        return match meta.len() {
            0 => Err(Error::other("the file is empty; was the download interrupted?")),
            _ => Ok(()),
        };
    }
    if kind.is_dir() {
        return Err(Error::other("is a folder; give the path of a GGUF file"));
    }
    #[cfg(unix)]
    let what = {
        use std::os::unix::fs::FileTypeExt;
        match kind {
            kind if kind.is_fifo() => "a named pipe",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        }
    };
    #[cfg(not(unix))]
    let what = "no regular file";
    Err(Error::other(format!(
        "is {what}; a model is read from several places at once, so save it to a regular file and give its path"
    )))
}

/// Where one file of a model is.
pub(crate) struct Source {
    /// All bytes of a model in memory; of a file, those before the tensor data.
    pub(crate) head: Arc<Bytes>,
    pub(crate) file: Option<ModelFile>,
}

impl Source {
    /// Size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.file.as_ref().map_or(self.head.len() as u64, ModelFile::len)
    }

    /// `len` bytes from `start` on; `None` unless they are inside.
    pub(crate) fn data(&self, start: usize, len: usize) -> Option<TensorData<'_>> {
        let end = start.checked_add(len)?;
        Some(TensorData(match &self.file {
            None => Place::Memory(self.head.get(start..end)?),
            Some(file) if end as u64 <= file.len => Place::File { file, start: start as u64, len },
            Some(_) => return None,
        }))
    }
}

/// The bytes of a tensor, wherever they are. Those in a file are read when they are asked for, so the tensors of a model need not fit into
/// memory.
#[derive(Clone, Copy)]
pub struct TensorData<'a>(Place<'a>);

#[derive(Clone, Copy)]
enum Place<'a> {
    Memory(&'a [u8]),
    File { file: &'a ModelFile, start: u64, len: usize },
}

impl TensorData<'_> {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        match self.0 {
            Place::Memory(bytes) => bytes.len(),
            Place::File { len, .. } => len,
        }
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the bytes from `start` on. Any number of threads may read at once.
    ///
    /// # Errors
    /// If the file cannot be read, or has become shorter since it was opened; the error names the file.
    ///
    /// # Panics
    /// If the range does not lie inside.
    pub fn read(&self, start: usize, out: &mut [u8]) -> Result<()> {
        let is_inside = start.checked_add(out.len()).is_some_and(|end| end <= self.len());
        assert!(is_inside, "{} bytes from {start} on, of a tensor of {}", out.len(), self.len());
        match self.0 {
            Place::Memory(bytes) => out.copy_from_slice(&bytes[start..start + out.len()]),
            Place::File { file, start: first, .. } => file.read(first + start as u64, out)?,
        }
        Ok(())
    }

    /// All bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read), or if there is no memory for them.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut bytes = try_vec(self.len())?;
        bytes.resize(self.len(), 0);
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl std::fmt::Debug for TensorData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorData({} bytes)", self.len())
    }
}

impl<'a> From<&'a [u8]> for TensorData<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Place::Memory(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for TensorData<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(Place::Memory(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for TensorData<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Place::Memory(bytes))
    }
}
