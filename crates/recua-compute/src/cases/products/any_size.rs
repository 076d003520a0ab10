//! Rows of x of any size, beside each other: tiny and huge ones, ones with a single huge element, and zeros. f16 holds none of them as they are.

use super::{Matrix, matmul_of, product, tolerance};
use crate::cases::data::{Random, output, upload_f32, upload_glu};
use crate::cases::{Measured, Report, run};
use crate::device::Device;
use crate::error::Result;
use crate::op::Activation;
use crate::plan::Record;
use recua_gguf::GgmlType;

/// Columns: of two blocks, and of a number that is no multiple of 64.
const KS: [usize; 2] = [512, 101];

pub(in crate::cases) fn check(device: &Device, report: &mut Report) {
    use GgmlType::{BF16, F16, F32, Q4_0, Q4_K, Q6_K, Q8_0};
    for ty in [F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q6_K] {
        for k in KS.into_iter().filter(|k| k % ty.block_values() == 0) {
            for rows in [1, 4, 9, 20, 70] {
                // A batch of one row has each of them in turn.
                for first in (0..SIZES.len()).step_by(if rows == 1 { 1 } else { SIZES.len() }) {
                    let shape = format!("{ty}[20, {k}] · {rows} rows of any size, from {first} on");
                    report.case("matmul", shape, || {
                        let w = Matrix::random(ty, 20, k, 3)?;
                        matmul_of(device, &w, &any_size(&SIZES, rows, k, first))
                    });
                }
            }
        }
        let k = KS[0];
        for rows in [1, 9, 70] {
            let shape = format!("{ty}[20, {k}] · {rows} rows of any size");
            report.case("matmul_glu", shape, || glu(device, ty, rows, k));
        }
    }
}

/// The size of a row's elements, and how many times as large one of them is, as exponents of two. That one is dominant, or no larger than others
/// may be; it has no more bits than any device keeps, since its rounding would be in all results of the row.
type Size = (i32, i32);

const SIZES: [Size; 11] = [
    (100, 0),
    (-100, 0),
    (0, 100),
    (-10, 20),
    (-1000, 0),
    (17, 0),
    (-23, 0),
    (21, 0),
    (-116, 17),
    (118, 0),
    (-114, 0),
];

/// For a GLU, whose result is nearly the product of two of them.
const GLU_SIZES: [Size; 5] = [(40, 0), (-40, 0), (-10, 24), (20, 0), (-20, 0)];

fn any_size(sizes: &[Size], rows: usize, k: usize, first: usize) -> Vec<f32> {
    let mut x = Random::new(first as u64).f32s(rows * k);
    for (row, x) in x.chunks_exact_mut(k).enumerate() {
        let (size, one) = sizes[(first + row) % sizes.len()];
        x.iter_mut().for_each(|x| *x *= 2f32.powi(size));
        if one > 0 {
            let at = (row * 37 + 5) % k;
            x[at] = 2f32.powi(size + one).copysign(x[at]);
        }
    }
    x
}

/// The unit of an error is that of [`super::matmul_glu`], with silu's slope for gates of any size.
fn glu(device: &Device, ty: GgmlType, rows: usize, k: usize) -> Result<Vec<Measured>> {
    let n = 20;
    let (gate, up) = (Matrix::random(ty, n, k, 5)?, Matrix::random(ty, n, k, 6)?);
    let gate_up = upload_glu(device, &gate, &up)?;
    let x = any_size(&GLU_SIZES, rows, k, 0);
    let ((g, g_units), (u, u_units)) = (product(&x, &gate), product(&x, &up));
    let silu = |g: f64| g / (1.0 + (-g).exp());
    let expected: Vec<f64> = g.iter().zip(&u).map(|(g, u)| silu(*g) * u).collect();
    let unit = |i: usize| {
        // A gate that is off may have the other sign.
        let most = silu(g[i]).abs().max(silu(g[i] + 0.03 * g_units[i]).abs());
        u[i].abs() * g_units[i] + most * u_units[i] + 0.03 * g_units[i] * u_units[i]
    };
    let (x_buffer, out) = (upload_f32(device, &x, &[rows, k])?, output(device, &[rows, n])?);
    run(device, |plan| plan.matmul_glu(&x_buffer, &gate_up, Activation::Silu, &out))?;
    let tolerance = tolerance(ty).times(super::GLU_FACTOR);
    Ok(vec![Measured::new("out", &device.read_vec(&out)?, &expected, unit, tolerance)])
}
