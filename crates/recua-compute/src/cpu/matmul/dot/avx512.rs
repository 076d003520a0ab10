//! AVX-512 with VNNI: a tile's 16 rows are one register.

use super::*;
use crate::cpu::isa::HasAvx512;
use std::arch::x86_64::*;

/// The lowest `bits` bits of each byte.
#[inline(always)]
fn mask(_: HasAvx512, bits: u32) -> __m512i {
    // SAFETY: the first argument proves that the processor has the instruction.
    unsafe { _mm512_set1_epi8(((1u32 << bits) - 1) as i8) }
}

impl Registers for HasAvx512 {
    type Ints = __m512i;
    type Floats = __m512;
    type Bytes = __m256i;

    const HALVES: usize = 1;
    const MANY: bool = true;

    instructions! {
        fn ints(value: i32) -> __m512i = _mm512_set1_epi32(value);
        fn shorts(value: i16) -> __m512i = _mm512_set1_epi16(value);
        fn load(vector: &[u8; VECTOR], _half: usize) -> __m512i = _mm512_loadu_si512(vector.as_ptr().cast());
        fn store(vector: &mut [u8; VECTOR], _half: usize, ints: __m512i) -> () =
            _mm512_storeu_si512(vector.as_mut_ptr().cast(), ints);
        fn add(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn mul(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        fn add_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_dpwssd_epi32(sum, a, b);
        fn add_shorts(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi16(a, b);
        fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn upper_nibbles(a: __m512i) -> __m512i = _mm512_srli_epi16::<4>(a);

        fn floats(value: f32) -> __m512 = _mm512_set1_ps(value);
        fn load_floats(values: &[f32; TILE], _half: usize) -> __m512 = _mm512_loadu_ps(values.as_ptr());
        fn store_floats(values: &mut [f32; TILE], _half: usize, floats: __m512) -> () =
            _mm512_storeu_ps(values.as_mut_ptr(), floats);
        fn to_floats(ints: __m512i) -> __m512 = _mm512_cvtepi32_ps(ints);
        fn mul_floats(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn mul_take(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, c);
        fn load_f16(bits: &[u8; 2 * TILE], _half: usize) -> __m512 =
            _mm512_cvtph_ps(_mm256_loadu_si256(bits.as_ptr().cast()));
        fn load_bf16(bits: &[u8; 2 * TILE], _half: usize) -> __m512 = _mm512_castsi512_ps(
            _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.as_ptr().cast())))
        );

        fn bytes(bytes: &[u8; 2 * TILE], _half: usize) -> __m256i = _mm256_loadu_si256(bytes.as_ptr().cast());
        fn or_bytes(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        fn widen(bytes: __m256i) -> __m512i = _mm512_cvtepu8_epi16(bytes);
        fn widen_signed(bytes: __m256i) -> __m512i = _mm512_cvtepi8_epi16(bytes);
    }

    #[inline(always)]
    fn bits<const SHIFT: i32>(self, bytes: __m256i, mask: i8) -> __m256i {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<SHIFT>(bytes), _mm256_set1_epi8(mask)) }
    }

    #[inline(always)]
    fn codes(self, planes: &Planes<'_>, first: usize, i: usize, _half: usize) -> __m512i {
        let (low_bits, high_bits) = (planes.low_bits, planes.high_bits);
        let (low, low_up) = planes.place(planes.low, low_bits, first, i);
        let mut codes = self.load(low, 0);
        // SAFETY: `self` proves that the processor has the instructions; the table has 16 bytes.
        unsafe {
            if low_bits < 8 {
                codes = _mm512_srlv_epi32(codes, _mm512_set1_epi32(low_up));
            }
            if high_bits > 0 {
                let (high, high_up) = planes.place(planes.high, high_bits, first, i);
                // Up or down to their place, whatever comes in from other bytes.
                let up = _mm512_set1_epi32(low_bits as i32 - high_up);
                let high = _mm512_rolv_epi32(self.load(high, 0), up);
                // Low bits where the mask is set, high ones elsewhere.
                codes = _mm512_ternarylogic_epi32::<0xca>(mask(self, low_bits), codes, high);
            }
            if low_bits + high_bits < 8 {
                codes = _mm512_and_si512(codes, mask(self, low_bits + high_bits));
            }
            if let Some(table) = planes.table {
                let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
                codes = _mm512_shuffle_epi8(table, codes);
            }
            codes
        }
    }
}

/// One instruction for four codes of all 16 rows.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512Vnni(pub(in super::super) HasAvx512);

impl Dot for Avx512Vnni {
    type Set = HasAvx512;

    #[inline(always)]
    fn set(self) -> HasAvx512 {
        self.0
    }

    instructions! {
        fn multiply(sum: __m512i, codes: __m512i, x: i32, _code_max: u8) -> __m512i =
            _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(x));
    }

    #[inline(always)]
    fn scale(self, pairs: __m512i, second: bool) -> __m512i {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            // The first of the pair is shifted up, then down again with its sign.
            let up = if second { pairs } else { _mm512_slli_epi32::<16>(pairs) };
            _mm512_srai_epi32::<16>(up)
        }
    }
}
