//! What can go wrong on a device. The messages say what would work.

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
    /// A buffer or weight belongs to another device.
    #[error("{op}: {what} belongs to another device")]
    WrongDevice {
        /// The op or the method.
        op: &'static str,
        /// Which argument.
        what: &'static str,
    },
    /// A buffer holds elements of another type.
    #[error("{op}: {what} holds {found}, {expected} is needed")]
    WrongType {
        /// The op or the method.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// The type that it holds.
        found: DType,
        /// The type that is needed.
        expected: DType,
    },
    /// Memory could not be allocated.
    #[error("{device}: cannot allocate {} for {what}", amount(*requested_bytes))]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// What the memory was for, and the device's own message, if there is one.
        what: String,
        /// How many bytes were requested; 0 if only the driver knows, as for a list of commands.
        requested_bytes: usize,
    },
    /// Threads cannot be started.
    #[error("{device}: {n_threads} threads cannot be started: {source}; fewer may work")]
    Threads {
        /// The device's name.
        device: &'static str,
        /// How many were wanted.
        n_threads: usize,
        /// The system's error.
        source: std::io::Error,
    },
    /// The blocks of a weight cannot be read.
    #[error(transparent)]
    File(recua_gguf::Error),
    /// The device has no kernel for this type of weight.
    #[error("{device}: no kernel for weights of type {ty}")]
    UnsupportedType {
        /// The device's name.
        device: String,
        /// The weight's type.
        ty: GgmlType,
    },
    /// No kernel is registered under this name.
    #[error("kernel '{name}' is not registered")]
    KernelNotFound {
        /// The requested name.
        name: String,
    },
    /// The source of a kernel is not in the device's language, or does not compile.
    #[error("kernel '{name}' does not compile on {device}: {message}")]
    KernelCompile {
        /// The kernel's name.
        name: String,
        /// The device's name.
        device: String,
        /// The compiler's message.
        message: String,
    },
    /// A kernel failed while running.
    #[error("kernel '{name}' failed: {message}")]
    KernelRun {
        /// The kernel's name.
        name: String,
        /// The message that it reported.
        message: String,
    },
    /// An index in a device buffer is out of range.
    #[error("{op}: {what} {index} is out of range, the limit is {limit}")]
    IndexOutOfRange {
        /// The op.
        op: &'static str,
        /// What the index refers to.
        what: &'static str,
        /// The index.
        index: u64,
        /// The first index that is too large.
        limit: u64,
    },
    /// The worker thread has ended.
    #[error("the encoder worker has been shut down")]
    WorkerShutDown,
    /// This machine has no such device, or none that is suitable.
    #[error("{device}: {problem}")]
    DeviceNotFound {
        /// The kind of device.
        device: String,
        /// What was requested, what there is, and why that is not suitable.
        problem: String,
    },
    /// The device was lost (a driver reset, a removed card, a panic inside a kernel).
    #[error("{device} is lost: {message}")]
    DeviceLost {
        /// The device's name.
        device: String,
        /// What is known.
        message: String,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn amount(bytes: usize) -> String {
    if bytes == 0 { "memory".into() } else { format!("{bytes} bytes") }
}

pub(crate) fn argument(op: &'static str, problem: impl Into<String>) -> Error {
    Error::Argument { op, problem: problem.into() }
}
