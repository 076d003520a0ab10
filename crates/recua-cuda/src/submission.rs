//! Work under way: it waits, brings the outputs back, and says how long the device worked and what kernels reported.

use crate::context::lock;
use crate::memory::pointer;
use crate::shared::Shared;
use crate::staging::{HEADER_BYTES, Staging};
use crate::transfer::Piece;
use recua_compute::{Buffer, Error, IndexReport, Input, Pending, Result, no_output};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Work under way.
pub(crate) struct InFlight {
    shared: Arc<Shared>,
    /// There until it is dropped.
    staging: Option<Staging>,
    /// Where each output lies in the staging.
    outputs: Vec<Range<usize>>,
    done: OnceLock<Done>,
}

/// What is known once the work is done.
struct Done {
    report: Option<IndexReport>,
    time: Option<Duration>,
}

/// Where pieces begin in the staging: whole vectors.
const ALIGNMENT: usize = 16;

/// Where the inputs and outputs of a launch lie in its staging.
struct Places {
    inputs: Vec<Range<usize>>,
    outputs: Vec<Range<usize>>,
    end: usize,
}

impl Places {
    fn new(inputs: &[Input<'_>], outputs: &[Buffer]) -> Places {
        let mut end = HEADER_BYTES;
        let mut place = |n_bytes: usize| {
            let start = end.next_multiple_of(ALIGNMENT);
            end = start + n_bytes;
            start..end
        };
        let inputs = inputs.iter().map(|input| place(input.bytes().len())).collect();
        let outputs = outputs.iter().map(|output| place(output.n_bytes())).collect();
        Places { inputs, outputs, end }
    }
}

impl InFlight {
    /// Queues as one: copies `inputs` to their buffers, what `work` submits, and copies of `outputs` to the host. `uses_status` says
    /// whether its kernels may report an index.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        inputs: &[Input<'_>],
        outputs: &[Buffer],
        uses_status: bool,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<InFlight> {
        shared.gpu.check()?;
        let places = Places::new(inputs, outputs);
        let mut staging = shared.stagings.get(&shared.gpu, places.end - HEADER_BYTES)?;
        staging.has_status = uses_status;
        let mut before = Vec::with_capacity(inputs.len());
        for (input, place) in inputs.iter().zip(&places.inputs) {
            staging.pinned.write(place.start, input.bytes());
            let (src, dst) = (staging.pinned.pointer(place.start), pointer(input.buffer())?);
            before.push(Piece { src, dst, n_bytes: place.len() as u64 });
        }
        let mut after = Vec::with_capacity(outputs.len() + 1);
        if uses_status {
            let (src, dst) = (shared.status.pointer(), staging.pinned.pointer(0));
            after.push(Piece { src, dst, n_bytes: IndexReport::BYTES as u64 });
        }
        for (output, place) in outputs.iter().zip(&places.outputs) {
            let (src, dst) = (pointer(output)?, staging.pinned.pointer(place.start));
            after.push(Piece { src, dst, n_bytes: place.len() as u64 });
        }
        let clear = uses_status.then(|| (shared.status.pointer(), IndexReport::CUT_AT as u64 / 4));
        let submitted = || {
            let Shared { gpu, transfers, order, .. } = &**shared;
            let _order = lock(order);
            staging.begin.record()?;
            // SAFETY: the pieces lie inside buffers that the caller holds in this call, and inside the staging, which is kept until the
            // work is done; the stream orders them with what else uses the buffers.
            unsafe { transfers.submit(gpu, &before, None)? };
            work()?;
            // SAFETY: as above.
            unsafe { transfers.submit(gpu, &after, clear)? };
            staging.end.record()
        };
        if let Err(e) = submitted() {
            // Part of it may be under way and use the staging.
            shared.gpu.context.drain();
            shared.stagings.free(staging);
            return Err(e);
        }
        let (shared, outputs, done) = (shared.clone(), places.outputs, OnceLock::new());
        Ok(InFlight { shared, staging: Some(staging), outputs, done })
    }

    fn staging(&self) -> Result<&Staging> {
        self.staging.as_ref().ok_or_else(|| Error::Argument { op: "wait", problem: "it is dropped".into() })
    }

    /// Waits, and reads what came back.
    fn done(&self) -> Result<&Done> {
        let staging = self.staging()?;
        staging.end.wait()?;
        Ok(self
            .done
            .get_or_init(|| Done { report: staging.report(), time: staging.end.since(&staging.begin) }))
    }
}

impl Pending for InFlight {
    fn wait(&self) -> Result<()> {
        match self.done()?.report {
            Some(report) => Err(report.error()),
            None => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        // An error shows up in `wait`.
        self.staging().is_ok_and(|staging| staging.end.is_done().unwrap_or(true))
    }

    fn gpu_time(&self) -> Option<Duration> {
        if !self.is_done() {
            return None;
        }
        self.done().ok()?.time
    }

    fn take(&self, i: usize, out: &mut [u8]) -> Result<()> {
        let place = self.outputs.get(i).ok_or_else(|| no_output(i, self.outputs.len()))?;
        if place.len() != out.len() {
            let problem = format!("output {i} has {} bytes, not {}", place.len(), out.len());
            return Err(Error::Argument { op: "take", problem });
        }
        self.wait()?;
        self.staging()?.pinned.read(place.start, out);
        Ok(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(staging) = self.staging.take() else { return };
        let stagings = &self.shared.stagings;
        if self.done.get().is_some() { stagings.free(staging) } else { stagings.leave(staging) }
    }
}

/// Copies bytes to the start of a buffer, wherever it begins and ends, after what was submitted before.
pub(crate) fn write(shared: &Arc<Shared>, dst: &Buffer, bytes: &[u8]) -> Result<()> {
    /// Up to here the bytes are an input of a launch that does nothing, which waits for nothing.
    const SMALL_BYTES: usize = 1 << 20;
    if bytes.is_empty() {
        return shared.gpu.check();
    }
    if bytes.len() <= SMALL_BYTES {
        let input = Input::new(dst, bytes)?;
        return InFlight::start(shared, &[input], &[], false, || Ok(())).map(drop);
    }
    let memory = crate::memory::Memory::of(dst)?;
    let _order = lock(&shared.order);
    shared.upload(memory, dst.offset_bytes(), bytes)
}

/// Copies the start of a buffer to the host, after all submitted work.
pub(crate) fn read(shared: &Shared, src: &Buffer, out: &mut [u8]) -> Result<()> {
    shared.gpu.check()?;
    // SAFETY: the caller has checked that so many bytes are in the buffer, which it holds.
    unsafe { read_at(shared, pointer(src)?, out) }?;
    shared.stagings.check_unread()
}

/// See [`recua_compute::Device::n_cut`].
pub(crate) fn n_cut(shared: &Shared) -> Result<u64> {
    shared.gpu.check()?;
    let mut n = 0u32;
    let at = shared.status.pointer() + IndexReport::CUT_AT as u64;
    // SAFETY: the status has this word, and is there as long as the device.
    unsafe { read_at(shared, at, bytemuck::bytes_of_mut(&mut n)) }?;
    Ok(n.into())
}

/// Copies bytes of the device to the host, after all submitted work.
///
/// # Safety
/// So many bytes are allocated from `src` on, and stay so during the call.
unsafe fn read_at(shared: &Shared, mut src: u64, out: &mut [u8]) -> Result<()> {
    let gpu = &shared.gpu;
    for piece in out.chunks_mut(crate::transfer::PIECE_BYTES) {
        let staging = shared.stagings.get(gpu, piece.len())?;
        let n_bytes = piece.len() as u64;
        let copy = [Piece { src, dst: staging.pinned.pointer(HEADER_BYTES), n_bytes }];
        let copied = {
            let _order = lock(&shared.order);
            // SAFETY: the bytes are there, as the caller has promised, and the copy is waited for below.
            unsafe { shared.transfers.submit(gpu, &copy, None) }.and_then(|()| staging.end.record())
        };
        if let Err(e) = copied.and_then(|()| staging.end.wait()) {
            // Even if the mark was not set, the copy may be under way.
            gpu.context.drain();
            return Err(e);
        }
        staging.pinned.read(HEADER_BYTES, piece);
        shared.stagings.free(staging);
        src += n_bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
