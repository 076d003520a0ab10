//! [`WgpuProgram`]: a plan made ready. Its launches are kept as data with their bind groups, and its next command list is encoded ahead,
//! while the host waits for the launch in flight. A launch then only submits.
//!
//! A program without encoded commands is encoded in parts, and each part is submitted at once: the device begins with the first while the
//! host encodes the second. On an H200 that took 1.9 ms instead of 2.7 ms for a step of a new shape. More threads did not help, because the
//! device's work hides the encoding of all parts except the first (`bench/record`, 2026-11-21).

use crate::commands::{self, Bundle};
use crate::gpu::lock;
use crate::lower::lower;
use crate::readback::{Outputs, Readback};
use crate::shared::Shared;
use crate::submission::InFlight;
use recua_compute::{Buffer, Compiled, Input, Pending, Plan, Result, Submission};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// The most bytes of outputs that commands encoded ahead copy: they assume the outputs of the launch before, which are mostly those of the
/// next one too. Copies of larger outputs are encoded at launch, so that waiting programs hold no large staging buffers.
const AHEAD_BYTES: u64 = 64 << 10;

/// A program.
pub(crate) struct WgpuProgram(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    bundle: Bundle,
    /// Keeps the buffers and weights that the launches use alive.
    #[allow(dead_code, reason = "held to be dropped")]
    plan: Plan,
    next: Mutex<Next>,
}

/// The state that the next launch can use.
#[derive(Default)]
struct Next {
    n_launched: usize,
    /// The outputs of the launch before.
    outputs: Arc<Outputs>,
    ahead: Option<Ahead>,
}

/// A command list encoded ahead, which also copies `outputs`.
struct Ahead {
    commands: wgpu::CommandBuffer,
    readback: Option<Readback>,
    outputs: Arc<Outputs>,
}

impl WgpuProgram {
    /// Lowers a plan, compiles kernels and allocates workspaces.
    pub(crate) fn new(shared: &Arc<Shared>, plan: &Plan) -> Result<WgpuProgram> {
        let bundle = Bundle::new(shared, lower(shared, plan.ops())?)?;
        let (shared, plan, next) = (shared.clone(), plan.clone(), Mutex::default());
        Ok(WgpuProgram(Arc::new(Inner { shared, bundle, plan, next })))
    }
}

impl Compiled for WgpuProgram {
    fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission> {
        let outputs = Arc::new(Outputs::new(outputs)?);
        let ahead = {
            let mut next = lock(&self.0.next);
            next.n_launched += 1;
            next.outputs = outputs.clone();
            next.ahead.take()
        };
        let in_flight = match ahead {
            Some(ahead) => self.0.launch_ahead(ahead, inputs, outputs)?,
            None => self.0.launch_in_parts(inputs, outputs)?,
        };
        Ok(Submission::new(Launched { program: Arc::downgrade(&self.0), in_flight }))
    }
}

impl fmt::Display for WgpuProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.bundle.launches)
    }
}

impl Inner {
    /// Submits what was encoded ahead, plus copies of the outputs if they differ from those that were assumed.
    fn launch_ahead(&self, ahead: Ahead, inputs: &[Input<'_>], outputs: Arc<Outputs>) -> Result<InFlight> {
        let shared = &self.shared;
        let Ahead { commands, mut readback, outputs: expected } = ahead;
        let mut copies = None;
        let mut unused = None;
        if *expected != *outputs && !outputs.list.is_empty() {
            let mut own = match readback.take() {
                Some(readback) if readback.has_room(&outputs) => readback,
                mut small => {
                    let mut large =
                        shared.readbacks.get(&shared.gpu, &outputs, self.bundle.launches.uses_status)?;
                    if let Some(small) = &mut small {
                        large.take_times(small);
                    }
                    unused = small;
                    large
                }
            };
            own.has_status = self.bundle.launches.uses_status;
            let descriptor = wgpu::CommandEncoderDescriptor::default();
            let mut encoder = shared.gpu.device.create_command_encoder(&descriptor);
            own.encode(&mut encoder, shared.status.buffer(), &outputs);
            copies = Some(encoder.finish());
            readback = Some(own);
        }
        let order = lock(&shared.order);
        inputs.iter().try_for_each(|input| commands::write(shared, input.buffer(), input.bytes(), &order))?;
        let commands = [commands].into_iter().chain(copies);
        let in_flight = InFlight::start(shared, commands, Vec::from_iter(readback), outputs, &order);
        drop(order);
        // The commands still copy to these, but nobody reads that; whoever uses them next submits later.
        unused.into_iter().for_each(|readback| shared.readbacks.free(readback));
        in_flight
    }

    /// Encodes and submits in parts.
    fn launch_in_parts(&self, inputs: &[Input<'_>], outputs: Arc<Outputs>) -> Result<InFlight> {
        let Inner { shared, bundle, .. } = self;
        let readback = bundle.readback(shared, &outputs)?;
        let order = lock(&shared.order);
        inputs.iter().try_for_each(|input| commands::write(shared, input.buffer(), input.bytes(), &order))?;
        let mut parts = parts(bundle.len(), shared.gpu.tuning.part_launches);
        let last = parts.pop().unwrap_or(0..0);
        for part in parts {
            let commands = bundle.encode_range(shared, part, readback.as_ref(), &outputs)?;
            shared.gpu.check()?;
            shared.gpu.submit([commands]);
        }
        let commands = bundle.encode_range(shared, last, readback.as_ref(), &outputs)?;
        InFlight::start(shared, [commands], Vec::from_iter(readback), outputs, &order)
    }

    /// Encodes the next command list, if there is none yet and the program has been launched more than once. A program that runs once, such
    /// as for a prompt of one particular length, is not worth it.
    fn encode_ahead(&self) {
        let outputs = {
            let next = lock(&self.next);
            if next.n_launched < 2 || next.ahead.is_some() {
                return;
            }
            next.outputs.clone()
        };
        let outputs = if outputs.n_bytes() <= AHEAD_BYTES { outputs } else { Arc::default() };
        let Inner { shared, bundle, .. } = self;
        // If this fails, the next launch encodes again and returns the error.
        let Ok(readback) = bundle.readback(shared, &outputs) else { return };
        let encoded = bundle.encode_range(shared, 0..bundle.len(), readback.as_ref(), &outputs);
        let Ok(commands) = encoded else { return };
        let _useless = lock(&self.next).ahead.replace(Ahead { commands, readback, outputs });
    }
}

/// Cuts `n` launches into parts of at most `len_max`. The first parts are shorter, so that the device starts soon.
fn parts(n: usize, len_max: usize) -> Vec<Range<usize>> {
    let len_max = len_max.max(4);
    let mut len = if n / 2 > len_max { len_max / 4 } else { n };
    let mut parts = Vec::new();
    let mut start = 0;
    while start < n {
        let end = start.saturating_add(len).min(n);
        parts.push(start..end);
        start = end;
        len = len.saturating_mul(2).min(len_max);
    }
    parts
}

/// A launch in flight.
struct Launched {
    /// Weak, so that a submission does not keep its program alive.
    program: Weak<Inner>,
    in_flight: InFlight,
}

impl Launched {
    /// A caller that is about to wait has time to encode.
    fn encode_ahead(&self) {
        if let Some(program) = self.program.upgrade() {
            program.encode_ahead();
        }
    }
}

impl Pending for Launched {
    fn wait(&self) -> Result<()> {
        self.encode_ahead();
        self.in_flight.wait()
    }

    fn is_done(&self) -> bool {
        self.in_flight.is_done()
    }

    fn gpu_time(&self) -> Option<Duration> {
        self.in_flight.gpu_time()
    }

    fn take(&self, i: usize, out: &mut [u8]) -> Result<()> {
        self.encode_ahead();
        self.in_flight.take(i, out)
    }
}

#[cfg(test)]
mod tests;
