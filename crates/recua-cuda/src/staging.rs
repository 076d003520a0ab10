//! [`Staging`]: pinned memory for one submission at a time: what kernels reported, then the inputs of a launch, then its outputs; and when
//! the device began and ended.

use crate::context::lock;
use crate::gpu::Gpu;
use crate::handles::{Event, Pinned};
use recua_compute::{IndexReport, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes before the inputs.
pub(crate) const HEADER_BYTES: usize = IndexReport::BYTES;

/// One submission's.
pub(crate) struct Staging {
    pub(crate) pinned: Pinned,
    pub(crate) begin: Event,
    pub(crate) end: Event,
    pub(crate) has_status: bool,
}

impl Staging {
    /// What kernels reported; of work that is done.
    pub(crate) fn report(&self) -> Option<IndexReport> {
        let mut words = [0u32; IndexReport::BYTES / 4];
        if self.has_status {
            self.pinned.read(0, bytemuck::bytes_of_mut(&mut words));
        }
        IndexReport::new(words)
    }
}

/// Stagings that are free, and those of submissions nobody waited for.
#[derive(Default)]
pub(crate) struct Stagings {
    free: Mutex<Vec<Staging>>,
    /// The oldest first.
    unread: Mutex<Vec<Staging>>,
    /// The first report of those that have been read.
    report: Mutex<Option<IndexReport>>,
    /// Stagings made so far: in the long run as many as are in use at a time.
    pub(crate) n_made: AtomicU64,
}

/// Free stagings that are kept, and their bytes.
const FREE_MAX: usize = 64;
const FREE_BYTES_MAX: usize = 128 << 20;
/// Unread stagings there are at most: then the oldest is waited for.
const UNREAD_MAX: usize = 64;

impl Stagings {
    /// One with room for so many bytes behind the header.
    pub(crate) fn get(&self, gpu: &Gpu, n_bytes: usize) -> Result<Staging> {
        let n_bytes = HEADER_BYTES + n_bytes;
        if let Some(staging) = self.take_free(n_bytes) {
            return Ok(staging);
        }
        self.read_unread();
        if let Some(staging) = self.take_free(n_bytes) {
            return Ok(staging);
        }
        self.n_made.fetch_add(1, Ordering::Relaxed);
        let context = &gpu.context;
        Ok(Staging {
            pinned: Pinned::new(context, n_bytes.next_power_of_two().max(4096))?,
            begin: Event::new(context)?,
            end: Event::new(context)?,
            has_status: false,
        })
    }

    fn take_free(&self, n_bytes: usize) -> Option<Staging> {
        let mut free = lock(&self.free);
        let fitting = free.iter().enumerate().filter(|(_, staging)| staging.pinned.n_bytes() >= n_bytes);
        let (i, _) = fitting.min_by_key(|(_, staging)| staging.pinned.n_bytes())?;
        Some(Staging { has_status: false, ..free.swap_remove(i) })
    }

    /// Keeps one whose work is done, unless enough are kept.
    pub(crate) fn free(&self, staging: Staging) {
        let mut free = lock(&self.free);
        let n_bytes: usize = free.iter().map(|staging| staging.pinned.n_bytes()).sum();
        if free.len() < FREE_MAX && n_bytes + staging.pinned.n_bytes() <= FREE_BYTES_MAX {
            free.push(staging);
        }
    }

    /// Takes that of a submission that nobody waits for any more: its report comes with the next [`Stagings::check_unread`].
    pub(crate) fn leave(&self, staging: Staging) {
        let is_full = {
            let mut unread = lock(&self.unread);
            unread.push(staging);
            unread.len() > UNREAD_MAX
        };
        if is_full {
            self.read_unread();
            let oldest = {
                let mut unread = lock(&self.unread);
                (unread.len() > UNREAD_MAX).then(|| unread.remove(0))
            };
            if let Some(oldest) = oldest {
                // An error shows up in the next call.
                let _ = oldest.end.wait();
                self.read(oldest);
            }
        }
    }

    /// What submissions reported that nobody waited for and whose work is done.
    pub(crate) fn check_unread(&self) -> Result<()> {
        self.read_unread();
        lock(&self.report).take().map_or(Ok(()), |report| Err(report.error()))
    }

    fn read_unread(&self) {
        let mut unread = lock(&self.unread);
        let done = unread.iter().take_while(|staging| staging.end.is_done().unwrap_or(true)).count();
        unread.drain(..done).for_each(|staging| self.read(staging));
    }

    fn read(&self, staging: Staging) {
        if let Some(report) = staging.report() {
            lock(&self.report).get_or_insert(report);
        }
        self.free(staging);
    }
}

impl Drop for Stagings {
    fn drop(&mut self) {
        // The device may still write to them.
        let unread = self.unread.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        unread.iter().for_each(|staging| drop(staging.end.wait()));
    }
}
