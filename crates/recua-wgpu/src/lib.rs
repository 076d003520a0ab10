//! The GPU device on wgpu: Metal, Vulkan and DX12. [`open`] chooses an adapter and hands back a [`recua_compute::Device`];
//! [`adapters`] tells what there is and why one would be chosen.
//!
//! An op becomes a few dispatches of WGSL kernels (`kernels/`). `record` turns ops into a recording, which is data: pipelines,
//! bind groups, immediates. `run` replays recordings, one compute pass a list of commands, and keeps those of recent plans, so that
//! a plan that comes again creates nothing; `parts` runs what has no commands yet. `submission` waits, and brings back the device's time
//! and what kernels reported.
//!
//! This crate has never heard of a token, a model or a request.
#![warn(missing_docs)]

mod adapter;
mod bandwidth;
mod gpu;
mod kernels;
mod kv;
mod matmul;
mod memory;
mod ops;
mod parts;
mod pipelines;
mod preprocess;
mod record;
mod run;
mod status;
mod submission;
mod transfer;
mod tuning;
mod user_kernel;
mod weight;

pub use adapter::{ADAPTER_VARIABLE, AdapterReport, MATRICES_VARIABLE, Options, adapters};

use recua_compute::{Device, Result};

/// Opens the GPU device. Fails if there is no adapter that will do; the error lists those there are and what each lacks.
pub fn open(options: Options) -> Result<Device> {
    Ok(Device::new(run::Wgpu::new(adapter::open(&options)?, tuning::Tuning::default())?))
}
