//! `matmul`, `matmul_glu` and `embed` in every type.
//!
//! The unit of an error is |x| · |w| / √K, the typical size of a dot product with random signs.

pub(super) mod any_size;

use super::data::{Matrix, Random, dot, norm, output, types, upload_f32, upload_glu, upload_u32};
use super::{Measured, Report, Tolerance, run};
use crate::device::Device;
use crate::error::Result;
use crate::op::{Activation, CHOSEN, Embed, Matmul, Op};
use crate::plan::Record;
use crate::program::Input;
use crate::weight::{Arrange, RawMatrix, Weight};
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
    use GgmlType::{F16, F32, Q4_K, Q6_K, Q8_0};
    for types in [&[Q4_K, Q6_K, Q8_0, F16, F32][..], &[Q4_K, Q4_K, Q6_K], &[Q6_K, Q4_K, Q6_K], &[Q8_0; 3]] {
        for rows in [1, 7, 33, 70] {
            let shape = format!("{types:?} · {rows} rows");
            report.case("matmul", format!("{shape}, stacked"), || several(device, types, rows));
            report.case("embed", format!("{shape}, stacked"), || embed_several(device, types, rows));
        }
    }
    for rows in [1, 2, 5, 33] {
        report.case("embed", format!("{rows} chosen rows"), || embed_chosen(device, rows));
    }
    for ty in types() {
        report.case("matmul", format!("shards of {ty}"), || shards(device, ty));
        report.case("matmul_glu", format!("shards of {ty}"), || glu_shards(device, ty));
    }
    for rows in [1, 7, 33] {
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
        // Needs the most arithmetic, so it is as short as possible.
        (130, 48, ks[2].min(ks[3])),
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
    matmul_of(device, &Matrix::random(ty, n, k, seed)?, &activations(rows, k, seed))
}

fn matmul_of(device: &Device, w: &Matrix, x: &[f32]) -> Result<Vec<Measured>> {
    let rows = x.len() / w.k;
    let (x_buffer, out) = (upload_f32(device, x, &[rows, w.k])?, output(device, &[rows, w.n])?);
    let weight = w.upload(device)?;
    run(device, |plan| plan.matmul(Matmul::new(&x_buffer, &weight, &out)))?;
    let (expected, units) = product(x, w);
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, |i| units[i], tolerance(w.ty))])
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
    let w = Matrix::random(ty, n, k, seed)?;
    let x = activations(rows, k, seed);
    let (mut expected, mut units) = product(&x, &w);
    let mut random = Random::new(seed);
    // As large as the products, so that adding it twice or not at all is noticed.
    let add: Vec<f32> = units.iter().map(|unit| (*unit as f32) * random.f32()).collect();
    let bias: Vec<f32> = units[..n].iter().map(|unit| (*unit as f32) * random.f32()).collect();
    for (i, (expected, unit)) in expected.iter_mut().zip(&mut units).enumerate() {
        *expected += f64::from(add[i]) + f64::from(bias[i % n]);
        *unit = unit.hypot(bias[i % n].into());
    }
    let (x_buffer, out) = (upload_f32(device, &x, &[rows, k])?, upload_f32(device, &add, &[rows, n])?);
    let bias = upload_f32(device, &bias, &[n])?;
    let op = Matmul::new(&x_buffer, &w.upload(device)?, &out).with_bias(Some(&bias)).with_add(&out);
    run(device, |plan| plan.matmul(op))?;
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, |i| units[i], tolerance(ty))])
}

/// Matrices of several types and odd sizes.
fn stack(types: &[GgmlType], k: usize) -> Result<Vec<Matrix>> {
    types.iter().enumerate().map(|(i, &ty)| Matrix::random(ty, 19 + 24 * i, k, i as u64)).collect()
}

/// A weight made of matrices of several types and odd sizes, with and without a bias and a residual.
fn several(device: &Device, types: &[GgmlType], rows: usize) -> Result<Vec<Measured>> {
    let k = 512;
    let x = activations(rows, k, 5);
    let x_buffer = upload_f32(device, &x, &[rows, k])?;
    let matrices = stack(types, k)?;
    let raw: Vec<RawMatrix<'_>> = matrices.iter().map(Matrix::raw).collect();
    let weight = device.upload_weight(&raw, Arrange::Stacked)?;
    let n = weight.n();
    let products: Vec<_> = matrices.iter().map(|w| product(&x, w)).collect();
    let mut random = Random::new(9);
    let (bias, add) = (random.f32s(n), random.f32s(rows * n));
    let plain = output(device, &[rows, n])?;
    let added = upload_f32(device, &add, &[rows, n])?;
    let op = Matmul::new(&x_buffer, &weight, &added).with_add(&added);
    let op = op.with_bias(Some(&upload_f32(device, &bias, &[n])?));
    run(device, |plan| {
        plan.matmul(Matmul::new(&x_buffer, &weight, &plain))?;
        plan.matmul(op.clone())
    })?;
    let (plain, added) = (device.read_vec::<f32>(&plain)?, device.read_vec::<f32>(&added)?);
    let mut measured = Vec::new();
    let mut first = 0;
    for (w, (expected, units)) in matrices.iter().zip(&products) {
        let columns = |all: &[f32]| -> Vec<f32> {
            all.chunks_exact(n).flat_map(|row| row[first..first + w.n].iter().copied()).collect()
        };
        let tolerance = tolerance(w.ty);
        measured.push(Measured::new(w.ty.name(), &columns(&plain), expected, |i| units[i], tolerance));
        let more: Vec<f64> = columns(&add)
            .iter()
            .enumerate()
            .map(|(i, add)| expected[i] + f64::from(*add) + f64::from(bias[first + i % w.n]))
            .collect();
        let unit = |i: usize| units[i].hypot(1.0);
        measured.push(Measured::new("bias and residual", &columns(&added), &more, unit, tolerance));
        first += w.n;
    }
    Ok(measured)
}

/// Rows of every matrix of a weight.
fn embed_several(device: &Device, types: &[GgmlType], rows: usize) -> Result<Vec<Measured>> {
    let k = 512;
    let matrices = stack(types, k)?;
    let raw: Vec<RawMatrix<'_>> = matrices.iter().map(Matrix::raw).collect();
    let weight = device.upload_weight(&raw, Arrange::Stacked)?;
    let values: Vec<f32> = matrices.iter().flat_map(|w| &w.values).copied().collect();
    let tokens: Vec<u32> = (0..rows).map(|i| ((i * 37 + weight.n() - 1) % weight.n()) as u32).collect();
    let (tokens_buffer, out) = (upload_u32(device, &tokens, &[rows])?, output(device, &[rows, k])?);
    run(device, |plan| plan.embed(&weight, &tokens_buffer, &out))?;
    let expected: Vec<f64> =
        tokens.iter().flat_map(|&t| values[t as usize * k..][..k].iter().map(|x| f64::from(*x))).collect();
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, |_| 2.0, Tolerance::DECODED)])
}

/// A shard of some rows gives the same bits as in the whole weight; a shard of some columns gives the product with those columns of x.
fn shards(device: &Device, ty: GgmlType) -> Result<Vec<Measured>> {
    let (n, rows, block) = (75, 19, ty.block_values());
    let k = block.max(32) * 6;
    let (w, other) = (Matrix::random(ty, n, k, 3)?, Matrix::random(ty, 5, k, 4)?);
    let x = activations(rows, k, 3);
    let multiply = |weight: &Weight, x: &[f32]| -> Result<Vec<f32>> {
        let x = upload_f32(device, x, &[x.len() / weight.k(), weight.k()])?;
        let out = output(device, &[x.n_rows(), weight.n()])?;
        run(device, |plan| plan.matmul(Matmul::new(&x, weight, &out)))?;
        device.read_vec(&out)
    };
    let whole = multiply(&w.upload(device)?, &x)?;
    let mut measured = Vec::new();
    for range in [0..32, 30..49, 74..75] {
        // After another matrix, so that they begin in the middle of whatever units the device's layout has.
        let shard = device.upload_weight(&[other.raw(), w.raw().rows(range.clone())], Arrange::Stacked)?;
        let found = multiply(&shard, &x)?;
        let found: Vec<u32> = found
            .chunks_exact(5 + range.len())
            .flat_map(|row| row[5..].iter().map(|x| x.to_bits()))
            .collect();
        let expected: Vec<u32> =
            whole.chunks_exact(n).flat_map(|row| row[range.clone()].iter().map(|x| x.to_bits())).collect();
        measured.push(Measured::exact("rows of a weight", &found, &expected));
    }
    let columns = k / 3..k;
    let shard = device.upload_weight(&[w.raw().columns(columns.clone()).rows(7..60)], Arrange::Stacked)?;
    let part: Vec<f32> = x.chunks_exact(k).flat_map(|row| row[columns.clone()].iter().copied()).collect();
    let found = multiply(&shard, &part)?;
    let (mut expected, mut units) = (Vec::new(), Vec::new());
    for x in part.chunks_exact(columns.len()) {
        let size = norm(x) / (columns.len() as f64).sqrt();
        for row in 7..60 {
            let w = &w.row(row)[columns.clone()];
            expected.push(dot(x, w));
            units.push(size * norm(w));
        }
    }
    measured.push(Measured::new("columns of a weight", &found, &expected, |i| units[i], tolerance(ty)));
    Ok(measured)
}

/// A shard of some rows of gate and up gives the same bits as in the whole weight.
fn glu_shards(device: &Device, ty: GgmlType) -> Result<Vec<Measured>> {
    let (n, rows) = (75, 5);
    let k = ty.block_values().max(32) * 3;
    let (gate, up) = (Matrix::random(ty, n, k, 3)?, Matrix::random(ty, n, k, 4)?);
    let x: Vec<f32> = activations(rows, k, 3).iter().map(|x| x * 0.1).collect();
    let x = upload_f32(device, &x, &[rows, k])?;
    let multiply = |range: std::ops::Range<usize>| -> Result<Vec<u32>> {
        let parts = [gate.raw().rows(range.clone()), up.raw().rows(range.clone())];
        let weight = device.upload_weight(&parts, Arrange::Interleaved)?;
        let out = output(device, &[rows, range.len()])?;
        run(device, |plan| plan.matmul_glu(&x, &weight, Activation::Silu, &out))?;
        Ok(device.read_vec::<f32>(&out)?.iter().map(|x| x.to_bits()).collect())
    };
    let whole = multiply(0..n)?;
    let mut measured = Vec::new();
    for range in [0..16, 9..50] {
        let expected: Vec<u32> =
            whole.chunks_exact(n).flat_map(|row| row[range.clone()].iter().copied()).collect();
        measured.push(Measured::exact("rows of gate and up", &multiply(range)?, &expected));
    }
    Ok(measured)
}

/// For a product of two factors that are both off, one of them through SiLU, whose slope is at most 1.1.
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
    let gate = Matrix::random(types[0], n, k, seed)?;
    let up = Matrix::random(types[1], n, k, seed + 100)?;
    let gate_up = upload_glu(device, &gate, &up)?;
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
    run(device, |plan| plan.matmul_glu(&x_buffer, &gate_up, Activation::Silu, &out))?;
    let worse = if tolerance(types[0]).rms > tolerance(types[1]).rms { types[0] } else { types[1] };
    let tolerance = tolerance(worse).times(GLU_FACTOR);
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, unit, tolerance)])
}

fn embed(device: &Device, ty: GgmlType, rows: usize, n: usize, k: usize, seed: u64) -> Result<Vec<Measured>> {
    let table = Matrix::random(ty, n, k, seed)?;
    let weight = table.upload(device)?;
    let mut random = Random::new(seed);
    let mut tokens: Vec<u32> = (0..rows).map(|_| random.below(n) as u32).collect();
    tokens[0] = n as u32 - 1;
    let (tokens_buffer, out) = (upload_u32(device, &tokens, &[rows])?, output(device, &[rows, k])?);
    run(device, |plan| plan.embed(&weight, &tokens_buffer, &out))?;
    let rows: Vec<&[f32]> = tokens.iter().map(|&token| table.row(token as usize)).collect();
    let expected: Vec<f64> = rows.iter().flat_map(|row| row.iter().map(|x| f64::from(*x))).collect();
    let units: Vec<f64> =
        rows.iter().map(|row| row.iter().fold(0.0, |max: f64, x| max.max(f64::from(x.abs())))).collect();
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, |i| units[i / k], Tolerance::DECODED)])
}

/// Steps that follow each other: each embeds what the one before chose, in another order and beside tokens of the host, and then
/// chooses anew in the same places. A row that nothing was chosen for is token 0.
fn embed_chosen(device: &Device, rows: usize) -> Result<Vec<Measured>> {
    let (n, k) = (40, 32);
    let table = Matrix::random(GgmlType::F32, n, k, 3)?;
    let mut random = Random::new(rows as u64);
    let mut choose = |row: usize| if row % 4 == 3 { u32::MAX } else { random.below(n) as u32 };
    let mut best: Vec<u32> = (0..rows).map(&mut choose).collect();
    let (tokens, chosen) =
        (upload_u32(device, &vec![0; rows], &[rows])?, upload_u32(device, &best, &[rows])?);
    let (x, out) = (output(device, &[rows, n])?, output(device, &[rows, k])?);
    let mut plan = device.plan();
    plan.push(Op::Embed(Embed {
        table: table.upload(device)?,
        tokens: tokens.clone(),
        chosen: Some(chosen.clone()),
        out: out.clone(),
    }))?;
    plan.argmax(&x, &chosen)?;
    let program = device.compile(&plan)?;
    let mut under_way = Vec::new();
    for step in 0..4 {
        // Every third row is the host's.
        let word = |row| if row % 3 == step % 3 { row as u32 } else { CHOSEN | ((row + step) % rows) as u32 };
        let words: Vec<u32> = (0..rows).map(word).collect();
        let token = |word: u32| if word & CHOSEN == 0 { word } else { best[(word ^ CHOSEN) as usize] };
        let tokens_of_rows = words.iter().map(|word| Some(token(*word)).filter(|token| *token != u32::MAX));
        let rows_of = |token: Option<u32>| table.row(token.unwrap_or(0) as usize).to_vec();
        let embedded: Vec<f32> = tokens_of_rows.flat_map(rows_of).collect();
        best = (step..step + rows).map(&mut choose).collect();
        let peak = |best: &u32| -> Vec<f32> {
            let of = |i: u32| if *best == u32::MAX { f32::NAN } else { f32::from(u8::from(i == *best)) };
            (0..n as u32).map(of).collect()
        };
        let peaks: Vec<f32> = best.iter().flat_map(peak).collect();
        let inputs = [Input::new(&tokens, &words)?, Input::new(&x, &peaks)?];
        // None is waited for before the next is launched.
        let submission = program.launch(&inputs, &[out.clone(), chosen.clone()])?;
        under_way.push((submission, embedded, best.clone()));
    }
    let mut measured = Vec::new();
    for (submission, expected, best) in under_way {
        let (mut embedded, mut chosen) = (vec![0.0f32; rows * k], vec![0u32; rows]);
        submission.take(0, &mut embedded)?;
        submission.take(1, &mut chosen)?;
        measured.push(Measured::exact("out", &embedded, &expected));
        measured.push(Measured::exact("chosen", &chosen, &best));
    }
    Ok(measured)
}
