//! [`CudaProgram`]: a plan made ready. Its kernels are compiled when it is made. The first launch submits them one by one, because many a
//! program runs once, as a prompt of any length does; the second makes a graph of them, which then is launched as one.

use crate::bundle::Bundle;
use crate::context::lock;
use crate::handles::Graph;
use crate::lower::lower;
use crate::shared::Shared;
use crate::submission::InFlight;
use recua_compute::{Buffer, Compiled, Input, Plan, Result, Submission};
use std::fmt;
use std::sync::{Arc, Mutex};

/// Launches from which on a graph costs less than the launches themselves.
const GRAPH_MIN: usize = 4;

/// A program.
pub(crate) struct CudaProgram {
    shared: Arc<Shared>,
    bundle: Bundle,
    graph: Mutex<State>,
    /// Has the buffers and weights that the launches name.
    #[allow(dead_code, reason = "held to be dropped")]
    plan: Plan,
}

/// How far it is.
enum State {
    New,
    Launched,
    Ready(Graph),
}

impl CudaProgram {
    /// Lowers a plan, compiles kernels and allocates workspaces.
    pub(crate) fn new(shared: &Arc<Shared>, plan: &Plan) -> Result<CudaProgram> {
        let bundle = Bundle::new(shared, lower(shared, plan.ops())?)?;
        Ok(CudaProgram { shared: shared.clone(), bundle, graph: Mutex::new(State::New), plan: plan.clone() })
    }

    fn submit(&self) -> Result<()> {
        let gpu = &self.shared.gpu;
        let mut state = lock(&self.graph);
        if let State::Launched = *state
            && self.bundle.launches.list.len() >= GRAPH_MIN
        {
            // SAFETY: as below; nothing runs yet.
            let record = |stream| unsafe { self.bundle.submit(gpu, stream) };
            *state = State::Ready(Graph::capture(&gpu.context, record)?);
        }
        // SAFETY: the plan and the launches hold what the launches name. When the program is dropped, its memory is freed in the order
        // of the stream, behind what is submitted here.
        unsafe {
            match &*state {
                State::Ready(graph) => {
                    gpu.count();
                    graph.launch()
                }
                State::New | State::Launched => {
                    self.bundle.submit(gpu, gpu.context.stream())?;
                    *state = State::Launched;
                    Ok(())
                }
            }
        }
    }
}

impl Compiled for CudaProgram {
    fn launch(&self, inputs: &[Input<'_>], outputs: &[Buffer]) -> Result<Submission> {
        let uses_status = self.bundle.launches.uses_status;
        InFlight::start(&self.shared, inputs, outputs, uses_status, || self.submit()).map(Submission::new)
    }
}

impl fmt::Display for CudaProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bundle.launches)
    }
}

#[cfg(test)]
mod tests;
