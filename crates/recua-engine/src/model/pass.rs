//! Passes: a batch is cut into pieces that one pass can run; their launches, and their outputs.

use super::llama::Shape;
use super::loaded::LoadedModel;
use super::outputs::{Out, Outputs, TOP_WORDS, WantedRows};
use super::programs::compile;
use crate::batch::Batch;
use crate::cache::{Changes, Span};
use crate::error::{Error, Result};
use recua_compute::{Buffer, CHOSEN, INERT, Input, RowRun, Submission};
use std::ops::Range;

/// The part of a batch that goes through one pass.
struct Piece<'a> {
    // Empty if they already ran with the piece before: only the output matrix runs, for more of their logits.
    rows: Range<usize>,
    // Rows of the batch; the first row of the pass is `first_row`.
    wanted: &'a [u32],
    first_row: usize,
}

/// A pass in flight.
pub(crate) struct Launched {
    submission: Submission,
}

impl LoadedModel {
    /// The effect of the batch on each slot: one span per slot, in the order of their first rows. Its tokens come from the vocabulary, or
    /// are among `n_chosen` that are chosen on the device.
    ///
    /// # Errors
    /// If the batch is empty, a slot or token is out of range, or a sequence has a gap.
    pub(crate) fn spans(&self, batch: &Batch, n_chosen: usize) -> Result<Vec<Span>> {
        let (batch_size, vocab) = (self.config.batch_size, self.params.vocab);
        if batch.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let is_known = |token: &u32| match token & CHOSEN {
            0 => (*token as usize) < vocab,
            _ => ((token ^ CHOSEN) as usize) < n_chosen,
        };
        let mut spans: Vec<Span> = Vec::with_capacity(batch.runs().len());
        let mut span_of_slot = vec![usize::MAX; batch_size];
        for run in batch.runs() {
            let (slot, start, end) = (run.slot, run.start, run.start + run.n_rows);
            let Some(span) = span_of_slot.get_mut(slot) else {
                return Err(Error::SlotOutOfRange { slot, batch_size });
            };
            let tokens = &batch.tokens()[run.first_row..run.first_row + run.n_rows];
            if let Some(i) = tokens.iter().position(|token| !is_known(token)) {
                let (token, position) = (tokens[i], start + i);
                return Err(Error::TokenOutOfRange { token, vocab, slot, position });
            }
            match spans.get_mut(*span) {
                None => {
                    *span = spans.len();
                    spans.push(Span { slot, start, end });
                }
                Some(span) if span.end == start => span.end = end,
                Some(span) => {
                    let (row, last) = (run.first_row, span.end - 1);
                    let problem = format!("row {row} has position {start} of slot {slot}, after {last}");
                    return Err(Error::MalformedBatch { problem });
                }
            }
        }
        Ok(spans)
    }

    /// Makes room in `outputs` for what is wanted of a batch's rows.
    ///
    /// # Errors
    /// If the host has no memory for it.
    pub(crate) fn room<'a>(&self, wanted: WantedRows, outputs: &'a mut Outputs) -> Result<Out<'a>> {
        let n_logits = wanted.n_logits.saturating_mul(self.params.vocab);
        let Outputs { greedy, top, logits } = outputs;
        let no_memory =
            |_| Error::HostMemory { what: "the logits of a step", bytes: n_logits.saturating_mul(4) };
        logits.try_reserve_exact(n_logits.saturating_sub(logits.len())).map_err(no_memory)?;
        logits.resize(n_logits, 0.0);
        greedy.resize(wanted.n_greedy, 0);
        top.resize(wanted.n_top * TOP_WORDS, 0);
        Ok(Out { greedy, top, logits })
    }

    /// Sends `changes` to the device and runs the rows of a batch that has passed [`spans`](Self::spans), in as many passes as needed, into
    /// the [`room`](Self::room) for it. While a pass is in flight, the next one is prepared and launched.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run(&mut self, batch: &Batch, changes: &Changes, out: Out<'_>) -> Result<()> {
        self.n_chosen = 0;
        let (mut changes, none) = (changes, Changes::default());
        let (mut rest, mut in_flight) = (out, None);
        for piece in self.pieces(batch) {
            let out;
            (out, rest) = rest.split_at(piece.wanted.len(), self.params.vocab);
            let launched = self.launch_piece(batch, &piece, changes, out.wanted(self.params.vocab))?;
            changes = &none;
            if let Some((before, out)) = in_flight.replace((launched, out)) {
                self.collect(before, out)?;
            }
        }
        in_flight.map_or(Ok(()), |(last, out)| self.collect(last, out))
    }

    /// Sends `changes` to the device and starts the rows of a batch that has passed [`spans`](Self::spans). The next launch can use the
    /// tokens that it chooses.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If there are more rows than one pass can have.
    pub(crate) fn launch(
        &mut self,
        batch: &Batch,
        changes: &Changes,
        wanted: WantedRows,
    ) -> Result<Launched> {
        self.n_chosen = 0;
        let launched = match &self.pieces(batch)[..] {
            [piece] => self.launch_piece(batch, piece, changes, wanted),
            pieces => panic!("{} rows take {} passes", batch.n_rows(), pieces.len()),
        }?;
        self.n_chosen = wanted.n_greedy;
        Ok(launched)
    }

    /// The number of tokens that the latest pass leaves chosen on the device.
    pub(crate) fn n_chosen(&self) -> usize {
        self.n_chosen
    }

    /// Waits for a pass and takes what it brought back. `out` is the room for which it was launched.
    ///
    /// # Errors
    /// If the device failed.
    pub(crate) fn collect(&mut self, launched: Launched, out: Out<'_>) -> Result<()> {
        let Launched { submission } = launched;
        submission.wait()?;
        let mut idx = 0;
        for words in [out.greedy, out.top].into_iter().filter(|words| !words.is_empty()) {
            submission.take(idx, words)?;
            idx += 1;
        }
        if !out.logits.is_empty() {
            submission.take(idx, out.logits)?;
        }
        if let Some(time) = submission.gpu_time() {
            *self.device_time.get_or_insert_default() += time;
        }
        Ok(())
    }

    /// The passes of a batch.
    fn pieces<'a>(&self, batch: &'a Batch) -> Vec<Piece<'a>> {
        let (rows_max, logits_max) = (self.config.step_tokens_max, self.config.logits_rows());
        let mut wanted = batch.logits_rows();
        let mut pieces = Vec::new();
        for first_row in (0..batch.n_rows()).step_by(rows_max) {
            let end = batch.n_rows().min(first_row + rows_max);
            let here;
            (here, wanted) = wanted.split_at(wanted.partition_point(|row| (*row as usize) < end));
            let mut rows = first_row..end;
            let mut lots = here.chunks(logits_max);
            pieces.push(Piece { rows: rows.clone(), wanted: lots.next().unwrap_or_default(), first_row });
            rows.start = end;
            pieces.extend(lots.map(|wanted| Piece { rows: rows.clone(), wanted, first_row }));
        }
        pieces
    }

    /// Starts a pass as one submission: one upload of its inputs, the run, and one copy of its wanted outputs.
    fn launch_piece(
        &mut self,
        batch: &Batch,
        piece: &Piece<'_>,
        changes: &Changes,
        wanted: WantedRows,
    ) -> Result<Launched> {
        let buckets = self.device.info().row_buckets;
        let shape = Shape {
            n_rows: bucket(buckets, piece.rows.len(), self.config.step_tokens_max),
            n_logits_rows: bucket(buckets, piece.wanted.len(), self.config.logits_rows()),
            greedy: wanted.n_greedy > 0,
            top: wanted.n_top > 0,
        };
        let program = match self.programs.get(shape) {
            Some(program) => program,
            None => {
                let program = compile(&self.device, &self.pass(), shape)?;
                self.programs.insert(shape, program.clone());
                program
            }
        };
        // In the order of `workspace::Input`. Spare rows belong to no sequence.
        let Piece { rows, wanted: logits_rows, first_row } = piece;
        let mut words = Vec::with_capacity(3 * shape.n_rows + shape.n_logits_rows);
        let columns = [(batch.tokens(), 0), (batch.positions(), 0), (batch.slots(), INERT)];
        for (i, (all, spare)) in columns.into_iter().enumerate() {
            words.extend(&all[rows.clone()]);
            words.resize((i + 1) * shape.n_rows, spare);
        }
        words.extend(logits_rows.iter().map(|row| row - *first_row as u32));
        words.resize(3 * shape.n_rows + shape.n_logits_rows, 0);
        let tiling = &self.workspace.tiling;
        if shape.n_rows > 0 && tiling.rows > 0 {
            let runs = RowRun::of(&batch.slots()[rows.clone()], &batch.positions()[rows.clone()]);
            words.extend(self.work_list.build(tiling, shape.n_rows, runs)?);
        }

        self.store.tell(changes, &self.programs.copies)?;
        let outputs = self.brought_back(wanted)?;
        let mut inputs = vec![Input::new(&self.workspace.input, &words)?];
        let table = self.store.untold()?;
        for (entries, values) in &table {
            inputs.push(Input::new(entries, values)?);
        }
        let submission = program.launch(&inputs, &outputs)?;
        drop(table);
        self.store.told();
        Ok(Launched { submission })
    }

    /// The views of a pass's outputs.
    fn brought_back(&self, wanted: WantedRows) -> Result<Vec<Buffer>> {
        let WantedRows { n_greedy, n_top, n_logits } = wanted;
        let (vocab, mut views) = (self.params.vocab, Vec::new());
        if n_greedy > 0 {
            views.push(self.logits.greedy.rows(n_greedy)?);
        }
        if n_top > 0 {
            views.push(self.logits.top.view(n_greedy * TOP_WORDS, &[n_top * TOP_WORDS])?);
        }
        if n_logits > 0 {
            views.push(self.logits.logits.view((n_greedy + n_top) * vocab, &[n_logits * vocab])?);
        }
        Ok(views)
    }
}

/// The number of rows with which a pass of `n` rows is recorded, at most `max`.
fn bucket(buckets: &[usize], n: usize, max: usize) -> usize {
    match (buckets.iter().find(|bucket| **bucket >= n), buckets.last()) {
        (Some(_), _) if n == 0 => 0,
        (Some(bucket), _) => (*bucket).min(max),
        (None, Some(last)) => n.next_multiple_of(*last).min(max),
        (None, None) => n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_the_next_bucket() {
        let of = |n| bucket(&[1, 2, 4, 8, 16], n, 40);
        assert_eq!([0, 1, 2, 3, 9, 16].map(of), [0, 1, 2, 4, 16, 16]);
        assert_eq!([17, 33, 40].map(of), [32, 40, 40], "multiples of the last, as far as there is room");
        assert_eq!(bucket(&[4, 8], 5, 6), 6);
        assert_eq!(bucket(&[], 5, 6), 5, "every number is as good as another");
    }
}
