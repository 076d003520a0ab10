//! The part of recua that knows tokens, models and requests, and no particular device.
//!
//! [`LlamaModel`] runs batches of sequences on the device it is given; its cache holds the sequences of [`Sequences`]. This crate knows
//! nothing of HTTP, wire formats, async or GPU interfaces.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod cache;
mod error;
mod memory_report;
mod model;
mod tensor;

pub mod engine;
pub mod request;
pub mod sampler;
pub mod scheduler;

pub use batch::{Batch, Logits, Run};
pub use cache::{CacheRoom, Changes, Pages, Sequences};
pub use engine::{Engine, StepStats};
pub use error::{Error, Result};
pub use memory_report::MemoryReport;
pub use model::{
    Architecture, GreedyStep, KvType, LlamaConfig, LlamaModel, LoadProgress, LoadedModel,
    MAX_SEQ_LEN_DEFAULT, ModelParams, Outputs, Rope, RopeScaling,
};
pub use request::{Event, FinishReason, Request, RequestError, RequestId, Usage};
pub use sampler::{SamplingDefaults, SamplingParams};
pub use tensor::Tensor;
