//! What the integer kernels of both block sizes share on x86: loads, broadcasts and the cut of rows into groups.

use super::planes::TILE;
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
