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
        // SAFETY: the mapping is private and read-only, and is only ever seen as `&[u8]`, for which every bit
        // pattern is valid. Another process that changes the file changes weights, not lengths, because every
        // length was copied out when it was checked; one that truncates it raises SIGBUS, as for every user of
        // mapped files, which `Gguf::open` documents.
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
