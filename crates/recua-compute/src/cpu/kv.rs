//! The CPU's layout of a layer's cache: K and V are a buffer each, `[n_pages, n_kv_heads, PAGE_TOKENS * head_dim]`. `rope_store.rs` gives
//! the order of the elements in a page.

use super::{Allocated, Counted};
use crate::buffer::{Buffer, DeviceId, Storage};
use crate::error::{Error, Result, argument};
use crate::kv::{KvPool, KvShape};
use crate::op::PAGE_TOKENS;
use std::sync::Arc;

/// A pool of this device.
pub(crate) struct Kv {
    /// f16 or f32 `[n_pages, n_kv_heads, PAGE_TOKENS * head_dim]`
    pub(crate) k: Buffer,
    /// the same
    pub(crate) v: Buffer,
}

impl Kv {
    /// Allocates a pool; the shape has been checked.
    pub(crate) fn pool(allocated: &Allocated, device: DeviceId, shape: &KvShape) -> Result<KvPool> {
        let too_large = || argument("alloc_kv", format!("{shape} is larger than memory can be"));
        let n_bytes = shape.n_bytes().ok_or_else(too_large)? / 2;
        let KvShape { n_pages, n_kv_heads, head_dim, kv_type } = *shape;
        let mut memory: Vec<Arc<dyn Storage>> = Vec::new();
        for half in ["keys", "values"] {
            let what = format!("the {half} of {shape}");
            let counted = Counted { memory: allocated.memory(n_bytes, &what)?, counter: allocated.clone() };
            memory.push(Arc::new(counted));
        }
        let buffer = |storage: &Arc<dyn Storage>| {
            let dims = [n_pages, n_kv_heads, PAGE_TOKENS * head_dim];
            Buffer::from_storage(storage.clone(), device, kv_type.dtype(), &dims)
        };
        let kv = Kv { k: buffer(&memory[0])?, v: buffer(&memory[1])? };
        KvPool::from_storage(Arc::new(kv), memory, device, *shape)
    }

    /// The layout of a pool that this kind of device made.
    pub(crate) fn of<'a>(op: &'static str, pool: &'a KvPool) -> Result<&'a Kv> {
        pool.storage_as().ok_or(Error::WrongDevice { op, what: "a cache" })
    }
}
