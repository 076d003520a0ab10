//! Everything that can be wrong with a model's file, with a call, or with the available memory.
//!
//! Every message names the object at fault and both figures, and says what would work if that is known. A refused call has changed nothing.

use crate::memory_report::MemoryReport;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What would need less memory than a cache and its workspace.
pub(crate) const SMALLER_CACHE: &str = "a smaller max_seq_len or batch_size needs less";

/// What would need less memory than weights.
pub(crate) const SMALLER_WEIGHTS: &str =
    "the same model in a type with fewer bits needs less, or another device may have more";

/// An error of a model or its cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file recommends a sampling parameter outside its range.
    #[error(transparent)]
    Sampling(#[from] crate::sampler::ParamError),
    /// The batch has no sequence or no row.
    #[error("the batch is empty")]
    EmptyBatch,
    /// A sequence of the batch has no tokens.
    #[error("sequence {sequence} of the batch has no tokens")]
    EmptySequence {
        /// Its index in the batch.
        sequence: usize,
    },
    /// More sequences than slots.
    #[error("a batch of {n_sequences} sequences exceeds the capacity of {capacity}; see set_batch_size")]
    BatchOverCapacity {
        /// Sequences in the batch.
        n_sequences: usize,
        /// The configured batch size.
        capacity: usize,
    },
    /// The numbers of start positions and sequences differ.
    #[error("{n_starts} start positions were given for {n_sequences} sequences")]
    StartsMismatch {
        /// Sequences in the batch.
        n_sequences: usize,
        /// Start positions given.
        n_starts: usize,
    },
    /// A sequence would outgrow its line of the cache.
    #[error("KV cache overflow in slot {slot}: position {start} + {n_tokens} tokens > {max_seq_len}")]
    KvOverflow {
        /// The slot.
        slot: usize,
        /// The first new position.
        start: usize,
        /// New tokens.
        n_tokens: usize,
        /// The longest sequence for which there is room.
        max_seq_len: usize,
    },
    /// A sequence would have a hole.
    #[error("slot {slot} holds {cached} tokens, so new ones cannot start at position {start}")]
    PositionGap {
        /// The slot.
        slot: usize,
        /// The first new position.
        start: usize,
        /// Tokens in the cache.
        cached: usize,
    },
    /// The page pool is used up.
    #[error("{needed} pages of the KV cache are needed, {free} of {n_pages} are free")]
    OutOfPages {
        /// Pages requested.
        needed: usize,
        /// Pages free.
        free: usize,
        /// Pages in the pool.
        n_pages: usize,
    },
    /// A token id outside the vocabulary.
    #[error(
        "token {token} at position {position} of slot {slot} is out of range: the vocabulary has {vocab}"
    )]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Entries of the vocabulary.
        vocab: usize,
        /// The row's slot.
        slot: usize,
        /// The row's position.
        position: usize,
    },
    /// A slot index outside the cache.
    #[error("slot {slot} is out of range: the batch size is {batch_size}")]
    SlotOutOfRange {
        /// The slot.
        slot: usize,
        /// The number of slots.
        batch_size: usize,
    },
    /// `set_batch_size` would drop sequences that hold tokens.
    #[error(
        "the batch size cannot shrink to {requested}: slots {live:?} hold live sequences; clear them first"
    )]
    BelowLiveSequences {
        /// The requested size.
        requested: usize,
        /// The slots beyond it that hold tokens.
        live: Vec<usize>,
    },
    /// `set_batch_size` cannot renumber pages that are held outside the slots.
    #[error(
        "the KV cache cannot shrink while {held} of its pages are held outside the slots; release them first"
    )]
    PagesHeld {
        /// Pages held.
        held: usize,
    },
    /// A call contradicts the state of a page.
    #[error("page {page}: {problem}")]
    Page {
        /// The page.
        page: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// A slot that should start with shared pages already holds a sequence.
    #[error("slot {slot} holds {cached} tokens, so it cannot share others' pages")]
    SlotInUse {
        /// The slot.
        slot: usize,
        /// Tokens in the cache.
        cached: usize,
    },
    /// The cache's lists contradict each other, which is a bug.
    #[error("the lists of slot {slot} are wrong: {n_tokens} tokens in {n_pages} pages")]
    Books {
        /// The slot.
        slot: usize,
        /// Tokens in the cache.
        n_tokens: usize,
        /// Pages that it refers to.
        n_pages: usize,
    },
    /// A plan has more rows than a pass can have.
    #[error(
        "a pass of {n_rows} rows and {n_logits_rows} of logits is requested; there is room for {rows_max} and \
         {logits_rows_max}"
    )]
    PassOverCapacity {
        /// Rows requested.
        n_rows: usize,
        /// Rows of logits requested.
        n_logits_rows: usize,
        /// Rows of the largest pass.
        rows_max: usize,
        /// Rows of logits computed at once.
        logits_rows_max: usize,
    },
    /// The arrays of a batch contradict each other.
    #[error("malformed batch: {problem}")]
    MalformedBatch {
        /// The contradiction.
        problem: String,
    },
    /// A configuration that cannot work.
    #[error("{field}: {problem}")]
    Config {
        /// The field of `LlamaConfig`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An architecture that is not supported.
    #[error("architecture \"{name}\" is not supported; known are {known}")]
    UnknownArchitecture {
        /// The value of `general.architecture`.
        name: String,
        /// Every supported name.
        known: String,
    },
    /// A metadata value that contradicts another or that is not supported.
    #[error("key {key:?}: {problem}")]
    Key {
        /// The metadata key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A required tensor is missing.
    #[error("tensor {name:?} is missing from the file")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor whose shape differs from the metadata. Shapes are as the file has them, `[columns, rows]`.
    #[error("tensor {name:?} has the shape {found:?}, the metadata asks for {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Its shape, the innermost dimension first.
        found: Vec<u64>,
        /// The shape that the metadata requires.
        expected: Vec<u64>,
    },
    /// A tensor that cannot be used.
    #[error("tensor {name:?}: {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor that the device refused.
    #[error("tensor {name:?}: {source}")]
    Weight {
        /// Its name.
        name: String,
        /// The device's error.
        source: recua_compute::Error,
    },
    /// More memory is needed than is free; nothing was allocated.
    #[error("{device}: {needed} needed, {free} free{advice}", needed = needed.describe(), free = crate::memory_report::bytes_text(*free_bytes))]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// The memory needed.
        needed: MemoryReport,
        /// The free memory, in bytes.
        free_bytes: u64,
        /// What would fit.
        advice: String,
    },
    /// The device had less memory than it reported.
    #[error("allocating {what}: {source}; {advice}")]
    Allocation {
        /// What the memory was for.
        what: String,
        /// What would need less.
        advice: &'static str,
        /// The device's error.
        source: recua_compute::Error,
    },
    /// The host has no memory for a result.
    #[error("not enough host memory for {what}: {bytes} bytes")]
    HostMemory {
        /// What the memory was for.
        what: &'static str,
        /// The requested bytes.
        bytes: usize,
    },
    /// An unknown device name.
    #[error("device \"{name}\" is not known; this build has {known}")]
    UnknownDevice {
        /// The name.
        name: String,
        /// Every known name.
        known: String,
    },
    /// The file could not be read.
    #[error(transparent)]
    Gguf(#[from] recua_gguf::Error),
    /// The device refused or failed.
    #[error(transparent)]
    Compute(#[from] recua_compute::Error),
}
