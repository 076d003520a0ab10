//! GGUF files and ggml's block formats: everything that is true of the bytes, and nothing else.
//!
//! Start at [`Gguf::open`]. A file is checked completely before anything in it is believed: every count,
//! length and offset is compared with the bytes that are there before memory is taken for it.
//! [`decode`] and [`encode`] are the scalar definition of each block format; faster code elsewhere is
//! tested against them. This crate must not know of devices, models or tokens.
#![deny(unsafe_code)]

mod bytes;
mod cursor;
mod decode;
mod directory;
mod error;
mod format;
mod metadata;
mod reader;
mod tensor;

pub use decode::decode;
pub use error::{Error, Result};
pub use format::GgmlType;
pub use metadata::{Array, ArrayType, Metadata, StringArray, Value};
pub use reader::Gguf;
pub use tensor::TensorInfo;
