//! How a layer's cache lies on the device: decided once, when it is allocated.

use crate::gpu::Gpu;
use crate::shared::Shared;
use recua_compute::{Error, KvPool, KvShape, Result, Tiling};

/// Allocates a pool; the shape has been checked.
pub(crate) fn alloc(_shared: &Shared, shape: &KvShape) -> Result<KvPool> {
    Err(Error::Argument { op: "alloc_kv", problem: format!("there is no layout of {shape} for CUDA yet") })
}

/// How attention over caches of this shape is cut.
pub(crate) fn tiling(_gpu: &Gpu, _shape: &KvShape, _n_heads: usize) -> Tiling {
    Tiling::default()
}
