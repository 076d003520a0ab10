//! [`Outputs`]: what a step brings back.

use recua_compute::TOP_K_MAX;

/// What [`LlamaModel::step_mixed`](crate::LlamaModel::step_mixed) brings back. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// u32 `[n_greedy]`: the token of the largest logit of each of the first rows; `u32::MAX` if no logit is above minus infinity.
    pub greedy: Vec<u32>,
    /// u32 `[n_top, TOP_K_MAX, 2]`: the [`TOP_K_MAX`] largest logits of each of the next rows as [`recua_compute::TopK`] gives them,
    /// bits of the logit and token, the largest first.
    pub top: Vec<u32>,
    /// f32 `[n_rows - n_greedy - n_top, n_vocab]`: the logits of the other rows.
    pub logits: Vec<f32>,
}

/// Words of a row of [`Outputs::top`].
pub(crate) const TOP_WORDS: usize = TOP_K_MAX * 2;

/// The pieces of [`Outputs`] that a pass fills.
pub(crate) struct Out<'a> {
    pub(crate) greedy: &'a mut [u32],
    pub(crate) top: &'a mut [u32],
    pub(crate) logits: &'a mut [f32],
}

impl<'a> Out<'a> {
    /// The first `n_rows` rows, and the others.
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
