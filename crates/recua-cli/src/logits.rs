//! `recua logits`: raw logits, for comparing implementations.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use recua::{Batch, LlamaConfig, LlamaModel, Logits};

use crate::args::{LogitsArgs, TokenList};
use crate::failure::{Failure, Result};
use crate::model::{self, ModelFile};
use crate::output::{bytes, count, note, printable};

/// About as many bytes of logits as are held in memory at a time.
const HELD_BYTES: usize = 64 << 20;

pub(crate) fn run(args: LogitsArgs) -> Result {
    let file = ModelFile::open(&args.model)?;
    check_tokens(&args.tokens, file.params.vocab)?;
    let longest = args.tokens.iter().map(|list| list.0.len()).max().unwrap_or(0);
    let context = file.context(args.size.ctx_size, longest)?;
    if let Some(i) = args.tokens.iter().position(|list| list.0.len() > context) {
        let (n, n_tokens, own) = (i + 1, args.tokens[i].0.len(), file.params.context_length);
        return Err(Failure::user(format!(
            "sequence {n} has {n_tokens} tokens, but the context holds {context}; shorten it, or raise --ctx-size \
             up to the model's {own}"
        )));
    }
    crate::quantize::check_output(&args.out)?;
    let config = LlamaConfig {
        batch_size: args.tokens.len(),
        max_seq_len: context,
        kv_type: args.kv.kv_type,
        step_tokens_max: step_tokens(file.params.vocab),
        ..LlamaConfig::default()
    };
    let mut model = file.load(model::open_device(&args.device)?, config)?;
    let n_rows = write(&mut model, &args.tokens, &args.out)?;
    note!(
        "{}: {} of {} logits, {}",
        printable(&args.out.display().to_string()),
        count(n_rows, "row"),
        file.params.vocab,
        bytes((n_rows * file.params.vocab * size_of::<f32>()) as u64)
    );
    model::note_kv_cut(model.device())?;
    Ok(())
}

fn check_tokens(sequences: &[TokenList], vocab: usize) -> Result {
    for (i, list) in sequences.iter().enumerate() {
        if let Some(at) = list.0.iter().position(|token| *token as usize >= vocab) {
            return Err(Failure::user(format!(
                "token {} at position {at} of sequence {} is outside the vocabulary of {vocab} tokens",
                list.0[at],
                i + 1
            )));
        }
    }
    Ok(())
}

/// Rows of a pass: few enough that their logits take about `HELD_BYTES`.
fn step_tokens(vocab: usize) -> usize {
    (HELD_BYTES / (vocab.max(1) * size_of::<f32>())).clamp(16, 512)
}

/// Runs all sequences as one batch, writes their logits pass by pass, and returns the number of rows.
fn write(model: &mut LlamaModel, sequences: &[TokenList], path: &Path) -> Result<usize> {
    let mut whole = Batch::new();
    for (slot, list) in sequences.iter().enumerate() {
        whole.push_sequence(slot, 0, &list.0, Logits::All);
    }
    // Written in place, not to a temporary file that is then renamed: the path may be a device or a pipe.
    let file = File::create(path).map_err(|e| Failure::user(format!("{}: {e}", path.display())))?;
    let mut out = BufWriter::new(file);
    let failed = |e: std::io::Error| Failure::other(format!("{}: {e}", path.display()));
    // `step` would cut the batch into the same passes, but would return no logits before the last one.
    for first in (0..whole.n_rows()).step_by(model.config().step_tokens_max) {
        let pass = whole.rows(first..whole.n_rows().min(first + model.config().step_tokens_max));
        for logit in model.step(&pass).map_err(|e| model::failure(e, ""))? {
            out.write_all(&logit.to_le_bytes()).map_err(failed)?;
        }
    }
    out.flush().map_err(failed)?;
    Ok(whole.n_rows())
}
