//! The GPU device on wgpu: Metal, Vulkan and DX12. [`open`] chooses an adapter and returns a [`recua_compute::Device`]; [`adapters`] lists
//! the adapters and why each is chosen or not.
//!
//! A plan is made ready once and launched often:
//!
//! ```text
//! ops ── lower ──> launches ── commands ──> bundle ── program ──> submission
//!        (fuses)   (data,      (pipelines,   (encodes ahead,      (waits, brings
//!                  printed)     bind groups)  one submit)          outputs back)
//! ```
//!
//! `gpu` holds the adapter's handles. `pipelines`, `workspace`, `readback` and `transfer` are independent components that borrow it;
//! `shared` holds them all. The kernels are in `kernels/`.
//!
//! This crate knows nothing of tokens, models or requests.
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

/// Opens the GPU device. If no adapter is suitable, the error lists the adapters and what each lacks.
pub fn open(options: Options) -> Result<Device> {
    Ok(Device::new(device::Wgpu::new(adapter::open(&options)?, tuning::Tuning::default())?))
}
