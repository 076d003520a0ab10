//! The part of recua that knows tokens, models and requests, and no device in particular.
//!
//! [`LlamaModel`] runs batches of sequences on the device it is handed; its cache has the sequences of [`Sequences`]. What it does not know: HTTP, wire
//! formats, async, GPU interfaces.
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
    Architecture, GreedyStep, KvType, LlamaConfig, LlamaModel, LoadedModel, MAX_SEQ_LEN_DEFAULT, ModelParams,
    Outputs, Rope, RopeScaling,
};
pub use request::{Event, FinishReason, Request, RequestError, RequestId, Usage};
pub use sampler::SamplingParams;
pub use tensor::Tensor;
