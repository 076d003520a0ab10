//! A hand-written kernel: its source, its compiled form, and the arguments of a dispatch. [`crate::KernelRegistry`] compiles and keeps
//! kernels.

use crate::buffer::{Buffer, DeviceId};
use std::any::Any;
use std::sync::Arc;

/// A kernel's source, in the language of the device that is to run it. If the language is not the device's, or the source does not compile,
/// [`crate::KernelRegistry::get`] fails; if an argument does not fit what the source declares, [`crate::CommandEncoder::dispatch`] does. Both
/// errors name the kernel.
#[derive(Clone)]
pub enum KernelSource {
    /// For wgpu devices.
    ///
    /// * **Entry point:** the `@compute` function with the kernel's name, or the only one. `@workgroup_size` is the kernel's own;
    ///   a dispatch gives the number of workgroups, in up to three dimensions.
    /// * **Buffers:** the i-th buffer among the arguments, counted from 0 and without [`KernelArg::Bytes`], is `@group(0) @binding(i)`;
    ///   no number is skipped. `var<storage, read>` is read; `var<storage, read_write>` is written and takes [`KernelArg::Write`].
    ///   No other address space has bindings: no uniforms, textures or samplers. A view must begin at a multiple of the adapter's
    ///   alignment, which is at most 256 bytes (new buffers do), and must be large enough for the declared type. `arrayLength` counts
    ///   the elements of the view, its bytes rounded up to a multiple of four.
    /// * **Bytes:** all [`KernelArg::Bytes`], one after the other, fill the only `var<immediate>`; together they must have exactly its
    ///   size, at most 128 bytes.
    /// * **Constants:** `override NAME` is set by name.
    /// * **An input in the same allocation as an output** (two views of one buffer that do not overlap) must be declared in exactly this
    ///   form, spaces included: `@binding(1) var<storage, read>`. The device then declares it `read_write`, because WebGPU allows an
    ///   allocation only one usage in a dispatch.
    /// * **Indexes** are checked: a read outside a binding gives some element of it or zero, a write outside it has no effect. Workgroup
    ///   memory starts as zero.
    ///
    /// ```wgsl
    /// @group(0) @binding(0) var<storage, read> x: array<f32>;
    /// @group(0) @binding(1) var<storage, read_write> y: array<f32>;
    /// struct Args { n: u32, factor: f32 }
    /// var<immediate> args: Args;
    /// override ADDED: f32 = 0.0;
    ///
    /// @compute @workgroup_size(64)
    /// fn scale(@builtin(global_invocation_id) id: vec3<u32>) {
    ///     if id.x < args.n {
    ///         y[id.x] = x[id.x] * args.factor + ADDED;
    ///     }
    /// }
    /// ```
    Wgsl(String),
    /// CUDA C++ for CUDA devices, compiled for the card by NVRTC (C++17), which finds no header: what the compiler has built in is there.
    ///
    /// * **Entry point:** the `extern "C" __global__` function that is named as the kernel, or the only `__global__` function. A dispatch
    ///   says how many blocks run, in up to three dimensions.
    /// * **Arguments:** each argument of the dispatch is a parameter of the kernel, in order: a buffer is a pointer to its first element,
    ///   [`KernelArg::Bytes`] one parameter by value, such as a structure, which must have exactly that size.
    /// * **Constants** are macros: a whole number as such, any other as a `double`.
    /// * **Threads of a block:** the constant `BLOCK_SIZE`, 256 if it is not given; the macro is there in any case.
    /// * Nothing is checked, neither indexes nor alignment nor what is behind [`KernelArg::Read`]: a wrong access may lose the device, or
    ///   change other memory of the process. Shared memory begins as anything.
    ///
    /// ```cuda
    /// struct Args { unsigned n; float factor; };
    ///
    /// extern "C" __global__ void scale(const float* x, float* y, Args args) {
    ///     unsigned i = blockIdx.x * BLOCK_SIZE + threadIdx.x;
    ///     if (i < args.n) y[i] = x[i] * args.factor + ADDED;
    /// }
    /// ```
    CudaC(String),
    /// For the CPU device; see [`RustKernel`].
    Rust(RustKernel),
}

/// A kernel of the CPU device. It is called once per dispatch, on one thread, while nothing else runs on the device; what workgroups mean,
/// and whether to start threads, is up to the kernel. The arguments come in the order of the dispatch. A buffer comes as the bytes of its
/// view, aligned to its elements, so that `bytemuck::cast_slice` gives them. An error or a panic ends the submission with
/// [`crate::Error::KernelRun`].
pub type RustKernel = Arc<dyn Fn(&mut KernelCall<'_>) -> std::result::Result<(), String> + Send + Sync>;

/// What a [`RustKernel`] is called with.
pub struct KernelCall<'a> {
    /// The number of workgroups in each dimension.
    pub groups: [u32; 3],
    /// The arguments in order.
    pub args: Vec<CallArg<'a>>,
    /// The specialization constants, as they were given to [`crate::KernelRegistry::get`].
    pub constants: &'a [(String, f64)],
}

/// An argument as a [`RustKernel`] sees it.
pub enum CallArg<'a> {
    /// A buffer that is only read.
    Read(&'a [u8]),
    /// A buffer that is written.
    Write(&'a mut [u8]),
    /// Immediate bytes.
    Bytes(&'a [u8]),
}

/// An argument of a dispatch.
#[derive(Clone, Copy)]
pub enum KernelArg<'a> {
    /// A buffer that the kernel only reads.
    Read(&'a Buffer),
    /// A buffer that the kernel writes, or reads and writes. It must not overlap another argument.
    Write(&'a Buffer),
    /// Immediate bytes, such as a small struct of sizes. Copied.
    Bytes(&'a [u8]),
}

impl<'a> KernelArg<'a> {
    /// The buffer, unless the argument is immediate bytes.
    pub fn buffer(&self) -> Option<&'a Buffer> {
        match self {
            KernelArg::Read(buffer) | KernelArg::Write(buffer) => Some(buffer),
            KernelArg::Bytes(_) => None,
        }
    }

    /// Whether the kernel may write it.
    pub fn is_written(&self) -> bool {
        matches!(self, KernelArg::Write(_))
    }
}

/// A compiled kernel of one device. Cheap to clone.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) name: Arc<str>,
    pub(crate) device: DeviceId,
    pub(crate) compiled: Arc<dyn Any + Send + Sync>,
}

impl Kernel {
    /// The registered name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device it was compiled for.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The compiled kernel as the device's own type.
    pub fn compiled_as<T: Any>(&self) -> Option<&T> {
        self.compiled.downcast_ref()
    }
}
