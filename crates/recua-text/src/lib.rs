//! Text to tokens and back, for models in GGUF files: [`tokenizer`], [`chat`] templates, [`stop`] strings.
//!
//! It reads a file's metadata and nothing else: no tensors, no device, no clock (whoever renders a chat passes the time
//! in), no thread. Vocabulary, template and text are all untrusted: none can crash the process, and each takes time and memory in
//! proportion to its own size.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod chat;
pub mod stop;
pub mod tokenizer;
