//! What kernels report, put in by the host.

use super::*;
use crate::cache::Cache;
use crate::device::Cuda;
use crate::gpu::Gpu;
use recua_compute::{DType, Device, cases};

#[test]
fn a_report_comes_with_its_own_submission_and_no_other() {
    let Some(gpu) = cases::opened_or_skipped("cuda", Gpu::open(0)) else { return };
    let shared = Arc::new(Shared::new(gpu, Cache::of_user()).unwrap());
    let device = Device::new(Cuda { shared: shared.clone() });
    // More outputs than one kernel brings back.
    let outputs: Vec<Buffer> =
        (0..40u32).map(|i| device.upload(&[i; 3], DType::U32, &[3]).unwrap()).collect();
    let start = |words: [u32; 4]| {
        let report = || shared.upload(&shared.status, 0, bytemuck::bytes_of(&words));
        InFlight::start(&shared, &[], &outputs, true, report).unwrap()
    };
    for _ in 0..3 {
        let (found, next) = (start([1, 7, 5, 0]), start([0; 4]));
        next.wait().unwrap();
        for result in [found.wait(), found.take(39, &mut [0; 12]), found.wait()] {
            let is_it = matches!(
                result,
                Err(Error::IndexOutOfRange { op: "embed", what: "token", index: 7, limit: 5 })
            );
            assert!(is_it, "{result:?}");
        }
        let mut last = [0u32; 3];
        next.take(39, bytemuck::bytes_of_mut(&mut last)).unwrap();
        assert_eq!(last, [39; 3]);
        // One that nothing clears but the submission that brought it.
        let clean = InFlight::start(&shared, &[], &[], true, || Ok(())).unwrap();
        clean.wait().unwrap();
        // Nobody waits: the next read says it, once.
        drop((found, start([8, 3, 2, 0])));
        let mut out = [0u8; 12];
        assert!(matches!(read(&shared, &outputs[0], &mut out), Err(Error::IndexOutOfRange { index: 3, .. })));
        read(&shared, &outputs[0], &mut out).unwrap();
    }
}
