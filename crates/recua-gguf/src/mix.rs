//! Which type each tensor of a model gets. The mixes are llama.cpp's, so a file written here has the same
//! tensor types as one that llama.cpp writes. Must not know how a type is encoded.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, shorten};
use crate::format::GgmlType;
use crate::reader::Gguf;

/// The mix of types in a whole file; `general.file_type` stores its number. Single tensors may have another
/// type than the file's name suggests (see [`tensor_type`](Self::tensor_type)), so engines look at each
/// tensor's own type.
#[allow(non_camel_case_types, missing_docs, reason = "llama.cpp's own names, which users type and read")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
}

/// What a mix needs to know about the model, besides the tensor itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Number of layers (`blk.0` to `blk.{n_layers - 1}`).
    pub n_layers: usize,
    /// Query heads of a layer.
    pub n_heads: usize,
    /// Key and value heads of a layer.
    pub n_kv_heads: usize,
    /// Experts of a layer; 0 for a dense model.
    pub n_experts: usize,
    /// True if there is no `output.weight`: the token embedding is the output matrix too.
    pub tied: bool,
    /// True for the Falcon architecture, which llama.cpp treats specially.
    pub falcon: bool,
}

impl Facts {
    /// Reads the facts from a file. A key that is absent or has another type counts as 0, so files that are not
    /// language models work too.
    pub fn of(model: &Gguf) -> Self {
        let metadata = model.metadata();
        let arch = metadata.str("general.architecture").ok().flatten().unwrap_or_default();
        let number = |key: &str| {
            let key = format!("{arch}.{key}");
            match metadata.u32(&key) {
                Ok(v) => v.unwrap_or(0) as usize,
                // Some models give one count a layer. The mixes only compare the two counts, so the largest is
                // enough.
                Err(_) => {
                    metadata.u32s(&key).ok().flatten().and_then(|v| v.into_iter().max()).unwrap_or(0) as usize
                }
            }
        };
        let n_heads = number("attention.head_count");
        let n_kv_heads = match number("attention.head_count_kv") {
            0 => n_heads,
            n => n,
        };
        Self {
            n_layers: number("block_count"),
            n_heads,
            n_kv_heads,
            n_experts: number("expert_count"),
            tied: model.tensor("output.weight").is_none(),
            falcon: arch == "falcon",
        }
    }

    /// True for llama.cpp's "70B" class, which it recognizes by 80 layers with grouped-query attention. attn_v
    /// is then so small that more bits for it cost almost nothing.
    fn is_70b(&self) -> bool {
        self.n_layers == 80 && self.n_heads != self.n_kv_heads
    }

    /// True for the layers to which an M mix gives more bits: the first eighth, the last eighth, and every
    /// third between.
    fn more_bits(&self, layer: usize) -> bool {
        let (n, eighth) = (self.n_layers, self.n_layers / 8);
        layer < eighth || layer >= 7 * n / 8 || (layer - eighth) % 3 == 2
    }
}

impl FileType {
    /// Every file type, smallest id first.
    pub const ALL: &'static [FileType] = &[
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q8_0,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4_K_S,
        Self::Q4_K_M,
        Self::Q5_K_S,
        Self::Q5_K_M,
        Self::Q6_K,
        Self::BF16,
    ];

    /// The value of `general.file_type`.
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 7,
            Self::Q5_0 => 8,
            Self::Q5_1 => 9,
            Self::Q4_K_S => 14,
            Self::Q4_K_M => 15,
            Self::Q5_K_S => 16,
            Self::Q5_K_M => 17,
            Self::Q6_K => 18,
            Self::BF16 => 32,
        }
    }

    /// The file type with this `general.file_type`; `None` for one that this crate does not write.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.id() == id)
    }

    /// llama.cpp's name, such as `Q4_K_M`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4_K_S => "Q4_K_S",
            Self::Q4_K_M => "Q4_K_M",
            Self::Q5_K_S => "Q5_K_S",
            Self::Q5_K_M => "Q5_K_M",
            Self::Q6_K => "Q6_K",
        }
    }

    /// The type of most matrices in such a file.
    pub const fn base_type(self) -> GgmlType {
        match self {
            Self::F32 => GgmlType::F32,
            Self::F16 => GgmlType::F16,
            Self::BF16 => GgmlType::BF16,
            Self::Q4_0 => GgmlType::Q4_0,
            Self::Q4_1 => GgmlType::Q4_1,
            Self::Q5_0 => GgmlType::Q5_0,
            Self::Q5_1 => GgmlType::Q5_1,
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q4_K_S | Self::Q4_K_M => GgmlType::Q4_K,
            Self::Q5_K_S | Self::Q5_K_M => GgmlType::Q5_K,
            Self::Q6_K => GgmlType::Q6_K,
        }
    }

    /// The type that tensor `name` of shape `dims` (ggml order) gets in such a file.
    ///
    /// Vectors, norms and routers stay F32. A matrix whose rows are not a whole number of blocks falls back to
    /// a type with smaller blocks (Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0), or to F16 if even those do not
    /// fit.
    pub fn tensor_type(self, name: &str, dims: &[u64], facts: &Facts) -> GgmlType {
        let base = self.base_type();
        if dims.len() < 2 || !is_matrix(name) {
            return GgmlType::F32;
        }
        if !base.is_quantized() {
            return base;
        }
        fall_back(self.mixed_type(name, dims[0], facts), dims[0])
    }

    fn mixed_type(self, name: &str, cols: u64, facts: &Facts) -> GgmlType {
        use FileType::{Q4_K_M, Q4_K_S, Q5_K_M};
        use GgmlType::{Q4_K, Q5_K, Q6_K, Q8_0};
        let base = self.base_type();
        let (layer, rest) = split_layer(name);
        let eight_experts = facts.n_experts == 8;
        match rest {
            "output.weight" | "token_embd.weight" if rest == "output.weight" || facts.tied => {
                let whole = cols.is_multiple_of(base.block_values() as u64);
                if base == Q8_0 || facts.falcon || !whole { Q8_0 } else { Q6_K }
            }
            "attn_v.weight" => match self {
                _ if eight_experts => Q8_0,
                Q4_K_M | Q5_K_M if facts.more_bits(layer) => Q6_K,
                Q4_K_S if layer < 4 => Q5_K,
                _ if base == Q4_K && facts.is_70b() => Q5_K,
                _ => base,
            },
            "attn_k.weight" if eight_experts => Q8_0,
            "attn_qkv.weight" => match self {
                Q4_K_M => Q5_K,
                Q5_K_M => Q6_K,
                _ => base,
            },
            "attn_output.weight" if base == Q4_K && eight_experts && !facts.falcon => Q5_K,
            _ if rest.starts_with("ffn_down") => match self {
                Q4_K_M if facts.falcon && layer < facts.n_layers / 16 => Q6_K,
                Q4_K_M if facts.falcon && facts.more_bits(layer) => Q5_K,
                Q4_K_M if facts.falcon => Q4_K,
                Q4_K_M | Q5_K_M if facts.more_bits(layer) => Q6_K,
                Q4_K_S if !facts.falcon && layer < facts.n_layers / 8 => Q5_K,
                _ => base,
            },
            _ => base,
        }
    }
}

/// True for the weights of matmuls; false for those of norms and expert routers.
fn is_matrix(name: &str) -> bool {
    name.ends_with("weight") && !name.ends_with("_norm.weight") && !name.contains("ffn_gate_inp")
}

/// Splits `blk.7.attn_v.weight` into 7 and `attn_v.weight`. A name outside the layers gives 0 and the whole
/// name.
fn split_layer(name: &str) -> (usize, &str) {
    name.strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(layer, rest)| Some((layer.parse().ok()?, rest)))
        .unwrap_or((0, name))
}

/// `ty` if rows of `cols` values are whole blocks of it, otherwise the nearest type for which they are.
fn fall_back(ty: GgmlType, cols: u64) -> GgmlType {
    let fits = |ty: GgmlType| cols.is_multiple_of(ty.block_values() as u64);
    if fits(ty) {
        return ty;
    }
    let smaller = match ty {
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        _ => GgmlType::F16,
    };
    if fits(smaller) { smaller } else { GgmlType::F16 }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FileType {
    type Err = Error;

    /// Accepts llama.cpp's names in any case and with `-` for `_`. As in llama.cpp, `Q4_K` and `Q5_K` mean the
    /// M mixes.
    fn from_str(s: &str) -> Result<Self> {
        let name = s.replace('-', "_").to_ascii_uppercase();
        match name.as_str() {
            "Q4_K" => return Ok(Self::Q4_K_M),
            "Q5_K" => return Ok(Self::Q5_K_M),
            _ => {}
        }
        Self::ALL.iter().copied().find(|ty| ty.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|ty| ty.name()).collect();
            Error::other(format!("unknown file type {:?}; one of: {}", shorten(s), known.join(" ")))
        })
    }
}
