//! The part of recua that knows tokens, models and requests, and no device in particular.
//!
//! [`LlamaModel`] runs batches of sequences on the device it is handed; its cache is [`KvCache`]. What it does not know: HTTP, wire
//! formats, async, GPU interfaces.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod config;
mod error;
mod kv_cache;
mod model;
mod pages;
mod tensor;
mod weights;

pub mod engine;
pub mod request;
pub mod sampler;
pub mod scheduler;

pub use batch::{Batch, Logits};
pub use config::{Architecture, KvType, LlamaConfig, MAX_SEQ_LEN_DEFAULT, ModelParams, Rope, RopeScaling};
pub use engine::{Engine, StepStats};
pub use error::{Error, Result};
pub use kv_cache::KvCache;
pub use model::{LlamaModel, MemoryReport, Outputs};
pub use pages::Pages;
pub use request::{Event, FinishReason, Request, RequestError, RequestId, Usage};
pub use sampler::SamplingParams;
pub use tensor::Tensor;
