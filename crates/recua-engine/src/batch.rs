//! [`Batch`]: the rows of one step, as flat arrays of integers that can be printed and compared.
//!
//! Any mix of sequences with any number of new rows each. There is no prompt or generation flag: decoding is one new row.

use recua_compute::CHOSEN;
use std::ops::Range;

/// The rows of a sequence for which to compute logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: the rows only fill the cache.
    None,
    /// The last row.
    Last,
    /// Every row.
    All,
}

/// Consecutive rows of one sequence in a batch: row `first_row + i` is at position `start + i` of the sequence in `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first row.
    pub first_row: usize,
    /// The number of rows, at least 1.
    pub n_rows: usize,
    /// The slot of the cache that holds the sequence.
    pub slot: usize,
    /// The position of the first row.
    pub start: usize,
}

/// The rows of one step, in the order in which they were pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    logits_rows: Vec<u32>,
    runs: Vec<Run>,
}

impl Batch {
    /// No rows.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// The number of rows.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token of each row, or [`CHOSEN`] and the place where it will be [chosen](Self::push_chosen).
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The position of each row in its sequence, from 0.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The slot of each row: the place of its sequence in the cache.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The rows whose logits are wanted, in ascending order.
    pub fn logits_rows(&self) -> &[u32] {
        &self.logits_rows
    }

    /// The same rows, as runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Removes all rows but keeps the memory.
    pub fn clear(&mut self) {
        let Batch { tokens, positions, slots, logits_rows, runs } = self;
        for words in [tokens, positions, slots, logits_rows] {
            words.clear();
        }
        runs.clear();
    }

    /// Appends one row at `position` of the sequence in `slot`, whose token the host has not seen yet: the most probable token for row `i`
    /// of the logits of the step that was [launched](crate::LlamaModel::launch_greedy) before.
    pub fn push_chosen(&mut self, slot: usize, position: usize, i: usize, logits: Logits) {
        let place = u32::try_from(i).unwrap_or(u32::MAX);
        self.push_sequence(slot, position, &[CHOSEN | place], logits);
    }

    /// Appends `tokens` at the positions from `start` on of the sequence in `slot`. A slot may occur again, with the positions that follow.
    pub fn push_sequence(&mut self, slot: usize, start: usize, tokens: &[u32], logits: Logits) {
        // A number of 2^32 or more stays out of range, and the step refuses it.
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let first_row = self.n_rows();
        self.tokens.extend(tokens);
        self.positions.extend((0..tokens.len()).map(|i| narrow(start.saturating_add(i))));
        self.slots.resize(first_row + tokens.len(), narrow(slot));
        let wanted = match logits {
            Logits::None => self.n_rows(),
            Logits::Last => self.n_rows().saturating_sub(1).max(first_row),
            Logits::All => first_row,
        };
        self.logits_rows.extend((wanted..self.n_rows()).map(narrow));
        let (slot, start) = (narrow(slot) as usize, narrow(start) as usize);
        match self.runs.last_mut() {
            _ if tokens.is_empty() => {}
            Some(last) if last.slot == slot && last.start + last.n_rows == start => {
                last.n_rows += tokens.len();
            }
            _ => self.runs.push(Run { first_row, n_rows: tokens.len(), slot, start }),
        }
    }

    /// The rows in `range` as a separate batch, with their wanted logits.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn rows(&self, range: Range<usize>) -> Batch {
        let mut batch = Batch::new();
        for run in &self.runs {
            let first = run.first_row.max(range.start);
            let end = (run.first_row + run.n_rows).min(range.end);
            if first < end {
                let start = run.start + first - run.first_row;
                batch.push_sequence(run.slot, start, &self.tokens[first..end], Logits::None);
            }
        }
        let wanted = self.logits_rows.iter().filter(|row| range.contains(&(**row as usize)));
        batch.logits_rows.extend(wanted.map(|row| row - range.start as u32));
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_knows_its_runs_and_can_be_cut() {
        let mut batch = Batch::new();
        batch.push_sequence(1, 4, &[10, 11, 12], Logits::Last);
        batch.push_sequence(1, 7, &[13], Logits::None);
        batch.push_sequence(0, 0, &[], Logits::All);
        batch.push_sequence(2, 9, &[20, 21], Logits::All);
        let run = |first_row, n_rows, slot, start| Run { first_row, n_rows, slot, start };
        assert_eq!(batch.runs(), [run(0, 4, 1, 4), run(4, 2, 2, 9)]);
        assert_eq!(batch.positions(), [4, 5, 6, 7, 9, 10]);
        assert_eq!(batch.logits_rows(), [2, 4, 5]);
        let cut = batch.rows(2..5);
        assert_eq!(cut.runs(), [run(0, 2, 1, 6), run(2, 1, 2, 9)]);
        assert_eq!((cut.tokens(), cut.slots()), (&[12, 13, 20][..], &[1, 1, 2][..]));
        assert_eq!(cut.logits_rows(), [0, 2]);
        batch.clear();
        assert_eq!(batch, Batch::new());
    }
}
