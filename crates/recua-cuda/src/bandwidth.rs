//! How fast the device reads memory: the peak that decoding is compared with.

use crate::bundle::Bundle;
use crate::kernels::KernelKey;
use crate::launch::Recorder;
use crate::memory::Memory;
use crate::shared::Shared;
use crate::submission::InFlight;
use recua_compute::{Error, Pending, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that are read, if there are so many: far more than any cache holds.
const BYTES: usize = 4 << 30;
/// Less than this would be read from a cache.
const BYTES_MIN: usize = 256 << 20;
/// Threads of a block, and blocks of a multiprocessor: enough bytes under way for any card.
const BLOCK: u32 = 512;
const BLOCKS_SM: u32 = 2;
/// What a thread reads at once: `LOADS` of `bandwidth.cu`, of 16 bytes each.
const THREAD_BYTES: usize = 8 * 16;
/// The best of so many runs, and about how long they take together.
const RUNS: u32 = 12;
const TIME: Duration = Duration::from_secs(2);

/// The parameters of `bandwidth.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    src: u64,
    sink: u64,
    n_vectors: u64,
}

/// The kernels there are.
pub(crate) fn kernels() -> Vec<KernelKey> {
    vec![KernelKey::new("bandwidth")]
}

/// Bytes per second.
pub(crate) fn measure(shared: &Arc<Shared>) -> Result<f64> {
    let gpu = &shared.gpu;
    let what = "measuring the bandwidth";
    let mut n_bytes = BYTES;
    let memory = loop {
        match Memory::new(gpu, n_bytes, what) {
            Err(Error::OutOfMemory { .. }) if n_bytes > BYTES_MIN => n_bytes /= 2,
            found => break found?,
        }
    };
    let sink = Memory::new(gpu, 4, what)?;
    let grid = gpu.n_sms * BLOCKS_SM;
    let round = (grid * BLOCK) as usize * THREAD_BYTES;
    let n_bytes = n_bytes / round * round;
    let params = Params { src: memory.pointer(), sink: sink.pointer(), n_vectors: n_bytes as u64 / 16 };
    let mut recorder = Recorder::new(shared);
    recorder.begin("bandwidth");
    recorder.launch(&KernelKey::new("bandwidth"), [grid, 1, 1], BLOCK, 0, false, &params)?;
    let bundle = Bundle::new(shared, recorder.finish())?;
    let (mut best, begin) = (0.0f64, Instant::now());
    for run in 0..RUNS {
        if run > 1 && begin.elapsed() > TIME {
            break;
        }
        // SAFETY: the memory is held here until the run is waited for.
        let work = || unsafe { bundle.submit(gpu, gpu.context.stream()) };
        let start = Instant::now();
        let submission = InFlight::start(shared, &[], &[], false, work)?;
        submission.wait()?;
        let wall = start.elapsed();
        let time = submission.gpu_time().filter(|time| !time.is_zero()).unwrap_or(wall);
        // The first run also fills the memory.
        if run > 0 {
            best = best.max(n_bytes as f64 / time.as_secs_f64());
        }
    }
    Ok(best)
}
