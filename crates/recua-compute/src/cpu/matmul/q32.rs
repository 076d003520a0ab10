//! Products with weights whose blocks are 32 values with a float scale (Q4_0, Q8_0, IQ4_NL, MXFP4 and their like).
//!
//! For a group of 32 columns, a weight row gives `d`, codes `q` and, in some formats, a constant `m`; an activation row gives a scale
//! `a` and codes `x`. Exactly, in integers, `dot = Σ (q[k] − offset) · x[k]`; then in f32, group after group:
//! `acc = fma(d·a, dot, acc)`, and with a constant `acc = fma(m, a·sum(x), acc)`. As in [`super::q256`], nothing in it knows how many
//! rows share the pass.

use super::activations::{RECORD, Record32};
use super::float::half_to_f32;
use super::planes::{Codes, TILE, VECTOR, get, look_up, plane_bytes, put_row, unpack};
use crate::cpu::Isa;
use half::{bf16, f16};

/// Columns of a group.
const GROUP: usize = 32;

/// One row's block, taken apart.
pub(crate) struct Block {
    /// Unsigned codes in the order of the columns.
    pub(crate) codes: [u8; GROUP],
    /// Bits of the scale.
    pub(crate) d: u16,
    /// Bits of the constant.
    pub(crate) m: u16,
}

/// A format, as constants.
pub(crate) trait Format: 'static {
    /// Bytes of a GGML block.
    const BLOCK_BYTES: usize;
    /// Bits of the low plane.
    const LOW_BITS: u32;
    /// Bits of the high plane, 0 for none.
    const HIGH_BITS: u32;
    /// What is taken from every unpacked code.
    const OFFSET: i16;
    /// The largest unpacked code; above 127 the offset is 128.
    const CODE_MAX: u8;
    /// What an index stands for, as an unpacked code.
    const TABLE: Option<&'static [u8; 16]> = None;
    /// Whether there is a constant.
    const HAS_MIN: bool;
    /// Whether scales are bf16 (the range of an exponent byte) and not f16.
    const WIDE_SCALE: bool = false;
    /// Takes a GGML block apart.
    fn split(block: &[u8], out: &mut Block);
}

/// Bytes of the scales (and constants) of a tile, which come first.
const fn header_bytes<F: Format>(n_groups: usize) -> usize {
    (n_groups * TILE * if F::HAS_MIN { 4 } else { 2 }).next_multiple_of(VECTOR)
}

/// Bytes of the planes of 16 rows over `n_groups` groups.
const fn planes_bytes<F: Format>(n_groups: usize) -> usize {
    plane_bytes(F::LOW_BITS, n_groups * 8) + plane_bytes(F::HIGH_BITS, n_groups * 8)
}

/// Bytes of a tile of `k` columns.
pub(crate) fn tile_bytes<F: Format>(k: usize) -> usize {
    header_bytes::<F>(k / GROUP) + planes_bytes::<F>(k / GROUP)
}

/// Lays 16 rows out. `rows` are the raw blocks of up to 16 rows of `k` columns; the missing ones become zero. `out` is zeroed.
pub(crate) fn pack_tile<F: Format>(rows: &[u8], k: usize, out: &mut [u8]) {
    let n_groups = k / GROUP;
    let (header, planes) = out.split_at_mut(header_bytes::<F>(n_groups));
    let halves = if F::HAS_MIN { 2 } else { 1 };
    let mut block = Block { codes: [0; GROUP], d: 0, m: 0 };
    let mut codes = [0u8; RECORD];
    for (row, raw) in rows.chunks_exact(n_groups * F::BLOCK_BYTES).enumerate() {
        for (record, raw) in raw.chunks(RECORD / GROUP * F::BLOCK_BYTES).enumerate() {
            let (first, groups) = record_of(record * RECORD / GROUP, n_groups);
            for (g, raw) in raw.chunks_exact(F::BLOCK_BYTES).enumerate() {
                F::split(raw, &mut block);
                codes[g * GROUP..][..GROUP].copy_from_slice(&block.codes);
                for (i, bits) in [block.d, block.m].into_iter().take(halves).enumerate() {
                    let at = (((first + g) * halves + i) * TILE + row) * 2;
                    header[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                }
            }
            let planes = &mut planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
            let (low, high) = planes.split_at_mut(plane_bytes(F::LOW_BITS, groups * 8));
            put_row(low, F::LOW_BITS, 0, row, &codes[..groups * GROUP]);
            if F::HIGH_BITS > 0 {
                put_row(high, F::HIGH_BITS, F::LOW_BITS, row, &codes[..groups * GROUP]);
            }
        }
    }
}

/// The first group of the record that holds group `g`, and how many groups that record has (fewer at the end of a row).
fn record_of(g: usize, n_groups: usize) -> (usize, usize) {
    let first = g / 8 * 8;
    (first, (n_groups - first).min(8))
}

#[inline(always)]
fn scale<F: Format>(bits: [u8; 2]) -> f32 {
    if F::WIDE_SCALE { bf16::from_le_bytes(bits).to_f32() } else { half_to_f32(f16::from_le_bytes(bits)) }
}

/// One row of the weight as numbers: the definition of what the layout means, used by `embed`.
pub(crate) fn decode_row<F: Format>(tile: &[u8], row: usize, out: &mut [f32]) {
    let n_groups = out.len() / GROUP;
    let (header, planes) = tile.split_at(header_bytes::<F>(n_groups));
    for (g, out) in out.chunks_exact_mut(GROUP).enumerate() {
        let halves = if F::HAS_MIN { 2 } else { 1 };
        let half = |i: usize| {
            let at = ((g * halves + i) * TILE + row) * 2;
            scale::<F>([header[at], header[at + 1]])
        };
        let (first, groups) = record_of(g, n_groups);
        let planes = &planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
        let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, groups * 8));
        for (i, out) in out.iter_mut().enumerate() {
            let col = (g - first) * GROUP + i;
            let mut code = get(low, F::LOW_BITS, groups * 8, row, col);
            if F::HIGH_BITS > 0 {
                code |= get(high, F::HIGH_BITS, groups * 8, row, col) << F::LOW_BITS;
            }
            if let Some(table) = F::TABLE {
                code = table[usize::from(code)];
            }
            *out = half(0) * f32::from(i16::from(code) - F::OFFSET);
            if F::HAS_MIN {
                *out += half(1);
            }
        }
    }
}

/// Up to 8 groups of a tile, ready for products.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Unpacked {
    pub(crate) codes: Codes,
    pub(crate) d: [[f32; TILE]; 8],
    pub(crate) m: [[f32; TILE]; 8],
}

/// Up to 8 groups of a tile in their parts, as they lie in memory.
#[derive(Clone, Copy)]
struct Parts<'a> {
    groups: usize,
    /// Of each group, the scales of 16 rows, then the constants if there are any.
    header: &'a [u8],
    low: &'a [u8],
    high: &'a [u8],
}

/// The groups that record `b` meets.
#[inline(always)]
fn parts<F: Format>(tile: &[u8], n_groups: usize, b: usize) -> Parts<'_> {
    let (first, groups) = record_of(b * 8, n_groups);
    let (header, planes) = tile.split_at(header_bytes::<F>(n_groups));
    let group_bytes = TILE * if F::HAS_MIN { 4 } else { 2 };
    let planes = &planes[planes_bytes::<F>(first)..][..planes_bytes::<F>(groups)];
    let (low, high) = planes.split_at(plane_bytes(F::LOW_BITS, groups * 8));
    Parts { groups, header: &header[first * group_bytes..][..groups * group_bytes], low, high }
}

fn unpack_scalar<F: Format>(parts: Parts<'_>, out: &mut Unpacked) {
    let halves = if F::HAS_MIN { 2 } else { 1 };
    for (g, header) in parts.header.chunks_exact(halves * TILE * 2).enumerate() {
        for row in 0..TILE {
            let half = |i: usize| scale::<F>([header[2 * i], header[2 * i + 1]]);
            out.d[g][row] = half(row);
            if F::HAS_MIN {
                out.m[g][row] = half(TILE + row);
            }
        }
    }
    unpack(parts.low, parts.high, F::LOW_BITS, F::HIGH_BITS, parts.groups * 8, &mut out.codes);
    if let Some(table) = F::TABLE {
        look_up(table, &mut out.codes.0);
    }
}

/// `acc[r] = ` products of the tile's 16 rows with activation row `r`, over `n_groups` groups. `records` are
/// `[records of a row][acc.len()]`.
pub(crate) fn tile<F: Format>(
    isa: Isa,
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    debug_assert_eq!(records.len(), acc.len() * n_groups.div_ceil(RECORD / GROUP));
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the device only holds an instruction set after `Isa::is_available`.
        Isa::Avx512 | Isa::Amx => unsafe { simd::tile_avx512::<F>(tile, n_groups, records, acc, scratch) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { simd::tile_avx2::<F, true>(tile, n_groups, records, acc, scratch) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { simd::tile_avx2::<F, false>(tile, n_groups, records, acc, scratch) },
        _ => tile_scalar::<F>(tile, n_groups, records, acc, scratch),
    }
}

fn tile_scalar<F: Format>(
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let parts = parts::<F>(tile, n_groups, b);
        unpack_scalar::<F>(parts, scratch);
        for (record, acc) in records.iter().zip(&mut *acc) {
            dot_scalar::<F>(scratch, parts.groups, record, acc);
        }
    }
}

fn dot_scalar<F: Format>(block: &Unpacked, groups: usize, record: &Record32, acc: &mut [f32; TILE]) {
    for row in 0..TILE {
        for g in 0..groups {
            let mut dot = -i32::from(F::OFFSET) * record.sums[g];
            for col in g * GROUP..(g + 1) * GROUP {
                let code = block.codes.at(row, col);
                dot += i32::from(code) * i32::from(record.codes[col]);
            }
            acc[row] = (block.d[g][row] * record.scales[g]).mul_add(dot as f32, acc[row]);
            if F::HAS_MIN {
                acc[row] = block.m[g][row].mul_add(record.scaled_sums[g], acc[row]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod simd {
    use super::super::planes::prefetch;
    use super::super::x86::*;
    use super::*;
    use std::arch::x86_64::*;

    /// Up to so many rows of activations, with AVX2 and AVX-512, groups are unpacked into registers, for each few rows anew; more rows
    /// share what they were unpacked into, and so do the fewer than 8 groups at the end of a row, whose vectors may be spread over the
    /// bits of a plane's bytes.
    const DIRECT_ROWS_MAX: [usize; 2] = [8, 16];

    /// Groups' parts as registers take them. The methods are inlined into functions with the set that each names, which is what makes
    /// them sound.
    trait Source<F: Format> {
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
            if groups < 8 {
                unpack_scalar::<F>(parts, scratch);
            }
            for g in 0..groups / 8 * 8 {
                Source::<F>::prefetch(&parts, g);
                store512_f32(&mut scratch.d[g], Source::<F>::d512(&parts, g));
                if F::HAS_MIN {
                    store512_f32(&mut scratch.m[g], Source::<F>::m512(&parts, g));
                }
                for i in 0..8 {
                    let codes = &mut scratch.codes.0.as_chunks_mut::<VECTOR>().0[8 * g + i];
                    store512(codes, Source::<F>::codes512(&parts, g, i));
                }
            }
            in_groups!(records, acc, [8, 4, 2, 1], |records, acc, N| dot_avx512::<F, _, N>(
                &*scratch, groups, records, acc
            ));
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
    fn take_offset_away<F: Format, const R: usize>(
        g: usize,
        records: &[Record32; R],
        dot: &mut [__m256i; R],
    ) {
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
}
