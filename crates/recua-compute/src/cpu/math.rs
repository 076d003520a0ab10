//! The functions that kernels need beside the four operations, and the fixed trees they reduce with. Plain loops over arrays, which
//! the compiler vectorises; no libm, whose results differ from one system to the next. Every multiply-add is fused, so every
//! instruction set gives the same bits.

use std::array::from_fn;

/// Floats in the unit that kernels work in: one AVX-512 register, two AVX2 registers.
pub(crate) const LANES: usize = 16;

/// Added to a float below 2^22, moves its integer part to the low bits of the mantissa: rounding to nearest without an
/// instruction for it.
const ROUND: f32 = 12_582_912.0;

/// `exp(x)`, with a relative error below 2e-7: infinity above `ln(f32::MAX)`, subnormals and then 0 below, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these bounds the result is infinite or 0 anyway. Written so that NaN passes.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -105.0 { -105.0 } else { x };
    // x = n ln 2 + r with |r| <= ln(2) / 2. The first part of ln 2 has few bits, so that n times it is exact.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    // exp(r) = 1 + r + r² q(r); q interpolates at the Chebyshev nodes of the interval.
    let q = 1.392_625_1e-3_f32.mul_add(r, 8.363_233e-3);
    let q = q.mul_add(r, 4.166_655_4e-2);
    let q = q.mul_add(r, 1.666_657_7e-1);
    let q = q.mul_add(r, 0.5);
    let p = q.mul_add(r * r, r) + 1.0;
    // 2^n in two factors, each a normal number: so the last product overflows or rounds to a subnormal by itself.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `2^n` for `n` in `[-126, 127]`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The sum of sixteen lanes: halves are added until one is left.
#[inline(always)]
pub(crate) fn sum(x: [f32; LANES]) -> f32 {
    let x: [f32; 8] = from_fn(|i| x[i] + x[i + 8]);
    let x: [f32; 4] = from_fn(|i| x[i] + x[i + 4]);
    (x[0] + x[2]) + (x[1] + x[3])
}

/// The largest of sixteen lanes; NaN never wins.
#[inline(always)]
pub(crate) fn max(x: [f32; LANES]) -> f32 {
    let x: [f32; 8] = from_fn(|i| larger(x[i], x[i + 8]));
    let x: [f32; 4] = from_fn(|i| larger(x[i], x[i + 4]));
    larger(larger(x[0], x[2]), larger(x[1], x[3]))
}

/// `b` if it is larger than `a`: one instruction, unlike `f32::max`.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, multiversion};

    #[inline(always)]
    fn exp_all(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = exp(*x);
        }
    }
    multiversion! { fn exp_all_on(isa, x: &[f32], out: &mut [f32]) = exp_all }

    /// Every 1000th float.
    fn many() -> Vec<f32> {
        (0..u32::MAX / 1000).map(|i| f32::from_bits(i * 1000)).collect()
    }

    #[test]
    fn exp_is_exact_enough() {
        let mut worst = 0.0f64;
        for x in many().into_iter().filter(|x| !x.is_nan()) {
            let (found, exact) = (exp(x), f64::from(x).exp());
            let rounded = exact as f32;
            if rounded.is_infinite() || rounded == 0.0 {
                assert!(
                    found == rounded || found == f32::MAX || f64::from(found) < 3e-45,
                    "exp({x}) = {found}"
                );
            } else if rounded < f32::MIN_POSITIVE {
                assert!((f64::from(found) - exact).abs() < 3e-45, "exp({x}) = {found}, not {exact}");
            } else {
                worst = worst.max((f64::from(found) / exact - 1.0).abs());
            }
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
        println!("exp: relative error {worst:e}");
    }

    #[test]
    fn exp_knows_the_special_values() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::MAX), f32::INFINITY);
        assert_eq!(exp(88.73), f32::INFINITY);
        assert!(exp(88.72).is_finite());
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(-104.5), 0.0);
        assert!(exp(-103.0) > 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-f32::NAN).is_nan());
    }

    #[test]
    fn exp_has_the_same_bits_everywhere() {
        let x = many();
        let mut plain = vec![0.0; x.len()];
        exp_all_on(Isa::Scalar, &x, &mut plain);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut out = vec![0.0; x.len()];
            exp_all_on(isa, &x, &mut out);
            for ((a, b), x) in plain.iter().zip(&out).zip(&x) {
                assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{isa}: exp({x})");
            }
        }
    }

    #[test]
    fn silu_is_exact_enough() {
        for i in -20_000..20_000 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(silu(x)) - exact).abs();
            assert!(error <= 5e-7 * exact.abs() + 3e-37, "silu({x}) is off by {error:e}");
        }
        assert_eq!(silu(0.0), 0.0);
        assert_eq!(silu(f32::INFINITY), f32::INFINITY);
        assert!(silu(f32::NAN).is_nan());
    }

    #[test]
    fn the_trees_reduce_every_lane() {
        for i in 0..LANES {
            let x: [f32; LANES] = from_fn(|j| if i == j { 3.0 } else { -1.0 });
            assert_eq!(sum(x), 3.0 - 15.0);
            assert_eq!(max(x), 3.0);
        }
        let x: [f32; LANES] = from_fn(|j| if j == 3 { -2.0 } else { f32::NAN });
        assert!(sum(x).is_nan());
    }
}
