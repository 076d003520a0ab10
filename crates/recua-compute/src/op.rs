//! The vocabulary of a forward pass: what a device can be asked to do, and when a request makes sense.
//!
//! Matrices are row-major: `[rows, cols]`. A *row* is one token of one sequence; a batch is any mix of rows. There is no flag for
//! prompt or generation. Each op's CPU version is its definition.
//!
//! **The key-value cache.** K and V of a layer are one [`KvPool`], whose layout is the device's own.
//!
//! **Room to spare.** A row whose `sequences[r]` is [`INERT`] is skipped by `rope_store` and `attention`; what other ops write for it
//! is unspecified.

use crate::buffer::{Buffer, DType, DeviceId};
use crate::error::{Error, Result, argument};
use crate::kv::KvPool;
pub use crate::kv::PAGE_TOKENS;
use crate::weight::{Arrange, Weight};
use crate::work::HEADER_WORDS;
pub use crate::work::INERT;
use std::fmt;

/// The most elements of a row that [`TopK`] finds.
pub const TOP_K_MAX: usize = 64;

/// The top bit of a word of [`Embed::tokens`]: the others are an index into [`Embed::chosen`], where the row's token is.
pub const CHOSEN: u32 = 1 << 31;

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

/// `out[r] = table[tokens[r]]`, decoded to f32. A word `CHOSEN | i` stands for the token `chosen[i]`, so that a row can follow a token
/// that the host has not seen.
#[derive(Clone, Debug)]
pub struct Embed {
    /// `[vocabulary, dim]`, stacked
    pub table: Weight,
    /// u32 `[rows]`: tokens, or [`CHOSEN`] with an index into `chosen`
    pub tokens: Buffer,
    /// u32 `[n]`: what an [`Argmax`] has left there. `u32::MAX`, which it says of a row that has no largest element, counts as token 0:
    /// one row that goes wrong must not stop its neighbours.
    pub chosen: Option<Buffer>,
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
    /// `[n, k]`, stacked: `n` are the rows of all its matrices
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

    /// The same with `bias` added to every row.
    pub fn with_bias(mut self, bias: Option<&Buffer>) -> Matmul {
        self.bias = bias.cloned();
        self
    }

    /// The same with the residual `add` added.
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

/// Where each row stands: which position of which sequence, and where that sequence's pages are.
#[derive(Clone, Debug)]
pub struct RowMap {
    /// u32 `[rows]`: the row's position in its sequence, from 0
    pub positions: Buffer,
    /// u32 `[rows]`: the row's line in `pages`, or [`INERT`]
    pub sequences: Buffer,
    /// u32 `[sequences_max, pages_max]`: the page that holds positions `[PAGE_TOKENS * i, PAGE_TOKENS * (i + 1))`
    pub pages: Buffer,
    /// u32 `[words]`: what [`crate::WorkList`] builds of these rows for this device's [`crate::Device::tiling`]. A row that is in none
    /// of its tiles has no result.
    pub work: Buffer,
}

/// RMS norms of the single heads, before the rotation (qwen3).
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
/// Each row needs a position of its own. Two rows of one op that name the same position of the same page are an error on a device that can
/// look at the row map before it runs (the CPU does); a GPU reads the map only while it runs, so there it is not noticed, and which
/// row's values are left there, head by head, is left open.
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
    /// The layer's cache, this step's keys and values already in it.
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

/// `out[i]` = the index of the largest `x[i]`, the lowest one of equals; `u32::MAX` if none is above minus infinity. NaN never wins.
#[derive(Clone, Debug)]
pub struct Argmax {
    /// f32 `[n, cols]`
    pub x: Buffer,
    /// u32 `[n]`
    pub out: Buffer,
}

/// `out[i]` = the `k` largest of `x[i]`, the largest first, of equals the lowest index first: the bits of each, as f32, and its index.
/// NaN and minus infinity are left out; where fewer than `k` are left, the bits of minus infinity and `u32::MAX` follow. Infinity counts,
/// and comes back, as the largest finite number; minus zero as zero.
#[derive(Clone, Debug)]
pub struct TopK {
    /// f32 `[n, cols]`
    pub x: Buffer,
    /// u32 `[n, k, 2]`, `k` from 1 to [`TOP_K_MAX`]
    pub out: Buffer,
}

impl TopK {
    /// Elements found of a row.
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

/// Copies whole pages, K and V, of one layer: page `list[i][0]` of `from` becomes page `list[i][1]` of `to`. A pair that names
/// [`INERT`] is skipped.
///
/// The pairs are copied in no particular order, so no page may be written twice, or written by one pair and read by another. As in
/// [`RopeStore`], a device that sees the list before it runs refuses that; on a GPU it is left open which copy wins.
#[derive(Clone, Debug)]
pub struct CopyPages {
    /// The pool to read.
    pub from: KvPool,
    /// The pool to write: heads, head size and type of `from`, and any number of pages; may be `from`
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

    /// Checks types, shapes, devices and overlaps, so that kernels need not. What it cannot see are the *values* of index buffers:
    /// a device checks those against the sizes when it runs.
    ///
    /// # Errors
    /// If a buffer or weight is of another device, has a type or shape that does not fit the others, is not contiguous where it has to be, or
    /// an output shares memory with what the op reads and may not. The message names the op and the operand.
    pub fn check(&self, device: DeviceId) -> Result<()> {
        self.check_as(self.name(), device)
    }

    /// [`Op::check`] for a method that the caller knows by another name.
    pub(crate) fn check_as(&self, op: &'static str, device: DeviceId) -> Result<()> {
        let c = Check { op, device };
        match self {
            Op::Embed(o) => {
                c.weight("table", &o.table, Arrange::Stacked)?;
                c.shape("tokens", &o.tokens, DType::U32, &[o.out.n_rows()])?;
                if let Some(chosen) = &o.chosen {
                    c.dtype("chosen", chosen, DType::U32)?;
                    c.has_shape("chosen", chosen, &[chosen.n_elements().clamp(1, CHOSEN as usize)])?;
                }
                c.shape("out", &o.out, DType::F32, &[o.tokens.n_elements(), o.table.k()])
            }
            Op::RmsNorm(o) => {
                c.matrix("x", &o.x)?;
                c.shape("weight", &o.weight, DType::F32, &[o.x.n_cols()])?;
                c.shape("out", &o.out, DType::F32, o.x.shape())?;
                c.apart_or_same("out", &o.out, "x", &o.x)?;
                c.apart("out", &o.out, "weight", &o.weight)
            }
            Op::Matmul(o) => {
                c.matrix("x", &o.x)?;
                c.product(&o.x, &o.weight, Arrange::Stacked, &o.out, o.weight.n())?;
                if let Some(bias) = &o.bias {
                    c.shape("bias", bias, DType::F32, &[o.weight.n()])?;
                    c.apart("out", &o.out, "bias", bias)?;
                }
                if let Some(add) = &o.add {
                    c.shape("add", add, DType::F32, o.out.shape())?;
                    c.apart_or_same("out", &o.out, "add", add)?;
                }
                Ok(())
            }
            Op::MatmulGlu(o) => {
                c.matrix("x", &o.x)?;
                c.product(&o.x, &o.gate_up, Arrange::Interleaved, &o.out, o.gate_up.n() / 2)
            }
            Op::RopeStore(o) => {
                let (rows, head_dim) = (o.q.n_rows(), c.cache(&o.cache)?);
                c.row_map(&o.rows, rows)?;
                c.columns("q", &o.q)?;
                c.heads("q", &o.q, head_dim)?;
                let kv_shape = [rows, o.cache.shape().n_kv_heads * head_dim];
                for (what, buffer) in [("k", &o.k), ("v", &o.v)] {
                    c.columns(what, buffer)?;
                    c.has_shape(what, buffer, &kv_shape)?;
                }
                c.dtype("table", &o.table, DType::F32)?;
                match *o.table.shape() {
                    [_, pairs, 2] if pairs <= head_dim / 2 && o.table.n_elements() > 0 => {}
                    _ => {
                        return Err(argument(
                            c.op,
                            format!("table {:?} is not [positions, 1 to {}, 2]", o.table, head_dim / 2),
                        ));
                    }
                }
                if let Some(norm) = &o.norm {
                    c.shape("q norm", &norm.q, DType::F32, &[head_dim])?;
                    c.shape("k norm", &norm.k, DType::F32, &[head_dim])?;
                }
                let norms = o.norm.iter().flat_map(|norm| [&norm.q, &norm.k]);
                for input in [&o.k, &o.v, &o.table].into_iter().chain(norms) {
                    c.apart("q", &o.q, "an input", input)?;
                }
                Ok(())
            }
            Op::Attention(o) => {
                let (rows, head_dim) = (o.q.n_rows(), c.cache(&o.cache)?);
                c.row_map(&o.rows, rows)?;
                c.columns("q", &o.q)?;
                let n_heads = c.heads("q", &o.q, head_dim)?;
                let n_kv_heads = o.cache.shape().n_kv_heads;
                if !n_heads.is_multiple_of(n_kv_heads) {
                    return Err(argument(
                        c.op,
                        format!("{n_heads} heads cannot share {n_kv_heads} KV heads"),
                    ));
                }
                c.shape("out", &o.out, DType::F32, o.q.shape())?;
                c.apart("out", &o.out, "q", &o.q)
            }
            Op::GatherRows(o) => {
                c.matrix("x", &o.x)?;
                c.shape("indexes", &o.indexes, DType::U32, &[o.out.n_rows()])?;
                c.shape("out", &o.out, DType::F32, &[o.indexes.n_elements(), o.x.n_cols()])?;
                c.apart("out", &o.out, "x", &o.x)
            }
            Op::Argmax(o) => {
                c.matrix("x", &o.x)?;
                if o.x.n_cols() == 0 {
                    return Err(argument(c.op, "x has no columns"));
                }
                c.shape("out", &o.out, DType::U32, &[o.x.n_rows()])?;
                c.apart("out", &o.out, "x", &o.x)
            }
            Op::TopK(o) => {
                c.matrix("x", &o.x)?;
                if o.x.n_cols() == 0 {
                    return Err(argument(c.op, "x has no columns"));
                }
                if !(1..=TOP_K_MAX).contains(&o.k()) {
                    let problem = format!("{} elements of a row, 1 to {TOP_K_MAX} can be found", o.k());
                    return Err(argument(c.op, problem));
                }
                c.shape("out", &o.out, DType::U32, &[o.x.n_rows(), o.k(), 2])?;
                c.apart("out", &o.out, "x", &o.x)
            }
            Op::Copy(o) => {
                for (what, buffer) in [("src", &o.src), ("dst", &o.dst)] {
                    c.same_device(what, buffer.device())?;
                    c.contiguous(what, buffer)?;
                }
                if o.src.n_bytes() != o.dst.n_bytes() {
                    let problem = format!("src has {} bytes, dst {}", o.src.n_bytes(), o.dst.n_bytes());
                    return Err(argument(c.op, problem));
                }
                c.apart("dst", &o.dst, "src", &o.src)
            }
            Op::CopyPages(o) => {
                c.cache(&o.from)?;
                c.cache(&o.to)?;
                let (from, to) = (o.from.shape(), o.to.shape());
                if *from != (crate::KvShape { n_pages: from.n_pages, ..*to }) {
                    return Err(argument(c.op, format!("pages of {from} cannot be pages of {to}")));
                }
                c.dtype("list", &o.list, DType::U32)?;
                match *o.list.shape() {
                    [n, 2] if n > 0 => Ok(()),
                    _ => Err(argument(c.op, format!("list {:?} is not [pairs, 2] of at least one", o.list))),
                }
            }
        }
    }
}

/// The checks that several ops share.
struct Check {
    op: &'static str,
    device: DeviceId,
}

impl Check {
    fn same_device(&self, what: &'static str, device: DeviceId) -> Result<()> {
        if device == self.device { Ok(()) } else { Err(Error::WrongDevice { op: self.op, what }) }
    }

    fn has_type(&self, what: &'static str, buffer: &Buffer, expected: DType) -> Result<()> {
        self.same_device(what, buffer.device())?;
        if buffer.dtype() == expected {
            return Ok(());
        }
        Err(Error::WrongType { op: self.op, what, found: buffer.dtype(), expected })
    }

    fn has_shape(&self, what: &'static str, buffer: &Buffer, shape: &[usize]) -> Result<()> {
        if buffer.shape() == shape {
            return Ok(());
        }
        Err(argument(self.op, format!("{what} has shape {:?}, {shape:?} is needed", buffer.shape())))
    }

    fn contiguous(&self, what: &'static str, buffer: &Buffer) -> Result<()> {
        if buffer.is_contiguous() {
            return Ok(());
        }
        let problem = format!("{what} {buffer:?} are columns of a wider matrix, a whole one is needed");
        Err(argument(self.op, problem))
    }

    fn dtype(&self, what: &'static str, buffer: &Buffer, expected: DType) -> Result<()> {
        self.has_type(what, buffer, expected)?;
        self.contiguous(what, buffer)
    }

    fn shape(&self, what: &'static str, buffer: &Buffer, dtype: DType, shape: &[usize]) -> Result<()> {
        self.dtype(what, buffer, dtype)?;
        self.has_shape(what, buffer, shape)
    }

    fn matrix(&self, what: &'static str, buffer: &Buffer) -> Result<()> {
        self.columns(what, buffer)?;
        self.contiguous(what, buffer)
    }

    /// A matrix, or columns of one.
    fn columns(&self, what: &'static str, buffer: &Buffer) -> Result<()> {
        self.has_type(what, buffer, DType::F32)?;
        if buffer.shape().len() == 2 && buffer.n_elements() > 0 {
            return Ok(());
        }
        let problem =
            format!("{what} has shape {:?}, [rows, cols] of at least one is needed", buffer.shape());
        Err(argument(self.op, problem))
    }

    fn weight(&self, what: &'static str, weight: &Weight, arrange: Arrange) -> Result<()> {
        self.same_device(what, weight.device())?;
        if weight.arrange() == arrange {
            return Ok(());
        }
        let needed = match arrange {
            Arrange::Stacked => "a stacked one",
            Arrange::Interleaved => "one of a gate and an up matrix, interleaved,",
        };
        Err(argument(self.op, format!("{what} {weight:?}: {needed} is needed")))
    }

    fn product(&self, x: &Buffer, weight: &Weight, arrange: Arrange, out: &Buffer, n: usize) -> Result<()> {
        self.weight("weight", weight, arrange)?;
        if x.n_cols() != weight.k() {
            let problem = format!("x {x:?} has {} columns, the weight {weight:?} {}", x.n_cols(), weight.k());
            return Err(argument(self.op, problem));
        }
        self.shape("out", out, DType::F32, &[x.n_rows(), n])?;
        self.apart("out", out, "x", x)
    }

    fn apart(&self, what: &str, a: &Buffer, other: &str, b: &Buffer) -> Result<()> {
        if a.overlaps(b) { Err(argument(self.op, format!("{what} overlaps {other}"))) } else { Ok(()) }
    }

    fn apart_or_same(&self, what: &str, a: &Buffer, other: &str, b: &Buffer) -> Result<()> {
        if a.is_same(b) { Ok(()) } else { self.apart(what, a, other, b) }
    }

    fn cache(&self, cache: &KvPool) -> Result<usize> {
        self.same_device("the cache", cache.device())?;
        cache.shape().check(self.op)?;
        Ok(cache.shape().head_dim)
    }

    fn heads(&self, what: &str, buffer: &Buffer, head_dim: usize) -> Result<usize> {
        if buffer.n_cols() != 0 && buffer.n_cols().is_multiple_of(head_dim) {
            return Ok(buffer.n_cols() / head_dim);
        }
        Err(argument(self.op, format!("{what} {buffer:?} does not hold heads of {head_dim}")))
    }

    fn row_map(&self, rows: &RowMap, n_rows: usize) -> Result<()> {
        self.shape("positions", &rows.positions, DType::U32, &[n_rows])?;
        self.shape("sequences", &rows.sequences, DType::U32, &[n_rows])?;
        self.dtype("pages", &rows.pages, DType::U32)?;
        self.dtype("work", &rows.work, DType::U32)?;
        if rows.work.shape().len() != 1 || rows.work.n_elements() < HEADER_WORDS {
            return Err(argument(self.op, format!("work {:?} has no room for a work list", rows.work)));
        }
        if rows.pages.shape().len() == 2 && rows.pages.n_elements() > 0 {
            return Ok(());
        }
        let problem = format!("pages {:?} is not [sequences, pages] of at least one", rows.pages);
        Err(argument(self.op, problem))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} ", self.name())?;
        match self {
            Op::Embed(o) => {
                write!(f, "{:?}[{:?}", o.table, o.tokens)?;
                o.chosen.iter().try_for_each(|chosen| write!(f, " or chosen {chosen:?}"))?;
                write!(f, "] -> {:?}", o.out)
            }
            Op::RmsNorm(o) => write!(f, "{:?} -> {:?}", o.x, o.out),
            Op::Matmul(o) => {
                let bias = if o.bias.is_some() { " + bias" } else { "" };
                let add = if o.add.is_some() { " + residual" } else { "" };
                write!(f, "{:?} · {:?}{bias}{add} -> {:?}", o.x, o.weight, o.out)
            }
            Op::MatmulGlu(o) => write!(f, "{:?} · {:?} ({:?}) -> {:?}", o.x, o.gate_up, o.activation, o.out),
            Op::RopeStore(o) => {
                let norm = if o.norm.is_some() { ", head norm" } else { "" };
                write!(f, "{:?}, {:?}, {:?} ({:?}{norm}) -> {:?}", o.q, o.k, o.v, o.style, o.cache)
            }
            Op::Attention(o) => write!(f, "{:?}, {:?} -> {:?}", o.q, o.cache, o.out),
            Op::GatherRows(o) => write!(f, "{:?}[{:?}] -> {:?}", o.x, o.indexes, o.out),
            Op::Argmax(o) => write!(f, "{:?} -> {:?}", o.x, o.out),
            Op::TopK(o) => write!(f, "{:?} -> {:?}", o.x, o.out),
            Op::Copy(o) => write!(f, "{:?} -> {:?}", o.src, o.dst),
            Op::CopyPages(o) => write!(f, "{:?}, {:?} -> {:?}", o.list, o.from, o.to),
        }
    }
}
