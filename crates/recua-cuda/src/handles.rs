//! What the driver makes for us beside memory on the device: memory of the host that the device reads and writes, events, graphs.

use crate::context::Context;
use crate::driver::{Driver, Handle, NOT_READY, OUT_OF_MEMORY, SUCCESS};
use cudarc::driver::sys::{CUevent, CUgraphExec, CUstream, CUstreamCaptureMode};
use recua_compute::{Error, Result};
use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Memory that every context of the process may use.
const PORTABLE: u32 = 1;

/// A stream that does not wait for the default one.
const NON_BLOCKING: u32 = 1;

/// Waiting for the event gives the processor away.
const BLOCKING: u32 = 1;

/// How long a wait polls before it gives the processor away: about as long as a step of a small model takes, because being woken costs tens
/// of microseconds.
const SPIN: Duration = Duration::from_millis(2);

/// Pinned memory of the host: the device reads and writes it by itself, at the address that the host has for it.
pub(crate) struct Pinned {
    context: Arc<Context>,
    pointer: Handle<*mut u8>,
    n_bytes: usize,
}

impl Pinned {
    /// `n_bytes` of anything.
    pub(crate) fn new(context: &Arc<Context>, n_bytes: usize) -> Result<Pinned> {
        context.faults.check()?;
        let mut pointer: *mut c_void = std::ptr::null_mut();
        // SAFETY: `pointer` is written.
        let code =
            context.code(|driver| unsafe { (driver.cuMemHostAlloc)(&raw mut pointer, n_bytes, PORTABLE) });
        if code == OUT_OF_MEMORY {
            let what = "pinned memory for transfers to the device".into();
            return Err(Error::OutOfMemory { device: "host".into(), what, requested_bytes: n_bytes });
        }
        context.faults.result("pinning memory", code, || context.driver.text(code))?;
        // SAFETY: so many bytes were allocated. Zeros, so that all of it is initialised.
        unsafe { pointer.cast::<u8>().write_bytes(0, n_bytes) };
        Ok(Pinned { context: context.clone(), pointer: Handle(pointer.cast()), n_bytes })
    }

    /// Its size.
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The address of a byte, the same for host and device.
    pub(crate) fn pointer(&self, at: usize) -> u64 {
        self.pointer.0 as u64 + at as u64
    }

    /// Copies bytes to it. The device must have nothing under way with them.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(
            at <= self.n_bytes && bytes.len() <= self.n_bytes - at,
            "{at} + {} of {}",
            bytes.len(),
            self.n_bytes
        );
        // SAFETY: inside, as was just seen, and `&mut` keeps others on the host away.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer.0.add(at), bytes.len()) }
    }

    /// Copies bytes from it. The device must have nothing under way that writes them.
    pub(crate) fn read(&self, at: usize, out: &mut [u8]) {
        assert!(
            at <= self.n_bytes && out.len() <= self.n_bytes - at,
            "{at} + {} of {}",
            out.len(),
            self.n_bytes
        );
        // SAFETY: inside, as was just seen, and initialised since it was allocated.
        unsafe { std::ptr::copy_nonoverlapping(self.pointer.0.add(at), out.as_mut_ptr(), out.len()) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Its owner has waited for what uses it, unless waiting failed.
        if self.context.faults.check().is_err() {
            self.context.drain();
        }
        let pointer = self.pointer.0.cast();
        // SAFETY: it was allocated so, and the device is done with it.
        let _code = self.context.code(|driver| unsafe { (driver.cuMemFreeHost)(pointer) });
    }
}

/// A mark in the stream.
pub(crate) struct Event {
    context: Arc<Context>,
    raw: Handle<CUevent>,
}

impl Event {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Event> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is written.
        let create = |driver: &Driver| unsafe { (driver.cuEventCreate)(&raw mut raw, BLOCKING) };
        context.call("making an event", create)?;
        Ok(Event { context: context.clone(), raw: Handle(raw) })
    }

    /// Marks the end of what is submitted so far.
    pub(crate) fn record(&self) -> Result<()> {
        let (raw, stream) = (self.raw.0, self.context.stream());
        // SAFETY: event and stream live as long as the context.
        self.context.call("marking the stream", |driver| unsafe { (driver.cuEventRecord)(raw, stream) })
    }

    /// Whether the device has come there. One that was never recorded is done.
    pub(crate) fn is_done(&self) -> Result<bool> {
        self.context.faults.check()?;
        // SAFETY: the event is alive.
        match self.context.code(|driver| unsafe { (driver.cuEventQuery)(self.raw.0) }) {
            SUCCESS => Ok(true),
            NOT_READY => Ok(false),
            code => {
                let text = || self.context.driver.text(code);
                self.context.faults.result("running kernels", code, text).map(|()| true)
            }
        }
    }

    /// Waits until the device has come there.
    pub(crate) fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        while !self.is_done()? {
            if begin.elapsed() < SPIN {
                std::thread::yield_now();
                continue;
            }
            // SAFETY: the event is alive.
            return self
                .context
                .call("running kernels", |driver| unsafe { (driver.cuEventSynchronize)(self.raw.0) });
        }
        Ok(())
    }

    /// The time from another event to this one, if the device has come to both.
    pub(crate) fn since(&self, begin: &Event) -> Option<Duration> {
        let mut milliseconds = 0.0f32;
        // SAFETY: `milliseconds` is written, both events are alive.
        let code = self.context.code(|driver| unsafe {
            (driver.cuEventElapsedTime)(&raw mut milliseconds, begin.raw.0, self.raw.0)
        });
        (code == SUCCESS).then(|| Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more; the driver keeps what is under way.
        let _code = self.context.code(|driver| unsafe { (driver.cuEventDestroy_v2)(self.raw.0) });
    }
}

/// Work that is launched as one.
pub(crate) struct Graph {
    context: Arc<Context>,
    raw: Handle<CUgraphExec>,
}

impl Graph {
    /// What `record` submits to the stream it is given, which runs none of it.
    pub(crate) fn capture(
        context: &Arc<Context>,
        record: impl FnOnce(CUstream) -> Result<()>,
    ) -> Result<Graph> {
        let mut capture = Capture { context, stream: std::ptr::null_mut(), is_open: false };
        // A stream of its own: what other threads submit meanwhile is not captured.
        // SAFETY: the stream is written.
        context.call("making a stream", |driver| unsafe {
            (driver.cuStreamCreate)(&raw mut capture.stream, NON_BLOCKING)
        })?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive.
        context.call("beginning a graph", |driver| unsafe {
            (driver.cuStreamBeginCapture_v2)(capture.stream, mode)
        })?;
        capture.is_open = true;
        record(capture.stream)?;
        let mut graph = std::ptr::null_mut();
        capture.is_open = false;
        // SAFETY: as above; `graph` is written.
        context.call("ending a graph", |driver| unsafe {
            (driver.cuStreamEndCapture)(capture.stream, &raw mut graph)
        })?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is written; the graph is alive, and destroyed at once: what was made of it does not need it.
        let instantiated = context.call("making a graph ready", |driver| unsafe {
            let code = (driver.cuGraphInstantiateWithFlags)(&raw mut raw, graph, 0);
            (driver.cuGraphDestroy)(graph);
            code
        });
        instantiated?;
        let graph = Graph { context: context.clone(), raw: Handle(raw) };
        // SAFETY: graph and stream are alive.
        context.call("sending a graph to the device", |driver| unsafe {
            (driver.cuGraphUpload)(graph.raw.0, context.stream())
        })?;
        Ok(graph)
    }

    /// Submits it to the context's stream.
    ///
    /// # Safety
    /// That of each launch that was recorded: what they point to is alive, and freed in the order of the stream.
    pub(crate) unsafe fn launch(&self) -> Result<()> {
        // SAFETY: the graph is alive; the rest is the caller's.
        self.context.call("launching a graph", |driver| unsafe {
            (driver.cuGraphLaunch)(self.raw.0, self.context.stream())
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: nobody launches it any more; if it is under way, the driver frees it when it is done.
        let _code = self.context.code(|driver| unsafe { (driver.cuGraphExecDestroy)(self.raw.0) });
    }
}

/// A capture under way: ended and its stream given back, however it ends.
struct Capture<'a> {
    context: &'a Arc<Context>,
    stream: CUstream,
    is_open: bool,
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        let _code = self.context.code(|driver| {
            // SAFETY: the stream is this one's alone; a graph of a capture that failed is destroyed.
            unsafe {
                let mut graph = std::ptr::null_mut();
                if self.is_open && (driver.cuStreamEndCapture)(self.stream, &raw mut graph) == SUCCESS {
                    (driver.cuGraphDestroy)(graph);
                }
                if self.stream.is_null() { SUCCESS } else { (driver.cuStreamDestroy_v2)(self.stream) }
            }
        });
    }
}
