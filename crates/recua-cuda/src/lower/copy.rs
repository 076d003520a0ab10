//! `copy`: bytes between two places, wherever they begin.

use crate::kernels::KernelKey;
use crate::launch::Recorder;
use crate::memory::pointer;
use recua_compute::{Copy, Result};

/// The parameters of `copy.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    src: u64,
    dst: u64,
    n_bytes: u64,
}

/// Threads of a block, and bytes that one copies at a time.
const BLOCK: u32 = 256;
const VECTOR_BYTES: usize = 16;

/// See [`Copy`].
pub(crate) fn copy(op: &Copy, recorder: &mut Recorder<'_>) -> Result<()> {
    let n_bytes = op.src.n_bytes();
    if n_bytes == 0 {
        return Ok(());
    }
    let params = Params { src: pointer(&op.src)?, dst: pointer(&op.dst)?, n_bytes: n_bytes as u64 };
    let blocks = n_bytes.div_ceil(VECTOR_BYTES * BLOCK as usize);
    let grid = [blocks.min(recorder.gpu.n_sms as usize * 16) as u32, 1, 1];
    recorder.launch(&KernelKey::new("copy"), grid, BLOCK, 0, false, &params)
}

/// The kernels there are.
pub(crate) fn kernels() -> Vec<KernelKey> {
    vec![KernelKey::new("copy")]
}
