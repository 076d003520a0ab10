//! Finds the scale, or scale and minimum, that loses least in rounding.
//!
//! The obvious scale just covers the largest value. Candidates around it are tried: each rounds the values to
//! codes, then solves for the scale (and minimum) that best maps those codes back to the values. The solution
//! with the least squared error wins. It may be smaller than the obvious scale, because many small values gain
//! more than the one large value loses, or larger, because the codes then lie closer to the values.

/// The nearest integer, ties to even, for |x| < 2^22. Adding and subtracting 1.5 * 2^23 leaves no room for
/// fraction bits. Unlike `f32::round`, this compiles to vector instructions on every x86-64.
pub(super) fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// `1 / d`, or 0 if that is not finite: a block whose scale underflowed decodes to zeros, whatever its codes.
pub(super) fn reciprocal(d: f32) -> f32 {
    let r = 1.0 / d;
    if r.is_finite() { r } else { 0.0 }
}

/// Candidate `i` in [-STEPS, STEPS] maps the extreme value to `extreme code + STEP * i`.
const STEPS: i32 = 9;
const STEP: f32 = 0.1;

/// The `d` for which `d * code`, with codes in [lo, hi], has the least squared error from `x`. It may be
/// negative: the value largest in magnitude takes the code largest in magnitude, `lo`.
pub(super) fn symmetric<const N: usize>(x: &[f32; N], lo: f32, hi: f32) -> f32 {
    let extreme = x.iter().fold(0.0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
    if reciprocal(extreme) == 0.0 {
        return 0.0;
    }
    // With codes fixed, the best d is sum(x q) / sum(q q), and its error is sum(x x) minus `gain`.
    let mut best = 0.0;
    let mut best_gain = 0.0;
    for i in -STEPS..=STEPS {
        let inverse = (lo + STEP * i as f32) / extreme;
        let (mut xq, mut qq) = ([0.0f32; LANES], [0.0f32; LANES]);
        for x in x.as_chunks::<LANES>().0 {
            for l in 0..LANES {
                let q = nearest((x[l] * inverse).clamp(lo, hi));
                xq[l] += x[l] * q;
                qq[l] += q * q;
            }
        }
        let (xq, qq) = (xq.iter().sum::<f32>(), qq.iter().sum::<f32>());
        let gain = if qq > 0.0 { xq * xq / qq } else { 0.0 };
        if gain > best_gain {
            best_gain = gain;
            best = xq / qq;
        }
    }
    best
}

// Independent sums let the compiler use vectors without reordering additions, so results are the same everywhere.
const LANES: usize = 8;

/// The `(d, m)` for which `d * code + m`, with codes in [0, code_max], has the least squared error from `x`,
/// given `d >= 0` and `m <= m_max`.
pub(super) fn affine<const N: usize>(x: &[f32; N], code_max: f32, m_max: f32) -> (f32, f32) {
    let least = x.iter().fold(m_max, |m, x| m.min(*x));
    let most = x.iter().fold(least, |m, x| m.max(*x));
    let scale = reciprocal(most - least);
    if scale == 0.0 {
        return (0.0, least);
    }
    let n = N as f32;
    let mut best = ((most - least) / code_max, least);
    let mut best_error = f32::INFINITY;
    for i in -STEPS..=STEPS {
        let inverse = (code_max + STEP * i as f32) * scale;
        let (mut sx, mut sq, mut sqq, mut sxq) =
            ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
        for x in x.as_chunks::<LANES>().0 {
            for l in 0..LANES {
                // Sums of values relative to `least` keep their precision when all values are far from zero.
                let x = x[l] - least;
                let q = nearest((x * inverse).clamp(0.0, code_max));
                sx[l] += x;
                sq[l] += q;
                sqq[l] += q * q;
                sxq[l] += x * q;
            }
        }
        let [sx, sq, sqq, sxq] = [sx, sq, sqq, sxq].map(|s| s.iter().sum::<f32>());
        let determinant = n * sqq - sq * sq;
        if determinant <= 0.0 {
            continue;
        }
        let mut d = (n * sxq - sx * sq) / determinant;
        let mut m = (sqq * sx - sq * sxq) / determinant;
        if m + least > m_max {
            m = m_max - least;
            d = (sxq - m * sq) / sqq;
        }
        // The squared error minus sum(x x), which is the same for every candidate.
        let error = d * (d * sqq - 2.0 * sxq) + m * (n * m - 2.0 * sx + 2.0 * d * sq);
        if d > 0.0 && error < best_error {
            best_error = error;
            best = (d, m + least);
        }
    }
    best
}

/// The squared error of `x` against `d * code + m` with the best codes in [lo, hi].
pub(super) fn error<const N: usize>(x: &[f32; N], d: f32, m: f32, lo: f32, hi: f32) -> f32 {
    let inverse = reciprocal(d);
    let mut sum = [0.0f32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            let q = nearest(((x[l] - m) * inverse).clamp(lo, hi));
            let e = x[l] - (d * q + m);
            sum[l] += e * e;
        }
    }
    sum.iter().sum()
}
