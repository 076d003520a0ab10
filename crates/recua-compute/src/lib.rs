//! Devices for quantized inference.
//!
//! A forward pass is data: a [`Plan`], a flat list of [`Op`]s over [`Buffer`]s and [`Weight`]s, which a [`Device`] runs with one
//! exhaustive `match`. [`CommandEncoder`] is the explicit interface to the same thing, for callers who drive kernels themselves.
//!
//! This crate knows nothing of tokens, models or requests. [`cpu::open`] opens the CPU device; each GPU device lives in its own crate
//! and implements [`Backend`].
//!
//! If you are coming from mlx-native, `docs/mlx-native.md` in this crate's folder maps its names to those used here.
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod args;
mod backend;
mod buffer;
mod buffer_pool;
#[cfg(any(test, feature = "testing"))]
pub mod cases;
pub mod cpu;
mod device;
mod encoder;
mod error;
pub mod hazards;
mod kernel;
mod kv;
mod op;
mod plan;
mod program;
mod registry;
mod report;
mod submission;
mod weight;
mod work;
mod worker;

pub use backend::{Backend, Compiled, DeviceInfo, Encode};
pub use buffer::{Buffer, DType, DeviceId, Storage};
pub use buffer_pool::BufferPool;
pub use device::Device;
pub use encoder::{CommandEncoder, Commands, QuantizedMatmulParams};
pub use error::{Error, Result};
pub use kernel::{CallArg, Kernel, KernelArg, KernelCall, KernelSource, RustKernel};
pub use kv::{KvPool, KvShape, KvType};
pub use op::*;
pub use plan::{Plan, Record};
pub use program::{Input, Program};
pub use recua_gguf::GgmlType;
pub use registry::KernelRegistry;
pub use report::IndexReport;
pub use submission::{Pending, Submission, no_output};
pub use weight::{Arrange, RawMatrix, RawRows, Weight, WeightPart, fill_shares};
pub use work::{ALL, ENTRY_WORDS, HEADER_WORDS, RowRun, Tiling, WorkList};
pub use worker::EncoderWorker;

/// Runs the examples of the table of names.
#[cfg(doctest)]
#[doc = include_str!("../docs/mlx-native.md")]
struct MlxNative;
