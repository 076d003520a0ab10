//! The memory layout of the codes of 16 rows: bit planes in the order that byte dot products need.
//!
//! A tile is 16 rows. Four neighbouring codes of a row are four neighbouring bytes, and these quadruples of all 16 rows fill one 64-byte
//! vector: vector `j` holds columns `[4j, 4j + 4)` of all 16 rows. So each 32-bit lane is one row, and a product needs no shuffles and no
//! sums across lanes. AMX takes the same vectors as a B tile.
//!
//! Codes of fewer than 8 bits are split into planes of 4, 2 or 1 bits. For `n` vectors of codes, a plane of `b` bits has `p = n * b / 8`
//! vectors: vector `j` of the codes is in vector `j % p` of the plane, shifted by `b * (j / p)`. Nothing is padded, so a plane takes as many
//! bits as in the file.

/// The number of rows of a tile.
pub(crate) const TILE: usize = 16;

/// The bytes of a vector: 16 rows of 4 codes.
pub(crate) const VECTOR: usize = 64;

/// The largest number of vectors that are unpacked at a time: 256 columns.
pub(crate) const VECTORS_MAX: usize = 64;

/// Unpacked codes of 16 rows and up to 256 columns.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Codes(pub(crate) [u8; VECTORS_MAX * VECTOR]);

impl Codes {
    /// The code of a row and a column.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize, col: usize) -> u8 {
        self.0[col / 4 * VECTOR + row * 4 + col % 4]
    }
}

/// Bytes of a plane of `bits` bits over `n_vectors` vectors.
pub(crate) const fn plane_bytes(bits: u32, n_vectors: usize) -> usize {
    n_vectors * bits as usize / 8 * VECTOR
}

/// Writes the codes of one row, a whole unpacked run, into a plane: bits `[shift, shift + bits)` of each. Four codes at a time.
#[inline(always)]
pub(crate) fn put_row(plane: &mut [u8], bits: u32, shift: u32, row: usize, codes: &[u8]) {
    let (quads, _) = codes.as_chunks::<4>();
    let vectors = quads.len() * bits as usize / 8;
    let mask = u32::from_ne_bytes([mask(bits); 4]);
    for (v, vector) in plane.as_chunks_mut::<VECTOR>().0[..vectors].iter_mut().enumerate() {
        let mut word = 0;
        for part in 0..8 / bits {
            let quad = u32::from_le_bytes(quads[part as usize * vectors + v]);
            // Bits shifted in from a neighbouring code are masked out.
            word |= (quad >> shift & mask) << (part * bits);
        }
        vector.as_chunks_mut::<4>().0[row] = word.to_le_bytes();
    }
}

/// The inverse of [`put_row`]: puts the bits of one row back into `codes`, a whole unpacked run in which these bits are zero.
pub(crate) fn get_row(plane: &[u8], bits: u32, shift: u32, row: usize, codes: &mut [u8]) {
    let (quads, _) = codes.as_chunks_mut::<4>();
    let vectors = quads.len() * bits as usize / 8;
    let mask = u32::from_ne_bytes([mask(bits); 4]);
    for (v, vector) in plane.as_chunks::<VECTOR>().0[..vectors].iter().enumerate() {
        let word = u32::from_le_bytes(vector.as_chunks::<4>().0[row]);
        for part in 0..8 / bits {
            let quad = &mut quads[part as usize * vectors + v];
            *quad = (u32::from_le_bytes(*quad) | (word >> (part * bits) & mask) << shift).to_le_bytes();
        }
    }
}

const fn mask(bits: u32) -> u8 {
    if bits >= 8 { 0xff } else { (1 << bits) - 1 }
}

/// Unpacks `n_vectors` vectors from a low plane and, where `high_bits` is not 0, a high plane. Loops of whole vectors, for the
/// compiler to vectorize inside the caller's instruction set.
#[inline(always)]
pub(crate) fn unpack(
    low: &[u8],
    high: &[u8],
    low_bits: u32,
    high_bits: u32,
    n_vectors: usize,
    codes: &mut Codes,
) {
    let low_len = plane_bytes(low_bits, n_vectors);
    for part in 0..8 / low_bits {
        let out = &mut codes.0[part as usize * low_len..][..low_len];
        for (code, byte) in out.iter_mut().zip(low) {
            *code = (byte >> (part * low_bits)) & mask(low_bits);
        }
    }
    if high_bits > 0 {
        let high_len = plane_bytes(high_bits, n_vectors);
        for part in 0..8 / high_bits {
            let out = &mut codes.0[part as usize * high_len..][..high_len];
            for (code, byte) in out.iter_mut().zip(&high[..high_len]) {
                *code |= ((byte >> (part * high_bits)) & mask(high_bits)) << low_bits;
            }
        }
    }
}

/// How far ahead of its use a tile's block is prefetched. Blocks are contiguous in memory, across tiles too, but the kernels read several
/// runs of them in turn, which the hardware does not predict.
#[cfg(target_arch = "x86_64")]
const PREFETCH_BYTES: usize = 16384;

/// Prefetches what lies [`PREFETCH_BYTES`] after `bytes`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for at in (0..bytes.len()).step_by(VECTOR) {
        let ahead = bytes.as_ptr().wrapping_add(at + PREFETCH_BYTES);
        // Into the L2 cache, which has a longer miss queue (a thread of a Zen 4 reads 18 GB/s this way, and 8 GB/s into the L1 cache).
        // SAFETY: a prefetch reads nothing and may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(ahead.cast()) }
    }
}

/// Replaces each code by `table[code]`.
#[inline(always)]
pub(crate) fn look_up(table: &[u8; 16], codes: &mut [u8]) {
    for code in codes {
        *code = table[usize::from(*code & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_gives_back_what_was_put() {
        for (low, high) in [(4, 0), (4, 1), (4, 2), (2, 0), (2, 1), (8, 0)] {
            for n_vectors in [64, 8, 24] {
                let (low_len, high_len) = (plane_bytes(low, n_vectors), plane_bytes(high, n_vectors));
                let mut planes = vec![0u8; low_len + high_len];
                let code =
                    |row: usize, col: usize| ((row * 31 + col * 7 + col / 5) % (1 << (low + high))) as u8;
                for row in 0..TILE {
                    let codes: Vec<u8> = (0..n_vectors * 4).map(|col| code(row, col)).collect();
                    put_row(&mut planes[..low_len], low, 0, row, &codes);
                    if high > 0 {
                        put_row(&mut planes[low_len..], high, low, row, &codes);
                    }
                }
                let mut codes = Codes([0; VECTORS_MAX * VECTOR]);
                unpack(&planes[..low_len], &planes[low_len..], low, high, n_vectors, &mut codes);
                for row in 0..TILE {
                    let mut of_row = vec![0u8; n_vectors * 4];
                    get_row(&planes[..low_len], low, 0, row, &mut of_row);
                    if high > 0 {
                        get_row(&planes[low_len..], high, low, row, &mut of_row);
                    }
                    for col in 0..n_vectors * 4 {
                        assert_eq!(codes.at(row, col), code(row, col));
                        assert_eq!(of_row[col], code(row, col));
                    }
                }
            }
        }
    }
}
