//! [`RawRows`], the rows of a weight's matrices in the order in which a device stores them, and [`fill_shares`], which fills memory with
//! them on several threads.

use super::RawMatrix;
use crate::error::Result;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, ScopedJoinHandle};

/// The rows of matrices of one type, one matrix after the other, or a gate and an up matrix in turn. They are read from their file, if that is
/// where they are, so a device asks for as many at a time as it has room for.
#[derive(Clone, Copy, Debug)]
pub struct RawRows<'p, 'a> {
    parts: &'p [RawMatrix<'a>],
    /// Rows of gate, and then of up, that lie together; `None` if the matrices are stacked.
    glu_rows: Option<usize>,
}

impl<'p, 'a> RawRows<'p, 'a> {
    /// All rows of the first matrix, then those of the second; for matrices that [`crate::Device::upload_weight`] has checked.
    pub fn stacked(parts: &'p [RawMatrix<'a>]) -> RawRows<'p, 'a> {
        RawRows { parts, glu_rows: None }
    }

    /// `glu_rows` rows of the first of two matrices, then as many of the second, and so on; for matrices that
    /// [`crate::Device::upload_weight`] has checked. The last ones may be missing.
    pub fn interleaved(parts: &'p [RawMatrix<'a>], glu_rows: usize) -> RawRows<'p, 'a> {
        RawRows { parts, glu_rows: Some(glu_rows) }
    }

    /// The number of outputs: rows, or of an interleaved pair the rows of one matrix.
    pub fn n_outputs(&self) -> usize {
        let rows = self.parts.iter().map(|part| part.rows.len());
        if self.glu_rows.is_some() { rows.max().unwrap_or(0) } else { rows.sum() }
    }

    /// The bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.parts.first().map_or(0, RawMatrix::row_bytes)
    }

    /// Fills `out`, which has room for whole rows, with the rows from `first` on. A row that is not there is zero bytes.
    ///
    /// # Errors
    /// If they are in a file that cannot be read.
    pub fn read(&self, mut first: usize, mut out: &mut [u8]) -> Result<()> {
        let row_bytes = self.row_bytes();
        while !out.is_empty() {
            let (part, row, n) = self.run(first);
            let n = n.min(out.len() / row_bytes);
            let (here, rest) = out.split_at_mut(n * row_bytes);
            match part {
                Some(part) => part.read(row, here)?,
                None => here.fill(0),
            }
            (first, out) = (first + n, rest);
        }
        Ok(())
    }

    /// The matrix in which row `first` is, as which of its rows, and how many follow each other from there on. Without a matrix, that many
    /// rows are missing.
    fn run(&self, first: usize) -> (Option<&'p RawMatrix<'a>>, usize, usize) {
        if let ([gate, up], Some(glu_rows)) = (self.parts, self.glu_rows) {
            let (piece, i) = (first / glu_rows, first % glu_rows);
            let part = if piece.is_multiple_of(2) { gate } else { up };
            let (row, n) = (piece / 2 * glu_rows + i, glu_rows - i);
            return match part.rows.len().checked_sub(row) {
                None | Some(0) => (None, 0, n),
                Some(left) => (Some(part), row, n.min(left)),
            };
        }
        let mut row = first;
        for part in self.parts {
            let n = part.rows.len();
            if row < n {
                return (Some(part), row, n - row);
            }
            row -= n;
        }
        (None, 0, usize::MAX)
    }
}

/// Cuts `out` into shares of whole units and fills them on at most `n_threads` threads, the caller's among them. `fill` gets the index of the
/// share's first unit. A thread that cannot be started costs time, nothing else.
///
/// # Errors
/// The first of `fill`.
pub fn fill_shares(
    out: &mut [u8],
    unit_bytes: usize,
    n_threads: usize,
    fill: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
) -> Result<()> {
    let units_each = (out.len() / unit_bytes).div_ceil(n_threads.max(1)).max(1);
    let shares = Mutex::new((0..).step_by(units_each).zip(out.chunks_mut(units_each * unit_bytes)));
    let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((first, share)) = next() {
            fill(first, share)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (1..n_threads).map_while(|_| Builder::new().spawn_scoped(scope, work).ok()).collect();
        let join =
            |worker: ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        workers.into_iter().map(join).fold(work(), Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use recua_gguf::GgmlType;

    /// Rows of one f32 each, which count from `first` on.
    fn column(first: u32, n: u32) -> Vec<u8> {
        (first..first + n).flat_map(|v| (v as f32).to_le_bytes()).collect()
    }

    fn numbers(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn rows_are_found_wherever_reading_starts() {
        let (a, b) = (column(1, 5), column(11, 5));
        let of = |raw: &'static [u8]| RawMatrix::new(GgmlType::F32, 5, 1, raw);
        let parts = [of(a.leak()), of(b.leak()).rows(1..5)];
        let stacked = [1., 2., 3., 4., 5., 12., 13., 14., 15., 0., 0.];
        let both = [of(parts[0].raw.to_vec().unwrap().leak()), of(column(11, 5).leak())];
        let interleaved = [1., 2., 11., 12., 3., 4., 13., 14., 5., 0., 15., 0.];
        for (rows, expected) in
            [(RawRows::stacked(&parts), &stacked[..]), (RawRows::interleaved(&both, 2), &interleaved[..])]
        {
            for first in 0..expected.len() {
                for n in 0..=expected.len() - first {
                    let mut out = vec![9; 4 * n];
                    rows.read(first, &mut out).unwrap();
                    assert_eq!(numbers(&out), expected[first..first + n], "{n} from {first}");
                }
            }
        }
    }

    #[test]
    fn some_columns_are_read_row_by_row() {
        let raw = column(0, 12);
        let part = [RawMatrix::new(GgmlType::F32, 3, 4, &raw).columns(1..3)];
        let mut out = vec![0; 16];
        RawRows::stacked(&part).read(1, &mut out).unwrap();
        assert_eq!(numbers(&out), [5., 6., 9., 10.]);
    }

    #[test]
    fn shares_cover_everything_once_and_pass_errors_on() {
        for (n_units, n_threads) in [(0, 3), (1, 4), (7, 3), (8, 0), (9, 100)] {
            let mut out = vec![0u8; 3 * n_units];
            let fill = |first: usize, share: &mut [u8]| {
                share.iter_mut().enumerate().for_each(|(i, byte)| *byte += (3 * first + i) as u8);
                Ok(())
            };
            fill_shares(&mut out, 3, n_threads, fill).unwrap();
            assert_eq!(out, (0..3 * n_units as u8).collect::<Vec<_>>());
        }
        let fails = |first: usize, _: &mut [u8]| match first {
            2.. => Err(crate::error::argument("fill", "no")),
            _ => Ok(()),
        };
        assert!(fill_shares(&mut [0; 8], 2, 4, fails).is_err());
        assert!(fill_shares(&mut [0; 8], 2, 1, fails).is_ok());
    }
}
