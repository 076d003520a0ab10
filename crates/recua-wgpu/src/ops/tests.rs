//! Attention by cooperative matrices, on an adapter that has none; over caches of several allocations; and what it costs.

use crate::adapter::{self, Options};
use crate::gpu::Gpu;
use crate::matmul::tests::opened_with;
use crate::record::Recording;
use crate::run::Wgpu;
use crate::tuning::Tuning;
use recua_compute::{
    Attention, DType, Device, HEADER_WORDS, KvShape, KvType, PAGE_TOKENS, Plan, Record, RowMap, cases,
};
use std::sync::Arc;

fn check_attention(tuning: Tuning) {
    let Some(device) = opened_with(tuning) else { return };
    let report = cases::check_attention(device);
    println!("{report}");
    report.assert();
}

#[test]
fn attention_by_cooperative_matrices_has_its_indexes_right() {
    check_attention(Tuning { emulated: true, ..Tuning::default() });
}

#[test]
fn matrices_may_lie_in_several_allocations() {
    check_attention(Tuning { emulated: true, kv_allocations: 2, ..Tuning::default() });
}

fn opened() -> Option<(Device, Arc<Gpu>)> {
    let options = Options { allow_software: true, ..Options::default() };
    let wgpu =
        Wgpu::new(cases::opened_or_skipped("wgpu", adapter::open(&options))?, Tuning::default()).unwrap();
    let gpu = wgpu.gpu().clone();
    Some((Device::new(wgpu), gpu))
}

const SHAPE: KvShape = KvShape { n_pages: 4, n_kv_heads: 2, head_dim: 64, kv_type: KvType::F16 };

/// Attention of `n_rows` rows whose sequences could have `max_seq_len` tokens.
fn plan(device: &Device, n_rows: usize, max_seq_len: usize) -> Plan {
    let u32s = |shape: &[usize]| device.alloc(DType::U32, shape).unwrap();
    let q = || device.alloc(DType::F32, &[n_rows, 8 * 64]).unwrap();
    let rows = RowMap {
        positions: u32s(&[n_rows]),
        sequences: u32s(&[n_rows]),
        pages: u32s(&[n_rows, max_seq_len / PAGE_TOKENS]),
        work: u32s(&[HEADER_WORDS]),
    };
    let cache = device.alloc_kv(&SHAPE).unwrap();
    let mut plan = device.plan();
    plan.attention(Attention { q: q(), rows, cache, scale: 1.0, out: q() }).unwrap();
    plan
}

/// Neither the workgroups nor the scratch of a decode step follow the lengths that there could be.
#[test]
fn attention_does_not_depend_on_the_longest_sequence_there_could_be() {
    let cost = |max_seq_len: usize| -> Option<Vec<(Vec<[u32; 3]>, u64)>> {
        let (device, gpu) = opened()?;
        let recorded = [1, 15, 64, 512].map(|n_rows| {
            let plan = plan(&device, n_rows, max_seq_len);
            let before = device.allocated_bytes();
            let recording: Recording = gpu.record(plan.ops(), 0..1).unwrap();
            let groups = recording.steps.iter().map(|step| step.groups).collect();
            (groups, device.allocated_bytes() - before)
        });
        Some(recorded.into())
    };
    let Some(short) = cost(1024) else { return };
    assert_eq!(short, cost(131_072).unwrap());
    assert!(short[0].1 > 0 && short[1..].iter().all(|(_, bytes)| *bytes == 0), "{short:?}");
}

#[test]
fn a_cache_that_fits_no_allocations_is_refused_with_what_fits() {
    let Some((device, gpu)) = opened() else { return };
    let limit = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size) as usize;
    let page_bytes = SHAPE.page_bytes().unwrap();
    let fits = limit / page_bytes * 4;
    let refused = device.alloc_kv(&KvShape { n_pages: fits + 1, ..SHAPE }).unwrap_err().to_string();
    assert!(refused.ends_with(&format!("{fits} pages fit")), "{refused}");
}
