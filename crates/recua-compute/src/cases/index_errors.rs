//! Indexes in device buffers that are out of range: the pass fails with an error that names the op, and the device keeps working.

use super::data::{Matrix, output, upload_f32, upload_u32};
use super::{Measured, Report, run};
use crate::buffer::{Buffer, DType};
use crate::device::Device;
use crate::error::{Error, Result, argument};
use crate::kv::{KvPool, KvShape, KvType};
use crate::op::{Attention, INERT, RopeStore, RopeStyle, RowMap};
use crate::plan::{Plan, Record};
use crate::work::{RowRun, WorkList};
use recua_gguf::GgmlType;

pub(super) fn check(device: &Device, report: &mut Report) {
    report.case("embed", "a token out of range", || {
        let table = Matrix::random(GgmlType::F32, 5, 32, 1)?.upload(device)?;
        let tokens = upload_u32(device, &[0, 5, 1], &[3])?;
        let out = output(device, &[3, 32])?;
        refused(device, "embed", |plan| plan.embed(&table, &tokens, &out))
    });
    report.case("gather_rows", "a row out of range", || {
        let x = upload_f32(device, &[1.0; 40], &[5, 8])?;
        let indexes = upload_u32(device, &[0, 4, u32::MAX], &[3])?;
        let out = output(device, &[3, 8])?;
        refused(device, "gather_rows", |plan| plan.gather_rows(&x, &indexes, &out))
    });
    // Three pages, two sequences of two pages: positions and sequences of two rows, and the page table.
    for (what, positions, sequences, pages) in [
        ("a sequence", [0, 1], [0, 2], [0, 1, 2, 0]),
        ("a position", [0, 64], [0, 1], [0, 1, 2, 0]),
        ("a page", [0, 40], [0, 1], [0, 1, 2, 3]),
        ("a huge page", [0, 40], [0, 1], [0, 1, 2, u32::MAX]),
        ("a huge position", [0, u32::MAX], [0, 1], [0, 1, 2, 0]),
    ] {
        for op in ["rope_store", "attention"] {
            report.case(op, format!("{what} out of range"), || {
                cached(device, op, &positions, &sequences, &pages, 64)
            });
        }
    }
    report.case("rope_store", "a position beyond the table", || {
        cached(device, "rope_store", &[0, 33], &[0, 1], &[0, 1, 2, 0], 33)
    });
    report.case("attention", "an earlier page out of range", || {
        cached(device, "attention", &[0, 40], &[0, 1], &[0, 1, 9, 2], 64)
    });
    for (what, list) in [("read", [[0, 1], [3, 2]]), ("write", [[INERT, 9], [1, 3]])] {
        report.case("copy_pages", format!("a page to {what} out of range"), || {
            let cache = cache(device)?;
            let list = upload_u32(device, list.as_flattened(), &[2, 2])?;
            refused(device, "copy_pages", |plan| plan.copy_pages(&cache, &cache, &list))
        });
    }
}

/// Three pages of one head of 32.
fn cache(device: &Device) -> Result<KvPool> {
    device.alloc_kv(&KvShape { n_pages: 3, n_kv_heads: 1, head_dim: HEAD_DIM, kv_type: KvType::F16 })
}

const HEAD_DIM: usize = 32;

fn cached(
    device: &Device,
    op: &'static str,
    positions: &[u32],
    sequences: &[u32],
    pages: &[u32],
    table: usize,
) -> Result<Vec<Measured>> {
    let cache = cache(device)?;
    // A work list as if both rows began a sequence. The op has to find out where they really are.
    let alone = (0..2).map(|first_row| RowRun { first_row, n_rows: 1, start: 0 });
    let mut list = WorkList::new();
    let work = list.build(&device.tiling(cache.shape(), 1), 2, alone)?;
    let rows = RowMap {
        positions: upload_u32(device, positions, &[2])?,
        sequences: upload_u32(device, sequences, &[2])?,
        pages: upload_u32(device, pages, &[2, 2])?,
        work: upload_u32(device, work, &[work.len()])?,
    };
    let row = || -> Result<Buffer> { upload_f32(device, &[1.0; 2 * HEAD_DIM], &[2, HEAD_DIM]) };
    let (q, k, v, out) = (row()?, row()?, row()?, row()?);
    let table = device.alloc(DType::F32, &[table, HEAD_DIM / 2, 2])?;
    refused(device, op, |plan| match op {
        "attention" => plan.attention(Attention { q, rows, cache, scale: 1.0, out }),
        _ => {
            let style = RopeStyle::Interleaved;
            plan.rope_store(RopeStore { q, k, v, norm: None, table, style, rows, cache })
        }
    })
}

/// The plan must fail with an index error of `op`, and the device must work afterwards.
fn refused(
    device: &Device,
    op: &'static str,
    record: impl FnOnce(&mut Plan) -> Result<()>,
) -> Result<Vec<Measured>> {
    match run(device, record) {
        Err(Error::IndexOutOfRange { op: named, .. }) if named == op => {}
        Err(other) => {
            return Err(argument("cases", format!("an index error of {op} is needed, '{other}' came")));
        }
        Ok(()) => return Err(argument("cases", "nothing was refused")),
    }
    let x = upload_f32(device, &[1.0, 3.0, 2.0], &[1, 3])?;
    let best = upload_u32(device, &[9], &[1])?;
    run(device, |plan| plan.argmax(&x, &best))?;
    Ok(vec![Measured::exact("the pass after it", &device.read_vec::<u32>(&best)?, &[1])])
}
