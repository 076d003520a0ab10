//! [`KvPool`]: the keys and values of one layer, in pages, as the device that made it lays them out.
//!
//! A pool is opaque like a [`crate::Weight`]: when a device allocates one, it decides how a page is laid out and over how many
//! allocations the pages are spread. `rope_store` writes to it, `attention` reads it, `copy_pages` copies whole pages; no other op
//! touches it.

use crate::buffer::{Buffer, DType, DeviceId, Storage};
use crate::error::{Result, argument};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Tokens in one page of the key-value cache.
pub const PAGE_TOKENS: usize = 32;

/// The type in which keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half the memory and half the bytes to read. What is finite and beyond ±65504 is cut to that ([`crate::Device::n_cut`]).
    #[default]
    F16,
    /// Exact.
    F32,
}

impl KvType {
    /// All of them.
    pub const ALL: [KvType; 2] = [KvType::F16, KvType::F32];

    /// The type of an element.
    pub const fn dtype(self) -> DType {
        match self {
            KvType::F16 => DType::F16,
            KvType::F32 => DType::F32,
        }
    }

    /// The type with this lower-case name.
    pub fn from_name(name: &str) -> Option<KvType> {
        KvType::ALL.into_iter().find(|t| t.dtype().name() == name)
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dtype().fmt(f)
    }
}

/// What a pool holds: `[n_pages, n_kv_heads, PAGE_TOKENS, head_dim]` of K, and the same of V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// The number of pages, of [`PAGE_TOKENS`] tokens each.
    pub n_pages: usize,
    /// The number of heads of K, and of V.
    pub n_kv_heads: usize,
    /// Elements of a head; even.
    pub head_dim: usize,
    /// The type of the elements.
    pub kv_type: KvType,
}

impl KvShape {
    /// Bytes of one page of K, or of V; `None` on overflow.
    pub fn page_bytes(&self) -> Option<usize> {
        let elements = self.n_kv_heads.checked_mul(PAGE_TOKENS)?.checked_mul(self.head_dim)?;
        elements.checked_mul(self.kv_type.dtype().size_of())
    }

    /// Bytes of K and V together; `None` on overflow.
    pub fn n_bytes(&self) -> Option<usize> {
        self.page_bytes()?.checked_mul(self.n_pages)?.checked_mul(2)
    }

    /// Fails if such a pool could hold nothing, or would be larger than memory can be.
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        let KvShape { n_pages, n_kv_heads, head_dim, .. } = *self;
        if n_pages == 0 || n_kv_heads == 0 || head_dim == 0 || !head_dim.is_multiple_of(2) {
            let problem = format!("{self}: at least one page and head, and an even head size are needed");
            return Err(argument(op, problem));
        }
        if u32::try_from(n_pages).is_err() || self.n_bytes().is_none() {
            return Err(argument(op, format!("{self} is larger than memory can be")));
        }
        Ok(())
    }
}

impl fmt::Display for KvShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KvShape { n_pages, n_kv_heads, head_dim, kv_type } = self;
        write!(f, "kv {kv_type}[{n_pages}, {n_kv_heads}, {PAGE_TOKENS}, {head_dim}]")
    }
}

/// The keys and values of one layer; see [`crate::Device::alloc_kv`]. Cloning shares it.
#[derive(Clone)]
pub struct KvPool {
    storage: Arc<dyn Any + Send + Sync>,
    memory: Vec<Buffer>,
    device: DeviceId,
    shape: KvShape,
}

impl KvPool {
    /// Wraps a device's own layout, which lies in the allocations `memory`; for device crates.
    ///
    /// # Errors
    /// If an allocation is larger than a buffer can be.
    pub fn from_storage(
        storage: Arc<dyn Any + Send + Sync>,
        memory: Vec<Arc<dyn Storage>>,
        device: DeviceId,
        shape: KvShape,
    ) -> Result<KvPool> {
        let bytes = |storage: Arc<dyn Storage>| {
            let n_bytes = storage.n_bytes();
            Buffer::from_storage(storage, device, DType::U8, &[n_bytes])
        };
        let memory = memory.into_iter().map(bytes).collect::<Result<_>>()?;
        Ok(KvPool { storage, memory, device, shape })
    }

    /// What it holds.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// The device it belongs to.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The layout as the device's own type; `None` for a pool from another kind of device.
    pub fn storage_as<T: Any>(&self) -> Option<&T> {
        self.storage.downcast_ref()
    }

    /// The allocations that hold it, as bytes in the device's own order: for ordering ops by what they touch, and for filling them
    /// with garbage in tests.
    pub fn memory(&self) -> &[Buffer] {
        &self.memory
    }

    /// Whether two are the same pool.
    pub fn is_same(&self, other: &KvPool) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }
}

impl fmt::Debug for KvPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.shape, f)
    }
}
