//! Devices for quantised inference.
//!
//! A forward pass is data: a [`Plan`], a flat list of [`Op`]s over [`Buffer`]s and [`Weight`]s, which a [`Device`] runs with one
//! exhaustive `match`. [`CommandEncoder`] is the explicit face of the same thing, for those who drive kernels themselves.
//!
//! This crate has never heard of a token, a model or a request. [`cpu::open`] opens the CPU device; the GPU devices live in crates
//! of their own and implement [`Backend`].

mod args;
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
mod op;
mod plan;
mod registry;
mod weight;
mod worker;

pub use buffer::{Buffer, DType, DeviceId, Storage};
pub use buffer_pool::BufferPool;
pub use device::{Backend, Device, DeviceInfo};
pub use encoder::{CommandEncoder, Commands, Encode, Pending, QuantizedMatmulParams, Submission};
pub use error::{Error, Result};
pub use op::*;
pub use plan::{Plan, Record};
pub use recua_gguf::GgmlType;
pub use registry::{CallArg, Kernel, KernelArg, KernelCall, KernelRegistry, KernelSource, RustKernel};
pub use weight::{Arrange, RawMatrix, Weight, WeightPart};
pub use worker::EncoderWorker;
