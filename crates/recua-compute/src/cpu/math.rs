//! The functions that kernels need besides the four basic operations, and the fixed trees with which they reduce. libm is not used, because
//! its results differ between systems. Every multiply-add is fused, so every instruction set gives the same bits.
//!
//! A kernel is one body, generic over [`Vector`], which `vectorised!` compiles for each instruction set. (Plain arrays and loops are not
//! enough: whether the compiler vectorizes them changes with every edit.)

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

use half::f16;
use std::array::from_fn;

/// The number of floats that kernels work on at once: one AVX-512 register, or two AVX2 registers.
pub(crate) const LANES: usize = 16;

/// Added to a float below 2^22, it moves the integer part to the low bits of the mantissa: rounding to nearest without an instruction for
/// it.
const ROUND: f32 = 12_582_912.0;

/// Floats that are processed together: one (`f32` itself) or [`LANES`]. Each method does the same to each lane.
///
/// Making a value requires a proof that the processor has the instructions ([`Proof`](crate::cpu::isa::Proof)). The value then is a proof
/// itself, so its methods are safe to call. They compile to single instructions when they are inlined into a function that is compiled for
/// the set, which `vectorised!` makes.
pub(crate) trait Vector: Copy {
    /// The proof.
    type Set: Copy;

    fn splat(set: Self::Set, x: f32) -> Self;
    /// The proof with which this value was made.
    fn set(self) -> Self::Set;
    /// A value of the same type with `x` in every lane.
    #[inline(always)]
    fn like(self, x: f32) -> Self {
        Self::splat(self.set(), x)
    }
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `other` where it is larger, so that a NaN in `other` never wins.
    fn larger(self, other: Self) -> Self;
    /// `other` where it is smaller, so that a NaN in `other` never wins.
    fn smaller(self, other: Self) -> Self;
    /// Given `n + ROUND` for an integer `n` in `[-252, 254]`, two normal numbers whose product is `2^n`.
    fn power_of_two(self) -> (Self, Self);
}

/// A [`Vector`] of [`LANES`] floats.
pub(crate) trait Lanes: Vector {
    /// Whether there are 32 registers, enough for twice as many sums, and not 16.
    const MANY_REGISTERS: bool;

    fn load(set: Self::Set, from: &[f32; LANES]) -> Self;
    fn load_f16(set: Self::Set, from: &[f16; LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    /// The lanes `[0, n)` of `self`, the others of `rest`.
    fn first(self, n: usize, rest: Self) -> Self;

    /// The sum of the lanes: halves are added until one is left.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut x = [0.0; LANES];
        self.store(&mut x);
        let x: [f32; 8] = from_fn(|i| x[i] + x[i + 8]);
        let x: [f32; 4] = from_fn(|i| x[i] + x[i + 4]);
        (x[0] + x[2]) + (x[1] + x[3])
    }

    /// The largest lane; NaN never wins over a number in a later lane.
    #[inline(always)]
    fn max(self) -> f32 {
        let mut x = [0.0; LANES];
        self.store(&mut x);
        let x: [f32; 8] = from_fn(|i| x[i].larger(x[i + 8]));
        let x: [f32; 4] = from_fn(|i| x[i].larger(x[i + 4]));
        x[0].larger(x[2]).larger(x[1].larger(x[3]))
    }
}

/// `exp(x)`, with a relative error below 2e-7: infinity above `ln(f32::MAX)`, subnormals and then 0 below, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    // Beyond these bounds the result is infinite or 0 anyway; NaN passes.
    let x = x.smaller(x.like(89.0)).larger(x.like(-105.0));
    // x = n ln 2 + r with |r| <= ln(2) / 2. The first part of ln 2 has few bits, so that n times it is exact.
    let shifted = x.mul_add(x.like(std::f32::consts::LOG2_E), x.like(ROUND));
    let n = shifted.sub(x.like(ROUND));
    let r = n.mul_add(x.like(-0.693_359_4), x);
    let r = n.mul_add(x.like(2.121_944_4e-4), r);
    // exp(r) = 1 + r + r² q(r); q interpolates at the Chebyshev nodes of the interval.
    let q = x.like(1.392_625_1e-3).mul_add(r, x.like(8.363_233e-3));
    let q = q.mul_add(r, x.like(4.166_655_4e-2));
    let q = q.mul_add(r, x.like(1.666_657_7e-1));
    let q = q.mul_add(r, x.like(0.5));
    let p = q.mul_add(r.mul(r), r).add(x.like(1.0));
    // In two factors, so that the last product overflows or rounds to a subnormal by itself.
    let (a, b) = shifted.power_of_two();
    p.mul(a).mul(b)
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

impl Vector for f32 {
    type Set = ();

    #[inline(always)]
    fn splat((): (), x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn set(self) {}
    #[inline(always)]
    fn add(self, other: f32) -> f32 {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: f32) -> f32 {
        self - other
    }
    #[inline(always)]
    fn mul(self, other: f32) -> f32 {
        self * other
    }
    #[inline(always)]
    fn mul_add(self, factor: f32, addend: f32) -> f32 {
        f32::mul_add(self, factor, addend)
    }
    #[inline(always)]
    fn larger(self, other: f32) -> f32 {
        if other > self { other } else { self }
    }
    #[inline(always)]
    fn smaller(self, other: f32) -> f32 {
        if other < self { other } else { self }
    }
    #[inline(always)]
    fn power_of_two(self) -> (f32, f32) {
        let n = (self.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        let half = n >> 1;
        let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
        (power(half), power(n.wrapping_sub(half)))
    }
}

/// The definition, which also runs on processors without any of these instruction sets.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

impl Vector for Plain {
    type Set = ();

    #[inline(always)]
    fn splat((): (), x: f32) -> Plain {
        Plain([x; LANES])
    }
    #[inline(always)]
    fn set(self) {}
    #[inline(always)]
    fn add(self, other: Plain) -> Plain {
        Plain(from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    fn sub(self, other: Plain) -> Plain {
        Plain(from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    fn mul(self, other: Plain) -> Plain {
        Plain(from_fn(|i| self.0[i] * other.0[i]))
    }
    #[inline(always)]
    fn mul_add(self, factor: Plain, addend: Plain) -> Plain {
        Plain(from_fn(|i| f32::mul_add(self.0[i], factor.0[i], addend.0[i])))
    }
    #[inline(always)]
    fn larger(self, other: Plain) -> Plain {
        Plain(from_fn(|i| self.0[i].larger(other.0[i])))
    }
    #[inline(always)]
    fn smaller(self, other: Plain) -> Plain {
        Plain(from_fn(|i| self.0[i].smaller(other.0[i])))
    }
    #[inline(always)]
    fn power_of_two(self) -> (Plain, Plain) {
        (Plain(from_fn(|i| self.0[i].power_of_two().0)), Plain(from_fn(|i| self.0[i].power_of_two().1)))
    }
}

impl Lanes for Plain {
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn load((): (), from: &[f32; LANES]) -> Plain {
        Plain(*from)
    }
    #[inline(always)]
    fn load_f16((): (), from: &[f16; LANES]) -> Plain {
        Plain(from_fn(|i| from[i].to_f32()))
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn first(self, n: usize, rest: Plain) -> Plain {
        Plain(from_fn(|i| if i < n { self.0[i] } else { rest.0[i] }))
    }
}

/// Compiles a body that is generic over [`Lanes`] for every instruction set and selects by value.
///
/// `vectorised! { fn name(isa, arg: Type, …) -> Ret = body }` makes `fn name(isa: Isa, arg: Type, …) -> Ret` out of an
/// `#[inline(always)]` function `body<V: Lanes>(set: V::Set, arg, …)`.
macro_rules! vectorised {
    ($vis:vis fn $name:ident($isa:ident $(, $arg:ident : $ty:ty)* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $vis fn $name($isa: $crate::cpu::isa::Isa $(, $arg: $ty)*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2(set: $crate::cpu::isa::HasAvx2 $(, $arg: $ty)*) $(-> $ret)? {
                    $body::<$crate::cpu::math::Avx2>(set $(, $arg)*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
                fn avx512(set: $crate::cpu::isa::HasAvx512 $(, $arg: $ty)*) $(-> $ret)? {
                    $body::<$crate::cpu::math::Avx512>(set $(, $arg)*)
                }
                match $isa.proof() {
                    $crate::cpu::isa::Proof::Scalar => {}
                    $crate::cpu::isa::Proof::Avx2(set) | $crate::cpu::isa::Proof::AvxVnni(set, _) => {
                        // SAFETY: the processor has the set, as `set` proves.
                        return unsafe { avx2(set $(, $arg)*) };
                    }
                    $crate::cpu::isa::Proof::Avx512(set) | $crate::cpu::isa::Proof::Amx(set, _) => {
                        // SAFETY: as above.
                        return unsafe { avx512(set $(, $arg)*) };
                    }
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = $isa;
            $body::<$crate::cpu::math::Plain>(() $(, $arg)*)
        }
    };
}
pub(crate) use vectorised;

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

    #[inline(always)]
    fn exp_lanes<V: Lanes>(set: V::Set, x: &[f32], out: &mut [f32]) {
        for (out, x) in out.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
            exp(V::load(set, x)).store(out);
        }
    }
    vectorised! { fn exp_lanes_on(isa, x: &[f32], out: &mut [f32]) = exp_lanes }

    #[inline(always)]
    fn reductions<V: Lanes>(set: V::Set, x: &[f32; LANES], n: usize) -> (f32, f32) {
        (V::load(set, x).sum(), V::load(set, x).first(n, V::splat(set, -9.0)).max())
    }
    vectorised! { fn reductions_on(isa, x: &[f32; LANES], n: usize) -> (f32, f32) = reductions }

    /// Every 1000th float.
    fn many() -> Vec<f32> {
        (0..u32::MAX / 1000 / 16 * 16).map(|i| f32::from_bits(i * 1000)).collect()
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
            for lanes in [false, true] {
                if lanes {
                    exp_lanes_on(isa, &x, &mut out)
                } else {
                    exp_all_on(isa, &x, &mut out)
                }
                for ((a, b), x) in plain.iter().zip(&out).zip(&x) {
                    assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{isa}: exp({x})");
                }
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
    fn reductions_take_every_lane() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for i in 0..LANES {
                let x: [f32; LANES] = from_fn(|j| if i == j { 3.0 } else { -1.0 });
                assert_eq!(reductions_on(isa, &x, LANES), (3.0 - 15.0, 3.0));
                assert_eq!(reductions_on(isa, &x, i).1, if i == 0 { -9.0 } else { -1.0 });
                assert_eq!(reductions_on(isa, &x, i + 1).1, 3.0);
            }
        }
    }
}
