//! What a model is ([`ModelParams`], read from a file and checked against it) and how it is to be run ([`LlamaConfig`]).
//!
//! An architecture is a row of data here; there is one forward pass for all of them.

use crate::error::{Error, Result};
use crate::weights;
use recua_compute::{DType, RopeStyle};
use recua_gguf::{Gguf, Metadata};
use std::fmt;

/// The kinds of model there is a forward pass for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3.x, Mistral, TinyLlama, SmolLM
    Llama,
    /// Qwen 2 and 2.5
    Qwen2,
    /// Qwen 3, dense
    Qwen3,
}

impl Architecture {
    /// All of them.
    pub const ALL: &'static [Architecture] = &[Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3];

    /// As in `general.architecture`.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    /// The architecture of this name.
    pub fn from_name(name: &str) -> Option<Architecture> {
        Architecture::ALL.iter().copied().find(|a| a.name() == name)
    }

    /// Which elements of a head are rotated together.
    pub const fn rope_style(self) -> RopeStyle {
        match self {
            Architecture::Llama => RopeStyle::Interleaved,
            Architecture::Qwen2 | Architecture::Qwen3 => RopeStyle::Halves,
        }
    }

    /// Whether each head of q and k has an RMS norm before the rotation.
    pub const fn has_head_norm(self) -> bool {
        matches!(self, Architecture::Qwen3)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the angles of the rotation are made longer than the model was first trained for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by this.
    Linear(f32),
    /// Each pair's frequency is divided by its entry of the tensor `rope_freqs.weight` (Llama 3.1 and later).
    Llama3,
}

/// The rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Pair `i` turns by `base^(-2i / n_rot)` a position.
    pub base: f32,
    /// Leading elements of a head that are rotated; even.
    pub n_rot: usize,
    /// Which elements make a pair.
    pub style: RopeStyle,
    /// What stretches the angles.
    pub scaling: RopeScaling,
}

/// A model's shape. One that came from a file agrees with the file's tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelParams {
    /// The kind of model.
    pub architecture: Architecture,
    /// Transformer layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head; even.
    pub head_dim: usize,
    /// Width of the feed-forward part.
    pub n_ff: usize,
    /// Entries of the vocabulary, which is rows of the embedding.
    pub vocab: usize,
    /// Added to the mean square in every norm.
    pub rms_eps: f32,
    /// The rotary position embedding.
    pub rope: Rope,
    /// The longest sequence the model was made for.
    pub context_length: usize,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
}

impl ModelParams {
    /// Reads the metadata, and checks it within itself and against the file's tensors.
    ///
    /// # Errors
    /// If the architecture is not known, a key or tensor is missing, contradicts another or asks for what we cannot do. The error
    /// names it.
    pub fn from_gguf(gguf: &Gguf) -> Result<ModelParams> {
        let meta = gguf.metadata();
        let name = meta.require_str("general.architecture")?;
        let architecture = Architecture::from_name(name).ok_or_else(|| unknown(name))?;
        let keys = Keys { meta, architecture };
        keys.refuse_unknown_parts()?;
        let n_embd = keys.count("embedding_length")?;
        let n_heads = keys.count("attention.head_count")?;
        let n_kv_heads = keys.count_or("attention.head_count_kv", n_heads)?;
        if n_heads % n_kv_heads != 0 {
            let problem = format!("{n_heads} heads cannot share {n_kv_heads} KV heads");
            return Err(keys.error("attention.head_count_kv", problem));
        }
        let head_dim = keys.head_dim(n_embd, n_heads)?;
        let rms_eps = meta.require_f32(&keys.key("attention.layer_norm_rms_epsilon"))?;
        if !(rms_eps.is_finite() && rms_eps >= 0.0) {
            let problem = format!("is {rms_eps}, a number of at least 0 is needed");
            return Err(keys.error("attention.layer_norm_rms_epsilon", problem));
        }
        let params = ModelParams {
            architecture,
            n_layers: keys.count("block_count")?,
            n_embd,
            n_heads,
            n_kv_heads,
            head_dim,
            n_ff: keys.count("feed_forward_length")?,
            vocab: vocab(gguf)?,
            rms_eps,
            rope: keys.rope(head_dim, gguf.tensor(weights::ROPE_FREQS).is_some())?,
            context_length: keys.count("context_length")?,
            tied: gguf.tensor(weights::OUTPUT).is_none(),
        };
        weights::check(gguf, &params)?;
        Ok(params)
    }

    /// Columns of the query matrix's output: `n_heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of the key and value matrices' output: `n_kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

fn unknown(name: &str) -> Error {
    let known = Architecture::ALL.iter().map(|a| a.name()).collect::<Vec<_>>().join(", ");
    Error::UnknownArchitecture { name: name.chars().take(80).collect(), known }
}

/// The rows of the embedding, which the tokenizer's list of tokens must agree with.
fn vocab(gguf: &Gguf) -> Result<usize> {
    let Some(embedding) = gguf.tensor(weights::TOKEN_EMBD) else {
        return Err(Error::MissingTensor { name: weights::TOKEN_EMBD.into() });
    };
    let rows = embedding.rows();
    if u32::try_from(rows).is_err() {
        let problem = format!("{rows} rows are more than token ids can tell apart");
        return Err(Error::Tensor { name: weights::TOKEN_EMBD.into(), problem });
    }
    let key = "tokenizer.ggml.tokens";
    match gguf.metadata().strings(key)? {
        Some(tokens) if tokens.len() != rows => {
            let problem =
                format!("has {} entries, but {} has {rows} rows", tokens.len(), weights::TOKEN_EMBD);
            Err(Error::Key { key: key.into(), problem })
        }
        _ => Ok(rows),
    }
}

/// The metadata under an architecture's prefix.
struct Keys<'a> {
    meta: &'a Metadata,
    architecture: Architecture,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Key { key: self.key(name), problem: problem.into() }
    }

    /// A number of at least 1.
    fn count(&self, name: &str) -> Result<usize> {
        self.at_least_one(name, self.meta.require_u32(&self.key(name))?)
    }

    fn count_or(&self, name: &str, default: usize) -> Result<usize> {
        match self.meta.u32(&self.key(name))? {
            Some(n) => self.at_least_one(name, n),
            None => Ok(default),
        }
    }

    fn at_least_one(&self, name: &str, n: u32) -> Result<usize> {
        if n == 0 { Err(self.error(name, "is 0; at least 1 is needed")) } else { Ok(n as usize) }
    }

    /// Parts that would change the result and that we have no code for.
    fn refuse_unknown_parts(&self) -> Result<()> {
        if let Some(n @ 1..) = self.meta.u32(&self.key("expert_count"))? {
            let problem = format!("is {n}; models with experts are not supported");
            return Err(self.error("expert_count", problem));
        }
        if self.meta.bool(&self.key("attention.causal"))? == Some(false) {
            return Err(self.error("attention.causal", "is false; only causal attention is supported"));
        }
        Ok(())
    }

    fn head_dim(&self, n_embd: usize, n_heads: usize) -> Result<usize> {
        let key = "attention.key_length";
        let head_dim = match self.meta.u32(&self.key(key))? {
            Some(n) => self.at_least_one(key, n)?,
            None if n_embd.is_multiple_of(n_heads) => n_embd / n_heads,
            None => {
                let problem = format!("{n_heads} heads do not divide the width {n_embd}");
                return Err(self.error("attention.head_count", problem));
            }
        };
        if head_dim % 2 != 0 {
            return Err(self.error(key, format!("heads have {head_dim} elements; an even number is needed")));
        }
        let value_length = self.count_or("attention.value_length", head_dim)?;
        if value_length != head_dim {
            let problem = format!("is {value_length}, but the heads of q and k have {head_dim} elements");
            return Err(self.error("attention.value_length", problem));
        }
        Ok(head_dim)
    }

    fn rope(&self, head_dim: usize, has_freqs: bool) -> Result<Rope> {
        let base = self.meta.f32(&self.key("rope.freq_base"))?.unwrap_or(10_000.0);
        if !(base.is_finite() && base > 0.0) {
            return Err(self.error("rope.freq_base", format!("is {base}; a positive number is needed")));
        }
        let n_rot = self.count_or("rope.dimension_count", head_dim)?;
        if n_rot % 2 != 0 || n_rot > head_dim {
            let problem =
                format!("is {n_rot}; an even number of at most {head_dim}, the head size, is needed");
            return Err(self.error("rope.dimension_count", problem));
        }
        let scaling = self.rope_scaling(has_freqs)?;
        Ok(Rope { base, n_rot, style: self.architecture.rope_style(), scaling })
    }

    fn rope_scaling(&self, has_freqs: bool) -> Result<RopeScaling> {
        let (ty, factor_key) = ("rope.scaling.type", "rope.scaling.factor");
        // Before `rope.scaling.*` there was one key for the linear kind.
        let old = "rope.scale_linear";
        let factor = match self.meta.f32(&self.key(factor_key))? {
            Some(factor) => factor,
            None => self.meta.f32(&self.key(old))?.unwrap_or(1.0),
        };
        let is_linear = match self.meta.str(&self.key(ty))? {
            None => self.meta.get(&self.key(old)).is_some(),
            Some("none") => false,
            Some("linear") => true,
            Some("llama3") if has_freqs => false,
            Some(other) => {
                let other: String = other.chars().take(80).collect();
                let problem = format!(
                    "\"{other}\" is not supported; \"none\", \"linear\" and Llama 3's {} are",
                    weights::ROPE_FREQS
                );
                return Err(self.error(ty, problem));
            }
        };
        match (is_linear, has_freqs) {
            (false, false) => Ok(RopeScaling::None),
            (false, true) => Ok(RopeScaling::Llama3),
            (true, true) => {
                Err(self.error(ty, format!("\"linear\" contradicts the tensor {}", weights::ROPE_FREQS)))
            }
            (true, false) if factor.is_finite() && factor > 0.0 => Ok(RopeScaling::Linear(factor)),
            (true, false) => Err(self.error(factor_key, format!("is {factor}; a positive number is needed"))),
        }
    }
}

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
