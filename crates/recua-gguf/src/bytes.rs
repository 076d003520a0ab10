//! Where a file's bytes live: mapped, owned or embedded. The crate's only unsafe code is here.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};

pub(crate) enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
    Embedded(&'static [u8]),
}

impl Bytes {
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::from(e).in_file(path))?;
        let meta = file.metadata().map_err(|e| Error::from(e).in_file(path))?;
        if !meta.is_file() {
            return Err(Error::other("not a regular file; give the path of a .gguf file").in_file(path));
        }
        if meta.len() == 0 {
            return Err(Error::other("the file is empty; was the download interrupted?").in_file(path));
        }
        #[allow(unsafe_code, reason = "the crate's only unsafe block: reading a file through a mapping")]
        // SAFETY: the mapping is read-only and is only ever exposed as `&[u8]`, for which every bit pattern is
        // valid. If another process changes the file, values change but no access leaves the mapping: every
        // range was copied out when it was checked, and the lengths of array strings are checked again whenever
        // they are read. If one truncates it, the next access raises SIGBUS, as for any mapped file;
        // `Gguf::open` documents this.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::from(e).in_file(path))?;
        Ok(Self::Mapped(map))
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
            Self::Embedded(bytes) => bytes,
        }
    }
}
