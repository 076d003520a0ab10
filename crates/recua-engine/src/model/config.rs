//! [`LlamaConfig`]: how to run a model.

use super::params::ModelParams;
use crate::error::{Error, Result};
pub use recua_compute::KvType;

/// The longest sequence, unless the configuration says otherwise or the model allows less.
pub const MAX_SEQ_LEN_DEFAULT: usize = 4096;

/// How to run a model: everything that determines the memory it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlamaConfig {
    /// The number of sequences that can be in the cache at once (slots).
    pub batch_size: usize,
    /// The longest sequence, at most the model's context. 0 means the context or [`MAX_SEQ_LEN_DEFAULT`], whichever is less.
    pub max_seq_len: usize,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// The most rows of one pass over the weights. A longer input is cut, which changes no bit of the result.
    pub step_tokens_max: usize,
    /// The most rows of logits computed at once (but at least `batch_size`). More are computed in several lots, with the same bits.
    pub logits_rows_max: usize,
    /// Pages in the pool. `None` means enough for every slot to grow to `max_seq_len`; with fewer, a step can run out of pages.
    pub kv_pages: Option<usize>,
}

impl LlamaConfig {
    /// The defaults for this model, with `max_seq_len` filled in.
    pub fn from_model_params(params: &ModelParams) -> LlamaConfig {
        LlamaConfig { max_seq_len: max_seq_len_default(params), ..LlamaConfig::default() }
    }

    /// The same with defaults filled in; an error says why it cannot work for this model.
    pub(crate) fn resolve(mut self, params: &ModelParams) -> Result<LlamaConfig> {
        let error = |field, problem| Err(Error::Config { field, problem });
        if self.max_seq_len == 0 {
            self.max_seq_len = max_seq_len_default(params);
        }
        if self.max_seq_len > params.context_length {
            let problem =
                format!("{} exceeds the model's context of {}", self.max_seq_len, params.context_length);
            return error("max_seq_len", problem);
        }
        for (field, value) in [
            ("batch_size", self.batch_size),
            ("step_tokens_max", self.step_tokens_max),
            ("logits_rows_max", self.logits_rows_max),
            ("kv_pages", self.kv_pages.unwrap_or(1)),
        ] {
            if value == 0 {
                return error(field, "is 0; at least 1 is needed".into());
            }
            if u32::try_from(value).is_err() {
                return error(field, format!("{value} is too large; at most {} can be counted", u32::MAX));
            }
        }
        Ok(self)
    }

    /// The rows of logits computed at once.
    pub(crate) fn logits_rows(&self) -> usize {
        self.logits_rows_max.max(self.batch_size).min(self.step_tokens_max)
    }
}

impl Default for LlamaConfig {
    fn default() -> LlamaConfig {
        LlamaConfig {
            batch_size: 1,
            max_seq_len: 0,
            kv_type: KvType::F16,
            step_tokens_max: 512,
            logits_rows_max: 64,
            kv_pages: None,
        }
    }
}

fn max_seq_len_default(params: &ModelParams) -> usize {
    params.context_length.min(MAX_SEQ_LEN_DEFAULT)
}
