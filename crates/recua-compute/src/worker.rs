//! [`EncoderWorker`]: a thread that encodes commands while other threads do the same. It is not a pool and knows nothing of devices: the
//! caller decides what it runs and how to learn that it is done, usually by a channel.

use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

type Work = Box<dyn FnOnce() + Send>;

/// A persistent thread that runs closures in the order they were submitted. Dropping it shuts it down.
///
/// A panic ends only the closure in which it happens: what the closure owned is dropped, so a channel to its caller closes; the panic hook
/// reports it, [`EncoderWorker::n_panics`] counts it, and the worker goes on with the next closure.
pub struct EncoderWorker {
    /// `None` after the shutdown.
    queue: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    n_panics: Arc<AtomicUsize>,
}

impl EncoderWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn spawn() -> Result<EncoderWorker> {
        let (queue, receiver) = channel::<Work>();
        let n_panics = Arc::new(AtomicUsize::new(0));
        let counter = n_panics.clone();
        let thread = Builder::new().name("recua-encoder".into()).spawn(move || work(&receiver, &counter));
        let thread =
            thread.map_err(|source| Error::Threads { device: "encoder worker", n_threads: 1, source })?;
        Ok(EncoderWorker { queue: Some(queue), thread: Some(thread), n_panics })
    }

    /// Queues `work` after everything submitted before.
    ///
    /// # Errors
    /// After [`EncoderWorker::shutdown`] ([`Error::WorkerShutDown`]).
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let queue = self.queue.as_ref().ok_or(Error::WorkerShutDown)?;
        queue.send(Box::new(work)).map_err(|_| Error::WorkerShutDown)
    }

    /// Runs everything that is queued, then ends the thread. May be called twice.
    ///
    /// If the worker's own last closure drops it, this returns first and the thread ends by itself.
    pub fn shutdown(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // The thread catches the closures' panics, so its result says nothing.
            let _ = thread.join();
        }
    }

    /// The number of closures that have panicked.
    pub fn n_panics(&self) -> usize {
        self.n_panics.load(Ordering::Acquire)
    }
}

impl Drop for EncoderWorker {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn work(queue: &Receiver<Work>, n_panics: &AtomicUsize) {
    for work in queue {
        // What a panic leaves half done belongs to the closure, which cannot be called again.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            n_panics.fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{self, sync_channel};

    #[test]
    fn a_closure_runs() {
        let worker = EncoderWorker::spawn().unwrap();
        let (done, result) = mpsc::channel();
        worker.submit(move || done.send(std::thread::current().id()).unwrap()).unwrap();
        assert_ne!(result.recv().unwrap(), std::thread::current().id());
    }

    #[test]
    fn the_order_is_kept() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut worker = EncoderWorker::spawn().unwrap();
        for i in 0..100 {
            let order = order.clone();
            worker.submit(move || order.lock().unwrap().push(i)).unwrap();
        }
        worker.shutdown();
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn shutdown_waits_for_what_is_queued() {
        let (start, started) = sync_channel::<()>(0);
        let count = Arc::new(AtomicUsize::new(0));
        let mut worker = EncoderWorker::spawn().unwrap();
        worker.submit(move || started.recv().unwrap()).unwrap();
        for _ in 0..10 {
            let count = count.clone();
            worker.submit(move || _ = count.fetch_add(1, Ordering::SeqCst)).unwrap();
        }
        assert_eq!(count.load(Ordering::SeqCst), 0, "the first closure still waits");
        start.send(()).unwrap();
        worker.shutdown();
        assert_eq!(count.load(Ordering::SeqCst), 10);
    }

    #[test]
    fn submitting_after_the_shutdown_is_an_error() {
        let mut worker = EncoderWorker::spawn().unwrap();
        worker.shutdown();
        worker.shutdown();
        assert!(matches!(worker.submit(|| ()), Err(Error::WorkerShutDown)));
    }

    #[test]
    fn dropping_it_is_a_shutdown() {
        let count = Arc::new(AtomicUsize::new(0));
        let worker = EncoderWorker::spawn().unwrap();
        for _ in 0..10 {
            let count = count.clone();
            worker.submit(move || _ = count.fetch_add(1, Ordering::SeqCst)).unwrap();
        }
        drop(worker);
        assert_eq!(count.load(Ordering::SeqCst), 10);
    }

    #[test]
    fn a_panic_ends_the_closure_and_not_the_worker() {
        let mut worker = EncoderWorker::spawn().unwrap();
        let (done, result) = mpsc::channel::<()>();
        worker
            .submit(move || {
                let _done = done;
                panic!("on purpose");
            })
            .unwrap();
        assert!(result.recv().is_err(), "the caller's channel closes");
        let (done, result) = mpsc::channel();
        worker.submit(move || done.send(1).unwrap()).unwrap();
        assert_eq!(result.recv().unwrap(), 1);
        worker.shutdown();
        assert_eq!(worker.n_panics(), 1);
    }

    #[test]
    fn a_worker_dropped_on_its_own_thread_does_not_wait_for_itself() {
        let (done, result) = mpsc::channel();
        let worker = Arc::new(Mutex::new(Some(EncoderWorker::spawn().unwrap())));
        let inside = worker.clone();
        worker
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .submit(move || {
                let last = inside.lock().unwrap().take();
                drop(last);
                done.send(()).unwrap();
            })
            .unwrap();
        result.recv().unwrap();
    }
}
