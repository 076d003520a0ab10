//! [`Bundle`]: launches with their kernels compiled, ready to be submitted as often as one likes.

use crate::context::lock;
use crate::function::{Dims, Function};
use crate::gpu::Gpu;
use crate::kernels::KernelKey;
use crate::launch::{Kernel, Launch, Launches};
use crate::shared::Shared;
use cudarc::driver::sys::CUstream;
use recua_compute::{Error, Result};
use std::sync::Arc;

/// Launches that can be submitted.
pub(crate) struct Bundle {
    pub(crate) launches: Launches,
    functions: Vec<Arc<Function>>,
}

impl Bundle {
    /// Compiles the kernels that are not yet, side by side, and checks that the launches are what they take.
    pub(crate) fn new(shared: &Shared, launches: Launches) -> Result<Bundle> {
        let key = |launch: &Launch| match &launch.kernel {
            Kernel::Ours(key) => Some(key.clone()),
            Kernel::Theirs(..) => None,
        };
        let keys: Vec<KernelKey> = launches.list.iter().filter_map(key).collect();
        shared.kernels.prepare(&shared.gpu, &keys)?;
        let function = |launch: &Launch| {
            let function = match &launch.kernel {
                Kernel::Ours(key) => shared.kernels.get(&shared.gpu, key)?,
                Kernel::Theirs(_, function) => function.clone(),
            };
            check(launch, &function).map(|()| function)
        };
        let functions = launches.list.iter().map(function).collect::<Result<_>>()?;
        Ok(Bundle { launches, functions })
    }

    /// Submits all of it to a stream, in order.
    ///
    /// # Safety
    /// The memory that the launches name is held by the caller, and until they are done only freed in the order of the device's stream.
    pub(crate) unsafe fn submit(&self, gpu: &Gpu, stream: CUstream) -> Result<()> {
        let is_captured = stream != gpu.context.stream();
        for (i, (launch, function)) in self.launches.list.iter().zip(&self.functions).enumerate() {
            let Launch { op, grid, block, shared_bytes, is_dependent, ref params, .. } = *launch;
            // The first waits for what comes before it, so that the others may read inputs whenever they begin.
            let is_dependent = is_dependent && i > 0 && gpu.has_dependent_launch();
            if !is_captured {
                gpu.count();
            }
            // SAFETY: the caller's; that the kernels stay inside what the launches name is what they are written and tested for.
            unsafe {
                function.launch(stream, &Dims { grid, block, shared_bytes, is_dependent }, params, op)?
            };
        }
        Ok(())
    }
}

/// Submits launches once, in order, and does not wait. What kernels report is not brought back.
pub(crate) fn run(shared: &Shared, launches: Launches) -> Result<()> {
    let bundle = Bundle::new(shared, launches)?;
    let _order = lock(&shared.order);
    // SAFETY: whoever made the launches holds the memory that they name in this call; after it, freeing is ordered behind them.
    unsafe { bundle.submit(&shared.gpu, shared.gpu.context.stream()) }
}

/// Fails unless the kernel takes these parameters, and so many threads and so much shared memory.
fn check(launch: &Launch, function: &Function) -> Result<()> {
    let Launch { ref kernel, block, shared_bytes, ref params, .. } = *launch;
    let is_ours = matches!(kernel, Kernel::Ours(_));
    let problem = if params.len() != function.params_bytes() || is_ours && function.params.len() != 1 {
        format!(
            "{} bytes for {} parameters of {} bytes",
            params.len(),
            function.params.len(),
            function.params_bytes()
        )
    } else if block > function.block_max {
        format!("blocks of {block} threads, the kernel's registers allow {}", function.block_max)
    } else if shared_bytes as usize > function.shared_bytes_max {
        format!("{shared_bytes} bytes of shared memory, {} are left to it", function.shared_bytes_max)
    } else {
        return Ok(());
    };
    Err(Error::Argument { op: "dispatch", problem: format!("{kernel}: {problem}") })
}
