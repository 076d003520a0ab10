//! The read bandwidth of this machine's memory with all threads at once: the peak that decoding is compared with.

use super::isa::{Isa, multiversion};
use super::pool::{Pool, Worker};
use super::{Allocated, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Far more than any last-level cache holds.
const N_BYTES: usize = 512 << 20;

/// Bytes that a thread claims at a time.
const PIECE: usize = 1 << 20;

/// The number of passes, of which the fastest is the peak.
const PASSES: usize = 5;

/// Bytes per second of the fastest pass.
pub(super) fn measure(pool: &mut Pool, isa: Isa, allocated: &Allocated) -> Result<f64> {
    let memory = allocated.memory(N_BYTES, "the bandwidth measurement")?;
    // SAFETY: the memory is zeroed, aligned for u64, and only read from here on, but for the threads' own writes below.
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr().cast::<u64>(), N_BYTES / 8) };
    // New pages may all be one shared page of zeros, so they are written first.
    bytes.iter_mut().step_by(512).enumerate().for_each(|(i, word)| *word = i as u64 | 1);
    let words: &[u64] = bytes;
    let total = AtomicU64::new(0);
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        pool.run(&|worker: &Worker<'_>| {
            let mut sum = 0u64;
            while let Some(range) = worker.claim(N_BYTES / PIECE, 4) {
                sum = sum.wrapping_add(add_up(isa, &words[range.start * PIECE / 8..range.end * PIECE / 8]));
            }
            total.fetch_add(sum, Ordering::Relaxed);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    // The sum is used, so that the compiler cannot omit the reads.
    assert!(total.load(Ordering::Relaxed) != 0, "the sum of the written words is not 0");
    allocated.release(N_BYTES);
    Ok(N_BYTES as f64 / best)
}

multiversion! { fn add_up(isa, words: &[u64]) -> u64 = add_up_body }

#[inline(always)]
fn add_up_body(words: &[u64]) -> u64 {
    let mut lanes = [0u64; 64];
    for chunk in words.chunks_exact(64) {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}
