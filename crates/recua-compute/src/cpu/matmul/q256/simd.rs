//! The products in registers: one loop for all ways to multiply bytes ([`Dot`]).

use super::*;
use crate::cpu::matmul::dot::*;
use crate::cpu::matmul::planes::prefetch;

/// The number of rows of activations, with AVX2 and AVX-512, up to which a block is unpacked into registers, again for every few rows. More
/// rows share a block unpacked into memory.
pub(super) const DIRECT_ROWS_MAX: [usize; 2] = [4, 16];

/// A block as it is loaded into registers.
pub(super) trait Source<F: Format> {
    fn d<D: Dot>(&self, dot: D, half: usize) -> Floats<D>;
    fn dmin<D: Dot>(&self, dot: D, half: usize) -> Floats<D>;
    /// Scales of the groups `2p` and `2p + 1`, as 16-bit pairs.
    fn scales<D: Dot>(&self, dot: D, p: usize, half: usize) -> Ints<D>;
    /// The minima, likewise.
    fn mins<D: Dot>(&self, dot: D, p: usize, half: usize) -> Ints<D>;
    /// Vector `i` of group `g`, prepared for `dot`.
    fn codes<D: Dot>(&self, dot: D, g: usize, i: usize, half: usize) -> Ints<D>;
    /// Prefetches what will be read well after group `g`.
    fn prefetch(&self, g: usize);
}

/// A block already unpacked, with codes as `dot` takes them.
impl<F: Format> Source<F> for Unpacked {
    #[inline(always)]
    fn d<D: Dot>(&self, dot: D, half: usize) -> Floats<D> {
        dot.set().load_floats(&self.d, half)
    }
    #[inline(always)]
    fn dmin<D: Dot>(&self, dot: D, half: usize) -> Floats<D> {
        dot.set().load_floats(&self.dmin, half)
    }
    #[inline(always)]
    fn scales<D: Dot>(&self, dot: D, p: usize, half: usize) -> Ints<D> {
        dot.set().load(bytemuck::cast_ref(&self.scales[p]), half)
    }
    #[inline(always)]
    fn mins<D: Dot>(&self, dot: D, p: usize, half: usize) -> Ints<D> {
        dot.set().load(bytemuck::cast_ref(&self.mins[p]), half)
    }
    #[inline(always)]
    fn codes<D: Dot>(&self, dot: D, g: usize, i: usize, half: usize) -> Ints<D> {
        dot.set().load(&self.codes.0.as_chunks().0[g * F::GROUP / 4 + i], half)
    }
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// A block that is unpacked on demand.
impl<F: Format> Source<F> for PackedBlock<'_> {
    #[inline(always)]
    fn d<D: Dot>(&self, dot: D, half: usize) -> Floats<D> {
        dot.set().load_f16(chunk(self.header, 0), half)
    }
    #[inline(always)]
    fn dmin<D: Dot>(&self, dot: D, half: usize) -> Floats<D> {
        dot.set().load_f16(chunk(self.header, usize::from(F::HAS_MIN)), half)
    }
    #[inline(always)]
    fn scales<D: Dot>(&self, dot: D, p: usize, half: usize) -> Ints<D> {
        let set = dot.set();
        match F::SCALES {
            Scales::SixBits => {
                let scales = set.widen(six(dot, self.scales, p, half));
                if F::SCALE_OFFSET == 0 {
                    scales
                } else {
                    set.add_shorts(scales, set.shorts(F::SCALE_OFFSET))
                }
            }
            Scales::Bytes => set.widen_signed(set.bytes(chunk(self.scales, p), half)),
            Scales::Nibbles => set.and(set.widen(set.bytes(chunk(self.scales, p), half)), set.shorts(15)),
        }
    }
    #[inline(always)]
    fn mins<D: Dot>(&self, dot: D, p: usize, half: usize) -> Ints<D> {
        let set = dot.set();
        match F::SCALES {
            Scales::SixBits => set.widen(six(dot, self.scales, n_groups::<F>() / 2 + p, half)),
            Scales::Bytes => set.ints(0),
            Scales::Nibbles => set.upper_nibbles(set.widen(set.bytes(chunk(self.scales, p), half))),
        }
    }
    #[inline(always)]
    fn codes<D: Dot>(&self, dot: D, g: usize, i: usize, half: usize) -> Ints<D> {
        dot.prepare(dot.set().codes(&self.planes::<F>(), g * F::GROUP / 4, i, half), F::CODE_MAX)
    }
    #[inline(always)]
    fn prefetch(&self, g: usize) {
        if g == 0 {
            prefetch(self.scales);
        }
        self.planes::<F>().prefetch(g * F::GROUP / 4, F::GROUP / 4);
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
            n_vectors: VECTORS_MAX,
        }
    }
}

/// Bytes `[32i, 32i + 32)`.
#[inline(always)]
fn chunk(bytes: &[u8], i: usize) -> &[u8; 2 * TILE] {
    &bytes.as_chunks().0[i]
}

/// Numbers `[32p, 32p + 32)` of 6 bits, see [`put_six`].
#[inline(always)]
fn six<D: Dot>(dot: D, packed: &[u8], p: usize, half: usize) -> <D::Set as Registers>::Bytes {
    let set = dot.set();
    if p < 6 {
        return set.bits::<0>(set.bytes(chunk(packed, p), half), 63);
    }
    let first = set.bits::<6>(set.bytes(chunk(packed, p - 6), half), 3);
    let second = set.bits::<4>(set.bytes(chunk(packed, p - 4), half), 3 << 2);
    let third = set.bits::<2>(set.bytes(chunk(packed, p - 2), half), 3 << 4);
    set.or_bytes(set.or_bytes(first, second), third)
}

compiled! {
    "avx2,fma,f16c" fn tile_avx2<F: Format>(
        dot: Maddubs, tile: &[u8], records: &[Record256], acc: &mut [[f32; TILE]], scratch: &mut Unpacked,
    ) = one_tile;
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c" fn tile_avx512<F: Format>(
        dot: Avx512Vnni, tile: &[u8], records: &[Record256], acc: &mut [[f32; TILE]], scratch: &mut Unpacked,
    ) = one_tile;
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c" fn two_tiles_avx512<F: Format>(
        dot: Avx512Vnni,
        tiles: &[u8],
        records: &[Record256],
        acc: &mut [[f32; TILE]],
        scratch: &mut [Unpacked; 2],
    ) = two_tiles;
}

/// All products of a tile.
#[inline(always)]
fn one_tile<F: Format, D: Dot>(
    dot: D,
    tile: &[u8],
    records: &[Record256],
    acc: &mut [[f32; TILE]],
    scratch: &mut Unpacked,
) {
    acc.fill([0.0; TILE]);
    let n_blocks = records.len() / acc.len();
    for (b, records) in records.chunks_exact(acc.len()).enumerate() {
        let block = packed_block::<F>(tile, n_blocks, b);
        if records.len() <= DIRECT_ROWS_MAX[usize::from(D::Set::MANY)] {
            all_rows::<F, D, _>(dot, &block, records, acc);
        } else {
            unpack_block::<F, D>(dot, &block, scratch);
            all_rows::<F, D, _>(dot, &*scratch, records, acc);
        }
    }
}

/// One block with all rows of activations.
#[inline(always)]
fn all_rows<F: Format, D: Dot, S: Source<F>>(
    dot: D,
    block: &S,
    records: &[Record256],
    acc: &mut [[f32; TILE]],
) {
    if D::Set::MANY {
        in_groups!(records, acc, [8, 6, 4, 3, 2, 1], |records, acc, N| some_rows::<F, D, S, 1, 1, N>(
            dot,
            [block],
            records,
            [acc]
        ));
    } else {
        // Both halves at a time where there are registers for them.
        in_groups!(records, acc, [4, 3, 2, 1], |records, acc, N| some_rows::<
            F,
            D,
            S,
            1,
            { if N < 3 { 2 } else { 1 } },
            N,
        >(dot, [block], records, [acc]));
    }
}

/// All products of two tiles with many rows.
#[inline(always)]
fn two_tiles<F: Format, D: Dot>(
    dot: D,
    tiles: &[u8],
    records: &[Record256],
    acc: &mut [[f32; TILE]],
    [block0, block1]: &mut [Unpacked; 2],
) {
    acc.fill([0.0; TILE]);
    let rows = acc.len() / 2;
    let n_blocks = records.len() / rows;
    let (tile0, tile1) = tiles.split_at(tiles.len() / 2);
    let (acc0, acc1) = acc.split_at_mut(rows);
    for (b, records) in records.chunks_exact(rows).enumerate() {
        unpack_block::<F, D>(dot, &packed_block::<F>(tile0, n_blocks, b), block0);
        unpack_block::<F, D>(dot, &packed_block::<F>(tile1, n_blocks, b), block1);
        let blocks = [&*block0, &*block1];
        let (records4, records1) = records.as_chunks::<4>();
        let (first4, first1) = acc0.as_chunks_mut::<4>();
        let (second4, second1) = acc1.as_chunks_mut::<4>();
        for ((records, first), second) in records4.iter().zip(first4).zip(second4) {
            some_rows::<F, D, _, 2, 1, 4>(dot, blocks, records, [first, second]);
        }
        let (records1, first1, second1) =
            (records1.as_chunks::<1>().0, first1.as_chunks_mut::<1>().0, second1.as_chunks_mut::<1>().0);
        for ((records, first), second) in records1.iter().zip(first1).zip(second1) {
            some_rows::<F, D, _, 2, 1, 1>(dot, blocks, records, [first, second]);
        }
    }
}

/// Unpacks a block.
#[inline(always)]
fn unpack_block<F: Format, D: Dot>(dot: D, block: &PackedBlock<'_>, out: &mut Unpacked) {
    let set = dot.set();
    for half in 0..D::Set::HALVES {
        unpack_floats::<F, D>(dot, block, half, out);
        for p in 0..n_groups::<F>() / 2 {
            let scales = Source::<F>::scales(block, dot, p, half);
            set.store(bytemuck::cast_mut(&mut out.scales[p]), half, scales);
        }
    }
    let (vectors, _) = out.codes.0.as_chunks_mut();
    for g in 0..n_groups::<F>() {
        Source::<F>::prefetch(block, g);
        for i in 0..F::GROUP / 4 {
            for half in 0..D::Set::HALVES {
                let codes = Source::<F>::codes(block, dot, g, i, half);
                set.store(&mut vectors[g * F::GROUP / 4 + i], half, codes);
            }
        }
    }
}

/// Unpacks all but codes and scales.
#[inline(always)]
pub(super) fn unpack_floats<F: Format, D: Dot>(
    dot: D,
    block: &PackedBlock<'_>,
    half: usize,
    out: &mut Unpacked,
) {
    let set = dot.set();
    set.store_floats(&mut out.d, half, Source::<F>::d(block, dot, half));
    if F::HAS_MIN {
        set.store_floats(&mut out.dmin, half, Source::<F>::dmin(block, dot, half));
        for p in 0..n_groups::<F>() / 2 {
            let mins = Source::<F>::mins(block, dot, p, half);
            set.store(bytemuck::cast_mut(&mut out.mins[p]), half, mins);
        }
    }
}

/// Integer sums of `R` rows and `H` halves of `T` tiles.
type Dots<D, const T: usize, const H: usize, const R: usize> = [[[Ints<D>; R]; H]; T];

/// One block of `T` tiles with `R` rows of activations, `H` halves of a tile at a time.
#[inline(always)]
fn some_rows<F: Format, D: Dot, S: Source<F>, const T: usize, const H: usize, const R: usize>(
    dot: D,
    blocks: [&S; T],
    records: &[Record256; R],
    mut acc: [&mut [[f32; TILE]; R]; T],
) {
    let set = dot.set();
    let run = D::run(F::CODE_MAX).min(F::GROUP / 4);
    for first_half in (0..D::Set::HALVES).step_by(H) {
        let mut dots: Dots<D, T, H, R> = [[[set.ints(0); R]; H]; T];
        if F::OFFSET != 0 && !D::is_signed(F::CODE_MAX) {
            for p in 0..n_groups::<F>() / 2 {
                for t in 0..T {
                    for h in 0..H {
                        let scales = blocks[t].scales(dot, p, first_half + h);
                        for r in 0..R {
                            let sums = set.ints(sums::<F>(&records[r], p));
                            dots[t][h][r] = set.add_pairs(dots[t][h][r], scales, sums);
                        }
                    }
                }
            }
            let away = set.ints(-i32::from(F::OFFSET));
            for dot in dots.as_flattened_mut().as_flattened_mut() {
                *dot = set.mul(*dot, away);
            }
        }
        let mut pairs = [[set.ints(0); H]; T];
        for g in 0..n_groups::<F>() {
            // If registers are few, scales are loaded again for the second group of a pair.
            if g % 2 == 0 || !D::Set::MANY {
                for t in 0..T {
                    for h in 0..H {
                        pairs[t][h] = blocks[t].scales(dot, g / 2, first_half + h);
                    }
                }
            }
            if first_half == 0 {
                for block in blocks {
                    block.prefetch(g);
                }
            }
            for first in (0..F::GROUP / 4).step_by(run) {
                let mut sums: Dots<D, T, H, R> = [[[set.ints(0); R]; H]; T];
                for i in first..first + run {
                    let mut codes = [[set.ints(0); H]; T];
                    for t in 0..T {
                        for h in 0..H {
                            codes[t][h] = blocks[t].codes(dot, g, i, first_half + h);
                        }
                    }
                    for r in 0..R {
                        let x = quad(&records[r].codes, g * F::GROUP / 4 + i);
                        for t in 0..T {
                            for h in 0..H {
                                sums[t][h][r] = dot.multiply(sums[t][h][r], codes[t][h], x, F::CODE_MAX);
                            }
                        }
                    }
                }
                for t in 0..T {
                    for h in 0..H {
                        let scale = dot.scale(pairs[t][h], g % 2 == 1);
                        for r in 0..R {
                            dots[t][h][r] = dot.end_scaled(dots[t][h][r], sums[t][h][r], scale);
                        }
                    }
                }
            }
        }
        finish::<F, D, S, T, H, R>(dot, blocks, records, first_half, dots, &mut acc);
    }
}

/// Adds the integer sums, and those of the minima, to the float sums.
#[inline(always)]
pub(super) fn finish<F: Format, D: Dot, S: Source<F>, const T: usize, const H: usize, const R: usize>(
    dot: D,
    blocks: [&S; T],
    records: &[Record256; R],
    first_half: usize,
    dots: Dots<D, T, H, R>,
    acc: &mut [&mut [[f32; TILE]; R]; T],
) {
    let set = dot.set();
    let mut mins: Dots<D, T, H, R> = [[[set.ints(0); R]; H]; T];
    if F::HAS_MIN {
        for p in 0..n_groups::<F>() / 2 {
            for t in 0..T {
                for h in 0..H {
                    let factors = blocks[t].mins(dot, p, first_half + h);
                    for r in 0..R {
                        let sums = set.ints(sums::<F>(&records[r], p));
                        mins[t][h][r] = set.add_pairs(mins[t][h][r], factors, sums);
                    }
                }
            }
        }
    }
    for t in 0..T {
        for h in 0..H {
            let half = first_half + h;
            let d = blocks[t].d(dot, half);
            for r in 0..R {
                let a = set.floats(records[r].scale);
                let sum = set.load_floats(&acc[t][r], half);
                let mut sum = set.mul_add(set.mul_floats(d, a), set.to_floats(dots[t][h][r]), sum);
                if F::HAS_MIN {
                    let dmin = blocks[t].dmin(dot, half);
                    sum = set.mul_take(set.mul_floats(dmin, a), set.to_floats(mins[t][h][r]), sum);
                }
                set.store_floats(&mut acc[t][r], half, sum);
            }
        }
    }
}
