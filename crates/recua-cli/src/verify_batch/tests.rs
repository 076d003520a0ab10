//! A fake device whose logits do not depend on the batch, and several that break this in one way each. The proof must
//! find every one.

use super::proof::{Outcome, Piece, Proof, Subject};
use crate::failure::Result;

const VOCAB: usize = 7;

/// How a fake device cheats.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Flaw {
    None,
    /// The order of summation changes if the pass has more than eight rows, as in a library GEMM.
    RowCount,
    /// A row's place in the batch matters.
    Slot,
    /// The first sequence of the batch leaks into the others.
    Companion,
    /// The first row of a piece is computed differently.
    Cut,
    /// `clear` leaves something behind.
    StaleSlot,
    /// Resizing forgets a token.
    Resize,
    /// No two runs are the same.
    Noise,
    /// Rounds one value of one row, in batches only.
    OneBit,
    /// The last row of a piece is not returned, in batches only.
    MissingRow,
}

/// Logits are sums over a sequence's tokens, in an order that a flaw may change.
struct Fake {
    flaw: Flaw,
    slots: Vec<Vec<u32>>,
    dirty: Vec<bool>,
    n_runs: usize,
}

fn logit(history: &[u32], column: usize, backwards: bool) -> f32 {
    let term = |(i, t): (usize, &u32)| 1.0 / (1.0 + (*t as usize * 31 + i * 17 + column) as f32);
    let terms: Vec<f32> = history.iter().enumerate().map(term).collect();
    if backwards { terms.iter().rev().sum() } else { terms.iter().sum() }
}

impl Subject for Fake {
    fn forward(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Vec<f32>>> {
        self.n_runs += 1;
        let n_rows: usize = pieces.iter().map(|p| p.tokens.len()).sum();
        let leak = if pieces.len() > 1 { pieces[0].tokens[0] as f32 * 1e-3 } else { 0.0 };
        let mut all = Vec::new();
        let has_neighbours = self.slots.iter().filter(|s| !s.is_empty()).count() > 1;
        for piece in pieces {
            let mut rows = Vec::new();
            let history = &mut self.slots[piece.slot];
            history.truncate(piece.start);
            for (i, token) in piece.tokens.iter().enumerate() {
                history.push(*token);
                for column in 0..VOCAB {
                    let backwards = self.flaw == Flaw::RowCount && n_rows > 8 && pieces.len() > 1;
                    let mut value = logit(history, column, backwards);
                    match self.flaw {
                        Flaw::Slot => value += piece.slot as f32 * 1e-3,
                        Flaw::Companion if piece.slot != pieces[0].slot => value += leak,
                        Flaw::Cut if piece.start > 0 && i == 0 => value *= 1.001,
                        Flaw::StaleSlot if self.dirty[piece.slot] && has_neighbours => value += 1e-3,
                        Flaw::Noise => value += self.n_runs as f32 * 1e-3,
                        Flaw::OneBit if pieces.len() == 8 && piece.slot == 3 && column == 2 => {
                            value = f32::from_bits(value.to_bits() ^ 1);
                        }
                        _ => {}
                    }
                    rows.push(value);
                }
                if self.flaw == Flaw::Resize && i == 0 && piece.start > 0 && self.dirty[piece.slot] {
                    rows[0] += 1e-3;
                }
            }
            if self.flaw == Flaw::MissingRow && pieces.len() > 1 {
                rows.truncate(rows.len() - VOCAB);
            }
            all.push(rows);
        }
        Ok(all)
    }

    fn clear(&mut self, slot: usize) -> Result {
        if self.flaw == Flaw::StaleSlot {
            self.dirty[slot] = !self.slots[slot].is_empty();
        }
        self.slots[slot].clear();
        Ok(())
    }

    fn set_batch_size(&mut self, n: usize) -> Result {
        if self.flaw == Flaw::Resize {
            self.dirty.iter_mut().zip(&self.slots).for_each(|(dirty, slot)| *dirty = !slot.is_empty());
        }
        self.slots.resize(n, Vec::new());
        self.dirty.resize(n, false);
        Ok(())
    }

    fn n_vocab(&self) -> usize {
        VOCAB
    }
}

/// Runs the proof on a device with this flaw and returns the cases that found it.
fn found(flaw: Flaw) -> Vec<Outcome> {
    let mut fake = Fake { flaw, slots: vec![Vec::new()], dirty: vec![false], n_runs: 0 };
    let proof = Proof::new(&mut fake, 80).unwrap();
    let mut found = Vec::new();
    let mut n_cases = 0;
    let equal = proof
        .run(&mut fake, |outcome| {
            n_cases += 1;
            assert!(outcome.n_rows > 0 || flaw == Flaw::MissingRow, "{} compared nothing", outcome.case);
            if outcome.difference.is_some() {
                found.push(outcome);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(n_cases, 12);
    assert_eq!(equal, found.is_empty());
    found
}

fn cases(flaw: Flaw) -> Vec<String> {
    found(flaw).into_iter().map(|outcome| outcome.case).collect()
}

#[test]
fn a_device_that_keeps_the_contract_passes() {
    assert_eq!(cases(Flaw::None), [""; 0]);
}

#[test]
fn sums_that_depend_on_the_row_count_are_found() {
    let cases = cases(Flaw::RowCount);
    for n in [2, 3, 5, 8, 16] {
        assert!(cases.contains(&format!("batches of {n}")), "{cases:?}");
    }
}

#[test]
fn every_other_flaw_is_found() {
    let expect = |flaw, case: &str| {
        let cases = cases(flaw);
        assert!(cases.iter().any(|c| c.contains(case)), "{flaw:?}: {cases:?}");
    };
    expect(Flaw::Slot, "another order");
    expect(Flaw::Companion, "strangers");
    expect(Flaw::Cut, "token by token");
    expect(Flaw::Cut, "pieces");
    expect(Flaw::StaleSlot, "cleared slot");
    expect(Flaw::Resize, "set_batch_size");
    expect(Flaw::Noise, "a second time");
    expect(Flaw::MissingRow, "batches of 2");
    expect(Flaw::MissingRow, "token by token");
    // One bit of one column, in one slot of one batch size.
    assert_eq!(cases(Flaw::OneBit), ["batches of 8"]);
}

#[test]
fn the_first_difference_is_named() {
    let mut fake = Fake { flaw: Flaw::OneBit, slots: vec![Vec::new()], dirty: vec![false], n_runs: 0 };
    let proof = Proof::new(&mut fake, 80).unwrap();
    let mut first = None;
    proof
        .run(&mut fake, |outcome| {
            if let (None, Some(d)) = (&first, &outcome.difference) {
                first = Some((d.sequence, d.position, d.token, d.alone.to_bits() ^ d.batched.to_bits()));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(first, Some((3, 0, 2, 1)));
}
