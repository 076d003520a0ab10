//! How a layer's cache is laid out on the device: decided once, when it is allocated. `rope_store.wgsl` defines the order inside a page.
//!
//! K and V are each spread over as few allocations as the adapter's limits allow, all bound at once: page `p` is in allocation `p /
//! pages_each`.

use crate::gpu::Gpu;
use crate::memory::{Binding, Memory};
use recua_compute::{Error, KvPool, KvShape, KvType, Result, Storage};
use std::sync::Arc;

/// The most allocations of K, and of V: the kernels declare this many bindings.
pub(crate) const ALLOCATIONS_MAX: usize = 4;

/// The order of the elements in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Words of four bytes.
    Words,
    /// Vectors of 16 bytes, for heads of a multiple of eight elements.
    Vectors,
    /// Matrices of 16x16 f16, for cooperative matrices. Only in one allocation: with several, subgroups would load from different ones, and
    /// WGSL loads cooperative matrices only in uniform control flow.
    Matrices,
}

/// A pool on this device.
pub(crate) struct Kv {
    pub(crate) layout: Layout,
    /// Pages per allocation; the last one may have fewer.
    pub(crate) pages_each: u32,
    /// Bytes of a page of K, and of a page of V: a multiple of 16.
    pub(crate) page_bytes: u64,
    n_pages: u32,
    /// K and V of each allocation.
    memory: Vec<[Arc<Memory>; 2]>,
}

impl Kv {
    /// Allocates a pool, for a checked shape.
    pub(crate) fn pool(gpu: &Gpu, shape: &KvShape) -> Result<KvPool> {
        let refused = |problem: String| Error::Argument { op: "alloc_kv", problem };
        let page_bytes = shape.page_bytes().ok_or_else(|| refused(format!("{shape} is too large")))?;
        let limit = allocation_max(gpu);
        let n_pages = shape.n_pages;
        let pages_max = limit / page_bytes;
        if pages_max.saturating_mul(ALLOCATIONS_MAX) < n_pages {
            return Err(refused(format!(
                "{shape} takes more than {ALLOCATIONS_MAX} allocations of {limit} bytes for its keys on {}; {} pages fit",
                gpu.info.name,
                pages_max.saturating_mul(ALLOCATIONS_MAX)
            )));
        }
        let pages_each = n_pages.div_ceil(n_allocations(gpu, n_pages, pages_max));
        let mut memory = Vec::new();
        for first in (0..n_pages).step_by(pages_each) {
            let n_bytes = pages_each.min(n_pages - first) * page_bytes;
            let alloc = |half: &str| Memory::new(gpu, n_bytes, &format!("{half} of {shape}")).map(Arc::new);
            memory.push([alloc("keys")?, alloc("values")?]);
        }
        let storage = memory.iter().flatten().map(|memory| memory.clone() as Arc<dyn Storage>).collect();
        let kv = Kv {
            layout: layout(gpu, shape),
            pages_each: pages_each as u32,
            page_bytes: page_bytes as u64,
            n_pages: n_pages as u32,
            memory,
        };
        KvPool::from_storage(Arc::new(kv), storage, gpu.id, *shape)
    }

    /// The pool, if it belongs to this kind of device.
    pub(crate) fn of<'a>(op: &'static str, pool: &'a KvPool) -> Result<&'a Kv> {
        pool.storage_as().ok_or(Error::WrongDevice { op, what: "a cache" })
    }

    /// Whether it is spread over several allocations.
    pub(crate) fn is_spread(&self) -> bool {
        self.memory.len() > 1
    }

    /// Its allocations.
    pub(crate) fn allocations(&self, write: bool) -> impl Iterator<Item = Allocation<'_>> {
        let pages = (0..self.n_pages).step_by(self.pages_each as usize);
        pages.zip(&self.memory).map(move |(first_page, [k, v])| Allocation {
            first_page,
            n_pages: self.pages_each.min(self.n_pages - first_page),
            k: Binding::all(k, write),
            v: Binding::all(v, write),
        })
    }

    /// Read bindings for K and V of every possible allocation. The first stands in for those that do not exist, and is not read there.
    pub(crate) fn bindings(&self) -> Vec<Binding<'_>> {
        let n = if self.is_spread() { ALLOCATIONS_MAX } else { 1 };
        let at = |i: usize| self.memory.get(i).unwrap_or(&self.memory[0]);
        (0..n).flat_map(|i| at(i).each_ref().map(|memory| Binding::all(memory, false))).collect()
    }
}

/// One allocation of a pool, bound.
pub(crate) struct Allocation<'a> {
    pub(crate) first_page: u32,
    pub(crate) n_pages: u32,
    pub(crate) k: Binding<'a>,
    pub(crate) v: Binding<'a>,
}

/// The most bytes of an allocation that can be bound whole.
fn allocation_max(gpu: &Gpu) -> usize {
    let limit = gpu.limits.max_buffer_size.min(gpu.limits.max_storage_buffer_binding_size);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The number of allocations for `n_pages` pages if one holds at most `pages_max`.
fn n_allocations(gpu: &Gpu, n_pages: usize, pages_max: usize) -> usize {
    n_pages.div_ceil(pages_max.max(1)).max(gpu.tuning.kv_allocations.min(n_pages))
}

/// The layout of caches of this shape. The number of pages affects it only by whether one allocation holds them.
pub(crate) fn layout(gpu: &Gpu, shape: &KvShape) -> Layout {
    let KvShape { n_pages, head_dim, kv_type, .. } = *shape;
    let is_whole = || {
        let pages_max = shape.page_bytes().map_or(0, |page_bytes| allocation_max(gpu) / page_bytes.max(1));
        n_allocations(gpu, n_pages, pages_max) <= 1
    };
    let fits_matrices = kv_type == KvType::F16 && head_dim.is_multiple_of(16) && head_dim <= 128;
    if gpu.has_matrices() && fits_matrices && is_whole() {
        Layout::Matrices
    } else if head_dim.is_multiple_of(8) {
        Layout::Vectors
    } else {
        Layout::Words
    }
}
