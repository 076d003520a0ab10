//! The comparison itself, over anything that computes logits: a model, or in the tests a fake device that cheats.

use crate::failure::Result;
use crate::random::Random;

/// New tokens of one sequence in one pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) slot: usize,
    /// Position of the first token.
    pub(super) start: usize,
    pub(super) tokens: &'a [u32],
}

/// What the proof needs of a model.
pub(super) trait Subject {
    /// Runs one pass and returns the logits of every new row: for each piece in order, row after row.
    fn forward(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Vec<f32>>>;
    /// Forgets a slot's sequence.
    fn clear(&mut self, slot: usize) -> Result;
    /// Changes the number of slots; the remaining slots keep their sequences.
    fn set_batch_size(&mut self, n: usize) -> Result;
    fn n_vocab(&self) -> usize;
}

/// The result of one case.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) case: String,
    pub(super) n_sequences: usize,
    pub(super) n_rows: usize,
    pub(super) difference: Option<Difference>,
}

/// The first value that differs.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) sequence: usize,
    pub(super) position: usize,
    pub(super) token: usize,
    pub(super) alone: f32,
    pub(super) batched: f32,
}

/// The batch sizes compared with a sequence alone.
const SIZES: [usize; 5] = [2, 3, 5, 8, 16];
/// Sequences compared, as many as the largest batch has.
const N_SEQUENCES: usize = 16;

/// Sequences, and the logits each has when it runs alone.
pub(super) struct Proof {
    sequences: Vec<Vec<u32>>,
    // The logits of each sequence, row after row.
    alone: Vec<Vec<f32>>,
    n_vocab: usize,
    random: Random,
}

impl Proof {
    /// Generates the sequences, none longer than `len_max`, and runs each alone in a batch of one.
    pub(super) fn new(subject: &mut impl Subject, len_max: usize) -> Result<Self> {
        let n_vocab = subject.n_vocab();
        let mut random = Random::new(1);
        let sequences: Vec<_> = lengths(len_max).into_iter().map(|n| random.tokens(n, n_vocab)).collect();
        let mut alone = Vec::new();
        subject.set_batch_size(1)?;
        for tokens in &sequences {
            subject.clear(0)?;
            alone.append(&mut subject.forward(&[Piece { slot: 0, start: 0, tokens }])?);
        }
        subject.clear(0)?;
        Ok(Self { sequences, alone, n_vocab, random })
    }

    /// Runs every case and passes each outcome to `report`. Returns whether all values were equal.
    pub(super) fn run(
        mut self,
        subject: &mut impl Subject,
        mut report: impl FnMut(Outcome) -> Result,
    ) -> Result<bool> {
        let mut all_equal = true;
        let mut add = |outcome: Outcome| {
            all_equal &= outcome.difference.is_none();
            report(outcome)
        };
        add(self.again(subject)?)?;
        for n in SIZES {
            add(self.in_order(subject, n)?)?;
        }
        add(self.shuffled(subject)?)?;
        add(self.other_companions(subject)?)?;
        add(self.cut(subject, "cut into pieces of 1 to 9 tokens", 9)?)?;
        add(self.cut(subject, "token by token", 1)?)?;
        add(self.after_clear(subject)?)?;
        add(self.resized(subject)?)?;
        Ok(all_equal)
    }

    /// Each sequence alone once more: a device that does not even repeat itself must not be mistaken for one that
    /// depends on the batch.
    fn again(&mut self, subject: &mut impl Subject) -> Result<Outcome> {
        subject.set_batch_size(1)?;
        let mut outcome = self.outcome("alone, a second time", 1);
        for i in 0..N_SEQUENCES {
            subject.clear(0)?;
            let piece = Piece { slot: 0, start: 0, tokens: &self.sequences[i] };
            let logits = subject.forward(&[piece])?;
            self.compare(&mut outcome, i, piece, &logits[0]);
        }
        subject.clear(0)?;
        Ok(outcome)
    }

    /// All sequences, in batches of `n`.
    fn in_order(&mut self, subject: &mut impl Subject, n: usize) -> Result<Outcome> {
        let order: Vec<usize> = (0..N_SEQUENCES).collect();
        self.batches(subject, &format!("batches of {n}"), n, &order)
    }

    fn shuffled(&mut self, subject: &mut impl Subject) -> Result<Outcome> {
        let mut order: Vec<usize> = (0..N_SEQUENCES).collect();
        self.random.shuffle(&mut order);
        self.batches(subject, "batches of 16, in another order", N_SEQUENCES, &order)
    }

    fn batches(
        &mut self,
        subject: &mut impl Subject,
        case: &str,
        n: usize,
        order: &[usize],
    ) -> Result<Outcome> {
        let mut outcome = self.outcome(case, n);
        subject.set_batch_size(n)?;
        for group in order.chunks(n) {
            clear_all(subject, n)?;
            let pieces: Vec<_> = group
                .iter()
                .enumerate()
                .map(|(slot, i)| Piece { slot, start: 0, tokens: &self.sequences[*i] })
                .collect();
            let logits = subject.forward(&pieces)?;
            for ((i, piece), rows) in group.iter().zip(pieces).zip(&logits) {
                self.compare(&mut outcome, *i, piece, rows);
            }
        }
        clear_all(subject, n)?;
        Ok(outcome)
    }

    /// Every sequence in the middle of a batch, beside seven others that occur nowhere else.
    fn other_companions(&mut self, subject: &mut impl Subject) -> Result<Outcome> {
        const N: usize = 8;
        const SLOT: usize = 4;
        let mut outcome = self.outcome("batches of 8, beside strangers", N);
        subject.set_batch_size(N)?;
        for i in 0..N_SEQUENCES {
            clear_all(subject, N)?;
            let len = 1 + self.random.below(self.sequences[0].len());
            let strangers: Vec<_> = (0..N).map(|_| self.random.tokens(len, self.n_vocab)).collect();
            let pieces: Vec<_> = (0..N)
                .map(|slot| {
                    let tokens = if slot == SLOT { &self.sequences[i] } else { &strangers[slot] };
                    Piece { slot, start: 0, tokens }
                })
                .collect();
            let logits = subject.forward(&pieces)?;
            self.compare(&mut outcome, i, pieces[SLOT], &logits[SLOT]);
        }
        clear_all(subject, N)?;
        Ok(outcome)
    }

    /// All sequences at once, each cut into pieces of its own, so that prompts and single tokens share every pass.
    fn cut(&mut self, subject: &mut impl Subject, case: &str, piece_max: usize) -> Result<Outcome> {
        let mut outcome = self.outcome(case, N_SEQUENCES);
        subject.set_batch_size(N_SEQUENCES)?;
        clear_all(subject, N_SEQUENCES)?;
        let mut done = [0; N_SEQUENCES];
        while self.next_pieces(subject, piece_max, &mut done, &mut outcome)? {}
        clear_all(subject, N_SEQUENCES)?;
        Ok(outcome)
    }

    /// Runs one pass with the next piece of every sequence that has one left. Returns false if none has.
    fn next_pieces(
        &mut self,
        subject: &mut impl Subject,
        piece_max: usize,
        done: &mut [usize],
        outcome: &mut Outcome,
    ) -> Result<bool> {
        let mut pieces = Vec::new();
        for (slot, start) in done.iter().enumerate() {
            let left = &self.sequences[slot][*start..];
            let n = left.len().min(1 + self.random.below(piece_max));
            if n > 0 {
                pieces.push(Piece { slot, start: *start, tokens: &left[..n] });
            }
        }
        if pieces.is_empty() {
            return Ok(false);
        }
        let logits = subject.forward(&pieces)?;
        for (piece, rows) in pieces.iter().zip(&logits) {
            self.compare(outcome, piece.slot, *piece, rows);
            done[piece.slot] += piece.tokens.len();
        }
        Ok(true)
    }

    /// Slots that held something else: each sequence runs in the cleared slot of the next one, while the other slots
    /// keep theirs.
    fn after_clear(&mut self, subject: &mut impl Subject) -> Result<Outcome> {
        let mut outcome = self.outcome("in a cleared slot, beside live neighbours", N_SEQUENCES);
        subject.set_batch_size(N_SEQUENCES)?;
        clear_all(subject, N_SEQUENCES)?;
        let all: Vec<_> =
            (0..N_SEQUENCES).map(|slot| Piece { slot, start: 0, tokens: &self.sequences[slot] }).collect();
        subject.forward(&all)?;
        for i in 0..N_SEQUENCES {
            let slot = (i + 1) % N_SEQUENCES;
            subject.clear(slot)?;
            let piece = Piece { slot, start: 0, tokens: &self.sequences[i] };
            let logits = subject.forward(&[piece])?;
            self.compare(&mut outcome, i, piece, &logits[0]);
        }
        clear_all(subject, N_SEQUENCES)?;
        Ok(outcome)
    }

    /// The first half of some sequences, then a larger batch, then a smaller one, then the rest.
    fn resized(&mut self, subject: &mut impl Subject) -> Result<Outcome> {
        const N: usize = 3;
        let mut outcome = self.outcome("across set_batch_size", N);
        subject.set_batch_size(N)?;
        clear_all(subject, N)?;
        for halves in [0..2, 2..4] {
            let pieces: Vec<_> = (0..N)
                .filter_map(|slot| {
                    let tokens = &self.sequences[slot];
                    let at = |quarter: usize| tokens.len() * quarter / 4;
                    let (start, end) = (at(halves.start), at(halves.end));
                    (start < end).then(|| Piece { slot, start, tokens: &tokens[start..end] })
                })
                .collect();
            let logits = subject.forward(&pieces)?;
            for (piece, rows) in pieces.iter().zip(&logits) {
                self.compare(&mut outcome, piece.slot, *piece, rows);
            }
            subject.set_batch_size(N_SEQUENCES)?;
            subject.set_batch_size(N)?;
        }
        clear_all(subject, N)?;
        Ok(outcome)
    }

    fn outcome(&self, case: &str, n_sequences: usize) -> Outcome {
        Outcome { case: case.to_owned(), n_sequences, n_rows: 0, difference: None }
    }

    /// Compares `rows`, the logits of `piece` of sequence `i`, with those of the sequence alone. A row that is
    /// missing or too many is a difference too; the missing value counts as NaN.
    fn compare(&self, outcome: &mut Outcome, i: usize, piece: Piece<'_>, rows: &[f32]) {
        outcome.n_rows += rows.len() / self.n_vocab;
        if outcome.difference.is_some() {
            return;
        }
        let alone = &self.alone[i][piece.start * self.n_vocab..][..piece.tokens.len() * self.n_vocab];
        let value = |values: &[f32], at: usize| values.get(at).copied();
        let bits = |values: &[f32], at: usize| value(values, at).map(f32::to_bits);
        let at = (0..rows.len().max(alone.len())).find(|at| bits(rows, *at) != bits(alone, *at));
        outcome.difference = at.map(|at| Difference {
            sequence: i,
            position: piece.start + at / self.n_vocab,
            token: at % self.n_vocab,
            alone: value(alone, at).unwrap_or(f32::NAN),
            batched: value(rows, at).unwrap_or(f32::NAN),
        });
    }
}

fn clear_all(subject: &mut impl Subject, n: usize) -> Result {
    (0..n).try_for_each(|slot| subject.clear(slot))
}

/// Lengths around the sizes of kernel tiles and cache pages, short and long mixed so that every batch is ragged. The
/// first three, which [`Proof::resized`] uses, are long.
fn lengths(len_max: usize) -> Vec<usize> {
    let wanted = [len_max, 64, 33, 1, 32, 5, 47, 2, 16, 31, 8, 3, 17, 40, 9, 24];
    wanted.iter().map(|n| (*n).min(len_max)).collect()
}
