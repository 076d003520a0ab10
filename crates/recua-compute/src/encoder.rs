//! Driving a device by hand: [`CommandEncoder`] records ops and hand-written kernels, [`Commands`] is what it finishes into.

use crate::backend::{Backend, Encode};
use crate::buffer::{Buffer, DeviceId};
use crate::error::{Error, Result, argument};
use crate::kernel::{Kernel, KernelArg};
use crate::op::{Matmul, Op};
use crate::plan::Record;
use crate::submission::Submission;
use crate::weight::Weight;
use recua_gguf::GgmlType;
use std::any::Any;
use std::sync::Arc;

/// Records work for one device. Dropping it discards the work.
pub struct CommandEncoder {
    backend: Arc<dyn Backend>,
    inner: Box<dyn Encode>,
}

impl CommandEncoder {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Result<CommandEncoder> {
        Ok(CommandEncoder { inner: backend.encoder()?, backend })
    }

    /// `y = x · wᵀ`, with the dimensions repeated as a check: `x` f32 `[m, k]`, `w` `[n, k]` of `ggml_type`, `y` f32 `[m, n]`. Buffers may
    /// be larger; only their first elements are used.
    ///
    /// # Errors
    /// If the dimensions or the type are not those of `w` or a buffer is too small, and as [`Op::check`].
    pub fn quantized_matmul(
        &mut self,
        x: &Buffer,
        w: &Weight,
        y: &Buffer,
        params: &QuantizedMatmulParams,
    ) -> Result<()> {
        const NAME: &str = "quantized_matmul";
        let QuantizedMatmulParams { m, n, k, ggml_type } = *params;
        if w.ggml_type() != Some(ggml_type) || (w.n(), w.k()) != (n, k) {
            return Err(argument(NAME, format!("{ggml_type}[{n}, {k}] was requested, the weight is {w:?}")));
        }
        let matrix = |what: &str, buffer: &Buffer, n_cols| {
            let small = |_| argument(NAME, format!("{what} {buffer:?} does not hold [{m}, {n_cols}]"));
            buffer.view(0, &[m, n_cols]).map_err(small)
        };
        let (x, out) = (matrix("x", x, k)?, matrix("y", y, n)?);
        let op = Op::Matmul(Matmul::new(&x, w, &out));
        op.check_as(NAME, self.backend.id())?;
        self.inner.op(&op)
    }

    /// Appends a dispatch of `groups` workgroups of a hand-written kernel; [`crate::KernelSource`] says how the kernel receives `args`. It
    /// sees everything that what was recorded before it has written.
    ///
    /// # Errors
    /// If the kernel or a buffer belongs to another device, a written buffer overlaps another argument, or `args` are not what the kernel
    /// declares.
    pub fn dispatch(&mut self, kernel: &Kernel, groups: [u32; 3], args: &[KernelArg<'_>]) -> Result<()> {
        let op = "dispatch";
        if kernel.device() != self.backend.id() {
            return Err(Error::WrongDevice { op, what: "the kernel" });
        }
        for (i, arg) in args.iter().enumerate() {
            let Some(buffer) = arg.buffer() else { continue };
            if buffer.device() != self.backend.id() {
                return Err(Error::WrongDevice { op, what: "a buffer" });
            }
            if !buffer.is_contiguous() {
                let problem = format!(
                    "kernel '{}': argument {i}, {buffer:?}, are columns of a wider matrix",
                    kernel.name()
                );
                return Err(argument(op, problem));
            }
            let overlap = |other: &KernelArg<'_>| {
                (arg.is_written() || other.is_written())
                    && other.buffer().is_some_and(|other| other.overlaps(buffer))
            };
            if args[..i].iter().any(overlap) {
                let problem = format!("kernel '{}': a written buffer overlaps argument {i}", kernel.name());
                return Err(argument(op, problem));
            }
        }
        self.inner.dispatch(kernel, groups, args)
    }

    /// Ends the recording; [`crate::Device::submit`] runs it.
    ///
    /// # Errors
    /// If the device cannot encode what was recorded.
    pub fn finish(self) -> Result<Commands> {
        Ok(Commands { device: self.backend.id(), inner: self.inner.finish()? })
    }

    /// Ends the recording and starts it.
    ///
    /// # Errors
    /// As [`CommandEncoder::finish`] and [`crate::Device::submit`].
    pub fn commit(self) -> Result<Submission> {
        let commands = self.inner.finish()?;
        self.backend.submit(vec![commands])
    }

    /// Ends the recording, starts it and waits. An empty recording is fine.
    ///
    /// # Errors
    /// As [`CommandEncoder::commit`] and [`Submission::wait`].
    pub fn commit_and_wait(self) -> Result<()> {
        self.commit()?.wait()
    }
}

impl Record for CommandEncoder {
    fn push(&mut self, op: Op) -> Result<()> {
        op.check(self.backend.id())?;
        self.inner.op(&op)
    }
}

/// The dimensions of [`CommandEncoder::quantized_matmul`].
#[derive(Clone, Copy, Debug)]
pub struct QuantizedMatmulParams {
    /// Rows of the input and the output.
    pub m: usize,
    /// Rows of the weight, columns of the output.
    pub n: usize,
    /// Columns of the input and the weight.
    pub k: usize,
    /// The type of the weight's blocks.
    pub ggml_type: GgmlType,
}

/// A finished recording.
pub struct Commands {
    pub(crate) device: DeviceId,
    pub(crate) inner: Box<dyn Any + Send>,
}
