//! Indexes that kernels find in buffers (tokens, positions, pages) cannot be checked when a plan is recorded. A kernel that finds one
//! out of range reads and writes nothing through it and reports the first such case to a small buffer. It comes back with the
//! submission: waiting for it, or reading a buffer, says [`Error::IndexOutOfRange`].

use recua_compute::Error;

/// Size of the buffer: `[code, index, limit, 0]`.
pub(crate) const BYTES: usize = 16;

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
];

/// What a kernel reported.
#[derive(Clone, Copy)]
pub(crate) struct Report([u32; 4]);

impl Report {
    /// `None` if no kernel reported anything.
    pub(crate) fn new(words: [u32; 4]) -> Option<Report> {
        (words[0] != 0).then_some(Report(words))
    }

    pub(crate) fn error(self) -> Error {
        let [code, index, limit, _] = self.0;
        let &(op, what) = CODES.get(code as usize - 1).unwrap_or(&("a kernel", "an index"));
        Error::IndexOutOfRange { op, what, index: index.into(), limit: limit.into() }
    }
}
