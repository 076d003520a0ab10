//! Greedy steps that are launched before earlier ones have finished.

use super::{Launched, LlamaModel, WantedRows};
use crate::batch::Batch;
use crate::cache::{Changes, Span};
use crate::error::Result;
use crate::model::Outputs;

/// A greedy step in flight; [`LlamaModel::collect_greedy`] waits for it.
#[must_use = "whether it fails shows when it is collected"]
pub struct GreedyStep {
    launched: Launched,
    wanted: WantedRows,
    spans: Vec<Span>,
    changes: Changes,
}

impl LlamaModel {
    /// Starts what [`step_greedy`](Self::step_greedy) runs, and returns at once if the device works by itself. The rows of the next launch
    /// can follow tokens that this one chooses ([`Batch::push_chosen`]), so the device need not wait for the host in between. A row that
    /// follows a token that turns out not to exist (`None`) is computed as if the token were 0.
    ///
    /// # Errors
    /// As [`step`](Self::step), if the batch is larger than one pass, or if a row follows a token that was not chosen by the launch
    /// directly before this one.
    pub fn launch_greedy(&mut self, batch: &Batch) -> Result<GreedyStep> {
        let spans = self.loaded.spans(batch, self.loaded.n_chosen())?;
        let n_greedy = batch.logits_rows().len();
        self.loaded.check_pass(batch.n_rows(), n_greedy)?;
        self.sequences.check_spans(&spans)?;
        let (wanted, mut changes) = (WantedRows { n_greedy, ..WantedRows::default() }, Changes::default());
        self.sequences.replace(&spans, &mut changes)?;
        match self.loaded.launch(batch, &changes, wanted) {
            Ok(launched) => Ok(GreedyStep { launched, wanted, spans, changes }),
            Err(error) => {
                self.sequences.roll_back(&spans, &changes)?;
                Err(error)
            }
        }
    }

    /// Waits for a step, and returns what [`step_greedy`](Self::step_greedy) does.
    ///
    /// # Errors
    /// If the device failed. The sequences of the step's batch then end where its first rows would have been, or at the beginning of a page
    /// before that.
    pub fn collect_greedy(&mut self, step: GreedyStep) -> Result<Vec<Option<u32>>> {
        let GreedyStep { launched, wanted, spans, changes } = step;
        let mut outputs = Outputs::default();
        let out = self.loaded.room(wanted, &mut outputs)?;
        if let Err(error) = self.loaded.collect(launched, out) {
            self.sequences.roll_back(&spans, &changes)?;
            return Err(error);
        }
        Ok(outputs.greedy.into_iter().map(found).collect())
    }
}

/// A token, if one was chosen.
pub(super) fn found(token: u32) -> Option<u32> {
    Some(token).filter(|token| *token != u32::MAX)
}
