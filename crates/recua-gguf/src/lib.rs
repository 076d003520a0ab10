//! GGUF files and ggml's block formats: everything that is true of the bytes, and nothing else.
//!
//! Start at [`Gguf::open`]. A file is checked completely before anything in it is trusted: every count, length
//! and offset is compared with the bytes that are present before memory is allocated for it. [`decode`] and
//! [`encode`] are the scalar reference of each block format; faster code elsewhere is tested against them. This
//! crate must not know about devices, models or tokens.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod cursor;
mod decode;
mod directory;
mod encode;
mod error;
mod format;
mod metadata;
pub mod mix;
mod output;
mod quantize;
mod random;
mod reader;
mod source;
pub mod synth;
mod tensor;
mod writer;

pub use decode::decode;
pub use encode::encode;
pub use error::{Error, Result, shorten};
pub use format::GgmlType;
pub use metadata::{Array, ArrayType, Metadata, StringArray, Value};
pub use mix::FileType;
pub use output::discard_unfinished_outputs;
pub use quantize::{Report, quantize};
pub use random::Random;
pub use reader::Gguf;
pub use source::TensorData;
pub use synth::{Shape, synth, synth_in_memory};
pub use tensor::TensorInfo;
pub use writer::{Header, Writer};
