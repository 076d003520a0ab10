//! Bytes between the host and the device: the inputs and outputs of launches, and what is loaded.

use crate::context::lock;
use crate::function::{Dims, Function};
use crate::gpu::Gpu;
use crate::handles::{Event, Pinned};
use crate::kernels::{KernelKey, Kernels};
use crate::memory::Memory;
use recua_compute::Result;
use std::sync::{Arc, Mutex};

/// The largest piece that is staged at once.
pub(crate) const PIECE_BYTES: usize = 32 << 20;

/// Pieces up to this size are copied by a kernel, many at once; each larger one is a copy of the driver's, which takes the host and the
/// device some microseconds to begin.
const SMALL_BYTES: u64 = 16 << 10;

/// Pieces of one kernel, and its threads for each.
const PIECES: usize = 32;
const BLOCK: u32 = 256;

/// Bytes to be copied between pinned memory of the host and memory of the device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Piece {
    pub(crate) src: u64,
    pub(crate) dst: u64,
    pub(crate) n_bytes: u64,
}

/// The parameters of `transfer.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    pieces: [Piece; PIECES],
    clear: u64,
    n_clear: u64,
}

/// The kernels there are.
pub(crate) fn kernels() -> Vec<KernelKey> {
    vec![KernelKey::new("transfer")]
}

/// What copies.
pub(crate) struct Transfers {
    kernel: Arc<Function>,
    uploads: Mutex<Uploads>,
}

/// Two pieces of staging, used in turn.
#[derive(Default)]
struct Uploads {
    stages: Vec<(Pinned, Event)>,
    next: usize,
}

impl Transfers {
    /// Compiles the kernel.
    pub(crate) fn new(gpu: &Gpu, kernels: &Kernels) -> Result<Transfers> {
        Ok(Transfers { kernel: kernels.get(gpu, &KernelKey::new("transfer"))?, uploads: Mutex::default() })
    }

    /// Submits the copies of pieces. `clear` are words of the device that are zeroed after the first piece was copied, which has them
    /// and is small.
    ///
    /// # Safety
    /// Each piece lies inside memory of the device and pinned memory that live until they are copied, and no one uses the destinations
    /// meanwhile.
    pub(crate) unsafe fn submit(&self, gpu: &Gpu, pieces: &[Piece], clear: Option<(u64, u64)>) -> Result<()> {
        let context = &gpu.context;
        let (small, large): (Vec<Piece>, Vec<Piece>) =
            pieces.iter().filter(|piece| piece.n_bytes > 0).partition(|piece| piece.n_bytes <= SMALL_BYTES);
        let mut clear = clear.unwrap_or_default();
        for pieces in small.chunks(PIECES) {
            let mut params = Params { pieces: [Piece::default(); PIECES], clear: clear.0, n_clear: clear.1 };
            params.pieces[..pieces.len()].copy_from_slice(pieces);
            let dims = Dims {
                grid: [pieces.len() as u32, 1, 1],
                block: BLOCK,
                shared_bytes: 0,
                is_dependent: false,
            };
            gpu.count();
            // SAFETY: the caller's.
            unsafe { self.kernel.launch(context.stream(), &dims, bytemuck::bytes_of(&params), "transfer")? };
            clear = (0, 0);
        }
        for Piece { src, dst, n_bytes } in large {
            gpu.count();
            // SAFETY: the caller's; the driver tells by the address which memory is whose.
            context.call("copying", |driver| unsafe {
                (driver.cuMemcpyAsync)(dst, src, n_bytes as usize, context.stream())
            })?;
        }
        Ok(())
    }

    /// Copies bytes to the device from byte `start` of an allocation on. Work submitted later sees them, earlier work does not. Returns
    /// when the bytes have been staged, the last of them perhaps still under way.
    ///
    /// # Panics
    /// If they do not fit.
    pub(crate) fn upload(&self, gpu: &Gpu, memory: &Memory, start: usize, bytes: &[u8]) -> Result<()> {
        let n_bytes = memory.n_bytes();
        assert!(start <= n_bytes && bytes.len() <= n_bytes - start, "{start} + {} of {n_bytes}", bytes.len());
        let mut uploads = lock(&self.uploads);
        for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let (stage, is_free) = uploads.next(gpu)?;
            // The one before is under way meanwhile.
            is_free.wait()?;
            stage.write(0, piece);
            let (src, dst) = (stage.pointer(0), memory.pointer() + (start + i * PIECE_BYTES) as u64);
            let context = &gpu.context;
            gpu.count();
            // SAFETY: the bytes lie inside both, as was just seen; the stage is not written before the event that follows, and the
            // allocation, if it is dropped, is freed after the copy.
            context.call("copying", |driver| unsafe {
                (driver.cuMemcpyAsync)(dst, src, piece.len(), context.stream())
            })?;
            is_free.record()?;
        }
        Ok(())
    }
}

impl Uploads {
    fn next(&mut self, gpu: &Gpu) -> Result<(&mut Pinned, &Event)> {
        if self.stages.len() < 2 {
            self.stages.push((Pinned::new(&gpu.context, PIECE_BYTES)?, Event::new(&gpu.context)?));
            self.next = self.stages.len() - 1;
        }
        let stage = &mut self.stages[self.next];
        self.next = 1 - self.next;
        Ok((&mut stage.0, &stage.1))
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        // The last pieces may be under way.
        self.stages.iter().for_each(|(_, is_free)| drop(is_free.wait()));
    }
}
