//! [`Outputs`]: what a step brings back.

use crate::error::{Error, Result};
use recua_compute::TOP_K_MAX;

/// What [`LlamaModel::step_mixed`](crate::LlamaModel::step_mixed) brings back. Its memory is reused.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// u32 `[n_greedy]`: the token of the largest logit for each of the first rows; `u32::MAX` if no logit is above minus infinity.
    pub greedy: Vec<u32>,
    /// u32 `[n_top, TOP_K_MAX, 2]`: for each of the next rows, the [`TOP_K_MAX`] largest logits as [`recua_compute::TopK`] returns them:
    /// bits of the logit and the token, largest first.
    pub top: Vec<u32>,
    /// f32 `[n_rows - n_greedy - n_top, n_vocab]`: the logits of the other rows.
    pub logits: Vec<f32>,
}

/// Words per row of [`Outputs::top`].
pub(crate) const TOP_WORDS: usize = TOP_K_MAX * 2;

/// Numbers of rows of logits, by what is brought back of them, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedRows {
    /// The token of the largest logit.
    pub(crate) n_greedy: usize,
    /// The largest logits.
    pub(crate) n_top: usize,
    /// All logits.
    pub(crate) n_logits: usize,
}

impl WantedRows {
    /// Of `n_rows` rows the first `n_greedy`, the next `n_top`, and the rest.
    ///
    /// # Errors
    /// If there are fewer rows.
    pub(crate) fn of(n_rows: usize, n_greedy: usize, n_top: usize) -> Result<WantedRows> {
        match n_rows.checked_sub(n_greedy.saturating_add(n_top)) {
            Some(n_logits) => Ok(WantedRows { n_greedy, n_top, n_logits }),
            None => {
                let problem = format!(
                    "the largest logits of {n_greedy} and {n_top} rows are requested, of {n_rows} rows"
                );
                Err(Error::MalformedBatch { problem })
            }
        }
    }
}

/// The pieces of [`Outputs`] that a pass fills.
pub(crate) struct Out<'a> {
    pub(crate) greedy: &'a mut [u32],
    pub(crate) top: &'a mut [u32],
    pub(crate) logits: &'a mut [f32],
}

impl<'a> Out<'a> {
    /// The rows for which there is room.
    pub(crate) fn wanted(&self, vocab: usize) -> WantedRows {
        WantedRows {
            n_greedy: self.greedy.len(),
            n_top: self.top.len() / TOP_WORDS,
            n_logits: self.logits.len() / vocab,
        }
    }

    /// The first `n_rows` rows, and the rest.
    pub(crate) fn split_at(self, n_rows: usize, vocab: usize) -> (Out<'a>, Out<'a>) {
        let n_greedy = n_rows.min(self.greedy.len());
        let n_top = (n_rows - n_greedy).min(self.top.len() / TOP_WORDS);
        let n_logits = n_rows - n_greedy - n_top;
        let (greedy, greedy_rest) = self.greedy.split_at_mut(n_greedy);
        let (top, top_rest) = self.top.split_at_mut(n_top * TOP_WORDS);
        let (logits, logits_rest) = self.logits.split_at_mut(n_logits * vocab);
        (Out { greedy, top, logits }, Out { greedy: greedy_rest, top: top_rest, logits: logits_rest })
    }
}
