//! The products in registers: one loop for all ways to multiply bytes ([`Dot`]).

use super::*;

use crate::cpu::matmul::dot::*;
use crate::cpu::matmul::planes::prefetch;

/// The number of rows of activations, with AVX2 and AVX-512, up to which groups are unpacked into registers, again for every few rows. More
/// rows share groups unpacked into memory; so do the fewer than 8 groups at the end of a row, whose vectors may be spread over the bits of a
/// plane's bytes.
const DIRECT_ROWS_MAX: [usize; 2] = [8, 16];

/// Groups as they are loaded into registers.
pub(super) trait Source<F: Format> {
    fn d<D: Dot>(&self, dot: D, g: usize, half: usize) -> Floats<D>;
    fn m<D: Dot>(&self, dot: D, g: usize, half: usize) -> Floats<D>;
    /// Vector `i` of group `g`, prepared for `dot`.
    fn codes<D: Dot>(&self, dot: D, g: usize, i: usize, half: usize) -> Ints<D>;
    /// Prefetches what will be read well after group `g`.
    fn prefetch(&self, g: usize);
}

/// Groups already unpacked, with codes as `dot` takes them.
impl<F: Format> Source<F> for Unpacked {
    #[inline(always)]
    fn d<D: Dot>(&self, dot: D, g: usize, half: usize) -> Floats<D> {
        dot.set().load_floats(&self.d[g], half)
    }
    #[inline(always)]
    fn m<D: Dot>(&self, dot: D, g: usize, half: usize) -> Floats<D> {
        dot.set().load_floats(&self.m[g], half)
    }
    #[inline(always)]
    fn codes<D: Dot>(&self, dot: D, g: usize, i: usize, half: usize) -> Ints<D> {
        dot.set().load(&self.codes.0.as_chunks().0[8 * g + i], half)
    }
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// Groups that are unpacked on demand.
impl<F: Format> Source<F> for PackedBlock<'_> {
    #[inline(always)]
    fn d<D: Dot>(&self, dot: D, g: usize, half: usize) -> Floats<D> {
        self.floats::<F, D>(dot, g * if F::HAS_MIN { 2 } else { 1 }, half)
    }
    #[inline(always)]
    fn m<D: Dot>(&self, dot: D, g: usize, half: usize) -> Floats<D> {
        self.floats::<F, D>(dot, g * 2 + 1, half)
    }
    #[inline(always)]
    fn codes<D: Dot>(&self, dot: D, g: usize, i: usize, half: usize) -> Ints<D> {
        dot.prepare(dot.set().codes(&self.planes::<F>(), 8 * g, i, half), F::CODE_MAX)
    }
    #[inline(always)]
    fn prefetch(&self, g: usize) {
        if g == 0 {
            prefetch(self.header);
        }
        self.planes::<F>().prefetch(8 * g, 8);
    }
}

impl<'a> PackedBlock<'a> {
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

    /// The `i`-th 16 floats of the header.
    #[inline(always)]
    fn floats<F: Format, D: Dot>(&self, dot: D, i: usize, half: usize) -> Floats<D> {
        let bits = &self.header.as_chunks().0[i];
        if F::WIDE_SCALE { dot.set().load_bf16(bits, half) } else { dot.set().load_f16(bits, half) }
    }
}

compiled! {
    "avx2,fma,f16c" fn tile_avx2<F: Format>(
        dot: Maddubs, tile: &[u8], n_groups: usize, records: &[Record32], acc: &mut [[f32; TILE]], scratch: &mut Unpacked,
    ) = one_tile;
    "avx2,fma,f16c,avxvnni" fn tile_avxvnni<F: Format>(
        dot: AvxVnni, tile: &[u8], n_groups: usize, records: &[Record32], acc: &mut [[f32; TILE]], scratch: &mut Unpacked,
    ) = one_tile;
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c" fn tile_avx512<F: Format>(
        dot: Avx512Vnni, tile: &[u8], n_groups: usize, records: &[Record32], acc: &mut [[f32; TILE]], scratch: &mut Unpacked,
    ) = one_tile;
}

/// All products of a tile.
#[inline(always)]
fn one_tile<F: Format, D: Dot>(
    dot: D,
    tile: &[u8],
    n_groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let block = packed_block::<F>(tile, n_groups, b);
        if block.groups == 8 && records.len() <= DIRECT_ROWS_MAX[usize::from(D::Set::MANY)] {
            all_rows::<F, D, _>(dot, &block, 8, records, acc);
            continue;
        }
        if block.groups == 8 {
            unpack_groups::<F, D>(dot, &block, scratch);
        } else {
            unpack_scalar::<F>(block, scratch);
            if D::is_signed(F::CODE_MAX) {
                scratch.codes.0.iter_mut().for_each(|code| *code ^= 0x80);
            }
        }
        all_rows::<F, D, _>(dot, &*scratch, block.groups, records, acc);
    }
}

/// Unpacks 8 groups.
#[inline(always)]
pub(super) fn unpack_groups<F: Format, D: Dot>(dot: D, block: &PackedBlock<'_>, out: &mut Unpacked) {
    let set = dot.set();
    for g in 0..8 {
        Source::<F>::prefetch(block, g);
        for half in 0..D::Set::HALVES {
            set.store_floats(&mut out.d[g], half, Source::<F>::d(block, dot, g, half));
            if F::HAS_MIN {
                set.store_floats(&mut out.m[g], half, Source::<F>::m(block, dot, g, half));
            }
            for i in 0..8 {
                let codes = Source::<F>::codes(block, dot, g, i, half);
                set.store(&mut out.codes.0.as_chunks_mut().0[8 * g + i], half, codes);
            }
        }
    }
}

/// Up to 8 groups with all rows of activations.
#[inline(always)]
fn all_rows<F: Format, D: Dot, S: Source<F>>(
    dot: D,
    block: &S,
    groups: usize,
    records: &[Record32],
    acc: &mut [[f32; TILE]],
) {
    if D::Set::MANY {
        in_groups!(records, acc, [8, 6, 4, 3, 2, 1], |records, acc, N| some_rows::<F, D, S, N>(
            dot, block, groups, records, acc
        ));
    } else {
        in_groups!(records, acc, [4, 3, 2, 1], |records, acc, N| some_rows::<F, D, S, N>(
            dot, block, groups, records, acc
        ));
    }
}

/// Up to 8 groups with `R` rows of activations.
#[inline(always)]
fn some_rows<F: Format, D: Dot, S: Source<F>, const R: usize>(
    dot: D,
    block: &S,
    groups: usize,
    records: &[Record32; R],
    acc: &mut [[f32; TILE]; R],
) {
    let set = dot.set();
    let run = D::run(F::CODE_MAX);
    // The offset as a 16-bit pair with 0, so that one instruction multiplies a sum by it.
    let offset = set.ints(i32::from((-F::OFFSET) as u16));
    for half in 0..D::Set::HALVES {
        let mut out = [set.floats(0.0); R];
        for r in 0..R {
            out[r] = set.load_floats(&acc[r], half);
        }
        for g in 0..groups {
            if half == 0 {
                block.prefetch(g);
            }
            let mut dots = [set.ints(0); R];
            if F::OFFSET != 0 && !D::is_signed(F::CODE_MAX) {
                for r in 0..R {
                    dots[r] = set.add_pairs(dots[r], offset, set.ints(records[r].sums[g]));
                }
            }
            for first in (0..8).step_by(run) {
                let mut sums = [set.ints(0); R];
                for r in 0..R {
                    sums[r] = dot.begin(dots[r]);
                }
                for i in first..first + run {
                    let codes = block.codes(dot, g, i, half);
                    for r in 0..R {
                        let x = quad(&records[r].codes, 8 * g + i);
                        sums[r] = dot.multiply(sums[r], codes, x, F::CODE_MAX);
                    }
                }
                for r in 0..R {
                    dots[r] = dot.end(dots[r], sums[r]);
                }
            }
            let d = block.d(dot, g, half);
            for r in 0..R {
                let scale = set.mul_floats(d, set.floats(records[r].scales[g]));
                out[r] = set.mul_add(scale, set.to_floats(dots[r]), out[r]);
            }
            if F::HAS_MIN {
                let m = block.m(dot, g, half);
                for r in 0..R {
                    out[r] = set.mul_add(m, set.floats(records[r].scaled_sums[g]), out[r]);
                }
            }
        }
        for r in 0..R {
            set.store_floats(&mut acc[r], half, out[r]);
        }
    }
}
