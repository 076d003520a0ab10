//! Bytes from the host to the device, staged in pieces.

use crate::gpu::Gpu;
use crate::memory::Memory;
use recua_compute::Result;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest piece that is staged at once, in bytes.
pub(crate) const PIECE_BYTES: usize = 32 << 20;

/// Counts the bytes staged since the last submission.
#[derive(Default)]
pub(crate) struct Transfers {
    staged: AtomicU64,
}

impl Transfers {
    /// Copies bytes to the device. `start` and the length are multiples of four. Work submitted later sees them; earlier work does not.
    pub(crate) fn upload(&self, gpu: &Gpu, memory: &Memory, start: u64, bytes: &[u8]) -> Result<()> {
        for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            gpu.stage(memory.buffer(), start + (i * PIECE_BYTES) as u64, piece);
            // wgpu stages a copy of the bytes, and frees it once work that was submitted afterwards is done.
            let staged = self.staged.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if staged + piece.len() as u64 > 2 * PIECE_BYTES as u64 {
                self.set_submitted();
                gpu.wait(gpu.submit([]))?;
            }
        }
        gpu.check()
    }

    /// Records that everything staged has been submitted.
    pub(crate) fn set_submitted(&self) {
        self.staged.store(0, Ordering::Relaxed);
    }
}
