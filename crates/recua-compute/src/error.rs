//! What can go wrong on a device, said so that the caller knows what would work.

use crate::DType;
use recua_gguf::GgmlType;

/// An error of a device, a plan or a kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of `op` does not fit the others.
    #[error("{op}: {problem}")]
    Argument {
        /// The op or the method.
        op: &'static str,
        /// What does not fit, with both figures.
        problem: String,
    },
    /// A buffer or weight of another device was handed in.
    #[error("{op}: {what} belongs to another device")]
    WrongDevice {
        /// The op or the method.
        op: &'static str,
        /// Which argument.
        what: &'static str,
    },
    /// The buffer holds another type of element.
    #[error("{op}: {what} holds {found}, {expected} is needed")]
    WrongType {
        /// The op or the method.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// What it holds.
        found: DType,
        /// What is needed.
        expected: DType,
    },
    /// Memory could not be had.
    #[error("{device}: cannot allocate {} for {what}", amount(*requested_bytes))]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// What the memory was for, and the device's own words, if it has any.
        what: String,
        /// How many bytes were asked for; 0 where only the driver knows, as of a list of commands.
        requested_bytes: usize,
    },
    /// The device has no kernel for this type of weight.
    #[error("{device}: no kernel for weights of type {ty}")]
    UnsupportedType {
        /// The device's name.
        device: String,
        /// The weight's type.
        ty: GgmlType,
    },
    /// A kernel name nobody registered.
    #[error("kernel '{name}' is not registered")]
    KernelNotFound {
        /// The name asked for.
        name: String,
    },
    /// A kernel source that the device cannot run or that does not compile.
    #[error("kernel '{name}' does not compile on {device}: {message}")]
    KernelCompile {
        /// The kernel's name.
        name: String,
        /// The device's name.
        device: String,
        /// The compiler's words.
        message: String,
    },
    /// A kernel failed while it ran.
    #[error("kernel '{name}' failed: {message}")]
    KernelRun {
        /// The kernel's name.
        name: String,
        /// What it reported.
        message: String,
    },
    /// An index in a device buffer points outside what it indexes.
    #[error("{op}: {what} {index} is out of range, the limit is {limit}")]
    IndexOutOfRange {
        /// The op.
        op: &'static str,
        /// What the index names.
        what: &'static str,
        /// The index found.
        index: u64,
        /// The first index that is too large.
        limit: u64,
    },
    /// The worker thread has ended.
    #[error("the encoder worker has been shut down")]
    WorkerShutDown,
    /// This machine has no such device, or none that will do.
    #[error("{device}: {problem}")]
    DeviceNotFound {
        /// The kind of device.
        device: String,
        /// What was asked for, what there is, and why that will not do.
        problem: String,
    },
    /// The device is gone (a driver reset, a removed card, a panic inside a kernel).
    #[error("{device} is lost: {message}")]
    DeviceLost {
        /// The device's name.
        device: String,
        /// What is known.
        message: String,
    },
}

/// The result of device calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn amount(bytes: usize) -> String {
    if bytes == 0 { "memory".into() } else { format!("{bytes} bytes") }
}

pub(crate) fn argument(op: &'static str, problem: impl Into<String>) -> Error {
    Error::Argument { op, problem: problem.into() }
}
