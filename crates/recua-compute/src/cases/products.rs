//! `matmul`, `matmul_glu` and `embed` in every type.
//!
//! The unit of an error is |x| · |w| / √K: the size that a dot product of random signs has.

use super::data::{Matrix, Random, dot, norm, output, types, upload_f32, upload_u32};
use super::{Measured, Report, Tolerance, run};
use crate::device::Device;
use crate::error::Result;
use crate::op::{Activation, MatmulPart};
use crate::plan::Record;
use recua_gguf::GgmlType;

pub(super) fn check(device: &Device, report: &mut Report) {
    for ty in types() {
        for (i, (rows, n, k)) in shapes(ty).into_iter().enumerate() {
            let seed = i as u64;
            report.case("matmul", format!("{ty}[{n}, {k}] · {rows} rows"), || {
                matmul(device, ty, rows, n, k, seed)
            });
            let add = format!("{ty}[{n}, {k}] · {rows} rows, bias and residual");
            report.case("matmul", add, || matmul_add(device, ty, rows, n, k, seed));
            let shape = format!("{ty}[{n}, {k}] · {rows} rows");
            report.case("matmul_glu", shape, || matmul_glu(device, [ty, ty], rows, n, k, seed));
            report.case("embed", format!("{ty}[{n}, {k}], {rows} rows"), || {
                embed(device, ty, rows, n, k, seed)
            });
        }
    }
    let mixed = [GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0, GgmlType::F16, GgmlType::F32];
    for rows in [1, 7, 33] {
        let shape = format!("{mixed:?} · {rows} rows");
        report.case("matmul", shape, || several(device, &mixed, rows));
        let shape = format!("Q4_K and Q6_K · {rows} rows");
        let pair = [GgmlType::Q4_K, GgmlType::Q6_K];
        report.case("matmul_glu", shape, || matmul_glu(device, pair, rows, 40, 512, 9));
    }
}

/// Rows, n and k: each number of rows, odd n, and k that is no multiple of 256 where the type allows.
fn shapes(ty: GgmlType) -> Vec<(usize, usize, usize)> {
    let ks: [usize; 5] = match ty.block_values() {
        1 => [7, 288, 256, 1000, 1],
        256 => [256, 512, 2304, 768, 256],
        _ => [32, 288, 256, 2080, 96],
    };
    vec![
        (1, 17, ks[0]),
        (1, 100, ks[1]),
        (2, 33, ks[1]),
        (7, 64, ks[2]),
        (7, 1, ks[4]),
        (33, 35, ks[1]),
        (33, 16, ks[3]),
        (130, 48, ks[2]),
        (1, 5, ks[3]),
        (17, 173, ks[0]),
    ]
}

fn tolerance(ty: GgmlType) -> Tolerance {
    match ty {
        GgmlType::F32 => Tolerance::F32_PRODUCT,
        GgmlType::F16 | GgmlType::BF16 => Tolerance::F16_PRODUCT,
        _ => Tolerance::Q8_PRODUCT,
    }
}

/// Activations `[rows, k]` whose rows differ in size.
fn activations(rows: usize, k: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed ^ 0xac71);
    let mut x = random.f32s(rows * k);
    for (row, x) in x.chunks_exact_mut(k).enumerate() {
        let size = [1.0, 30.0, 0.01, 3.0][row % 4];
        x.iter_mut().for_each(|x| *x *= size);
    }
    x
}

/// `x · wᵀ` and the unit of each element.
fn product(x: &[f32], w: &Matrix) -> (Vec<f64>, Vec<f64>) {
    let mut out = (Vec::new(), Vec::new());
    let norms: Vec<f64> = (0..w.n).map(|n| norm(w.row(n))).collect();
    for x in x.chunks_exact(w.k) {
        let size = norm(x) / (w.k as f64).sqrt();
        for (n, norm) in norms.iter().enumerate() {
            out.0.push(dot(x, w.row(n)));
            out.1.push(size * norm);
        }
    }
    out
}

fn matmul(
    device: &Device,
    ty: GgmlType,
    rows: usize,
    n: usize,
    k: usize,
    seed: u64,
) -> Result<Vec<Measured>> {
    let w = Matrix::random(device, ty, n, k, seed)?;
    let x = activations(rows, k, seed);
    let (x_buffer, out) = (upload_f32(device, &x, &[rows, k])?, output(device, &[rows, n])?);
    run(device, |plan| plan.matmul(&x_buffer, [MatmulPart::new(&w.weight, &out)]))?;
    let (expected, units) = product(&x, &w);
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, |i| units[i], tolerance(ty))])
}

/// With a bias and a residual that is `out` itself.
fn matmul_add(
    device: &Device,
    ty: GgmlType,
    rows: usize,
    n: usize,
    k: usize,
    seed: u64,
) -> Result<Vec<Measured>> {
    let w = Matrix::random(device, ty, n, k, seed)?;
    let x = activations(rows, k, seed);
    let (mut expected, mut units) = product(&x, &w);
    let mut random = Random::new(seed);
    // Of the size of the products, so that adding them twice or not at all shows.
    let add: Vec<f32> = units.iter().map(|unit| (*unit as f32) * random.f32()).collect();
    let bias: Vec<f32> = units[..n].iter().map(|unit| (*unit as f32) * random.f32()).collect();
    for (i, (expected, unit)) in expected.iter_mut().zip(&mut units).enumerate() {
        *expected += f64::from(add[i]) + f64::from(bias[i % n]);
        *unit = unit.hypot(bias[i % n].into());
    }
    let (x_buffer, out) = (upload_f32(device, &x, &[rows, k])?, upload_f32(device, &add, &[rows, n])?);
    let bias = upload_f32(device, &bias, &[n])?;
    let part = MatmulPart::new(&w.weight, &out).with_bias(Some(&bias)).with_add(&out);
    run(device, |plan| plan.matmul(&x_buffer, [part]))?;
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, |i| units[i], tolerance(ty))])
}

/// Weights of several types and sizes that share x.
fn several(device: &Device, types: &[GgmlType], rows: usize) -> Result<Vec<Measured>> {
    let k = 512;
    let x = activations(rows, k, 5);
    let x_buffer = upload_f32(device, &x, &[rows, k])?;
    let mut parts = Vec::new();
    let mut matrices = Vec::new();
    for (i, &ty) in types.iter().enumerate() {
        let w = Matrix::random(device, ty, 19 + 24 * i, k, i as u64)?;
        parts.push(MatmulPart::new(&w.weight, &output(device, &[rows, w.n])?));
        matrices.push(w);
    }
    run(device, |plan| plan.matmul(&x_buffer, parts.clone()))?;
    let mut measured = Vec::new();
    for ((part, w), &ty) in parts.iter().zip(&matrices).zip(types) {
        let (expected, units) = product(&x, w);
        let found = device.read_vec(&part.out)?;
        measured.push(Measured::new(ty.name(), &found, &expected, |i| units[i], tolerance(ty)));
    }
    Ok(measured)
}

/// The product of two factors that are each off, one of them through SiLU, whose slope is at most 1.1.
const GLU_FACTOR: f64 = 2.5;

/// The unit of an error: with g and u the two products, each off by its own unit, silu(g) · u is off by about |u| and |silu(g)|
/// times theirs, and by the product of both.
fn matmul_glu(
    device: &Device,
    types: [GgmlType; 2],
    rows: usize,
    n: usize,
    k: usize,
    seed: u64,
) -> Result<Vec<Measured>> {
    let gate = Matrix::random(device, types[0], n, k, seed)?;
    let up = Matrix::random(device, types[1], n, k, seed + 100)?;
    let mut x = activations(rows, k, seed);
    // Gates of about 1: where SiLU is neither 0 nor x.
    let size = (product(&x, &gate).1.iter().sum::<f64>() / (rows * n) as f64) as f32;
    x.iter_mut().for_each(|x| *x /= size.max(1e-6));
    let ((g, g_units), (u, u_units)) = (product(&x, &gate), product(&x, &up));
    let silu: Vec<f64> = g.iter().map(|g| g / (1.0 + (-g).exp())).collect();
    let expected: Vec<f64> = silu.iter().zip(&u).map(|(g, u)| g * u).collect();
    let unit =
        |i: usize| u[i].abs() * g_units[i] + silu[i].abs() * u_units[i] + 0.03 * g_units[i] * u_units[i];
    let (x_buffer, out) = (upload_f32(device, &x, &[rows, k])?, output(device, &[rows, n])?);
    run(device, |plan| plan.matmul_glu(&x_buffer, &gate.weight, &up.weight, Activation::Silu, &out))?;
    let worse = if tolerance(types[0]).rms > tolerance(types[1]).rms { types[0] } else { types[1] };
    let tolerance = tolerance(worse).times(GLU_FACTOR);
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, unit, tolerance)])
}

fn embed(device: &Device, ty: GgmlType, rows: usize, n: usize, k: usize, seed: u64) -> Result<Vec<Measured>> {
    let table = Matrix::random(device, ty, n, k, seed)?;
    let mut random = Random::new(seed);
    let mut tokens: Vec<u32> = (0..rows).map(|_| random.below(n) as u32).collect();
    tokens[0] = n as u32 - 1;
    let (tokens_buffer, out) = (upload_u32(device, &tokens, &[rows])?, output(device, &[rows, k])?);
    run(device, |plan| plan.embed(&table.weight, &tokens_buffer, &out))?;
    let rows: Vec<&[f32]> = tokens.iter().map(|&token| table.row(token as usize)).collect();
    let expected: Vec<f64> = rows.iter().flat_map(|row| row.iter().map(|x| f64::from(*x))).collect();
    let units: Vec<f64> =
        rows.iter().map(|row| row.iter().fold(0.0, |max: f64, x| max.max(f64::from(x.abs())))).collect();
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, |i| units[i / k], Tolerance::DECODED)])
}
