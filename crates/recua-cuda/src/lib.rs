//! The GPU device on CUDA: NVIDIA cards of compute capability 8.0 and up. [`open`] opens one and hands back a
//! [`recua_compute::Device`]; [`devices`] tells what there is.
//!
//! Nothing of CUDA is needed to build this, and nothing of it is loaded before a device is asked for: the driver comes with the card, and
//! NVRTC, NVIDIA's run-time compiler, makes the kernels for the card that is found. What it made is kept on disk.
//!
//! ```text
//! ops ── lower ──> launches ── bundle ──> program ──> submission
//!                  (data,      (kernels    (a graph     (waits, brings
//!                  printed)     compiled)   from the     outputs back)
//!                                           2nd launch)
//! ```
//!
//! `driver` has the driver's functions, `context` the card's one stream and its memory, `handles` and `function` what the driver makes for
//! us. `kernels` (with `nvrtc` and `cache`), `staging`, `transfer` and `workspace` are rooms that borrow `gpu`, `shared` has them all.
//! The kernels lie in `kernels/`.
//!
//! This crate has never heard of a token, a model or a request.
#![warn(missing_docs)]

mod bandwidth;
mod bundle;
mod cache;
mod context;
mod device;
mod driver;
mod function;
mod gpu;
mod handles;
mod kernels;
mod kv;
mod launch;
mod lower;
mod memory;
mod nvrtc;
mod program;
mod report;
mod shared;
mod sources;
mod staging;
mod submission;
mod transfer;
mod user_kernel;
mod weight;
mod workspace;

pub use cache::CACHE_VARIABLE;
pub use nvrtc::NVRTC_VARIABLE;
pub use report::{DeviceReport, compiler, devices};

use recua_compute::{Device, Result};
use std::sync::Arc;

/// How the device is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The card, as the driver counts those it shows, from 0 on.
    pub index: usize,
}

/// Opens a card.
///
/// # Errors
/// If there is no driver or an old one, no such card or one below compute capability 8.0, or no run-time compiler and no kernels on
/// disk. The error says which, and what would do.
pub fn open(options: Options) -> Result<Device> {
    let gpu = gpu::Gpu::open(options.index)?;
    let shared = Arc::new(shared::Shared::new(gpu, cache::Cache::of_user())?);
    Ok(Device::new(device::Cuda { shared }))
}
