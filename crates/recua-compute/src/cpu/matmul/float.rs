//! Products with F32, F16 and BF16 weights and f32 activations.
//!
//! `acc = fma(w[k], x[k], acc)` for `k` from 0 on: one chain per row, whatever the number of rows in the pass. A tile is `[k][16 rows]`, so a
//! lane is a row. With a single row of activations, each step of a chain would wait for the one before; so several tiles run side by side.

use super::planes::{TILE, VECTOR};
use crate::cpu::math::{Lanes, vectorised};
use bytemuck::Pod;
use half::{bf16, f16};
use std::array::from_fn;

/// The number of tiles that run side by side when there is one row of activations.
pub(crate) const TILES_MAX: usize = 4;

/// A float type of weights.
pub(crate) trait Element: Pod {
    /// The value, exactly.
    fn to_f32(self) -> f32;
    /// A column of a tile.
    fn lanes<V: Lanes>(set: V::Set, column: &[Self; TILE]) -> V;
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn lanes<V: Lanes>(set: V::Set, column: &[f32; TILE]) -> V {
        V::load(set, column)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        half_to_f32(self)
    }
    #[inline(always)]
    fn lanes<V: Lanes>(set: V::Set, column: &[f16; TILE]) -> V {
        V::load_f16(set, column)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn lanes<V: Lanes>(set: V::Set, column: &[bf16; TILE]) -> V {
        V::load(set, &column.map(Element::to_f32))
    }
}

/// f16 to f32 in integer and float operations that vectorize with any instruction set (the library's conversion queries the processor in
/// every call). Exact, subnormals included.
#[inline(always)]
pub(crate) fn half_to_f32(value: f16) -> f32 {
    let bits = u32::from(value.to_bits());
    let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
    // Moved into f32's fields, the exponent is 112 too small; multiplying by 2^112 corrects that, for subnormals too.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    // Infinity and NaN have become large finite numbers.
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 | (magnitude << 13) } else { scaled.to_bits() };
    f32::from_bits(special | sign)
}

/// Bytes of a tile of `k` columns.
pub(crate) fn tile_bytes<E: Element>(k: usize) -> usize {
    (k * TILE * size_of::<E>()).next_multiple_of(VECTOR)
}

/// Packs a tile. `rows` are up to 16 rows of `k` raw values; missing rows stay zero. `out` is zeroed.
pub(crate) fn pack_tile<E: Element>(rows: &[&[u8]], _k: usize, out: &mut [u8]) {
    let n_bytes = size_of::<E>();
    for (row, raw) in rows.iter().enumerate() {
        for (col, value) in raw.chunks_exact(n_bytes).enumerate() {
            out[(col * TILE + row) * n_bytes..][..n_bytes].copy_from_slice(value);
        }
    }
}

/// One row of the weight as numbers.
pub(crate) fn decode_row<E: Element>(tile: &[u8], row: usize, out: &mut [f32]) {
    let columns = columns::<E>(tile, out.len());
    for (out, column) in out.iter_mut().zip(columns) {
        *out = column[row].to_f32();
    }
}

/// The `k` columns of a tile, which is aligned to a cache line.
#[inline(always)]
fn columns<E: Element>(tile: &[u8], k: usize) -> &[[E; TILE]] {
    &bytemuck::cast_slice::<u8, E>(tile).as_chunks::<TILE>().0[..k]
}

vectorised! {
    pub(crate) fn tiles_f32(isa, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) = body_f32
}
vectorised! {
    pub(crate) fn tiles_f16(isa, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) = body_f16
}
vectorised! {
    pub(crate) fn tiles_bf16(isa, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) = body_bf16
}

#[inline(always)]
fn body_f32<V: Lanes>(set: V::Set, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) {
    body::<V, f32>(set, tiles, x, k, acc);
}

#[inline(always)]
fn body_f16<V: Lanes>(set: V::Set, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) {
    body::<V, f16>(set, tiles, x, k, acc);
}

#[inline(always)]
fn body_bf16<V: Lanes>(set: V::Set, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) {
    body::<V, bf16>(set, tiles, x, k, acc);
}

/// `acc[t][r] =` products of tile `t`'s 16 rows with row `r` of `x`, for up to [`TILES_MAX`] consecutive tiles.
/// `x` is `[rows, k]`; `acc` is `[tiles][rows]`.
#[inline(always)]
fn body<V: Lanes, E: Element>(set: V::Set, tiles: &[u8], x: &[f32], k: usize, acc: &mut [[f32; TILE]]) {
    let rows = x.len() / k;
    let tile_bytes = tile_bytes::<E>(k);
    if rows == 1 && tiles.len() / tile_bytes == TILES_MAX {
        let tiles = from_fn(|t| columns::<E>(&tiles[t * tile_bytes..], k));
        side_by_side::<V, E>(set, tiles, x, acc);
        return;
    }
    for (tile, mut acc) in tiles.chunks_exact(tile_bytes).zip(acc.chunks_exact_mut(rows)) {
        let tile = columns::<E>(tile, k);
        let mut x = x;
        while acc.len() >= 8 && V::MANY_REGISTERS {
            several_rows::<V, E, 8>(set, tile, x, acc);
            (x, acc) = (&x[8 * k..], &mut acc[8..]);
        }
        while acc.len() >= 4 {
            several_rows::<V, E, 4>(set, tile, x, acc);
            (x, acc) = (&x[4 * k..], &mut acc[4..]);
        }
        if acc.len() >= 2 {
            several_rows::<V, E, 2>(set, tile, x, acc);
            (x, acc) = (&x[2 * k..], &mut acc[2..]);
        }
        if !acc.is_empty() {
            several_rows::<V, E, 1>(set, tile, x, acc);
        }
    }
}

#[inline(always)]
fn side_by_side<V: Lanes, E: Element>(
    set: V::Set,
    tiles: [&[[E; TILE]]; TILES_MAX],
    x: &[f32],
    out: &mut [[f32; TILE]],
) {
    let mut acc = [V::splat(set, 0.0); TILES_MAX];
    let tiles = tiles.map(|tile| &tile[..x.len()]);
    for col in 0..x.len() {
        let x = V::splat(set, x[col]);
        // No closure, here and below: one that is not inlined has no vector instructions, and every multiply-add becomes a call.
        for t in 0..TILES_MAX {
            acc[t] = E::lanes::<V>(set, &tiles[t][col]).mul_add(x, acc[t]);
        }
    }
    for (acc, out) in acc.into_iter().zip(out) {
        acc.store(out);
    }
}

#[inline(always)]
fn several_rows<V: Lanes, E: Element, const R: usize>(
    set: V::Set,
    tile: &[[E; TILE]],
    x: &[f32],
    out: &mut [[f32; TILE]],
) {
    let k = tile.len();
    let rows: [&[f32]; R] = from_fn(|r| &x[r * k..][..k]);
    let mut acc = [V::splat(set, 0.0); R];
    for col in 0..k {
        let weights = E::lanes::<V>(set, &tile[col]);
        for r in 0..R {
            acc[r] = weights.mul_add(V::splat(set, rows[r][col]), acc[r]);
        }
    }
    for (acc, out) in acc.into_iter().zip(out) {
        acc.store(out);
    }
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
