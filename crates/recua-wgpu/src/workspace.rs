//! [`Workspaces`]: scratch that ops share.

use crate::gpu::{Gpu, lock};
use crate::memory::Memory;
use recua_compute::Result;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Scratch by name. Ops run one after the other, so nothing that must outlive the op that wrote it belongs here. To grow, an entry is
/// replaced: a program that was made before keeps its own memory.
#[derive(Default)]
pub(crate) struct Workspaces {
    memories: Mutex<HashMap<&'static str, Arc<Memory>>>,
    /// Counts how often entries grew.
    generation: AtomicU64,
}

impl Workspaces {
    /// Memory of at least `n_bytes`, shared by all ops that use this name.
    pub(crate) fn get(&self, gpu: &Gpu, what: &'static str, n_bytes: usize) -> Result<Arc<Memory>> {
        let mut memories = lock(&self.memories);
        if let Some(memory) = memories.get(what).filter(|memory| memory.n_bytes() >= n_bytes) {
            return Ok(memory.clone());
        }
        let memory = Arc::new(Memory::new(gpu, n_bytes, what)?);
        let _smaller = memories.insert(what, memory.clone());
        self.generation.fetch_add(1, Ordering::Relaxed);
        Ok(memory)
    }

    /// Changes whenever an entry grows.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}
