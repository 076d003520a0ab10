//! [`Batch`]: the rows of one step, as flat arrays of integers that can be printed and compared.
//!
//! Any mix of sequences with any number of new rows each. Nothing says prompt or generation: decoding is one new row.

/// Which rows of a sequence to compute logits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: the rows only fill the cache.
    None,
    /// The last row's.
    Last,
    /// Every row's.
    All,
}

/// The rows of one step; entry `i` of each of the first three arrays describes row `i`. The rows of a slot are in order of
/// position and without gaps, but need not be neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The row's token.
    pub tokens: Vec<u32>,
    /// Its position in its sequence, from 0.
    pub positions: Vec<u32>,
    /// The slot of the cache that holds its sequence.
    pub slots: Vec<u32>,
    /// The rows whose logits are wanted, each larger than the one before.
    pub logits_rows: Vec<u32>,
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

    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.slots.clear();
        self.logits_rows.clear();
    }

    /// Appends `tokens` at the positions from `start` on of the sequence in `slot`.
    pub fn push_sequence(&mut self, slot: usize, start: usize, tokens: &[u32], logits: Logits) {
        // A number past 2^32 stays out of range, and the step refuses it.
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let first = self.n_rows();
        for (i, &token) in tokens.iter().enumerate() {
            self.tokens.push(token);
            self.positions.push(narrow(start.saturating_add(i)));
            self.slots.push(narrow(slot));
        }
        let wanted = match logits {
            Logits::None => self.n_rows(),
            Logits::Last => self.n_rows().saturating_sub(1).max(first),
            Logits::All => first,
        };
        self.logits_rows.extend((wanted..self.n_rows()).map(narrow));
    }
}
