//! `copy`: bytes from one place to another, at any alignment.

use super::rows::words;
use crate::launch::Recorder;
use crate::memory::{Binding, Memory};
use crate::pipelines::KernelKey;
use recua_compute::{Copy, Result};

/// See [`Copy`].
pub(crate) fn copy(op: &Copy, recorder: &mut Recorder<'_>) -> Result<()> {
    let place = |b| Ok((Memory::of(b)?, b.offset_bytes() as u64));
    copy_bytes(recorder, place(&op.src)?, place(&op.dst)?, op.src.n_bytes() as u64)
}

/// Copies bytes between two places that do not overlap, at any alignment.
pub(crate) fn copy_bytes(
    recorder: &mut Recorder<'_>,
    (src, src_start): (&Memory, u64),
    (dst, dst_start): (&Memory, u64),
    n_bytes: u64,
) -> Result<()> {
    let gpu = recorder.gpu;
    let slack = u64::from(gpu.limits.min_storage_buffer_offset_alignment) + 32;
    // A multiple of four, so that every piece has the alignment of the first.
    let piece = (gpu.limits.max_storage_buffer_binding_size - slack).min(1 << 30) / 4 * 4;
    let mut done = 0;
    while done < n_bytes {
        let n = piece.min(n_bytes - done);
        let (from, to) = (src_start + done, dst_start + done);
        let (src, src_rest) = Binding::part(gpu, src, from, from + n, false)?;
        let (dst, dst_rest) = Binding::part(gpu, dst, to, to + n, true)?;
        let is_aligned = [from, to, n].iter().all(|bytes| bytes.is_multiple_of(4));
        let args = [n as u32, src_rest, dst_rest];
        let n_words = n / 4 + 2;
        let groups = n_words.div_ceil(256 * 4).clamp(1, 32_768) as u32;
        let kernel = KernelKey::new("copy").define_if(is_aligned, "ALIGNED");
        recorder.dispatch(&kernel, &[src, dst], words(&args), [groups, 1, 1])?;
        done += n;
    }
    Ok(())
}
