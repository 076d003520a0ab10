//! Reads little-endian numbers and strings from front to back, never past the end. It allocates nothing: the
//! slices it returns borrow from the file's head, the part of it that is in memory.

use std::fmt;

use crate::error::{Error, Result};

#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    head: &'a [u8],
    file_bytes: usize,
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte of a file of `file_bytes`, which begins with `head`.
    pub(crate) fn new(head: &'a [u8], file_bytes: usize) -> Self {
        debug_assert!(head.len() <= file_bytes);
        Self { head, file_bytes, pos: 0 }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// The beginning of the file, whatever the position.
    pub(crate) fn head(&self) -> &'a [u8] {
        self.head
    }

    pub(crate) fn remaining(&self) -> usize {
        self.file_bytes - self.pos
    }

    /// The next `n` bytes. If the file ends first, the error names `what`; if only the head does, it says how much would do.
    pub(crate) fn take(&mut self, n: usize, what: impl fmt::Display) -> Result<&'a [u8]> {
        if n > self.remaining() {
            return Err(Error::offset(
                self.pos,
                format!(
                    "the file ends inside {what}: {n} bytes needed, {} left; it is damaged, or its download was interrupted",
                    self.remaining()
                ),
            ));
        }
        let end = self.pos + n;
        let taken = self.head.get(self.pos..end).ok_or_else(|| Error::head_too_short(end))?;
        self.pos = end;
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
                    "{what} is {n}, but the {} bytes left hold at most {n_max}; it is damaged, or its download was interrupted",
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
