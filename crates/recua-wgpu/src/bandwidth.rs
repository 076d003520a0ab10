//! The device's read bandwidth: the peak with which decoding is compared.

use crate::commands::Bundle;
use crate::launch::Recorder;
use crate::memory::{Binding, Memory};
use crate::pipelines::KernelKey;
use crate::shared::Shared;
use crate::submission::InFlight;
use recua_compute::{Pending, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes to read, if the device has that many: more than any cache holds.
const BYTES: u64 = 1 << 30;
/// Threads in a workgroup, and the bytes that one thread reads at a time.
const GROUP: u64 = 256;
const VECTOR_BYTES: u64 = 16;
/// The best of this many runs counts; and their approximate time in total.
const RUNS: u32 = 12;
const TIME: Duration = Duration::from_secs(2);

/// The read bandwidth in bytes per second.
pub(crate) fn measure(shared: &Arc<Shared>) -> Result<f64> {
    let gpu = &shared.gpu;
    let limit = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size).min(512 << 20);
    let piece = limit / (GROUP * VECTOR_BYTES) * (GROUP * VECTOR_BYTES);
    let mut pieces: Vec<Memory> = Vec::new();
    while (pieces.len() as u64) * piece < BYTES {
        match Memory::new(gpu, piece as usize, "measuring the bandwidth") {
            Ok(memory) => pieces.push(memory),
            Err(e) if pieces.is_empty() => return Err(e),
            Err(_) => break,
        }
    }
    let sink = Memory::new(gpu, 16, "measuring the bandwidth")?;
    let mut recorder = Recorder::new(shared);
    recorder.begin("bandwidth");
    let n_vectors = piece / VECTOR_BYTES;
    let groups = (n_vectors / (GROUP * 16)).clamp(1, 65_535) as u32;
    for memory in &pieces {
        let bindings = [Binding::all(memory, false), Binding::all(&sink, true)];
        let args = [n_vectors as u32];
        recorder.dispatch(
            &KernelKey::new("bandwidth"),
            &bindings,
            bytemuck::bytes_of(&args),
            [groups, 1, 1],
        )?;
    }
    let bundle = Bundle::new(shared, recorder.finish())?;
    let n_bytes = piece as f64 * pieces.len() as f64;
    let (mut best, begin) = (0.0f64, Instant::now());
    for run in 0..RUNS {
        if run > 1 && begin.elapsed() > TIME {
            break;
        }
        let start = Instant::now();
        let submission = InFlight::start_all(shared, vec![bundle.encode(shared)?])?;
        submission.wait()?;
        let wall = start.elapsed();
        let time = submission.gpu_time().filter(|time| !time.is_zero()).unwrap_or(wall);
        // The first run also fills the memory.
        if run > 0 {
            best = best.max(n_bytes / time.as_secs_f64());
        }
    }
    Ok(best)
}
