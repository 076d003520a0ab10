//! `argmax`: out[i] = the index of the largest element of x[i], the lowest index in a tie; `u32::MAX` if none is above minus infinity. A
//! thread takes whole rows and reads each twice: first for the largest value, then for its first position, because that vectorizes and a
//! running index would not. Bound by reading the row.

use crate::cpu::isa::Isa;
use crate::cpu::math::{LANES, Lanes, Vector, vectorised};
use crate::cpu::memory::{slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::Result;
use crate::op::Argmax;

/// See [`Argmax`].
pub(crate) fn argmax(op: &Argmax, worker: &Worker<'_>, isa: Isa) -> Result<()> {
    let cols = op.x.n_cols();
    // SAFETY: the op writes only `out`, which does not overlap `x` (`Op::check`).
    let x: &[f32] = unsafe { slice(&op.x) };
    for row in worker.share(op.out.n_elements()) {
        // SAFETY: each element of `out` belongs to one share.
        let out: &mut [u32] = unsafe { slice_mut(&op.out, row, 1) };
        let x = &x[row * cols..][..cols];
        let first = first_largest(isa, x);
        out[0] = if x[first] > f32::NEG_INFINITY { first as u32 } else { u32::MAX };
    }
    Ok(())
}

/// Independent registers of running maxima, so that a comparison need not wait for the one before.
const CHAINS: usize = 4;

#[inline(always)]
fn first_largest_body<V: Lanes>(set: V::Set, x: &[f32]) -> usize {
    let mut lanes = [V::splat(set, f32::NEG_INFINITY); CHAINS];
    let (chunks, rest) = x.as_chunks::<{ LANES * CHAINS }>();
    for chunk in chunks {
        for (lanes, x) in lanes.iter_mut().zip(chunk.as_chunks().0) {
            *lanes = lanes.larger(V::load(set, x));
        }
    }
    let largest = lanes[0].larger(lanes[1]).larger(lanes[2].larger(lanes[3])).max();
    let largest = rest.iter().fold(largest, |largest, &x| largest.larger(x));
    for (i, chunk) in chunks.iter().enumerate() {
        let mut found = false;
        for value in chunk {
            found |= *value == largest;
        }
        if found {
            return i * LANES * CHAINS + chunk.iter().position(|v| *v == largest).unwrap_or(0);
        }
    }
    let first = chunks.len() * LANES * CHAINS;
    rest.iter().position(|v| *v == largest).map_or(0, |i| first + i)
}

vectorised! {
    fn first_largest(isa, x: &[f32]) -> usize = first_largest_body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_equals_wins_and_nan_never() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for n in [1, 2, 15, 64, 65, 127, 128, 1000] {
                for place in [0, 1, n / 2, n - 1] {
                    let place = place.min(n - 1);
                    for rest in [-1.0, f32::NAN, f32::NEG_INFINITY] {
                        for value in [2.0, 0.0, f32::INFINITY] {
                            let mut x = vec![rest; n];
                            x[place] = value;
                            x[n - 1] = value;
                            assert_eq!(first_largest(isa, &x), place, "{isa} {n} {rest} {value}");
                        }
                    }
                    let mut x = vec![f32::NAN; n];
                    x[place] = f32::NEG_INFINITY;
                    assert_eq!(first_largest(isa, &x), place, "{isa} {n}: minus infinity beats NaN");
                }
                assert_eq!(first_largest(isa, &vec![f32::NAN; n]), 0);
                assert_eq!(first_largest(isa, &vec![f32::NEG_INFINITY; n]), 0);
                let zeros: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { -0.0 } else { 0.0 }).collect();
                assert_eq!(first_largest(isa, &zeros), 0, "zeros of both signs are equal");
            }
        }
    }
}
