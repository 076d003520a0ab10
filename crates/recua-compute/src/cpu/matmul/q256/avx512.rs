//! The products with AVX-512 and VNNI: a lane is a row of the weight.

use super::*;
use crate::cpu::matmul::planes::prefetch;
use crate::cpu::matmul::x86::{in_groups, load512, load512_f32, quad, store512, store512_f32};
use std::arch::x86_64::*;

/// Up to so many rows of activations, a block is unpacked into registers, for each group of rows anew; more rows share what the blocks
/// of two tiles were unpacked into.
pub(super) const DIRECT_ROWS_MAX: usize = 16;

/// A block's parts as registers take them. The methods are inlined into functions with AVX-512, which is what makes them sound.
pub(super) trait Source<F: Format> {
    fn d(&self) -> __m512;
    fn dmin(&self) -> __m512;
    /// Scales of the groups `2p` and `2p + 1`, as 16-bit pairs.
    fn scales(&self, p: usize) -> __m512i;
    /// The same of minima.
    fn mins(&self, p: usize) -> __m512i;
    /// Vector `i` of group `g`.
    fn codes(&self, g: usize, i: usize) -> __m512i;
    /// Asks for what will be read long after group `g`.
    fn prefetch(&self, g: usize);
}

/// Unpacked before.
impl<F: Format> Source<F> for Unpacked {
    #[inline(always)]
    fn d(&self) -> __m512 {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512_f32(&self.d) }
    }
    #[inline(always)]
    fn dmin(&self) -> __m512 {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512_f32(&self.dmin) }
    }
    #[inline(always)]
    fn scales(&self, p: usize) -> __m512i {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512(bytemuck::cast_ref(&self.scales[p])) }
    }
    #[inline(always)]
    fn mins(&self, p: usize) -> __m512i {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512(bytemuck::cast_ref(&self.mins[p])) }
    }
    #[inline(always)]
    fn codes(&self, g: usize, i: usize) -> __m512i {
        // SAFETY: inside a function with AVX-512.
        unsafe { load512(&self.codes.0.as_chunks::<VECTOR>().0[g * F::GROUP / 4 + i]) }
    }
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// Unpacked as they are asked for.
impl<F: Format> Source<F> for Parts<'_> {
    #[inline(always)]
    fn d(&self) -> __m512 {
        halves(self.header, 0)
    }
    #[inline(always)]
    fn dmin(&self) -> __m512 {
        halves(self.header, usize::from(F::HAS_MIN))
    }
    #[inline(always)]
    fn scales(&self, p: usize) -> __m512i {
        // SAFETY: inside a function with AVX-512.
        unsafe {
            match F::SCALES {
                Scales::SixBits => {
                    let scales = _mm512_cvtepu8_epi16(six(self.scales, p));
                    if F::SCALE_OFFSET == 0 {
                        scales
                    } else {
                        _mm512_add_epi16(scales, _mm512_set1_epi16(F::SCALE_OFFSET))
                    }
                }
                Scales::Bytes => _mm512_cvtepi8_epi16(bytes(self.scales, 32 * p)),
                Scales::Nibbles => {
                    let bytes = _mm512_cvtepu8_epi16(bytes(self.scales, 32 * p));
                    _mm512_and_si512(bytes, _mm512_set1_epi16(15))
                }
            }
        }
    }
    #[inline(always)]
    fn mins(&self, p: usize) -> __m512i {
        // SAFETY: inside a function with AVX-512.
        unsafe {
            match F::SCALES {
                Scales::SixBits => _mm512_cvtepu8_epi16(six(self.scales, n_groups::<F>() / 2 + p)),
                Scales::Bytes => _mm512_setzero_si512(),
                Scales::Nibbles => _mm512_srli_epi16::<4>(_mm512_cvtepu8_epi16(bytes(self.scales, 32 * p))),
            }
        }
    }
    #[inline(always)]
    fn codes(&self, g: usize, i: usize) -> __m512i {
        self.planes::<F>().codes512(g * F::GROUP / 4, i)
    }
    #[inline(always)]
    fn prefetch(&self, g: usize) {
        if g == 0 {
            prefetch(self.scales);
        }
        self.planes::<F>().prefetch(g * F::GROUP / 4, F::GROUP / 4);
    }
}

/// 16 f16.
#[inline(always)]
fn halves(header: &[u8], i: usize) -> __m512 {
    // SAFETY: inside a function with AVX-512.
    unsafe { _mm512_cvtph_ps(bytes(header, i * 32)) }
}

/// 32 bytes from `at` on.
#[inline(always)]
fn bytes(from: &[u8], at: usize) -> __m256i {
    let bytes: &[u8; 32] = from[at..at + 32].try_into().expect("32 bytes");
    // SAFETY: inside a function with AVX-512; 32 bytes are there.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Numbers `[32p, 32p + 32)` of 6 bits, see [`put_six`].
#[inline(always)]
fn six(packed: &[u8], p: usize) -> __m256i {
    // SAFETY: inside a function with AVX-512.
    unsafe {
        if p < 6 {
            return _mm256_and_si256(bytes(packed, 32 * p), _mm256_set1_epi8(63));
        }
        let part = |i: usize| bytes(packed, 64 * i + 32 * (p - 6));
        let first = _mm256_and_si256(_mm256_srli_epi16::<6>(part(0)), _mm256_set1_epi8(3));
        let second = _mm256_and_si256(_mm256_srli_epi16::<4>(part(1)), _mm256_set1_epi8(3 << 2));
        let third = _mm256_and_si256(_mm256_srli_epi16::<2>(part(2)), _mm256_set1_epi8(3 << 4));
        _mm256_or_si256(_mm256_or_si256(first, second), third)
    }
}

/// All products of a tile, best with few rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn tile<F: Format>(tile: &[u8], records: &[Record256], acc: &mut [[f32; TILE]]) {
    acc.fill([0.0; TILE]);
    let n_blocks = records.len() / acc.len();
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let parts = parts::<F>(tile, n_blocks, b);
        in_groups!(records, acc, [8, 6, 4, 3, 2, 1], |records, acc, N| dot::<F, _, 1, N>(
            [&parts],
            records,
            [acc]
        ));
    }
}

/// All products of two tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn two_tiles<F: Format>(
    tiles: &[u8],
    records: &[Record256],
    rows: usize,
    acc: &mut [[f32; TILE]],
    scratch: &mut [Unpacked; 2],
) {
    acc.fill([0.0; TILE]);
    let n_blocks = (records.len() - RECORDS_BEHIND) / rows;
    let (tile0, tile1) = tiles.split_at(tiles.len() / 2);
    let (acc0, acc1) = acc.split_at_mut(rows);
    let [block0, block1] = scratch;
    for (b, records) in records.chunks_exact(rows).take(n_blocks).enumerate() {
        unpack_avx512::<F>(tile0, n_blocks, b, block0);
        unpack_avx512::<F>(tile1, n_blocks, b, block1);
        let (records4, records1) = records.as_chunks::<4>();
        let (first4, first1) = acc0.as_chunks_mut::<4>();
        let (second4, second1) = acc1.as_chunks_mut::<4>();
        for ((records, first), second) in records4.iter().zip(first4).zip(second4) {
            dot::<F, _, 2, 4>([&*block0, &*block1], records, [first, second]);
        }
        let (records1, first1, second1) =
            (records1.as_chunks::<1>().0, first1.as_chunks_mut::<1>().0, second1.as_chunks_mut::<1>().0);
        for ((records, first), second) in records1.iter().zip(first1).zip(second1) {
            dot::<F, _, 2, 1>([&*block0, &*block1], records, [first, second]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn unpack_avx512<F: Format>(tile: &[u8], n_blocks: usize, b: usize, out: &mut Unpacked) {
    let parts = parts::<F>(tile, n_blocks, b);
    store512_f32(&mut out.d, Source::<F>::d(&parts));
    if F::HAS_MIN {
        store512_f32(&mut out.dmin, Source::<F>::dmin(&parts));
    }
    for p in 0..n_groups::<F>() / 2 {
        store512(bytemuck::cast_mut(&mut out.scales[p]), Source::<F>::scales(&parts, p));
        if F::HAS_MIN {
            store512(bytemuck::cast_mut(&mut out.mins[p]), Source::<F>::mins(&parts, p));
        }
    }
    let (vectors, _) = out.codes.0.as_chunks_mut::<VECTOR>();
    for g in 0..n_groups::<F>() {
        Source::<F>::prefetch(&parts, g);
        for i in 0..F::GROUP / 4 {
            store512(&mut vectors[g * F::GROUP / 4 + i], Source::<F>::codes(&parts, g, i));
        }
    }
}

/// One block of `T` tiles with `R` rows of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn dot<F: Format, S: Source<F>, const T: usize, const R: usize>(
    blocks: [&S; T],
    records: &[Record256; R],
    acc: [&mut [[f32; TILE]; R]; T],
) {
    let mut dot = [[_mm512_setzero_si512(); R]; T];
    if !F::HAS_MIN && F::OFFSET != 0 {
        for p in 0..n_groups::<F>() / 2 {
            for t in 0..T {
                let scales = blocks[t].scales(p);
                for r in 0..R {
                    let sums = _mm512_set1_epi32(sums::<F>(&records[r], p));
                    dot[t][r] = _mm512_dpwssd_epi32(dot[t][r], scales, sums);
                }
            }
        }
        let away = _mm512_set1_epi32(-i32::from(F::OFFSET));
        for r in dot.as_flattened_mut() {
            *r = _mm512_mullo_epi32(*r, away);
        }
    }
    for p in 0..n_groups::<F>() / 2 {
        let mut pair = [_mm512_setzero_si512(); T];
        for t in 0..T {
            pair[t] = blocks[t].scales(p);
        }
        for g in [2 * p, 2 * p + 1] {
            let mut sum = [[_mm512_setzero_si512(); R]; T];
            for t in 0..T {
                blocks[t].prefetch(g);
            }
            for i in 0..F::GROUP / 4 {
                let mut codes = [_mm512_setzero_si512(); T];
                for t in 0..T {
                    codes[t] = blocks[t].codes(g, i);
                }
                for r in 0..R {
                    let x = _mm512_set1_epi32(quad(&records[r].codes, g * F::GROUP / 4 + i));
                    for t in 0..T {
                        sum[t][r] = _mm512_dpbusd_epi32(sum[t][r], codes[t], x);
                    }
                }
            }
            for t in 0..T {
                // The first of the pair moves up, so that its sign comes down with it.
                let up = if g % 2 == 0 { _mm512_slli_epi32::<16>(pair[t]) } else { pair[t] };
                let scale = _mm512_srai_epi32::<16>(up);
                for r in 0..R {
                    dot[t][r] = _mm512_add_epi32(dot[t][r], _mm512_mullo_epi32(sum[t][r], scale));
                }
            }
        }
    }
    finish(blocks, records, dot, acc);
}

/// Adds the integer sums of `R` rows and `T` tiles to their float sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn finish<F: Format, S: Source<F>, const T: usize, const R: usize>(
    blocks: [&S; T],
    records: &[Record256; R],
    dot: [[__m512i; R]; T],
    acc: [&mut [[f32; TILE]; R]; T],
) {
    let mut mins = [[_mm512_setzero_si512(); R]; T];
    if F::HAS_MIN {
        for p in 0..n_groups::<F>() / 2 {
            for r in 0..R {
                let sums = _mm512_set1_epi32(sums::<F>(&records[r], p));
                for t in 0..T {
                    mins[t][r] = _mm512_dpwssd_epi32(mins[t][r], blocks[t].mins(p), sums);
                }
            }
        }
    }
    for (t, acc) in acc.into_iter().enumerate() {
        let (d, dmin) = (blocks[t].d(), blocks[t].dmin());
        for r in 0..R {
            let a = _mm512_set1_ps(records[r].scale);
            let dot = _mm512_cvtepi32_ps(dot[t][r]);
            let mut sum = _mm512_fmadd_ps(_mm512_mul_ps(d, a), dot, load512_f32(&acc[r]));
            if F::HAS_MIN {
                let mins = _mm512_cvtepi32_ps(mins[t][r]);
                sum = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, a), mins, sum);
            }
            store512_f32(&mut acc[r], sum);
        }
    }
}
