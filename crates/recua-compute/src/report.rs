//! Indexes that kernels find in buffers (tokens, positions, pages) cannot be checked when a plan is recorded. A kernel of a GPU that finds one
//! out of range reads and writes nothing through it and reports the first such case to a small buffer, in words that mean the same on
//! every device. It comes back with the submission: waiting for it, or reading a buffer, says [`Error::IndexOutOfRange`].
//!
//! Behind these words lies a count that is not an error and belongs to no submission: see [`IndexReport::CUT_AT`].

use crate::error::Error;

/// What a kernel reported; for device crates. As words of four bytes: `[code, index, limit, cut]`, a code of 0 for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexReport([u32; 4]);

/// What the codes in the kernels mean, from 1 on.
const CODES: &[(&str, &str)] = &[
    ("embed", "token"),
    ("rope_store", "the sequence"),
    ("rope_store", "the position"),
    ("rope_store", "the page"),
    ("attention", "the sequence"),
    ("attention", "the position"),
    ("attention", "the page"),
    ("gather_rows", "the row"),
    ("copy_pages", "the page to read"),
    ("copy_pages", "the page to write"),
    ("embed", "the chosen token"),
];

impl IndexReport {
    /// Size of the buffer that kernels report to.
    pub const BYTES: usize = 16;

    /// Where in it `rope_store` counts what it cuts ([`crate::Device::n_cut`]): a word that is only written when something is cut, never
    /// cleared, and read when somebody asks. What lies before it is cleared for each submission.
    pub const CUT_AT: usize = 12;

    /// `None` if no kernel reported anything.
    pub fn new(words: [u32; 4]) -> Option<IndexReport> {
        (words[0] != 0).then_some(IndexReport(words))
    }

    /// As the error it is.
    pub fn error(self) -> Error {
        let [code, index, limit, _] = self.0;
        let &(op, what) = CODES.get(code as usize - 1).unwrap_or(&("a kernel", "an index"));
        Error::IndexOutOfRange { op, what, index: index.into(), limit: limit.into() }
    }
}
