//! The ops on whole rows: `rms_norm`, `gather_rows`, `argmax`, `top_k`, `copy`.

use super::data::{Random, norm, output, upload_f32, upload_u32};
use super::{Measured, Report, Tolerance, run};
use crate::buffer::DType;
use crate::device::Device;
use crate::error::Result;
use crate::op::TOP_K_MAX;
use crate::plan::Record;

pub(super) fn check(device: &Device, report: &mut Report) {
    for rows in [1, 2, 7, 33] {
        for dim in [1, 2, 15, 64, 100, 288, 2048, 2050] {
            for in_place in [false, true] {
                let shape = format!("[{rows}, {dim}]{}", if in_place { " in place" } else { "" });
                report.case("rms_norm", shape, || rms_norm(device, rows, dim, in_place));
            }
            report.case("gather_rows", format!("[{rows}, {dim}]"), || gather_rows(device, rows, dim));
        }
        for cols in [1, 2, 31, 256, 1000, 5003] {
            report.case("argmax", format!("[{rows}, {cols}]"), || argmax(device, rows, cols, Peaks::Few));
            report.case("argmax", format!("[{rows}, {cols}] of equals"), || {
                argmax(device, rows, cols, Peaks::Equal)
            });
            report.case("argmax", format!("[{rows}, {cols}] with NaN"), || {
                argmax(device, rows, cols, Peaks::NaN)
            });
        }
    }
    for (rows, cols) in [(1, 1), (3, 31), (7, 256), (1, 5003), (2, 20_000), (33, 300)] {
        for k in [1, 5, 40, TOP_K_MAX] {
            for peaks in [Peaks::Few, Peaks::Equal, Peaks::NaN] {
                let shape = format!("{k} of [{rows}, {cols}], {peaks:?}");
                report.case("top_k", shape, || top_k(device, rows, cols, k, peaks));
            }
        }
    }
    for (dtype, total, first, n) in [
        (DType::F32, 100, 0, 100),
        (DType::F32, 100, 3, 50),
        (DType::U32, 70_000, 1, 69_000),
        (DType::F16, 64, 2, 40),
        (DType::F16, 64, 3, 41),
        (DType::U8, 100, 5, 17),
    ] {
        report.case("copy", format!("{n} of {dtype} from {first}"), || copy(device, dtype, total, first, n));
    }
}

fn rms_norm(device: &Device, rows: usize, dim: usize, in_place: bool) -> Result<Vec<Measured>> {
    let mut random = Random::new((rows * dim) as u64);
    let mut x = random.f32s(rows * dim);
    for (row, x) in x.chunks_exact_mut(dim).enumerate() {
        // From rows so small that eps dominates to rows whose squares are large; the last row is zero.
        let size = [1.0, 1e-4, 1e6, 0.0][row % 4];
        x.iter_mut().for_each(|x| *x *= size);
    }
    let weight = random.f32s(dim);
    let eps = 1e-5f32;
    let mut expected = Vec::new();
    for x in x.chunks_exact(dim) {
        let scale = (norm(x).powi(2) / dim as f64 + f64::from(eps)).sqrt();
        expected.extend(x.iter().zip(&weight).map(|(x, w)| f64::from(*x) / scale * f64::from(*w)));
    }
    let x = upload_f32(device, &x, &[rows, dim])?;
    let weight = upload_f32(device, &weight, &[dim])?;
    let out = if in_place { x.clone() } else { output(device, &[rows, dim])? };
    run(device, |plan| plan.rms_norm(&x, &weight, &out, eps))?;
    let unit = |i: usize| expected[i].abs();
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, unit, Tolerance::F32_ROWS)])
}

fn gather_rows(device: &Device, rows: usize, dim: usize) -> Result<Vec<Measured>> {
    let mut random = Random::new((rows * dim) as u64);
    let n = rows + 3;
    let x = random.f32s(rows * dim);
    let mut indexes: Vec<u32> = (0..n).map(|_| random.below(rows) as u32).collect();
    indexes[n - 1] = rows as u32 - 1;
    let expected: Vec<f32> =
        indexes.iter().flat_map(|&index| x[index as usize * dim..][..dim].iter().copied()).collect();
    let (x, indexes) = (upload_f32(device, &x, &[rows, dim])?, upload_u32(device, &indexes, &[n])?);
    let out = output(device, &[n, dim])?;
    run(device, |plan| plan.gather_rows(&x, &indexes, &out))?;
    Ok(vec![Measured::exact("out", &device.read_vec::<f32>(&out)?, &expected)])
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Peaks {
    Few,
    /// The largest value occurs many times: the lowest index wins.
    Equal,
    /// NaN never wins; a row of NaN alone has no largest element.
    NaN,
}

fn argmax(device: &Device, rows: usize, cols: usize, peaks: Peaks) -> Result<Vec<Measured>> {
    let mut random = Random::new((rows * cols) as u64);
    let mut x = random.f32s(rows * cols);
    let mut expected = Vec::new();
    for (row, x) in x.chunks_exact_mut(cols).enumerate() {
        match peaks {
            Peaks::Few => {}
            Peaks::Equal => x.iter_mut().for_each(|x| *x = (*x * 4.0).floor()),
            Peaks::NaN if row % 3 == 0 => x.fill(f32::NAN),
            Peaks::NaN => x.iter_mut().step_by(2).for_each(|x| *x = f32::NAN),
        }
        if row % 3 == 1 {
            // All below zero, the largest one minus infinity in the shortest rows.
            x.iter_mut().for_each(|x| *x = if *x > 0.0 { f32::NEG_INFINITY } else { *x - 2.0 });
        }
        let mut best: Option<usize> = None;
        for (i, value) in x.iter().enumerate() {
            if *value > f32::NEG_INFINITY && best.is_none_or(|best| *value > x[best]) {
                best = Some(i);
            }
        }
        expected.push(best.map_or(u32::MAX, |best| best as u32));
    }
    let x = upload_f32(device, &x, &[rows, cols])?;
    let out = upload_u32(device, &vec![7; rows], &[rows])?;
    run(device, |plan| plan.argmax(&x, &out))?;
    Ok(vec![Measured::exact("out", &device.read_vec::<u32>(&out)?, &expected)])
}

fn top_k(device: &Device, rows: usize, cols: usize, k: usize, peaks: Peaks) -> Result<Vec<Measured>> {
    let mut random = Random::new((rows * cols + k) as u64);
    let mut x = random.f32s(rows * cols);
    let mut expected: Vec<u32> = Vec::new();
    for (row, x) in x.chunks_exact_mut(cols).enumerate() {
        match peaks {
            Peaks::Few => x.iter_mut().for_each(|x| *x *= 8.0),
            Peaks::Equal => x.iter_mut().for_each(|x| *x = (*x * 4.0).floor()),
            Peaks::NaN if row % 3 == 0 => x.fill(f32::NAN),
            // Most rows have fewer than k elements that count.
            Peaks::NaN => {
                x.iter_mut().enumerate().filter(|(i, _)| i % 29 > 0).for_each(|(_, x)| *x = f32::NAN)
            }
        }
        // The ends of the range, some of them several times.
        let special =
            [f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE / 4.0];
        if row % 3 == 2 {
            x.iter_mut().step_by(7).zip(special.iter().cycle()).for_each(|(x, special)| *x = *special);
        }
        let is_there = |(_, x): &(usize, f32)| *x > f32::NEG_INFINITY;
        let mut all: Vec<(usize, f32)> = x.iter().copied().enumerate().filter(is_there).collect();
        all.iter_mut().for_each(|(_, x)| *x = x.min(f32::MAX) + 0.0);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let none = std::iter::repeat((u32::MAX as usize, f32::NEG_INFINITY));
        expected.extend(all.into_iter().chain(none).take(k).flat_map(|(i, x)| [x.to_bits(), i as u32]));
    }
    let x = upload_f32(device, &x, &[rows, cols])?;
    let out = upload_u32(device, &vec![7; rows * k * 2], &[rows, k, 2])?;
    run(device, |plan| plan.top_k(&x, &out))?;
    Ok(vec![Measured::exact("out", &device.read_vec::<u32>(&out)?, &expected)])
}

/// Copies `n` elements from `first` on to the same place plus one element, or as near as fits.
fn copy(device: &Device, dtype: DType, total: usize, first: usize, n: usize) -> Result<Vec<Measured>> {
    let mut random = Random::new(n as u64);
    let mut bytes = |n: usize| {
        let mut bytes = vec![0u8; n];
        random.fill(&mut bytes);
        bytes
    };
    let size = dtype.size_of();
    let (from, to) = (bytes(total * size), bytes(total * size));
    let to_first = (first + 1).min(total - n);
    let mut expected = to.clone();
    expected[to_first * size..][..n * size].copy_from_slice(&from[first * size..][..n * size]);
    let from = device.upload(&from, dtype, &[total])?;
    let to = device.upload(&to, dtype, &[total])?;
    let (src, dst) = (from.view(first, &[n])?, to.view(to_first, &[n])?);
    run(device, |plan| plan.copy(&src, &dst))?;
    Ok(vec![Measured::exact("dst", &device.read_vec::<u8>(&to)?, &expected)])
}
