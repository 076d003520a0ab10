//! What the integer kernels of both block sizes share on x86: loads, broadcasts and the cut of rows into groups.

use super::planes::{TILE, VECTOR, plane_bytes, prefetch};
use std::arch::x86_64::*;

/// Runs `$dot::<…, R>(…, records, acc)` over all rows, `R` at a time: as many as there are registers for, then fewer.
macro_rules! in_groups {
    ($records:expr, $acc:expr, [$($rows:literal),+], |$r:ident, $a:ident, $n:ident| $dot:expr) => {
        let (records, acc) = ($records, &mut $acc[..]);
        $(
            let ($r, records) = records.as_chunks::<$rows>();
            let ($a, acc) = acc.as_chunks_mut::<$rows>();
            for ($r, $a) in $r.iter().zip($a) {
                const $n: usize = $rows;
                $dot;
            }
        )+
        debug_assert!(records.is_empty() && acc.is_empty(), "the last group is of one row");
    };
}
pub(super) use in_groups;

/// Four neighbouring codes of a row, as one lane.
#[inline(always)]
pub(super) fn quad(codes: &[i8; 256], j: usize) -> i32 {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&codes[4 * j..4 * j + 4]))
}

/// How many byte products, each of two codes up to `code_max` by 127, can be added in 16 bits without overflow.
pub(super) const fn run(code_max: u8) -> usize {
    let products = 32767 / (code_max as usize * 127 * 2);
    if code_max > 127 || products < 2 {
        1
    } else if products < 4 {
        2
    } else if products < 8 {
        4
    } else {
        8
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn load512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn store512(bytes: &mut [u8; 64], vector: __m512i) {
    // SAFETY: 64 bytes are there.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn load512_f32(values: &[f32; TILE]) -> __m512 {
    // SAFETY: 16 values are there.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn store512_f32(values: &mut [f32; TILE], vector: __m512) {
    // SAFETY: 16 values are there.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), vector) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load256(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store256(bytes: &mut [u8; 32], vector: __m256i) {
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

/// Eight of 16 values: the first half or the second.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load256_f32(values: &[f32; TILE], half: usize) -> __m256 {
    // SAFETY: 8 values are there.
    unsafe { _mm256_loadu_ps(values.as_chunks::<8>().0[half].as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store256_f32(values: &mut [f32; TILE], half: usize, vector: __m256) {
    // SAFETY: 8 values are there.
    unsafe { _mm256_storeu_ps(values.as_chunks_mut::<8>().0[half].as_mut_ptr(), vector) }
}

/// A run of codes in its planes, see [`super::planes`].
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    pub(super) low: &'a [u8],
    pub(super) high: &'a [u8],
    pub(super) low_bits: u32,
    /// 0 without a high plane.
    pub(super) high_bits: u32,
    pub(super) table: Option<&'static [u8; 16]>,
    /// Vectors of the whole run.
    pub(super) n_vectors: usize,
}

/// Where vectors `[first, first + n)` lie in a plane, all in one part of its bytes: from which vector on, and by how many bits up.
#[inline(always)]
fn place(bits: u32, n_vectors: usize, first: usize) -> (usize, i32) {
    let vectors = plane_bytes(bits, n_vectors) / VECTOR;
    (first % vectors, (first / vectors) as i32 * bits as i32)
}

// The methods are inlined into functions with the instruction set that each names, which is what makes them sound.
impl Planes<'_> {
    /// Vector `first + i`, with AVX-512.
    #[inline(always)]
    pub(super) fn codes512(&self, first: usize, i: usize) -> __m512i {
        // SAFETY: inside a function with AVX-512.
        unsafe {
            let mask = |bits: u32| _mm512_set1_epi8(((1u32 << bits) - 1) as i8);
            let (at, up) = place(self.low_bits, self.n_vectors, first);
            let mut codes = load512(&self.low.as_chunks::<VECTOR>().0[at + i]);
            if self.low_bits < 8 {
                codes = _mm512_srlv_epi32(codes, _mm512_set1_epi32(up));
            }
            if self.high_bits > 0 {
                let (at, up) = place(self.high_bits, self.n_vectors, first);
                let high = load512(&self.high.as_chunks::<VECTOR>().0[at + i]);
                // Up or down to their place, whatever comes in from other bytes.
                let high = _mm512_rolv_epi32(high, _mm512_set1_epi32(self.low_bits as i32 - up));
                // Low bits where the mask is set, high ones elsewhere.
                codes = _mm512_ternarylogic_epi32::<0xca>(mask(self.low_bits), codes, high);
            }
            if self.low_bits + self.high_bits < 8 {
                codes = _mm512_and_si512(codes, mask(self.low_bits + self.high_bits));
            }
            if let Some(table) = self.table {
                let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
                codes = _mm512_shuffle_epi8(table, codes);
            }
            codes
        }
    }

    /// One half of vector `first + i`, with AVX2.
    #[inline(always)]
    pub(super) fn codes256(&self, first: usize, i: usize, half: usize) -> __m256i {
        // SAFETY: inside a function with AVX2.
        let field = |plane: &[u8], bits: u32| unsafe {
            let (at, up) = place(bits, self.n_vectors, first);
            let v = load256(&plane.as_chunks::<32>().0[2 * (at + i) + half]);
            if bits == 8 {
                return v;
            }
            let v = _mm256_srlv_epi32(v, _mm256_set1_epi32(up));
            _mm256_and_si256(v, _mm256_set1_epi8(((1u32 << bits) - 1) as i8))
        };
        // SAFETY: inside a function with AVX2.
        unsafe {
            let mut codes = field(self.low, self.low_bits);
            if self.high_bits > 0 {
                let high = _mm256_sllv_epi32(
                    field(self.high, self.high_bits),
                    _mm256_set1_epi32(self.low_bits as i32),
                );
                codes = _mm256_or_si256(codes, high);
            }
            if let Some(table) = self.table {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                codes = _mm256_shuffle_epi8(table, codes);
            }
            codes
        }
    }

    /// Asks for what lies behind vectors `[first, first + n)`, if they are the first to be taken from their bytes.
    #[inline(always)]
    pub(super) fn prefetch(&self, first: usize, n: usize) {
        for (plane, bits) in [(self.low, self.low_bits), (self.high, self.high_bits)] {
            let n_bytes = plane_bytes(bits, self.n_vectors);
            if first * VECTOR < n_bytes {
                prefetch(&plane[first * VECTOR..(first + n) * VECTOR]);
            }
        }
    }
}
