//! A row's bits do not depend on the rows beside it: alone, in batches, among many, shuffled.

use super::attention::{self, Row, World};
use super::data::{Matrix, Random, output, types, upload_f32, upload_glu};
use super::{Measured, Report, run};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Result;
use crate::op::{Activation, Matmul};
use crate::plan::Record;
use crate::weight::Arrange;
use recua_gguf::GgmlType;
use std::collections::HashMap;

/// Enough rows for every kernel that a device may have for small and large batches.
const N_ROWS: usize = 133;

const BATCHES: [usize; 10] = [1, 2, 3, 5, 8, 16, 17, 33, 64, 100];

pub(super) fn check(device: &Device, report: &mut Report) {
    for ty in types() {
        for k in widths(ty) {
            let n = 37;
            report.case("matmul", format!("{ty}[{n}, {k}]"), || {
                let (a, b) = (Matrix::random(ty, n, k, 1)?, Matrix::random(ty, n + 20, k, 2)?);
                let weight = device.upload_weight(&[a.raw(), b.raw()], Arrange::Stacked)?;
                by_rows(device, k, &[weight.n()], |plan, x, out| {
                    plan.matmul(Matmul::new(x, &weight, &out[0]))
                })
            });
            report.case("matmul_glu", format!("{ty}[{n}, {k}]"), || {
                let weight =
                    upload_glu(device, &Matrix::random(ty, n, k, 1)?, &Matrix::random(ty, n, k, 2)?)?;
                by_rows(device, k, &[n], |plan, x, out| {
                    plan.matmul_glu(x, &weight, Activation::Silu, &out[0])
                })
            });
        }
    }
    for dim in [64, 100, 2048] {
        report.case("rms_norm", format!("[.., {dim}]"), || {
            let weight = upload_f32(device, &Random::new(3).f32s(dim), &[dim])?;
            by_rows(device, dim, &[dim], |plan, x, out| plan.rms_norm(x, &weight, &out[0], 1e-5))
        });
    }
    check_attention(device, report);
}

pub(super) fn check_attention(device: &Device, report: &mut Report) {
    for layer in attention::layers() {
        report.case("attention", format!("{layer:?}"), || cuts(device, layer));
    }
}

/// Few columns, and enough that a device may sum them in several slices of unequal length. A software adapter would take minutes for more.
fn widths(ty: GgmlType) -> [usize; 2] {
    match ty.block_values() {
        1 => [100, 576],
        256 => [256, 768],
        _ => [96, 800],
    }
}

/// Runs an op over all rows, and again in batches of every size and in random order, and counts the rows that differ.
fn by_rows(
    device: &Device,
    k: usize,
    widths: &[usize],
    record: impl Fn(&mut crate::plan::Plan, &Buffer, &[Buffer]) -> Result<()>,
) -> Result<Vec<Measured>> {
    let x = Random::new(7).f32s(N_ROWS * k);
    // The results of `order`'s rows, each output one after the other.
    let pass = |order: &[usize]| -> Result<Vec<Vec<u32>>> {
        let values: Vec<f32> = order.iter().flat_map(|&row| x[row * k..][..k].iter().copied()).collect();
        let x = upload_f32(device, &values, &[order.len(), k])?;
        let out: Vec<Buffer> =
            widths.iter().map(|&n| output(device, &[order.len(), n])).collect::<Result<_>>()?;
        run(device, |plan| record(plan, &x, &out))?;
        let mut rows = vec![Vec::new(); order.len()];
        for (out, &n) in out.iter().zip(widths) {
            let values = device.read_vec::<f32>(out)?;
            for (row, values) in rows.iter_mut().zip(values.chunks_exact(n)) {
                row.extend(values.iter().map(|x| x.to_bits()));
            }
        }
        Ok(rows)
    };
    let order: Vec<usize> = (0..N_ROWS).collect();
    let expected = pass(&order)?;
    let mut differing = Vec::new();
    let mut compare = |what: &'static str, order: &[usize]| -> Result<()> {
        let expected: Vec<_> = order.iter().map(|&row| expected[row].clone()).collect();
        differing.push(Measured::exact(what, &pass(order)?, &expected));
        Ok(())
    };
    for size in BATCHES {
        // The first two batches and the odd one at the end; every row alone.
        let batches: Vec<_> = order.chunks(size).collect();
        for batch in batches.iter().take(if size == 1 { 33 } else { 2 }).chain(batches.last()) {
            compare("a row in a batch", batch)?;
        }
    }
    let shuffled = Random::new(11).shuffled(N_ROWS);
    compare("a shuffled row", &shuffled)?;
    compare("a shuffled row", &shuffled[..33])?;
    Ok(differing)
}

/// Three sequences, computed at once, and again with other cuts, other pages and other companions.
fn cuts(device: &Device, layer: attention::Layer) -> Result<Vec<Measured>> {
    let lengths = [40, 3, 70];
    let sequence = |s: usize| (0..lengths[s]).map(move |p| (s, p)).collect::<Vec<Row>>();
    let all: Vec<Row> = (0..3).flat_map(sequence).collect();
    let pass = |arrangement: u64, passes: &[Vec<Row>]| -> Result<HashMap<Row, Vec<u32>>> {
        let world = World::new(device, layer, 3, arrangement)?;
        let mut found = HashMap::new();
        for rows in passes {
            let (q, out) = world.pass(rows)?;
            let width = q.len() / rows.len();
            for ((row, q), out) in rows.iter().zip(q.chunks(width)).zip(out.chunks(width)) {
                found.insert(*row, q.iter().chain(out).map(|x| x.to_bits()).collect());
            }
        }
        Ok(found)
    };
    let expected = pass(1, std::slice::from_ref(&all))?;
    let mut differing = Vec::new();
    let mut compare = |what: &'static str, arrangement: u64, passes: &[Vec<Row>]| -> Result<()> {
        let found = pass(arrangement, passes)?;
        let list =
            |bits: &HashMap<Row, Vec<u32>>| all.iter().map(|row| bits[row].clone()).collect::<Vec<_>>();
        differing.push(Measured::exact(what, &list(&found), &list(&expected)));
        Ok(())
    };
    compare("at other pages", 2, std::slice::from_ref(&all))?;
    compare("each sequence alone", 3, &[sequence(0), sequence(1), sequence(2)])?;
    // Row by row, the three sequences side by side as long as they last.
    let mut by_position = all.clone();
    by_position.sort_by_key(|row| row.1);
    let side_by_side: Vec<_> = by_position.chunk_by(|a, b| a.1 == b.1).map(<[Row]>::to_vec).collect();
    compare("row by row", 4, &side_by_side)?;
    for size in [2, 3, 5, 8, 16, 33] {
        let chunks: Vec<_> = all.chunks(size).map(<[Row]>::to_vec).collect();
        compare("in chunks", 5 + size as u64, &chunks)?;
    }
    let shuffled: Vec<Row> = Random::new(13).shuffled(all.len()).into_iter().map(|i| all[i]).collect();
    compare("shuffled", 6, &[shuffled])?;
    Ok(differing)
}

/// The bits of a product in every type, and of a norm.
pub(super) fn product_bits(device: &Device) -> Result<Vec<(String, Vec<u32>)>> {
    let mut all = Vec::new();
    for ty in types() {
        for k in widths(ty) {
            let (gate, up) = (Matrix::random(ty, 37, k, 1)?, Matrix::random(ty, 37, k, 2)?);
            let (gate_alone, gate_up) = (gate.upload(device)?, upload_glu(device, &gate, &up)?);
            let x = upload_f32(device, &Random::new(7).f32s(19 * k), &[19, k])?;
            let weight = upload_f32(device, &Random::new(8).f32s(k), &[k])?;
            let (normed, out, glu) =
                (output(device, &[19, k])?, output(device, &[19, 37])?, output(device, &[19, 37])?);
            run(device, |plan| {
                plan.rms_norm(&x, &weight, &normed, 1e-5)?;
                plan.matmul(Matmul::new(&normed, &gate_alone, &out))?;
                plan.matmul_glu(&normed, &gate_up, Activation::Silu, &glu)
            })?;
            let mut bits = Vec::new();
            for buffer in [&normed, &out, &glu] {
                bits.extend(device.read_vec::<f32>(buffer)?.iter().map(|x| x.to_bits()));
            }
            all.push((format!("{ty}, k = {k}"), bits));
        }
    }
    Ok(all)
}
