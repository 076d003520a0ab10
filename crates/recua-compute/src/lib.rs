//! Devices for quantised inference.
//!
//! A forward pass is data: a [`Plan`], a flat list of [`Op`]s over [`Buffer`]s and [`Weight`]s, which a [`Device`] runs with one
//! exhaustive `match`. [`CommandEncoder`] is the explicit face of the same thing, for those who drive kernels themselves.
//!
//! This crate has never heard of a token, a model or a request. [`cpu::open`] opens the CPU device; the GPU devices live in crates
//! of their own and implement [`Backend`].

mod backend;
mod buffer;
mod buffer_pool;
#[cfg(any(test, feature = "testing"))]
pub mod cases;
pub mod cpu;
mod device;
#[doc = include_str!("../docs/mlx-native.md")]
pub mod docs {}
mod encoder;
mod error;
pub mod hazards;
mod kernel;
mod op;
mod plan;
mod program;
mod registry;
mod submission;
mod worker;

pub use backend::{Backend, Compiled, DeviceInfo, Encode};
pub use buffer::{Buffer, DType, DeviceId, Storage, Weight};
pub use buffer_pool::BufferPool;
pub use device::Device;
pub use encoder::{CommandEncoder, Commands, QuantizedMatmulParams};
pub use error::{Error, Result};
pub use kernel::{CallArg, Kernel, KernelArg, KernelCall, KernelSource, RustKernel};
pub use op::*;
pub use plan::{Plan, Record};
pub use program::{Input, Program};
pub use recua_gguf::GgmlType;
pub use registry::KernelRegistry;
pub use submission::{Pending, Submission, no_output};
pub use worker::EncoderWorker;
