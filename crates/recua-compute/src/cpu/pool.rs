//! The threads of the CPU device. A step enters the pool once: every thread runs the same function, meets the others at barriers
//! and takes its share of each op. Entering a pool per op costs more than small ops do.
//!
//! Idle threads spin briefly, because the next step usually follows immediately, and then sleep, so that an idle process uses no CPU time.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(100);

/// How often a thread polls a barrier before it yields the core. Between ops all threads arrive within microseconds, unless another process
/// has the core of one of them.
const BARRIER_SPINS: u32 = 512;

/// The number of counters for work that threads claim piece by piece. A step with more phases than this reuses them.
const N_COUNTERS: usize = 4;

/// The function that every thread runs, its lifetime erased for the duration of a [`Pool::run`].
type Job = *const (dyn Fn(&Worker<'_>) + Sync);

struct Shared {
    n_threads: usize,
    /// Incremented for each job.
    epoch: AtomicUsize,
    job: Mutex<Option<SendJob>>,
    wake: Condvar,
    shut_down: AtomicBool,
    /// The number of threads still running the current job, without the caller.
    running: AtomicUsize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    counters: [Padded; N_COUNTERS],
    panicked: AtomicBool,
}

/// A counter on a cache line of its own, so that claims of different phases do not disturb each other.
#[repr(align(64))]
struct Padded(AtomicUsize);

#[derive(Clone, Copy)]
struct SendJob(Job);
// SAFETY: the pointer is only followed between the start and the end of `Pool::run`, which outlives every use.
unsafe impl Send for SendJob {}

/// The pool. Dropping it ends its threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

/// A thread's place in the job it runs.
pub(crate) struct Worker<'a> {
    shared: &'a Shared,
    /// Which thread this is, from 0.
    pub(crate) idx: usize,
    /// How many barriers this thread has passed in this job.
    phase: std::cell::Cell<usize>,
}

impl Pool {
    /// A pool of `n_threads`, one of which is the thread that calls [`Pool::run`].
    pub(crate) fn new(n_threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            n_threads: n_threads.max(1),
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            wake: Condvar::new(),
            shut_down: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            counters: std::array::from_fn(|_| Padded(AtomicUsize::new(0))),
            panicked: AtomicBool::new(false),
        });
        let mut pool = Pool { shared, handles: Vec::new() };
        for idx in 1..pool.shared.n_threads {
            let shared = pool.shared.clone();
            let builder = std::thread::Builder::new().name(format!("recua-cpu-{idx}"));
            pool.handles.push(builder.spawn(move || worker_loop(&shared, idx))?);
        }
        Ok(pool)
    }

    pub(crate) fn n_threads(&self) -> usize {
        self.shared.n_threads
    }

    /// Runs `job` on every thread and returns when all are done. A panic in one of them becomes a panic here, once all have ended.
    pub(crate) fn run(&mut self, job: &(dyn Fn(&Worker<'_>) + Sync)) {
        let shared = &*self.shared;
        shared.arrived.store(0, Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        for counter in &shared.counters {
            counter.0.store(0, Ordering::Relaxed);
        }
        shared.running.store(shared.n_threads - 1, Ordering::Relaxed);
        if shared.n_threads > 1 {
            // SAFETY: only the lifetime is erased; this function does not return before `running` is 0, after which no thread
            // follows the pointer.
            let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(&Worker<'_>) + Sync), Job>(job) };
            let mut current = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            *current = Some(SendJob(job));
            // Under the lock: a thread that has just seen the old epoch holds it until it sleeps, so it cannot miss the wake-up.
            shared.epoch.fetch_add(1, Ordering::Release);
            drop(current);
            shared.wake.notify_all();
        }
        let outcome = run_one(shared, 0, job);
        let mut spins = 0u32;
        while shared.running.load(Ordering::Acquire) != 0 {
            relax(&mut spins);
        }
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.load(Ordering::Relaxed), "a kernel panicked on another thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shut_down.store(true, Ordering::Relaxed);
        let guard = self.shared.job.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        drop(guard);
        for handle in self.handles.drain(..) {
            // A worker catches its panics, so its result says nothing.
            let _ = handle.join();
        }
    }
}

fn worker_loop(shared: &Shared, idx: usize) {
    let mut seen = 0;
    loop {
        let spin_until = Instant::now() + SPIN;
        while shared.epoch.load(Ordering::Acquire) == seen && Instant::now() < spin_until {
            std::hint::spin_loop();
        }
        let mut job = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
        while shared.epoch.load(Ordering::Acquire) == seen {
            job = shared.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
        }
        seen = shared.epoch.load(Ordering::Acquire);
        let current = *job;
        drop(job);
        if shared.shut_down.load(Ordering::Relaxed) {
            return;
        }
        if let Some(SendJob(job)) = current {
            // SAFETY: `Pool::run` waits for `running`, which this thread lowers last, before the job goes away.
            let _ = run_one(shared, idx, unsafe { &*job });
            shared.running.fetch_sub(1, Ordering::Release);
        }
    }
}

fn run_one(shared: &Shared, idx: usize, job: &(dyn Fn(&Worker<'_>) + Sync)) -> std::thread::Result<()> {
    let worker = Worker { shared, idx, phase: std::cell::Cell::new(0) };
    let outcome = catch_unwind(AssertUnwindSafe(|| job(&worker)));
    if outcome.is_err() {
        shared.panicked.store(true, Ordering::Release);
    }
    outcome
}

fn relax(spins: &mut u32) {
    *spins += 1;
    if *spins < BARRIER_SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl Worker<'_> {
    /// Waits for all threads. What any of them wrote before the barrier is visible to all after it. Every thread must reach the same barriers.
    pub(crate) fn barrier(&self) {
        let shared = self.shared;
        let phase = self.phase.get();
        self.phase.set(phase + 1);
        if shared.n_threads == 1 {
            shared.counters[(phase + 1) % N_COUNTERS].0.store(0, Ordering::Relaxed);
            return;
        }
        let generation = shared.generation.load(Ordering::Acquire);
        if shared.arrived.fetch_add(1, Ordering::AcqRel) + 1 == shared.n_threads {
            // The counter of the phase that begins was last used N_COUNTERS phases ago, so no thread reads it now.
            shared.counters[(phase + 1) % N_COUNTERS].0.store(0, Ordering::Relaxed);
            shared.arrived.store(0, Ordering::Relaxed);
            shared.generation.fetch_add(1, Ordering::Release);
            return;
        }
        let mut spins = 0;
        while shared.generation.load(Ordering::Acquire) == generation {
            // A thread that panicked never arrives.
            assert!(!shared.panicked.load(Ordering::Acquire), "a kernel panicked on another thread");
            relax(&mut spins);
        }
    }

    /// The number of threads of the pool.
    pub(crate) fn n_threads(&self) -> usize {
        self.shared.n_threads
    }

    /// This thread's even share of `[0, n)`.
    pub(crate) fn share(&self, n: usize) -> Range<usize> {
        let (threads, idx) = (self.shared.n_threads, self.idx);
        n * idx / threads..n * (idx + 1) / threads
    }

    /// Claims the next piece of `[0, n)`: large pieces first, so that memory is read in long runs, and small ones last, so that all threads
    /// end together. `None` when everything is claimed. Between two barriers, only one range may be claimed from.
    pub(crate) fn claim_run(&self, n: usize) -> Option<Range<usize>> {
        let counter = &self.shared.counters[self.phase.get() % N_COUNTERS].0;
        let piece = |start: usize| (n - start).div_ceil(2 * self.shared.n_threads);
        let next = |start: usize| (start < n).then(|| start + piece(start));
        let start = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(start..start + piece(start))
    }

    /// Claims the next piece of `[0, n)`, at most `piece` long; `None` when everything is claimed. Between two barriers, only one range may be
    /// claimed from.
    pub(crate) fn claim(&self, n: usize, piece: usize) -> Option<Range<usize>> {
        let counter = &self.shared.counters[self.phase.get() % N_COUNTERS].0;
        let start = counter.fetch_add(piece, Ordering::Relaxed);
        (start < n).then(|| start..(start + piece).min(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_claimed_once_in_every_phase() {
        for n_threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(n_threads).unwrap();
            let items: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..20 {
                pool.run(&|worker| {
                    for _ in 0..10 {
                        while let Some(range) = worker.claim(items.len(), 7) {
                            for item in &items[range] {
                                item.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        worker.barrier();
                        while let Some(range) = worker.claim_run(items.len()) {
                            for item in &items[range] {
                                item.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        worker.barrier();
                        for item in &items[worker.share(items.len())] {
                            item.fetch_add(1, Ordering::Relaxed);
                        }
                        worker.barrier();
                    }
                });
            }
            assert!(items.iter().all(|item| item.load(Ordering::Relaxed) == 600));
        }
    }

    #[test]
    fn a_panic_ends_the_job_and_not_the_pool() {
        let mut pool = Pool::new(3).unwrap();
        for bad in 0..3 {
            let job = |worker: &Worker<'_>| {
                assert_ne!(worker.idx, bad, "on purpose");
                worker.barrier();
            };
            assert!(catch_unwind(AssertUnwindSafe(|| pool.run(&job))).is_err());
        }
        let count = AtomicUsize::new(0);
        pool.run(&|worker| {
            worker.barrier();
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
