//! `recua verify-batch`: proves on the user's machine that a sequence's logits do not depend on its batch.

mod proof;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::time::Instant;

use recua::{Batch, LlamaConfig, LlamaModel, Logits};

use crate::args::VerifyArgs;
use crate::failure::{Failure, Result};
use crate::model::{self, ModelFile};
use crate::output::{self, note};
use crate::progress::Progress;
use crate::table::{Style, Table};
use proof::{Outcome, Piece, Proof, Subject};

/// The longest sequence by default, in tokens.
const LEN_MAX: usize = 80;

pub(crate) fn run(args: VerifyArgs) -> Result {
    let file = ModelFile::open(&args.model)?;
    let own = file.params.context_length;
    let len_max = match args.len {
        Some(len) if len > own => {
            let name = &file.name;
            return Err(Failure::user(format!("{name}: --len {len} exceeds the model's context of {own}")));
        }
        Some(len) => len,
        None => LEN_MAX.min(own),
    };
    let device = model::open_device(&args.device)?;
    let line = model::device_line(&device);
    let config = LlamaConfig { max_seq_len: len_max, kv_type: args.kv.kv_type, ..LlamaConfig::default() };
    let mut model = file.load(device, config)?;
    note!("{line}");
    let start = Instant::now();
    let progress = Progress::waiting("running every sequence alone");
    let proof = Proof::new(&mut model, len_max);
    drop(progress);
    let proof = proof?;
    let mut outcomes = Vec::new();
    // Progress is for a person at a terminal; the table has it all.
    let shows_progress = std::io::stderr().is_terminal();
    let progress = Progress::waiting("comparing");
    let equal = proof.run(&mut model, |outcome| {
        if shows_progress {
            progress.aside(|| note!("{}: {}", outcome.case, verdict(&outcome)));
        }
        outcomes.push(outcome);
        Ok(())
    })?;
    drop(progress);
    write_table(&outcomes, equal)?;
    note!("{:.1} s", start.elapsed().as_secs_f64());
    if equal { Ok(()) } else { Err(Failure::Verdict) }
}

impl Subject for LlamaModel {
    fn forward(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Vec<f32>>> {
        let mut batch = Batch::new();
        for piece in pieces {
            batch.push_sequence(piece.slot, piece.start, piece.tokens, Logits::All);
        }
        let logits = self.step(&batch).map_err(|e| model::failure(e, ""))?;
        let mut rest = &logits[..];
        let mut of_piece = |piece: &Piece<'_>| {
            let rows;
            (rows, rest) = rest.split_at(piece.tokens.len() * self.params().vocab);
            rows.to_vec()
        };
        Ok(pieces.iter().map(&mut of_piece).collect())
    }

    fn clear(&mut self, slot: usize) -> Result {
        self.kv_cache_mut().clear_batch(slot).map_err(|e| model::failure(e, ""))
    }

    fn set_batch_size(&mut self, n: usize) -> Result {
        LlamaModel::set_batch_size(self, n).map_err(|e| model::failure(e, ""))
    }

    fn n_vocab(&self) -> usize {
        self.params().vocab
    }
}

fn verdict(outcome: &Outcome) -> &'static str {
    if outcome.difference.is_none() { "same bits" } else { "DIFFERENT" }
}

fn write_table(outcomes: &[Outcome], equal: bool) -> Result {
    let mut out = output::stdout();
    let mut table = Table::new(&["<case", "sequences", "rows compared", "<logits"]);
    for outcome in outcomes {
        let (n, rows) = (outcome.n_sequences.to_string(), outcome.n_rows.to_string());
        table.row([outcome.case.clone(), n, rows, verdict(outcome).to_owned()]);
    }
    table.write(&mut out, Style::Plain)?;
    writeln!(out)?;
    match outcomes.iter().find_map(|o| Some((o, o.difference.as_ref()?))) {
        None if equal => writeln!(
            out,
            "Verified: on this device a sequence's logits do not depend on what shares its batch."
        )?,
        None => writeln!(out, "Not verified.")?,
        Some((outcome, d)) => writeln!(
            out,
            "Not verified. First difference, {}: sequence {}, position {}, logit of token {}: {:?} ({:08x}) instead \
             of {:?} ({:08x}) alone.",
            outcome.case,
            d.sequence + 1,
            d.position,
            d.token,
            d.batched,
            d.batched.to_bits(),
            d.alone,
            d.alone.to_bits(),
        )?,
    }
    out.flush()?;
    Ok(())
}
