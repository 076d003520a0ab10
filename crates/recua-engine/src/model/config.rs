//! [`LlamaConfig`]: how a model is to be run.

use super::params::ModelParams;
use crate::error::{Error, Result};
use recua_compute::DType;
use std::fmt;

/// The type in which keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half the memory and half the reading.
    #[default]
    F16,
    /// Exact.
    F32,
}

impl KvType {
    /// The device's name for it.
    pub const fn dtype(self) -> DType {
        match self {
            KvType::F16 => DType::F16,
            KvType::F32 => DType::F32,
        }
    }

    /// The type of this lower-case name.
    pub fn from_name(name: &str) -> Option<KvType> {
        [KvType::F16, KvType::F32].into_iter().find(|t| t.dtype().name() == name)
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dtype().fmt(f)
    }
}

/// The longest sequence if nothing else is said and the model allows it.
pub const MAX_SEQ_LEN_DEFAULT: usize = 4096;

/// How a model is to be run: what fixes the memory it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlamaConfig {
    /// Sequences that can be in the cache at once (slots).
    pub batch_size: usize,
    /// The longest sequence, at most the model's context. 0 means the context or [`MAX_SEQ_LEN_DEFAULT`], whichever is less.
    pub max_seq_len: usize,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Rows of one pass over the weights. A longer input is cut, which changes no bit of the result.
    pub step_tokens_max: usize,
    /// Rows of logits computed at once (at least `batch_size` are). More are computed one lot after another, to the same bits.
    pub logits_rows_max: usize,
    /// Pages in the pool. `None` means enough for every slot to grow to `max_seq_len`; with fewer, a step can run out of pages.
    pub kv_pages: Option<usize>,
}

impl LlamaConfig {
    /// The defaults for this model, with `max_seq_len` filled in.
    pub fn from_model_params(params: &ModelParams) -> LlamaConfig {
        LlamaConfig { max_seq_len: max_seq_len_default(params), ..LlamaConfig::default() }
    }

    /// The same with defaults filled in, or why it cannot work for this model.
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

    /// Rows of logits computed at once.
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
