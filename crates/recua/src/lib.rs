//! Batched inference of Llama-family models from GGUF files.
//!
//! Text in, text out:
//!
//! ```no_run
//! use recua::{Report, TextModel, chat::Message};
//!
//! fn main() -> Result<(), Report> {
//!     let mut model = TextModel::open("model.gguf")?;
//!     let question = [Message::new("user", "Why is the sky blue?")];
//!     model.answer(&question, |text| print!("{text}"))?;
//!     Ok(())
//! }
//! ```
//!
//! [`Engine`] runs many such requests at once, each with parameters of its own, and [`LlamaModel`] is below all text:
//!
//! ```no_run
//! use recua::{LlamaConfig, LlamaModel};
//!
//! let config = LlamaConfig { batch_size: 2, ..LlamaConfig::default() };
//! let mut model = LlamaModel::from_gguf_with_config("model.gguf", config)?;
//! let logits = model.forward_batch(&[&[1, 2, 3], &[4, 5]])?;
//! assert_eq!(logits[1].shape(), [2, model.params().vocab]);
//! # Ok::<(), recua::Error>(())
//! ```
//!
//! The folder `examples` has a program for each of these, and for conversations, quantizing and looking into files. [`open_device`] opens a device by name. [`compute`] and [`gguf`] are the layers below, which can also be used on their own.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod device;
mod report;
mod text;

pub use device::{Adapter, Card, CudaReport, DEVICE_NAMES, adapters, cuda_report, open_device};
pub use report::Report;
pub use text::{TextError, TextModel};

pub use recua_compute as compute;
pub use recua_engine::*;
pub use recua_gguf as gguf;
pub use recua_text::{chat, stop, tokenizer};

pub use recua_compute::Device;

/// A small trained model, a GGUF file of five megabytes that answers plain questions: for tests, examples and a first try without
/// a download. `tools/demo-model/README.md` says how it was made.
pub const DEMO_MODEL: &[u8] = include_bytes!("../demo/demo-Q8_0.gguf");
