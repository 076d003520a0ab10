//! The products with AVX2, eight rows of the weight at a time. Byte products are added in 16 bits as far as they fit, then multiplied by
//! the scale and widened in one instruction.

use super::*;
use crate::cpu::matmul::planes::prefetch;
use crate::cpu::matmul::x86::{in_groups, load256, load256_f32, quad, run, store256, store256_f32};
use std::arch::x86_64::*;

/// Up to so many rows of activations, a block is unpacked into registers; more rows share what it was unpacked into.
const DIRECT_ROWS_MAX: usize = 4;

/// One half (eight rows) of a block's parts as registers take them. The methods are inlined into functions with AVX2, which is what makes
/// them sound.
trait Source<F: Format> {
    fn d(&self, half: usize) -> __m256;
    fn dmin(&self, half: usize) -> __m256;
    /// Scales of the groups `2p` and `2p + 1`, as 16-bit pairs.
    fn scales(&self, half: usize, p: usize) -> __m256i;
    /// The same of minima.
    fn mins(&self, half: usize, p: usize) -> __m256i;
    /// Vector `i` of group `g`; signed if the format is.
    fn codes(&self, half: usize, g: usize, i: usize) -> __m256i;
    /// Asks for what will be read long after group `g`.
    fn prefetch(&self, g: usize);
}

/// Whether codes are made signed bytes: those above 127 have an offset of 128, so it is gone then.
const fn is_signed<F: Format>() -> bool {
    F::CODE_MAX > 127
}

/// Unpacked before.
impl<F: Format> Source<F> for Unpacked {
    #[inline(always)]
    fn d(&self, half: usize) -> __m256 {
        // SAFETY: inside a function with AVX2.
        unsafe { load256_f32(&self.d, half) }
    }
    #[inline(always)]
    fn dmin(&self, half: usize) -> __m256 {
        // SAFETY: inside a function with AVX2.
        unsafe { load256_f32(&self.dmin, half) }
    }
    #[inline(always)]
    fn scales(&self, half: usize, p: usize) -> __m256i {
        let bytes: &[u8; 64] = bytemuck::cast_ref(&self.scales[p]);
        // SAFETY: inside a function with AVX2.
        unsafe { load256(&bytes.as_chunks::<32>().0[half]) }
    }
    #[inline(always)]
    fn mins(&self, half: usize, p: usize) -> __m256i {
        let bytes: &[u8; 64] = bytemuck::cast_ref(&self.mins[p]);
        // SAFETY: inside a function with AVX2.
        unsafe { load256(&bytes.as_chunks::<32>().0[half]) }
    }
    #[inline(always)]
    fn codes(&self, half: usize, g: usize, i: usize) -> __m256i {
        // SAFETY: inside a function with AVX2.
        unsafe { load256(&self.codes.0.as_chunks::<32>().0[2 * (g * F::GROUP / 4 + i) + half]) }
    }
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// Unpacked as they are asked for.
impl<F: Format> Source<F> for Parts<'_> {
    #[inline(always)]
    fn d(&self, half: usize) -> __m256 {
        // SAFETY: inside a function with AVX2 and F16C.
        unsafe { _mm256_cvtph_ps(bytes(self.header, 16 * half)) }
    }
    #[inline(always)]
    fn dmin(&self, half: usize) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(bytes(self.header, 32 + 16 * half)) }
    }
    #[inline(always)]
    fn scales(&self, half: usize, p: usize) -> __m256i {
        let at = 32 * p + 16 * half;
        // SAFETY: inside a function with AVX2.
        unsafe {
            match F::SCALES {
                Scales::SixBits => {
                    let scales = _mm256_cvtepu8_epi16(six(self.scales, at));
                    if F::SCALE_OFFSET == 0 {
                        scales
                    } else {
                        _mm256_add_epi16(scales, _mm256_set1_epi16(F::SCALE_OFFSET))
                    }
                }
                Scales::Bytes => _mm256_cvtepi8_epi16(bytes(self.scales, at)),
                Scales::Nibbles => {
                    let bytes = _mm256_cvtepu8_epi16(bytes(self.scales, at));
                    _mm256_and_si256(bytes, _mm256_set1_epi16(15))
                }
            }
        }
    }
    #[inline(always)]
    fn mins(&self, half: usize, p: usize) -> __m256i {
        let at = 32 * p + 16 * half;
        // SAFETY: inside a function with AVX2.
        unsafe {
            match F::SCALES {
                Scales::SixBits => _mm256_cvtepu8_epi16(six(self.scales, n_groups::<F>() * TILE + at)),
                Scales::Bytes => _mm256_setzero_si256(),
                Scales::Nibbles => _mm256_srli_epi16::<4>(_mm256_cvtepu8_epi16(bytes(self.scales, at))),
            }
        }
    }
    #[inline(always)]
    fn codes(&self, half: usize, g: usize, i: usize) -> __m256i {
        let codes = self.planes::<F>().codes256(g * F::GROUP / 4, i, half);
        if is_signed::<F>() {
            // SAFETY: inside a function with AVX2.
            return unsafe { _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) };
        }
        codes
    }
    #[inline(always)]
    fn prefetch(&self, g: usize) {
        if g == 0 {
            prefetch(self.scales);
        }
        self.planes::<F>().prefetch(g * F::GROUP / 4, F::GROUP / 4);
    }
}

/// 16 bytes from `at` on.
#[inline(always)]
fn bytes(from: &[u8], at: usize) -> __m128i {
    let bytes: &[u8; 16] = from[at..at + 16].try_into().expect("16 bytes");
    // SAFETY: inside a function with AVX2; 16 bytes are there.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// 16 numbers of 6 bits from number `at` on, see [`put_six`].
#[inline(always)]
fn six(packed: &[u8], at: usize) -> __m128i {
    // SAFETY: inside a function with AVX2.
    unsafe {
        if at < 192 {
            return _mm_and_si128(bytes(packed, at), _mm_set1_epi8(63));
        }
        let part = |i: usize| bytes(packed, 64 * i + at - 192);
        let first = _mm_and_si128(_mm_srli_epi16::<6>(part(0)), _mm_set1_epi8(3));
        let second = _mm_and_si128(_mm_srli_epi16::<4>(part(1)), _mm_set1_epi8(3 << 2));
        let third = _mm_and_si128(_mm_srli_epi16::<2>(part(2)), _mm_set1_epi8(3 << 4));
        _mm_or_si128(_mm_or_si128(first, second), third)
    }
}

/// All products of a tile.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tile<F: Format>(
    tile: &[u8],
    records: &[Record256],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    let n_blocks = records.len() / acc.len();
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let parts = parts::<F>(tile, n_blocks, b);
        if records.len() <= DIRECT_ROWS_MAX {
            in_groups!(records, acc, [4, 3, 2, 1], |records, acc, N| dot::<
                F,
                _,
                { if N < 3 { 2 } else { 1 } },
                N,
            >(&parts, records, acc));
        } else {
            unpack_avx2::<F>(tile, n_blocks, b, scratch);
            in_groups!(records, acc, [4, 3, 2, 1], |records, acc, N| dot::<
                F,
                _,
                { if N < 3 { 2 } else { 1 } },
                N,
            >(&*scratch, records, acc));
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_avx2<F: Format>(tile: &[u8], n_blocks: usize, b: usize, out: &mut Unpacked) {
    let parts = parts::<F>(tile, n_blocks, b);
    for half in 0..2 {
        store256_f32(&mut out.d, half, Source::<F>::d(&parts, half));
        if F::HAS_MIN {
            store256_f32(&mut out.dmin, half, Source::<F>::dmin(&parts, half));
        }
        for p in 0..n_groups::<F>() / 2 {
            let scales: &mut [u8; 64] = bytemuck::cast_mut(&mut out.scales[p]);
            store256(&mut scales.as_chunks_mut::<32>().0[half], Source::<F>::scales(&parts, half, p));
            if F::HAS_MIN {
                let mins: &mut [u8; 64] = bytemuck::cast_mut(&mut out.mins[p]);
                store256(&mut mins.as_chunks_mut::<32>().0[half], Source::<F>::mins(&parts, half, p));
            }
        }
    }
    let (vectors, _) = out.codes.0.as_chunks_mut::<32>();
    for g in 0..n_groups::<F>() {
        Source::<F>::prefetch(&parts, g);
        for i in 0..F::GROUP / 4 {
            for half in 0..2 {
                let codes = Source::<F>::codes(&parts, half, g, i);
                store256(&mut vectors[2 * (g * F::GROUP / 4 + i) + half], codes);
            }
        }
    }
}

/// One block with `R` rows of activations, `H` halves at a time: as many as there are registers for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<F: Format, S: Source<F>, const H: usize, const R: usize>(
    block: &S,
    records: &[Record256; R],
    acc: &mut [[f32; TILE]; R],
) {
    let run = run(F::CODE_MAX).min(F::GROUP / 4);
    // The first or the second 16 bits of each lane, twice.
    let twice =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13));
    let twice = [twice, _mm256_or_si256(twice, _mm256_set1_epi8(2))];
    for first_half in (0..2).step_by(H) {
        let mut pairs = [[_mm256_setzero_si256(); R]; H];
        let takes_away = F::OFFSET != 0 && !is_signed::<F>();
        if F::HAS_MIN || takes_away {
            for p in 0..n_groups::<F>() / 2 {
                for h in 0..H {
                    let half = first_half + h;
                    let factors = if F::HAS_MIN { block.mins(half, p) } else { block.scales(half, p) };
                    for r in 0..R {
                        let sums = _mm256_set1_epi32(sums::<F>(&records[r], p));
                        pairs[h][r] = _mm256_add_epi32(pairs[h][r], _mm256_madd_epi16(factors, sums));
                    }
                }
            }
        }
        let mut dot = [[_mm256_setzero_si256(); R]; H];
        if takes_away {
            let away = _mm256_set1_epi32(-i32::from(F::OFFSET));
            for h in 0..H {
                for r in 0..R {
                    dot[h][r] = _mm256_mullo_epi32(pairs[h][r], away);
                }
            }
        }
        for g in 0..n_groups::<F>() {
            if first_half == 0 {
                block.prefetch(g);
            }
            for first in (0..F::GROUP / 4).step_by(run) {
                let mut sum = [[_mm256_setzero_si256(); R]; H];
                for i in first..first + run {
                    for h in 0..H {
                        let codes = block.codes(first_half + h, g, i);
                        let magnitude = if is_signed::<F>() { _mm256_abs_epi8(codes) } else { codes };
                        for r in 0..R {
                            let x = _mm256_set1_epi32(quad(&records[r].codes, g * F::GROUP / 4 + i));
                            let x = if is_signed::<F>() { _mm256_sign_epi8(x, codes) } else { x };
                            sum[h][r] = _mm256_add_epi16(sum[h][r], _mm256_maddubs_epi16(magnitude, x));
                        }
                    }
                }
                for h in 0..H {
                    let scale = _mm256_shuffle_epi8(block.scales(first_half + h, g / 2), twice[g % 2]);
                    for r in 0..R {
                        dot[h][r] = _mm256_add_epi32(dot[h][r], _mm256_madd_epi16(sum[h][r], scale));
                    }
                }
            }
        }
        for h in 0..H {
            let half = first_half + h;
            for r in 0..R {
                let a = _mm256_set1_ps(records[r].scale);
                let scale = _mm256_mul_ps(block.d(half), a);
                let dot = _mm256_cvtepi32_ps(dot[h][r]);
                let mut out = _mm256_fmadd_ps(scale, dot, load256_f32(&acc[r], half));
                if F::HAS_MIN {
                    let scale = _mm256_mul_ps(block.dmin(half), a);
                    out = _mm256_fnmadd_ps(scale, _mm256_cvtepi32_ps(pairs[h][r]), out);
                }
                store256_f32(&mut acc[r], half, out);
            }
        }
    }
}
