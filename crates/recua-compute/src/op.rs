//! The vocabulary of a forward pass: what a device can be asked to do. [`Op::check`] says when an op is valid, and [`Op::operands`]
//! what it touches.
//!
//! Matrices are row-major: `[rows, cols]`. A *row* is one token of one sequence; a batch is any mix of rows. No flag tells prompts from
//! generation. The CPU version of an op is its definition.
//!
//! **The key-value cache.** K and V of a layer are one [`KvPool`], whose layout is the device's own.
//!
//! **Spare rows.** `rope_store` and `attention` skip a row whose `sequences[r]` is [`INERT`]; what other ops write for it is
//! unspecified.

mod check;
pub mod operands;

use crate::buffer::Buffer;
use crate::kv::KvPool;
pub use crate::kv::PAGE_TOKENS;
use crate::weight::Weight;
pub use crate::work::INERT;

/// The maximum of [`TopK::k`].
pub const TOP_K_MAX: usize = 64;

/// One step of a [`crate::Plan`].
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each variant's structure has the text")]
#[allow(clippy::large_enum_variant, reason = "a plan is a few hundred ops, recorded once")]
pub enum Op {
    Embed(Embed),
    RmsNorm(RmsNorm),
    Matmul(Matmul),
    MatmulGlu(MatmulGlu),
    RopeStore(RopeStore),
    Attention(Attention),
    GatherRows(GatherRows),
    Argmax(Argmax),
    TopK(TopK),
    Copy(Copy),
    CopyPages(CopyPages),
}

/// `out[r] = table[tokens[r]]`, decoded to f32.
#[derive(Clone, Debug)]
pub struct Embed {
    /// `[vocabulary, dim]`, stacked
    pub table: Weight,
    /// u32 `[rows]`
    pub tokens: Buffer,
    /// f32 `[rows, dim]`
    pub out: Buffer,
}

/// `out[r] = x[r] / sqrt(mean(x[r]²) + eps) * weight`.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// f32 `[rows, dim]`
    pub x: Buffer,
    /// f32 `[dim]`
    pub weight: Buffer,
    /// f32 `[rows, dim]`; may be `x`
    pub out: Buffer,
    /// Added to the mean square.
    pub eps: f32,
}

/// `out = x · weightᵀ (+ bias) (+ add)`.
#[derive(Clone, Debug)]
pub struct Matmul {
    /// f32 `[rows, k]`
    pub x: Buffer,
    /// `[n, k]`, stacked: `n` is the number of rows of all its matrices together
    pub weight: Weight,
    /// f32 `[n]`
    pub bias: Option<Buffer>,
    /// f32 `[rows, n]`, the residual; may be `out`
    pub add: Option<Buffer>,
    /// f32 `[rows, n]`
    pub out: Buffer,
}

impl Matmul {
    /// A plain product.
    pub fn new(x: &Buffer, weight: &Weight, out: &Buffer) -> Matmul {
        Matmul { x: x.clone(), weight: weight.clone(), bias: None, add: None, out: out.clone() }
    }

    /// This product with `bias` added to every row.
    pub fn with_bias(mut self, bias: Option<&Buffer>) -> Matmul {
        self.bias = bias.cloned();
        self
    }

    /// This product with the residual `add` added.
    pub fn with_add(mut self, add: &Buffer) -> Matmul {
        self.add = Some(add.clone());
        self
    }
}

/// The gate's activation in [`MatmulGlu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    Silu,
}

/// `out = activation(x · gateᵀ) * (x · upᵀ)`.
#[derive(Clone, Debug)]
pub struct MatmulGlu {
    /// f32 `[rows, k]`
    pub x: Buffer,
    /// gate and up, `[n, k]` each, interleaved
    pub gate_up: Weight,
    /// Applied to the gate.
    pub activation: Activation,
    /// f32 `[rows, n]`
    pub out: Buffer,
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(2i, 2i + 1)`, as in GGUF's `llama`
    Interleaved,
    /// `(i, i + n_rot / 2)`, as in `qwen2`, `qwen3`
    Halves,
}

/// Where each row belongs: its sequence, its position there, and where that sequence's pages are.
#[derive(Clone, Debug)]
pub struct RowMap {
    /// u32 `[rows]`: the row's position in its sequence, from 0
    pub positions: Buffer,
    /// u32 `[rows]`: the row's line in `pages`, or [`INERT`]
    pub sequences: Buffer,
    /// u32 `[sequences_max, pages_max]`: the page that holds positions `[PAGE_TOKENS * i, PAGE_TOKENS * (i + 1))`
    pub pages: Buffer,
    /// u32 `[words]`: the list that [`crate::WorkList`] builds from these rows and this device's [`crate::Device::tiling`]. A row that
    /// is in none of its tiles gets no result.
    pub work: Buffer,
}

/// RMS norms of each head by itself, before the rotation (qwen3).
#[derive(Clone, Debug)]
pub struct HeadNorm {
    /// f32 `[head_dim]`
    pub q: Buffer,
    /// f32 `[head_dim]`
    pub k: Buffer,
    /// Added to the mean square.
    pub eps: f32,
}

/// Rotates `q` in place and writes the rotated `k` and `v` into the cache, at their rows' positions.
///
/// Each row needs a position of its own. If two rows of one op name the same position of the same page, a device that can read the row map
/// before it runs, as the CPU does, reports an error. A GPU reads the map only while it runs and does not notice; then it is unspecified,
/// head by head, which row's values remain.
#[derive(Clone, Debug)]
pub struct RopeStore {
    /// f32 `[rows, n_heads * head_dim]`, rotated in place; like `k` and `v`, it may be columns of a wider matrix
    pub q: Buffer,
    /// f32 `[rows, n_kv_heads * head_dim]`, unchanged
    pub k: Buffer,
    /// f32 `[rows, n_kv_heads * head_dim]`
    pub v: Buffer,
    /// Norms of the heads, if the model has them.
    pub norm: Option<HeadNorm>,
    /// f32 `[positions_max, n_rot / 2, 2]`: cosine and sine of each pair's angle; elements from `n_rot` on are not rotated
    pub table: Buffer,
    /// Which elements make a pair.
    pub style: RopeStyle,
    /// Where each row goes.
    pub rows: RowMap,
    /// The layer's cache.
    pub cache: KvPool,
}

/// Causal attention of every row over its own sequence, up to and including its own position; query head `h` reads KV head
/// `h / (n_heads / n_kv_heads)`.
#[derive(Clone, Debug)]
pub struct Attention {
    /// f32 `[rows, n_heads * head_dim]`, rotated; may be columns of a wider matrix
    pub q: Buffer,
    /// Where each row stands.
    pub rows: RowMap,
    /// The layer's cache, which already has this step's keys and values.
    pub cache: KvPool,
    /// Multiplies the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// f32 `[rows, n_heads * head_dim]`
    pub out: Buffer,
}

/// `out[i] = x[indexes[i]]`.
#[derive(Clone, Debug)]
pub struct GatherRows {
    /// f32 `[rows, dim]`
    pub x: Buffer,
    /// u32 `[n]`
    pub indexes: Buffer,
    /// f32 `[n, dim]`
    pub out: Buffer,
}

/// `out[i]` = the index of the largest element of `x[i]`; ties go to the lowest index. `u32::MAX` if no element is above minus infinity.
/// NaN never wins.
#[derive(Clone, Debug)]
pub struct Argmax {
    /// f32 `[n, cols]`
    pub x: Buffer,
    /// u32 `[n]`
    pub out: Buffer,
}

/// `out[i]` = the `k` largest elements of `x[i]`, the largest first; ties go to the lowest index. Each is given as the bits of its f32
/// value and its index. NaN and minus infinity are left out; if fewer than `k` elements remain, the rest of the list is filled with the bits
/// of minus infinity and `u32::MAX`. Infinity is ranked and returned as the largest finite number, minus zero as zero.
#[derive(Clone, Debug)]
pub struct TopK {
    /// f32 `[n, cols]`
    pub x: Buffer,
    /// u32 `[n, k, 2]`, `k` from 1 to [`TOP_K_MAX`]
    pub out: Buffer,
}

impl TopK {
    /// The number of elements found in each row.
    pub fn k(&self) -> usize {
        self.out.shape().get(1).copied().unwrap_or(0)
    }
}

/// `dst = src`, byte for byte.
#[derive(Clone, Debug)]
pub struct Copy {
    /// any type
    pub src: Buffer,
    /// as many bytes as `src`, not overlapping it
    pub dst: Buffer,
}

/// Copies whole pages of one layer, K and V: page `list[i][0]` of `from` becomes page `list[i][1]` of `to`. A pair that contains
/// [`INERT`] is skipped.
///
/// The pairs are copied in no particular order, so no page may be written twice, or written by one pair and read by another. As for
/// [`RopeStore`], a device that can read the list before it runs refuses such a list; on a GPU it is unspecified which copy wins.
#[derive(Clone, Debug)]
pub struct CopyPages {
    /// The pool to read.
    pub from: KvPool,
    /// The pool to write: same heads, head size and type as `from`, any number of pages; may be `from`
    pub to: KvPool,
    /// u32 `[n_max, 2]`
    pub list: Buffer,
}

impl Op {
    /// The op's name: the same in every language, file and table.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed(_) => "embed",
            Op::RmsNorm(_) => "rms_norm",
            Op::Matmul(_) => "matmul",
            Op::MatmulGlu(_) => "matmul_glu",
            Op::RopeStore(_) => "rope_store",
            Op::Attention(_) => "attention",
            Op::GatherRows(_) => "gather_rows",
            Op::Argmax(_) => "argmax",
            Op::TopK(_) => "top_k",
            Op::Copy(_) => "copy",
            Op::CopyPages(_) => "copy_pages",
        }
    }
}
