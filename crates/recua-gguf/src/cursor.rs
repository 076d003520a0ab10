//! Reads little-endian numbers and strings from front to back, never past the end. It allocates nothing: the
//! slices it returns borrow from the file.

use std::fmt;

use crate::error::{Error, Result};

#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], pos: usize) -> Self {
        debug_assert!(pos <= bytes.len());
        Self { bytes, pos }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// The next `n` bytes. If the file ends first, the error names `what`.
    pub(crate) fn take(&mut self, n: usize, what: impl fmt::Display) -> Result<&'a [u8]> {
        if n > self.remaining() {
            return Err(Error::offset(
                self.pos,
                format!("the file ends inside {what}: {n} bytes needed, {} left", self.remaining()),
            ));
        }
        let taken = &self.bytes[self.pos..self.pos + n];
        self.pos += n;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: impl fmt::Display) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, what: impl fmt::Display) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: impl fmt::Display) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Reads a count of items that take at least `item_bytes_min` bytes each, and refuses it if the rest of the
    /// file cannot hold that many. Only after this check may memory be allocated for the items.
    pub(crate) fn count(&mut self, item_bytes_min: usize, what: impl fmt::Display) -> Result<usize> {
        let offset = self.pos;
        let n = self.u64(&what)?;
        let n_max = self.remaining() / item_bytes_min;
        match usize::try_from(n) {
            Ok(n) if n <= n_max => Ok(n),
            _ => Err(Error::offset(
                offset,
                format!(
                    "{what} is {n}, but the {} bytes left hold at most {n_max}; the file is damaged or truncated",
                    self.remaining()
                ),
            )),
        }
    }

    /// Reads a string: a 64-bit length, then that many bytes.
    pub(crate) fn string(&mut self, what: impl fmt::Display) -> Result<&'a [u8]> {
        let n = self.count(1, format_args!("the length of {what}"))?;
        self.take(n, what)
    }

    pub(crate) fn utf8(&mut self, what: impl fmt::Display) -> Result<&'a str> {
        let offset = self.pos;
        let bytes = self.string(&what)?;
        std::str::from_utf8(bytes).map_err(|_| Error::offset(offset, format!("{what} is not UTF-8")))
    }
}
