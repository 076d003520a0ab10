//! AVX2, and AVX-VNNI, which adds a byte product: a tile's 16 rows are two registers.

use super::*;
use crate::cpu::isa::{HasAvx2, HasAvxVnni};
use std::arch::x86_64::*;

/// Eight of 16 values.
#[inline(always)]
fn eight<T>(values: &[T; TILE], half: usize) -> *const T {
    values.as_chunks::<8>().0[half].as_ptr()
}

/// Sixteen of 32 bytes.
#[inline(always)]
fn sixteen(bytes: &[u8; 2 * TILE], half: usize) -> *const __m128i {
    bytes.as_chunks::<16>().0[half].as_ptr().cast()
}

/// The bits that one plane has of half of vector `first + i`. (Not a closure: the compiler does not inline every closure, and outside a
/// function compiled for the instruction set this code is twenty times slower.)
#[inline(always)]
fn field<'a>(
    set: HasAvx2,
    planes: &Planes<'a>,
    (plane, bits): (&'a [u8], u32),
    first: usize,
    i: usize,
    half: usize,
) -> __m256i {
    let (vector, up) = planes.place(plane, bits, first, i);
    let codes = set.load(vector, half);
    if bits == 8 {
        return codes;
    }
    // SAFETY: `set` proves that the processor has the instructions.
    unsafe {
        let codes = _mm256_srlv_epi32(codes, _mm256_set1_epi32(up));
        _mm256_and_si256(codes, _mm256_set1_epi8(((1u32 << bits) - 1) as i8))
    }
}

impl Registers for HasAvx2 {
    type Ints = __m256i;
    type Floats = __m256;
    type Bytes = __m128i;

    const HALVES: usize = 2;
    const MANY: bool = false;

    instructions! {
        fn ints(value: i32) -> __m256i = _mm256_set1_epi32(value);
        fn shorts(value: i16) -> __m256i = _mm256_set1_epi16(value);
        fn load(vector: &[u8; VECTOR], half: usize) -> __m256i =
            _mm256_loadu_si256(vector.as_chunks::<32>().0[half].as_ptr().cast());
        fn store(vector: &mut [u8; VECTOR], half: usize, ints: __m256i) -> () =
            _mm256_storeu_si256(vector.as_chunks_mut::<32>().0[half].as_mut_ptr().cast(), ints);
        fn add(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        fn mul(a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
        fn add_pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i =
            _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
        fn add_shorts(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi16(a, b);
        fn and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        fn upper_nibbles(a: __m256i) -> __m256i = _mm256_srli_epi16::<4>(a);

        fn floats(value: f32) -> __m256 = _mm256_set1_ps(value);
        fn load_floats(values: &[f32; TILE], half: usize) -> __m256 = _mm256_loadu_ps(eight(values, half));
        fn store_floats(values: &mut [f32; TILE], half: usize, floats: __m256) -> () =
            _mm256_storeu_ps(values.as_chunks_mut::<8>().0[half].as_mut_ptr(), floats);
        fn to_floats(ints: __m256i) -> __m256 = _mm256_cvtepi32_ps(ints);
        fn mul_floats(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn mul_take(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fnmadd_ps(a, b, c);
        fn load_f16(bits: &[u8; 2 * TILE], half: usize) -> __m256 =
            _mm256_cvtph_ps(_mm_loadu_si128(sixteen(bits, half)));
        fn load_bf16(bits: &[u8; 2 * TILE], half: usize) -> __m256 = _mm256_castsi256_ps(
            _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(sixteen(bits, half))))
        );

        fn bytes(bytes: &[u8; 2 * TILE], half: usize) -> __m128i = _mm_loadu_si128(sixteen(bytes, half));
        fn or_bytes(a: __m128i, b: __m128i) -> __m128i = _mm_or_si128(a, b);
        fn widen(bytes: __m128i) -> __m256i = _mm256_cvtepu8_epi16(bytes);
        fn widen_signed(bytes: __m128i) -> __m256i = _mm256_cvtepi8_epi16(bytes);
    }

    #[inline(always)]
    fn bits<const SHIFT: i32>(self, bytes: __m128i, mask: i8) -> __m128i {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm_and_si128(_mm_srli_epi16::<SHIFT>(bytes), _mm_set1_epi8(mask)) }
    }

    #[inline(always)]
    fn codes(self, planes: &Planes<'_>, first: usize, i: usize, half: usize) -> __m256i {
        let mut codes = field(self, planes, (planes.low, planes.low_bits), first, i, half);
        // SAFETY: `self` proves that the processor has the instructions; the table has 16 bytes.
        unsafe {
            if planes.high_bits > 0 {
                let high = field(self, planes, (planes.high, planes.high_bits), first, i, half);
                let up = _mm256_set1_epi32(planes.low_bits as i32);
                let high = _mm256_sllv_epi32(high, up);
                codes = _mm256_or_si256(codes, high);
            }
            if let Some(table) = planes.table {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                codes = _mm256_shuffle_epi8(table, codes);
            }
            codes
        }
    }
}

/// Byte products that are summed in 16 bits as long as they fit, then multiplied by the scale and widened in one instruction.
#[derive(Clone, Copy)]
pub(in super::super) struct Maddubs(pub(in super::super) HasAvx2);

impl Dot for Maddubs {
    type Set = HasAvx2;

    #[inline(always)]
    fn set(self) -> HasAvx2 {
        self.0
    }

    #[inline(always)]
    fn is_signed(code_max: u8) -> bool {
        code_max > 127
    }

    #[inline(always)]
    fn prepare(self, codes: __m256i, code_max: u8) -> __m256i {
        if !Self::is_signed(code_max) {
            return codes;
        }
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) }
    }

    /// How many sums of two products, each of a code and at most 127, fit into 16 bits.
    #[inline(always)]
    fn run(code_max: u8) -> usize {
        if Self::is_signed(code_max) {
            return 1;
        }
        match 32767 / (usize::from(code_max) * 127 * 2) {
            0 | 1 => 1,
            2 | 3 => 2,
            4..8 => 4,
            _ => 8,
        }
    }

    #[inline(always)]
    fn multiply(self, sum: __m256i, codes: __m256i, x: i32, code_max: u8) -> __m256i {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            let x = _mm256_set1_epi32(x);
            let products = if Self::is_signed(code_max) {
                _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
            } else {
                _mm256_maddubs_epi16(codes, x)
            };
            _mm256_add_epi16(sum, products)
        }
    }

    instructions! {
        fn begin(_dot: __m256i) -> __m256i = _mm256_setzero_si256();
        fn end(dot: __m256i, sum: __m256i) -> __m256i =
            _mm256_add_epi32(dot, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
        fn end_scaled(dot: __m256i, sum: __m256i, scale: __m256i) -> __m256i =
            _mm256_add_epi32(dot, _mm256_madd_epi16(sum, scale));
    }

    /// The number twice in its lane.
    #[inline(always)]
    fn scale(self, pairs: __m256i, second: bool) -> __m256i {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            let twice = _mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
            let twice = _mm256_broadcastsi128_si256(twice);
            let twice = if second { _mm256_or_si256(twice, _mm256_set1_epi8(2)) } else { twice };
            _mm256_shuffle_epi8(pairs, twice)
        }
    }
}

/// One instruction for four codes of eight rows.
#[derive(Clone, Copy)]
pub(in super::super) struct AvxVnni(pub(in super::super) HasAvx2, pub(in super::super) HasAvxVnni);

impl Dot for AvxVnni {
    type Set = HasAvx2;

    #[inline(always)]
    fn set(self) -> HasAvx2 {
        self.0
    }

    instructions! {
        fn multiply(sum: __m256i, codes: __m256i, x: i32, _code_max: u8) -> __m256i =
            _mm256_dpbusd_avx_epi32(sum, codes, _mm256_set1_epi32(x));
    }

    #[inline(always)]
    fn scale(self, pairs: __m256i, second: bool) -> __m256i {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe {
            // The first of the pair is shifted up, then down again with its sign.
            let up = if second { pairs } else { _mm256_slli_epi32::<16>(pairs) };
            _mm256_srai_epi32::<16>(up)
        }
    }
}
