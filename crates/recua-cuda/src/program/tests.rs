//! What a launch costs.

use super::*;
use crate::cache::Cache;
use crate::device::Cuda;
use crate::gpu::Gpu;
use recua_compute::{DType, Device, Record, cases};
use std::sync::atomic::Ordering;

#[test]
fn a_launch_is_a_graph_with_a_kernel_before_and_after_and_allocates_nothing() {
    let Some(gpu) = cases::opened_or_skipped("cuda", Gpu::open(0)) else { return };
    let shared = Arc::new(Shared::new(gpu, Cache::of_user()).unwrap());
    let device = Device::new(Cuda { shared: shared.clone() });
    let buffers: Vec<Buffer> = (0..11).map(|_| device.alloc(DType::U32, &[64]).unwrap()).collect();
    let mut plan = device.plan();
    buffers.windows(2).for_each(|pair| plan.copy(&pair[0], &pair[1]).unwrap());
    let program = device.compile(&plan).unwrap();
    let n_submissions = || shared.gpu.n_submissions.load(Ordering::Relaxed);
    let n_made = || shared.stagings.n_made.load(Ordering::Relaxed);
    let (allocated, mut made) = (device.allocated_bytes(), 0);
    for launch in 0..8u32 {
        let before = n_submissions();
        let (first, values) = (&buffers[0], [launch; 64]);
        let inputs = [Input::new(first, &values).unwrap(), Input::new(first, &values[..3]).unwrap()];
        let submission = program.launch(&inputs, &[buffers[10].clone(), buffers[3].clone()]).unwrap();
        let mut found = [0u32; 64];
        for i in 0..2 {
            submission.take(i, &mut found).unwrap();
            assert_eq!(found, values, "output {i}");
        }
        // The first launch submits the ten copies, the others their graph.
        assert_eq!(n_submissions() - before, if launch == 0 { 12 } else { 3 }, "launch {launch}");
        if launch == 1 {
            made = n_made();
        }
    }
    assert_eq!(device.allocated_bytes(), allocated);
    assert_eq!(n_made(), made, "staging is used again");
    let gone = Arc::downgrade(&shared);
    drop((device, shared, buffers, plan));
    assert!(gone.upgrade().is_some(), "the program keeps the device");
    drop(program);
    assert!(gone.upgrade().is_none(), "something else keeps the device");
}
