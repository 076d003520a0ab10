//! How a layer's cache lies on the device: K and V in an allocation each, as `kernels/cache.cuh` says.

use crate::memory::Memory;
use crate::shared::Shared;
use recua_compute::{Error, KvPool, KvShape, KvType, PAGE_TOKENS, Result, Storage};
use std::sync::Arc;

/// The layout of a pool.
pub(crate) struct Kv {
    pub(crate) k: Arc<Memory>,
    pub(crate) v: Arc<Memory>,
    pub(crate) page_bytes: usize,
}

impl Kv {
    /// That of a pool of this device, which the plan has checked.
    pub(crate) fn of<'a>(op: &'static str, pool: &'a KvPool) -> Result<&'a Kv> {
        pool.storage_as().ok_or(Error::WrongDevice { op, what: "the cache" })
    }
}

/// Elements of a head, with those that make it whole steps of the tensor core.
pub(crate) fn padded(shape: &KvShape) -> usize {
    match shape.kv_type {
        KvType::F16 => shape.head_dim.next_multiple_of(16),
        KvType::F32 => shape.head_dim,
    }
}

/// Allocates a pool; the shape has been checked.
pub(crate) fn alloc(shared: &Shared, shape: &KvShape) -> Result<KvPool> {
    let gpu = &shared.gpu;
    let element = shape.kv_type.dtype().size_of();
    let page = [shape.n_kv_heads, PAGE_TOKENS, padded(shape), element];
    let product = |factors: &[usize]| factors.iter().try_fold(1usize, |n, &factor| n.checked_mul(factor));
    let too_large = || gpu.out_of_memory("the cache of a layer", usize::MAX);
    let page_bytes = product(&page).ok_or_else(too_large)?;
    let n_bytes = page_bytes.checked_mul(shape.n_pages).ok_or_else(too_large)?;
    let k = Arc::new(Memory::unfilled(gpu, n_bytes, "the keys of a layer")?);
    let v = Arc::new(Memory::unfilled(gpu, n_bytes, "the values of a layer")?);
    let memory: Vec<Arc<dyn Storage>> = vec![k.clone(), v.clone()];
    KvPool::from_storage(Arc::new(Kv { k, v, page_bytes }), memory, gpu.id, *shape)
}
