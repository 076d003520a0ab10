//! The GPU device on wgpu: Metal, Vulkan and DX12. [`open`] chooses an adapter and hands back a [`recua_compute::Device`];
//! [`adapters`] tells what there is and why one would be chosen.
//!
//! A plan is made ready once and launched often:
//!
//! ```text
//! ops ── lower ──> launches ── commands ──> bundle ── program ──> submission
//!        (fuses)   (data,      (pipelines,   (encodes ahead,      (waits, brings
//!                  printed)     bind groups)  one submit)          outputs back)
//! ```
//!
//! `gpu` has the handles of the adapter; `pipelines`, `workspace`, `readback` and `transfer` are rooms that borrow it, `shared` has them
//! all. The kernels lie in `kernels/`.
//!
//! This crate has never heard of a token, a model or a request.
#![warn(missing_docs)]

mod adapter;
mod args;
mod bandwidth;
mod commands;
mod device;
mod gpu;
mod kernels;
mod kv;
mod launch;
mod lower;
mod memory;
mod pipelines;
mod preprocess;
mod program;
mod readback;
mod shared;
mod submission;
mod transfer;
mod tuning;
mod user_kernel;
mod weight;
mod workspace;

pub use adapter::{ADAPTER_VARIABLE, AdapterReport, MATRICES_VARIABLE, Options, adapters};

use recua_compute::{Device, Result};

/// Opens the GPU device. Fails if there is no adapter that will do; the error lists those there are and what each lacks.
pub fn open(options: Options) -> Result<Device> {
    Ok(Device::new(device::Wgpu::new(adapter::open(&options)?, tuning::Tuning::default())?))
}
