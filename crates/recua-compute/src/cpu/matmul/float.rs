//! Products with F32, F16 and BF16 weights and f32 activations.
//!
//! `acc = fma(w[k], x[k], acc)` for `k` from 0 on: one chain a row, whatever the number of rows in the pass. A tile is
//! `[k][16 rows]`, so a lane is a row. Few rows of activations leave a single chain waiting for itself; then several tiles run side by
//! side.

use super::planes::{TILE, VECTOR};
use crate::cpu::isa::multiversion;
use half::{bf16, f16};

/// Tiles that run side by side when there is one row of activations.
pub(crate) const TILES_MAX: usize = 4;

/// A float type of weights.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    const BYTES: usize;
    fn from_bytes(bytes: &[u8]) -> Self;
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for f16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> f16 {
        f16::from_le_bytes([bytes[0], bytes[1]])
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        half_to_f32(self)
    }
}

impl Element for bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> bf16 {
        bf16::from_le_bytes([bytes[0], bytes[1]])
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// f16 to f32 in integer and float operations that vectorise in any instruction set (the library's conversion asks the processor on
/// every call). Exact, subnormals included.
#[inline(always)]
pub(crate) fn half_to_f32(value: f16) -> f32 {
    let bits = u32::from(value.to_bits());
    let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
    // Moved into f32's fields the exponent is 112 too small; a product with 2^112 sets it right, subnormals too.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    // Infinity and NaN have come out as large finite numbers.
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 | (magnitude << 13) } else { scaled.to_bits() };
    f32::from_bits(special | sign)
}

/// Bytes of a tile of `k` columns.
pub(crate) fn tile_bytes<E: Element>(k: usize) -> usize {
    (k * TILE * E::BYTES).next_multiple_of(VECTOR)
}

/// Lays 16 rows out. `rows` are up to 16 rows of `k` raw values; the missing ones stay zero. `out` is zeroed.
pub(crate) fn pack_tile<E: Element>(rows: &[u8], k: usize, out: &mut [u8]) {
    for (row, raw) in rows.chunks_exact(k * E::BYTES).enumerate() {
        for (col, value) in raw.chunks_exact(E::BYTES).enumerate() {
            out[(col * TILE + row) * E::BYTES..][..E::BYTES].copy_from_slice(value);
        }
    }
}

/// One row of the weight as numbers.
pub(crate) fn decode_row<E: Element>(tile: &[u8], row: usize, out: &mut [f32]) {
    for (col, out) in out.iter_mut().enumerate() {
        *out = E::from_bytes(&tile[(col * TILE + row) * E::BYTES..][..E::BYTES]).to_f32();
    }
}

multiversion! {
    /// `acc[t][r] =` products of tile `t`'s 16 rows with row `r` of `x`, for up to [`TILES_MAX`] tiles that follow each other.
    /// `x` is `[rows, k]`; `acc` is `[tiles][rows]`.
    pub(crate) fn tiles_f32(isa, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) = tiles_body::<f32>
}
multiversion! {
    /// As [`tiles_f32`].
    pub(crate) fn tiles_f16(isa, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) = tiles_body::<f16>
}
multiversion! {
    /// As [`tiles_f32`].
    pub(crate) fn tiles_bf16(isa, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) = tiles_body::<bf16>
}

#[inline(always)]
fn tiles_body<E: Element>(tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) {
    let rows = x.len() / k;
    let tile_bytes = tile_bytes::<E>(k);
    let n_tiles = tiles.len() / tile_bytes;
    if rows == 1 && n_tiles == TILES_MAX {
        let parts: [&[u8]; TILES_MAX] =
            std::array::from_fn(|t| &tiles[t * tile_bytes..][..k * TILE * E::BYTES]);
        let out: &mut [[f32; TILE]; TILES_MAX] = acc.try_into().expect("a row a tile");
        side_by_side::<E>(&parts, x, out);
        return;
    }
    for (tile, acc) in tiles.chunks_exact(tile_bytes).zip(acc.chunks_exact_mut(rows)) {
        let tile = &tile[..k * TILE * E::BYTES];
        let mut row = 0;
        while row + 6 <= rows {
            several_rows::<E, 6>(tile, &x[row * k..], k, &mut acc[row..]);
            row += 6;
        }
        if row + 4 <= rows {
            several_rows::<E, 4>(tile, &x[row * k..], k, &mut acc[row..]);
            row += 4;
        }
        if row + 2 <= rows {
            several_rows::<E, 2>(tile, &x[row * k..], k, &mut acc[row..]);
            row += 2;
        }
        if row < rows {
            several_rows::<E, 1>(tile, &x[row * k..], k, &mut acc[row..]);
        }
    }
}

#[inline(always)]
fn side_by_side<E: Element>(tiles: &[&[u8]; TILES_MAX], x: &[f32], out: &mut [[f32; TILE]; TILES_MAX]) {
    let mut acc = [[0.0f32; TILE]; TILES_MAX];
    for (col, &x) in x.iter().enumerate() {
        for (tile, acc) in tiles.iter().zip(&mut acc) {
            let weights = &tile[col * TILE * E::BYTES..][..TILE * E::BYTES];
            for lane in 0..TILE {
                acc[lane] = E::from_bytes(&weights[lane * E::BYTES..]).to_f32().mul_add(x, acc[lane]);
            }
        }
    }
    *out = acc;
}

#[inline(always)]
fn several_rows<E: Element, const R: usize>(tile: &[u8], x: &[f32], k: usize, out: &mut [[f32; TILE]]) {
    assert!(tile.len() == k * TILE * E::BYTES && x.len() >= R * k);
    let mut acc = [[0.0f32; TILE]; R];
    for col in 0..k {
        // SAFETY: `col < k`, and the lengths were checked above; the compiler keeps the sums in registers only without checks here.
        let (weights, xs) = unsafe {
            let at = col * TILE * E::BYTES;
            let xs: [f32; R] = std::array::from_fn(|r| *x.get_unchecked(r * k + col));
            (tile.get_unchecked(at..at + TILE * E::BYTES), xs)
        };
        let w: [f32; TILE] = std::array::from_fn(|lane| E::from_bytes(&weights[lane * E::BYTES..]).to_f32());
        for r in 0..R {
            for lane in 0..TILE {
                acc[r][lane] = w[lane].mul_add(xs[r], acc[r][lane]);
            }
        }
    }
    out[..R].copy_from_slice(&acc);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_conversion_is_exact_for_every_value() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let (ours, theirs) = (half_to_f32(value), value.to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#06x}");
        }
    }
}
