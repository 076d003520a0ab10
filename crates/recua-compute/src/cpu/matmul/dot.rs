//! Products of bytes on x86, for both families of formats with integer codes. [`Registers`] is what AVX2 and AVX-512 have in common, and
//! [`Dot`] abstracts over the three ways to multiply codes and sum the products. Each family writes its loops once over these traits
//! ([`super::q32`], [`super::q256`]).
//!
//! A lane is a row of the weight. The 16 rows of a tile fill one AVX-512 register or two AVX2 registers, the tile's *halves*.
//!
//! The first argument of every method proves that the processor has the instructions ([`Proof`](crate::cpu::isa::Proof)), so they are
//! safe to call. They compile to these instructions when they are inlined into a function that is compiled for the set; see [`compiled!`].

mod avx2;
mod avx512;

pub(super) use avx2::{AvxVnni, Maddubs};
pub(super) use avx512::Avx512Vnni;

use super::planes::{TILE, VECTOR, plane_bytes, prefetch};

/// An instruction set's registers, seen as lanes of 32 bits.
pub(super) trait Registers: Copy {
    /// A 32-bit integer, two of 16 bits or four of 8 in each lane.
    type Ints: Copy;
    /// A float in each lane.
    type Floats: Copy;
    /// Two bytes for each lane.
    type Bytes: Copy;

    /// The number of registers that the 16 rows of a tile fill.
    const HALVES: usize;
    /// Whether there are 32 registers rather than 16.
    const MANY: bool;

    fn ints(self, value: i32) -> Self::Ints;
    fn shorts(self, value: i16) -> Self::Ints;
    fn load(self, vector: &[u8; VECTOR], half: usize) -> Self::Ints;
    fn store(self, vector: &mut [u8; VECTOR], half: usize, ints: Self::Ints);
    fn add(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn mul(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `sum` plus, in each lane, both products of 16-bit numbers.
    fn add_pairs(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn add_shorts(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn and(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Each 16-bit number shifted to the right by four bits.
    fn upper_nibbles(self, a: Self::Ints) -> Self::Ints;

    fn floats(self, value: f32) -> Self::Floats;
    fn load_floats(self, values: &[f32; TILE], half: usize) -> Self::Floats;
    fn store_floats(self, values: &mut [f32; TILE], half: usize, floats: Self::Floats);
    fn to_floats(self, ints: Self::Ints) -> Self::Floats;
    fn mul_floats(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once.
    fn mul_take(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// 16 f16.
    fn load_f16(self, bits: &[u8; 2 * TILE], half: usize) -> Self::Floats;
    /// 16 bf16.
    fn load_bf16(self, bits: &[u8; 2 * TILE], half: usize) -> Self::Floats;

    /// Two bytes for each of 16 lanes.
    fn bytes(self, bytes: &[u8; 2 * TILE], half: usize) -> Self::Bytes;
    /// `bytes >> SHIFT & mask`, for a mask that removes the bits of the neighbouring byte.
    fn bits<const SHIFT: i32>(self, bytes: Self::Bytes, mask: i8) -> Self::Bytes;
    fn or_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bytes widened to 16-bit numbers.
    fn widen(self, bytes: Self::Bytes) -> Self::Ints;
    /// The same for signed bytes.
    fn widen_signed(self, bytes: Self::Bytes) -> Self::Ints;

    /// Vector `first + i` of a run of codes. All vectors from `first` to there must lie at the same bits of a plane's bytes.
    fn codes(self, planes: &Planes<'_>, first: usize, i: usize, half: usize) -> Self::Ints;
}

/// A way to multiply codes by activations and sum the products, exactly. The defaults suit a processor with 32-bit byte products; AVX2,
/// which has only 16-bit ones, overrides them.
pub(super) trait Dot: Copy {
    type Set: Registers;

    fn set(self) -> Self::Set;

    /// Whether codes up to `code_max` are taken as signed bytes. Formats with codes above 127 have an offset of 128, which this removes.
    fn is_signed(_code_max: u8) -> bool {
        false
    }

    /// Codes as [`Dot::multiply`] takes them.
    #[inline(always)]
    fn prepare(self, codes: Ints<Self>, _code_max: u8) -> Ints<Self> {
        codes
    }

    /// How many times [`Dot::multiply`] may add to a sum before [`Dot::end`]: a power of two up to 8.
    fn run(_code_max: u8) -> usize {
        8
    }

    /// A sum that [`Dot::end`] will add to `dot`.
    #[inline(always)]
    fn begin(self, dot: Ints<Self>) -> Ints<Self> {
        dot
    }

    /// Adds the products of the four codes in each lane and four of a row's activations.
    fn multiply(self, sum: Ints<Self>, codes: Ints<Self>, x: i32, code_max: u8) -> Ints<Self>;

    /// `dot` plus the products that were added to `sum` since [`Dot::begin`].
    #[inline(always)]
    fn end(self, _dot: Ints<Self>, sum: Ints<Self>) -> Ints<Self> {
        sum
    }

    /// The first or the second 16-bit number of each lane, as [`Dot::end_scaled`] takes it.
    fn scale(self, pairs: Ints<Self>, second: bool) -> Ints<Self>;

    /// `dot` plus `scale` times the products that were added to `sum`, which began at zero.
    #[inline(always)]
    fn end_scaled(self, dot: Ints<Self>, sum: Ints<Self>, scale: Ints<Self>) -> Ints<Self> {
        self.set().add(dot, self.set().mul(sum, scale))
    }
}

pub(super) type Ints<D> = <<D as Dot>::Set as Registers>::Ints;
pub(super) type Floats<D> = <<D as Dot>::Set as Registers>::Floats;

/// Methods of a few instructions each.
macro_rules! instructions {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            // SAFETY: `self` proves that the processor has the instructions; the type of what they load from or store to has its length.
            unsafe { $body }
        }
    )*};
}
use instructions;

/// Compiles a body that is generic over [`Dot`] for one set: `fn name<F: Format>(dot: Type, arg: Type, …) = body` of an
/// `#[inline(always)]` function `body<F, D>(dot, arg, …)`. It is safe to call: `dot` proves that the set is there.
macro_rules! compiled {
    ($($features:literal fn $name:ident<F: Format>($dot:ident: $d:ty $(, $arg:ident: $ty:ty)* $(,)?) = $body:ident;)*) => {$(
        pub(super) fn $name<F: Format>($dot: $d $(, $arg: $ty)*) {
            #[target_feature(enable = $features)]
            fn inside<F: Format>($dot: $d $(, $arg: $ty)*) {
                $body::<F, $d>($dot $(, $arg)*);
            }
            // SAFETY: the processor has the set, as `dot` proves.
            unsafe { inside::<F>($dot $(, $arg)*) }
        }
    )*};
}
pub(super) use compiled;

/// Runs `$dot` over all rows, in groups of the given sizes, the largest first: as many rows at a time as there are registers for.
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

impl<'a> Planes<'a> {
    /// The bytes of vector `first + i` in one plane, and by how many bits its codes are shifted there: the same for all vectors of a
    /// group that begins at `first`.
    #[inline(always)]
    fn place(&self, plane: &'a [u8], bits: u32, first: usize, i: usize) -> (&'a [u8; VECTOR], i32) {
        let vectors = plane_bytes(bits, self.n_vectors) / VECTOR;
        (&plane.as_chunks::<VECTOR>().0[first % vectors + i], (first / vectors) as i32 * bits as i32)
    }

    /// Prefetches what lies after vectors `[first, first + n)`, if they are the first that are taken from their bytes.
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
