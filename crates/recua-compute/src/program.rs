//! [`Program`], a plan made ready, and [`Input`], which a launch uploads.

use crate::backend::Compiled;
use crate::buffer::{Buffer, DeviceId};
use crate::error::{Error, Result};
use crate::submission::Submission;
use bytemuck::Pod;
use std::fmt;
use std::sync::Arc;

/// A plan made ready by [`crate::Device::compile`]. Until it and its clones are dropped, it keeps the plan's buffers and weights alive, and
/// what the device allocated for it. A clone is the same program.
#[derive(Clone)]
pub struct Program {
    device: DeviceId,
    inner: Arc<dyn Compiled>,
}

impl Program {
    pub(crate) fn new(device: DeviceId, inner: Arc<dyn Compiled>) -> Program {
        Program { device, inner }
    }

    /// Queues three things as one submission: upload `inputs`, run, copy `outputs` to the host, where [`Submission::take`] finds them by
    /// index. Returns immediately on a device that runs asynchronously. Whatever is submitted later takes effect later.
    ///
    /// # Errors
    /// If a buffer belongs to another device, or the device is lost; also if the run fails, on a device that runs in this call.
    pub fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission> {
        let (op, device) = ("launch", self.device);
        if inputs.iter().any(|input| input.buffer.device() != device) {
            return Err(Error::WrongDevice { op, what: "an input" });
        }
        if outputs.iter().any(|output| output.device() != device) {
            return Err(Error::WrongDevice { op, what: "an output" });
        }
        self.inner.launch(inputs, outputs)
    }
}

/// What a launch runs, one line each: the plan's ops, or a GPU's dispatches.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Values for the start of a buffer.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    buffer: &'a Buffer,
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// `values` for the start of `buffer`.
    ///
    /// # Errors
    /// If they do not fit, or their size is not that of the buffer's elements.
    pub fn new<T: Pod>(buffer: &'a Buffer, values: &'a [T]) -> Result<Input<'a>> {
        buffer.check_bytes("launch", size_of_val(values), size_of::<T>())?;
        Ok(Input { buffer, bytes: bytemuck::cast_slice(values) })
    }

    /// Where the bytes go.
    pub fn buffer(&self) -> &'a Buffer {
        self.buffer
    }

    /// The bytes, no more than the buffer holds.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
