//! The products with AVX2, AVX-VNNI and AVX-512: a lane is a row of the weight.

use super::*;
use crate::cpu::matmul::planes::prefetch;
use crate::cpu::matmul::x86::*;
use std::arch::x86_64::*;

/// Up to so many rows of activations, with AVX2 and AVX-512, groups are unpacked into registers, for each few rows anew; more rows
/// share what they were unpacked into, and so do the fewer than 8 groups at the end of a row, whose vectors may be spread over the
/// bits of a plane's bytes.
const DIRECT_ROWS_MAX: [usize; 2] = [8, 16];

/// Groups' parts as registers take them. The methods are inlined into functions with the set that each names, which is what makes
/// them sound.
pub(super) trait Source<F: Format> {
    fn d512(&self, g: usize) -> __m512;
    fn m512(&self, g: usize) -> __m512;
    /// Vector `i` of group `g`.
    fn codes512(&self, g: usize, i: usize) -> __m512i;
    fn d256(&self, g: usize, half: usize) -> __m256;
    fn m256(&self, g: usize, half: usize) -> __m256;
    /// Half of vector `i` of group `g`; signed if the format is.
    fn codes256(&self, g: usize, i: usize, half: usize) -> __m256i;
    /// Asks for what will be read long after group `g`.
    fn prefetch(&self, g: usize);
}

/// Whether AVX2 takes codes as signed bytes: those above 127 have an offset of 128, so it is gone then.
const fn is_signed<F: Format>() -> bool {
    F::CODE_MAX > 127
}

/// Unpacked before.
impl<F: Format> Source<F> for Unpacked {
    #[inline(always)]
    fn d512(&self, g: usize) -> __m512 {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512_f32(&self.d[g]) }
    }
    #[inline(always)]
    fn m512(&self, g: usize) -> __m512 {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512_f32(&self.m[g]) }
    }
    #[inline(always)]
    fn codes512(&self, g: usize, i: usize) -> __m512i {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512(&self.codes.0.as_chunks::<VECTOR>().0[8 * g + i]) }
    }
    #[inline(always)]
    fn d256(&self, g: usize, half: usize) -> __m256 {
        // SAFETY: inside a function with AVX2.
        unsafe { load256_f32(&self.d[g], half) }
    }
    #[inline(always)]
    fn m256(&self, g: usize, half: usize) -> __m256 {
        // SAFETY: inside a function with AVX2.
        unsafe { load256_f32(&self.m[g], half) }
    }
    #[inline(always)]
    fn codes256(&self, g: usize, i: usize, half: usize) -> __m256i {
        // SAFETY: inside a function with AVX2.
        unsafe { load256(&self.codes.0.as_chunks::<32>().0[2 * (8 * g + i) + half]) }
    }
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

impl<'a> Parts<'a> {
    #[inline(always)]
    fn planes<F: Format>(&self) -> Planes<'a> {
        Planes {
            low: self.low,
            high: self.high,
            low_bits: F::LOW_BITS,
            high_bits: F::HIGH_BITS,
            table: F::TABLE,
            n_vectors: self.groups * 8,
        }
    }

    /// The 16 scales of group `g`, or its constants.
    #[inline(always)]
    fn halves<F: Format>(&self, g: usize, constants: bool) -> &'a [u8; 32] {
        let halves = if F::HAS_MIN { 2 } else { 1 };
        let at = g * halves + usize::from(constants && F::HAS_MIN);
        &self.header.as_chunks::<32>().0[at]
    }
}

#[inline(always)]
fn floats512<F: Format>(halves: &[u8; 32]) -> __m512 {
    // SAFETY: inside a function with AVX-512.
    unsafe {
        if F::WIDE_SCALE {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load256(halves))))
        } else {
            _mm512_cvtph_ps(load256(halves))
        }
    }
}

#[inline(always)]
fn floats256<F: Format>(halves: &[u8; 32], half: usize) -> __m256 {
    let halves = &halves.as_chunks::<16>().0[half];
    // SAFETY: inside a function with AVX2 and F16C; 16 bytes are there.
    unsafe {
        let halves = _mm_loadu_si128(halves.as_ptr().cast());
        if F::WIDE_SCALE {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        } else {
            _mm256_cvtph_ps(halves)
        }
    }
}

/// Unpacked as they are asked for.
impl<F: Format> Source<F> for Parts<'_> {
    #[inline(always)]
    fn d512(&self, g: usize) -> __m512 {
        floats512::<F>(self.halves::<F>(g, false))
    }
    #[inline(always)]
    fn m512(&self, g: usize) -> __m512 {
        floats512::<F>(self.halves::<F>(g, true))
    }
    #[inline(always)]
    fn codes512(&self, g: usize, i: usize) -> __m512i {
        self.planes::<F>().codes512(8 * g, i)
    }
    #[inline(always)]
    fn d256(&self, g: usize, half: usize) -> __m256 {
        floats256::<F>(self.halves::<F>(g, false), half)
    }
    #[inline(always)]
    fn m256(&self, g: usize, half: usize) -> __m256 {
        floats256::<F>(self.halves::<F>(g, true), half)
    }
    #[inline(always)]
    fn codes256(&self, g: usize, i: usize, half: usize) -> __m256i {
        let codes = self.planes::<F>().codes256(8 * g, i, half);
        if is_signed::<F>() {
            // SAFETY: inside a function with AVX2.
            return unsafe { _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) };
        }
        codes
    }
    #[inline(always)]
    fn prefetch(&self, g: usize) {
        if g == 0 {
            prefetch(self.header);
        }
        self.planes::<F>().prefetch(8 * g, 8);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn tile_avx512<F: Format>(
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let parts = parts::<F>(tile, n_groups, b);
        let groups = parts.groups;
        if groups == 8 && records.len() <= DIRECT_ROWS_MAX[1] {
            in_groups!(records, acc, [8, 6, 4, 3, 2, 1], |records, acc, N| dot_avx512::<F, _, N>(
                &parts, groups, records, acc
            ));
            continue;
        }
        if groups == 8 {
            unpack_avx512::<F>(&parts, scratch);
        } else {
            unpack_scalar::<F>(parts, scratch);
        }
        in_groups!(records, acc, [8, 4, 2, 1], |records, acc, N| dot_avx512::<F, _, N>(
            &*scratch, groups, records, acc
        ));
    }
}

/// Unpacks 8 groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn unpack_avx512<F: Format>(parts: &Parts<'_>, out: &mut Unpacked) {
    for g in 0..8 {
        Source::<F>::prefetch(parts, g);
        store512_f32(&mut out.d[g], Source::<F>::d512(parts, g));
        if F::HAS_MIN {
            store512_f32(&mut out.m[g], Source::<F>::m512(parts, g));
        }
        for i in 0..8 {
            let codes = &mut out.codes.0.as_chunks_mut::<VECTOR>().0[8 * g + i];
            store512(codes, Source::<F>::codes512(parts, g, i));
        }
    }
}

/// # Safety
/// With `VNNI`, the processor has AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile_avx2<F: Format, const VNNI: bool>(
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let parts = parts::<F>(tile, n_groups, b);
        let groups = parts.groups;
        if groups == 8 && records.len() <= DIRECT_ROWS_MAX[0] {
            // SAFETY: as this function.
            unsafe { rows_avx2::<F, _, VNNI>(&parts, groups, records, acc) };
            continue;
        }
        if groups < 8 {
            unpack_scalar::<F>(parts, scratch);
            if is_signed::<F>() {
                scratch.codes.0.iter_mut().for_each(|code| *code ^= 0x80);
            }
        }
        for g in 0..groups / 8 * 8 {
            Source::<F>::prefetch(&parts, g);
            for half in 0..2 {
                store256_f32(&mut scratch.d[g], half, Source::<F>::d256(&parts, g, half));
                if F::HAS_MIN {
                    store256_f32(&mut scratch.m[g], half, Source::<F>::m256(&parts, g, half));
                }
                for i in 0..8 {
                    let codes = &mut scratch.codes.0.as_chunks_mut::<32>().0[2 * (8 * g + i) + half];
                    store256(codes, Source::<F>::codes256(&parts, g, i, half));
                }
            }
        }
        // SAFETY: as this function.
        unsafe { rows_avx2::<F, _, VNNI>(&*scratch, groups, records, acc) };
    }
}

/// Up to 8 groups with all rows of activations.
///
/// # Safety
/// As [`tile_avx2`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_avx2<F: Format, S: Source<F>, const VNNI: bool>(
    block: &S,
    groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
) {
    in_groups!(records, acc, [4, 3, 2, 1], |records, acc, N| if VNNI {
        // SAFETY: the processor has it.
        unsafe { dot_vnni::<F, S, N>(block, groups, records, acc) }
    } else {
        dot_avx2::<F, S, N>(block, groups, records, acc);
    });
}

/// Up to 8 groups with `R` rows of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn dot_avx512<F: Format, S: Source<F>, const R: usize>(
    block: &S,
    groups: usize,
    records: &[Record32; R],
    acc: &mut [[f32; TILE]; R],
) {
    let mut out = [_mm512_setzero_ps(); R];
    for r in 0..R {
        out[r] = load512_f32(&acc[r]);
    }
    // The offset as a 16-bit pair with 0, so that one instruction multiplies a sum by it.
    let offset = _mm512_set1_epi32(i32::from((-F::OFFSET) as u16));
    for g in 0..groups {
        block.prefetch(g);
        let mut dot = [_mm512_setzero_si512(); R];
        if F::OFFSET != 0 {
            for r in 0..R {
                let sum = _mm512_set1_epi32(records[r].sums[g]);
                dot[r] = _mm512_dpwssd_epi32(dot[r], offset, sum);
            }
        }
        for i in 0..8 {
            let codes = block.codes512(g, i);
            for r in 0..R {
                let x = _mm512_set1_epi32(quad(&records[r].codes, 8 * g + i));
                dot[r] = _mm512_dpbusd_epi32(dot[r], codes, x);
            }
        }
        let d = block.d512(g);
        for r in 0..R {
            let scale = _mm512_mul_ps(d, _mm512_set1_ps(records[r].scales[g]));
            out[r] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot[r]), out[r]);
        }
        if F::HAS_MIN {
            let m = block.m512(g);
            for r in 0..R {
                out[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(records[r].scaled_sums[g]), out[r]);
            }
        }
    }
    for r in 0..R {
        store512_f32(&mut acc[r], out[r]);
    }
}

/// As `dot_avx512`, eight rows of the weight at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2<F: Format, S: Source<F>, const R: usize>(
    block: &S,
    groups: usize,
    records: &[Record32; R],
    acc: &mut [[f32; TILE]; R],
) {
    let ones = _mm256_set1_epi16(1);
    let run = run(F::CODE_MAX);
    for half in 0..2 {
        let mut out = [_mm256_setzero_ps(); R];
        for r in 0..R {
            out[r] = load256_f32(&acc[r], half);
        }
        for g in 0..groups {
            if half == 0 {
                block.prefetch(g);
            }
            let mut dot = [_mm256_setzero_si256(); R];
            for first in (0..8).step_by(run) {
                let mut sum = [_mm256_setzero_si256(); R];
                for i in first..first + run {
                    let codes = block.codes256(g, i, half);
                    let magnitude = if is_signed::<F>() { _mm256_abs_epi8(codes) } else { codes };
                    for r in 0..R {
                        let x = _mm256_set1_epi32(quad(&records[r].codes, 8 * g + i));
                        let x = if is_signed::<F>() { _mm256_sign_epi8(x, codes) } else { x };
                        sum[r] = _mm256_add_epi16(sum[r], _mm256_maddubs_epi16(magnitude, x));
                    }
                }
                for r in 0..R {
                    dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(sum[r], ones));
                }
            }
            if F::OFFSET != 0 && !is_signed::<F>() {
                take_offset_away::<F, R>(g, records, &mut dot);
            }
            finish_avx2::<F, S, R>(block, g, half, records, dot, &mut out);
        }
        for r in 0..R {
            store256_f32(&mut acc[r], half, out[r]);
        }
    }
}

/// As `dot_avx2`.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn dot_vnni<F: Format, S: Source<F>, const R: usize>(
    block: &S,
    groups: usize,
    records: &[Record32; R],
    acc: &mut [[f32; TILE]; R],
) {
    for half in 0..2 {
        let mut out = [_mm256_setzero_ps(); R];
        for r in 0..R {
            out[r] = load256_f32(&acc[r], half);
        }
        for g in 0..groups {
            if half == 0 {
                block.prefetch(g);
            }
            let mut dot = [_mm256_setzero_si256(); R];
            if F::OFFSET != 0 {
                take_offset_away::<F, R>(g, records, &mut dot);
            }
            for i in 0..8 {
                let mut codes = block.codes256(g, i, half);
                if is_signed::<F>() {
                    codes = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
                }
                for r in 0..R {
                    let x = _mm256_set1_epi32(quad(&records[r].codes, 8 * g + i));
                    dot[r] = _mm256_dpbusd_avx_epi32(dot[r], codes, x);
                }
            }
            finish_avx2::<F, S, R>(block, g, half, records, dot, &mut out);
        }
        for r in 0..R {
            store256_f32(&mut acc[r], half, out[r]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn take_offset_away<F: Format, const R: usize>(g: usize, records: &[Record32; R], dot: &mut [__m256i; R]) {
    for r in 0..R {
        let away = _mm256_set1_epi32(-i32::from(F::OFFSET) * records[r].sums[g]);
        dot[r] = _mm256_add_epi32(dot[r], away);
    }
}

/// Adds the integer sums of a group to the float sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn finish_avx2<F: Format, S: Source<F>, const R: usize>(
    block: &S,
    g: usize,
    half: usize,
    records: &[Record32; R],
    dot: [__m256i; R],
    out: &mut [__m256; R],
) {
    let (d, m) = (block.d256(g, half), block.m256(g, half));
    for r in 0..R {
        let scale = _mm256_mul_ps(d, _mm256_set1_ps(records[r].scales[g]));
        out[r] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot[r]), out[r]);
        if F::HAS_MIN {
            out[r] = _mm256_fmadd_ps(m, _mm256_set1_ps(records[r].scaled_sums[g]), out[r]);
        }
    }
}
