//! [`Lanes`] as the registers of x86 processors. Each value holds the zero-sized proof that the processor has the instructions, and cannot
//! be made without it.

use super::{LANES, Lanes, ROUND, Vector};
use crate::cpu::isa::{HasAvx2, HasAvx512};
use half::f16;
use std::arch::x86_64::*;

/// Two AVX2 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2([__m256; 2], HasAvx2);

/// One AVX-512 register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512, HasAvx512);

impl Avx2 {
    #[inline(always)]
    fn both(self, other: Avx2, f: impl Fn(__m256, __m256) -> __m256) -> Avx2 {
        Avx2([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])], self.1)
    }
}

impl Vector for Avx2 {
    type Set = HasAvx2;

    #[inline(always)]
    fn splat(set: HasAvx2, x: f32) -> Avx2 {
        // SAFETY: `set` proves AVX2.
        Avx2([unsafe { _mm256_set1_ps(x) }; 2], set)
    }
    #[inline(always)]
    fn set(self) -> HasAvx2 {
        self.1
    }
    #[inline(always)]
    fn add(self, other: Avx2) -> Avx2 {
        // SAFETY: `self` proves AVX2.
        self.both(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }
    #[inline(always)]
    fn sub(self, other: Avx2) -> Avx2 {
        // SAFETY: `self` proves AVX2.
        self.both(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }
    #[inline(always)]
    fn mul(self, other: Avx2) -> Avx2 {
        // SAFETY: `self` proves AVX2.
        self.both(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Avx2, addend: Avx2) -> Avx2 {
        // SAFETY: `self` proves FMA.
        let f = |i: usize| unsafe { _mm256_fmadd_ps(self.0[i], factor.0[i], addend.0[i]) };
        Avx2([f(0), f(1)], self.1)
    }
    #[inline(always)]
    fn larger(self, other: Avx2) -> Avx2 {
        // SAFETY: `self` proves AVX2. The instruction gives its second operand unless the first is larger.
        self.both(other, |a, b| unsafe { _mm256_max_ps(b, a) })
    }
    #[inline(always)]
    fn smaller(self, other: Avx2) -> Avx2 {
        // SAFETY: `self` proves AVX2. The instruction gives its second operand unless the first is smaller.
        self.both(other, |a, b| unsafe { _mm256_min_ps(b, a) })
    }
    #[inline(always)]
    fn power_of_two(self) -> (Avx2, Avx2) {
        let ((a, b), (c, d)) = (powers_avx2(self.1, self.0[0]), powers_avx2(self.1, self.0[1]));
        (Avx2([a, c], self.1), Avx2([b, d], self.1))
    }
}

// No closures in these two: the compiler does not inline them everywhere, and a call costs more than they do.
#[inline(always)]
fn powers_avx2(_set: HasAvx2, x: __m256) -> (__m256, __m256) {
    // SAFETY: `_set` proves AVX2.
    unsafe {
        let n = _mm256_sub_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(ROUND.to_bits() as i32));
        let half = _mm256_srai_epi32::<1>(n);
        let bias = _mm256_set1_epi32(127);
        let (a, b) = (_mm256_add_epi32(half, bias), _mm256_add_epi32(_mm256_sub_epi32(n, half), bias));
        let (a, b) = (_mm256_slli_epi32::<23>(a), _mm256_slli_epi32::<23>(b));
        (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b))
    }
}

#[inline(always)]
fn powers_avx512(_set: HasAvx512, x: __m512) -> (__m512, __m512) {
    // SAFETY: `_set` proves AVX-512.
    unsafe {
        let n = _mm512_sub_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(ROUND.to_bits() as i32));
        let half = _mm512_srai_epi32::<1>(n);
        let bias = _mm512_set1_epi32(127);
        let (a, b) = (_mm512_add_epi32(half, bias), _mm512_add_epi32(_mm512_sub_epi32(n, half), bias));
        let (a, b) = (_mm512_slli_epi32::<23>(a), _mm512_slli_epi32::<23>(b));
        (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b))
    }
}

impl Lanes for Avx2 {
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn load(set: HasAvx2, from: &[f32; LANES]) -> Avx2 {
        // SAFETY: `set` proves AVX2; both halves lie inside the array.
        Avx2(unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }, set)
    }
    #[inline(always)]
    fn load_f16(set: HasAvx2, from: &[f16; LANES]) -> Avx2 {
        // SAFETY: `set` proves AVX2 and F16C; both halves lie inside the array.
        unsafe {
            let (low, high) = (from.as_ptr().cast(), from.as_ptr().add(8).cast());
            Avx2([_mm256_cvtph_ps(_mm_loadu_si128(low)), _mm256_cvtph_ps(_mm_loadu_si128(high))], set)
        }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX2; both halves lie inside the array.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.0[1]);
        }
    }
    #[inline(always)]
    fn first(self, n: usize, rest: Avx2) -> Avx2 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let n = _mm256_set1_epi32(n.min(LANES) as i32);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
            let [low, high] = [low, high].map(|lane| _mm256_castsi256_ps(_mm256_cmpgt_epi32(n, lane)));
            let halves =
                [_mm256_blendv_ps(rest.0[0], self.0[0], low), _mm256_blendv_ps(rest.0[1], self.0[1], high)];
            Avx2(halves, self.1)
        }
    }
}

impl Vector for Avx512 {
    type Set = HasAvx512;

    #[inline(always)]
    fn splat(set: HasAvx512, x: f32) -> Avx512 {
        // SAFETY: `set` proves AVX-512.
        Avx512(unsafe { _mm512_set1_ps(x) }, set)
    }
    #[inline(always)]
    fn set(self) -> HasAvx512 {
        self.1
    }
    #[inline(always)]
    fn add(self, other: Avx512) -> Avx512 {
        // SAFETY: `self` proves AVX-512.
        Avx512(unsafe { _mm512_add_ps(self.0, other.0) }, self.1)
    }
    #[inline(always)]
    fn sub(self, other: Avx512) -> Avx512 {
        // SAFETY: `self` proves AVX-512.
        Avx512(unsafe { _mm512_sub_ps(self.0, other.0) }, self.1)
    }
    #[inline(always)]
    fn mul(self, other: Avx512) -> Avx512 {
        // SAFETY: `self` proves AVX-512.
        Avx512(unsafe { _mm512_mul_ps(self.0, other.0) }, self.1)
    }
    #[inline(always)]
    fn mul_add(self, factor: Avx512, addend: Avx512) -> Avx512 {
        // SAFETY: `self` proves AVX-512.
        Avx512(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) }, self.1)
    }
    #[inline(always)]
    fn larger(self, other: Avx512) -> Avx512 {
        // SAFETY: `self` proves AVX-512. The instruction gives its second operand unless the first is larger.
        Avx512(unsafe { _mm512_max_ps(other.0, self.0) }, self.1)
    }
    #[inline(always)]
    fn smaller(self, other: Avx512) -> Avx512 {
        // SAFETY: `self` proves AVX-512. The instruction gives its second operand unless the first is smaller.
        Avx512(unsafe { _mm512_min_ps(other.0, self.0) }, self.1)
    }
    #[inline(always)]
    fn power_of_two(self) -> (Avx512, Avx512) {
        let (a, b) = powers_avx512(self.1, self.0);
        (Avx512(a, self.1), Avx512(b, self.1))
    }
}

impl Lanes for Avx512 {
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn load(set: HasAvx512, from: &[f32; LANES]) -> Avx512 {
        // SAFETY: `set` proves AVX-512; the array has sixteen floats.
        Avx512(unsafe { _mm512_loadu_ps(from.as_ptr()) }, set)
    }
    #[inline(always)]
    fn load_f16(set: HasAvx512, from: &[f16; LANES]) -> Avx512 {
        // SAFETY: `set` proves AVX-512; the array has sixteen halves.
        Avx512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }, set)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX-512; the array has sixteen floats.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn first(self, n: usize, rest: Avx512) -> Avx512 {
        let mask = ((1u32 << n.min(LANES)) - 1) as u16;
        // SAFETY: `self` proves AVX-512.
        Avx512(unsafe { _mm512_mask_blend_ps(mask, rest.0, self.0) }, self.1)
    }
}
