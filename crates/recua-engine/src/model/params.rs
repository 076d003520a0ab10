//! [`ModelParams`]: the properties of a model, read from a file's metadata.
//!
//! An architecture is a row of data here; all share one forward pass.

use crate::error::{Error, Result};
use recua_compute::RopeStyle;
use recua_gguf::{Gguf, Metadata};
use std::fmt;

/// Tensors whose presence or shape determines properties of a model.
pub(crate) const TOKEN_EMBD: &str = "token_embd.weight";
pub(crate) const OUTPUT: &str = "output.weight";
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// The supported kinds of model.
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
    /// All architectures.
    pub const ALL: &'static [Architecture] = &[Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3];

    /// The name in `general.architecture`.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    /// The architecture with this name.
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

/// How the angles of the rotation are stretched for longer contexts than the model was first trained for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by this number.
    Linear(f32),
    /// Each pair's frequency is divided by its entry of the tensor `rope_freqs.weight` (Llama 3.1 and later).
    Llama3,
}

/// The rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Pair `i` turns by `base^(-2i / n_rot)` per position.
    pub base: f32,
    /// Leading elements of a head that are rotated; even.
    pub n_rot: usize,
    /// Which elements make a pair.
    pub style: RopeStyle,
    /// How the angles are stretched.
    pub scaling: RopeScaling,
}

/// A model's shape.
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
    /// Entries in the vocabulary, which is the number of rows of the embedding.
    pub vocab: usize,
    /// Added to the mean square in every norm.
    pub rms_eps: f32,
    /// The rotary position embedding.
    pub rope: Rope,
    /// The longest sequence for which the model was made, in tokens.
    pub context_length: usize,
    /// Whether the embedding is also the output matrix.
    pub tied: bool,
}

impl ModelParams {
    /// Reads the metadata and checks that it is consistent. [`LlamaModel::check`] also compares it with the file's tensors.
    ///
    /// # Errors
    /// If the architecture is not supported, or a key is missing, contradicts another or requires something that is not supported. The
    /// error names it.
    ///
    /// [`LlamaModel::check`]: crate::LlamaModel::check
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
            let problem = format!("is {rms_eps}; a number of at least 0 is needed");
            return Err(keys.error("attention.layer_norm_rms_epsilon", problem));
        }
        Ok(ModelParams {
            architecture,
            n_layers: keys.count("block_count")?,
            n_embd,
            n_heads,
            n_kv_heads,
            head_dim,
            n_ff: keys.count("feed_forward_length")?,
            vocab: vocab(gguf)?,
            rms_eps,
            rope: keys.rope(head_dim, gguf.tensor(ROPE_FREQS).is_some())?,
            context_length: keys.count("context_length")?,
            tied: gguf.tensor(OUTPUT).is_none(),
        })
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

/// The number of rows of the embedding, which must agree with the tokenizer's list of tokens.
fn vocab(gguf: &Gguf) -> Result<usize> {
    let Some(embedding) = gguf.tensor(TOKEN_EMBD) else {
        return Err(Error::MissingTensor { name: TOKEN_EMBD.into() });
    };
    let rows = embedding.rows();
    if u32::try_from(rows).is_err() {
        let problem = format!("{rows} rows are more than token ids can number");
        return Err(Error::Tensor { name: TOKEN_EMBD.into(), problem });
    }
    let key = "tokenizer.ggml.tokens";
    match gguf.metadata().strings(key)? {
        Some(tokens) if tokens.len() != rows => {
            let problem = format!("has {} entries, but {} has {rows} rows", tokens.len(), TOKEN_EMBD);
            Err(Error::Key { key: key.into(), problem })
        }
        _ => Ok(rows),
    }
}

/// The metadata keys with an architecture's prefix.
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

    /// Refuses features that would change the result and that are not implemented.
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
        // Before `rope.scaling.*`, linear scaling had a single key.
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
                    ROPE_FREQS
                );
                return Err(self.error(ty, problem));
            }
        };
        match (is_linear, has_freqs) {
            (false, false) => Ok(RopeScaling::None),
            (false, true) => Ok(RopeScaling::Llama3),
            (true, true) => Err(self.error(ty, format!("\"linear\" contradicts the tensor {}", ROPE_FREQS))),
            (true, false) if factor.is_finite() && factor > 0.0 => Ok(RopeScaling::Linear(factor)),
            (true, false) => Err(self.error(factor_key, format!("is {factor}; a positive number is needed"))),
        }
    }
}
