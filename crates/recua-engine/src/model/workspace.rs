//! The buffers in which a pass works, allocated once for the largest pass; a smaller one uses their first rows.

use super::config::LlamaConfig;
use super::params::ModelParams;
use crate::error::{Error, Result, SMALLER_CACHE};
use recua_compute::{Buffer, DType, Device, TOP_K_MAX, Tiling, WorkList};

/// The buffers for the rows of a pass. `rows` is `step_tokens_max`.
pub(crate) struct Workspace {
    // u32 [4 * rows + words of the longest work list]: the step's input, written at once; see `Input`
    pub(crate) input: Buffer,
    // How the device cuts attention.
    pub(crate) tiling: Tiling,
    // f32 [rows, n_embd]: the residual stream, and the output of a norm over it
    pub(crate) x: Buffer,
    pub(crate) normed: Buffer,
    // f32 [rows, (n_heads + 2 * n_kv_heads) * head_dim]: columns of q, of k and of v
    pub(crate) qkv: Buffer,
    // f32 [rows, n_heads * head_dim]
    pub(crate) attn: Buffer,
    // f32 [rows, n_ff]
    pub(crate) glu: Buffer,
}

/// A pass's input, one array after the other, so that one write uploads it.
pub(crate) struct Input {
    // u32 [n_rows]
    pub(crate) tokens: Buffer,
    pub(crate) positions: Buffer,
    pub(crate) slots: Buffer,
    // u32 [n_logits_rows]: which rows of the pass
    pub(crate) logits_rows: Buffer,
    // u32 [words]: the work list of the pass's attention; a pass uses only the beginning
    pub(crate) work: Buffer,
}

impl Workspace {
    /// The places of the input of a pass of this shape. There are at most as many rows of logits as rows in the largest pass.
    pub(crate) fn input(&self, n_rows: usize, n_logits_rows: usize) -> Result<Input> {
        let array = |i: usize, n: usize| self.input.view(i * n_rows, &[n]);
        let work = WorkList::words_max(&self.tiling, n_rows);
        Ok(Input {
            tokens: array(0, n_rows)?,
            positions: array(1, n_rows)?,
            slots: array(2, n_rows)?,
            logits_rows: array(3, n_logits_rows)?,
            work: self.input.view(3 * n_rows + n_logits_rows, &[work])?,
        })
    }
}

/// The buffers for the rows whose logits are wanted. `n` is [`LlamaConfig::logits_rows`].
pub(crate) struct LogitsWorkspace {
    // f32 [n, n_embd]
    pub(crate) x: Buffer,
    // f32 [n, vocab]
    pub(crate) logits: Buffer,
    // u32 [n]: the tokens of the largest logits
    pub(crate) greedy: Buffer,
    // u32 [n, TOP_K_MAX, 2]: the bits of the largest logits, and their tokens
    pub(crate) top: Buffer,
}

impl Workspace {
    pub(crate) fn new(
        device: &Device,
        p: &ModelParams,
        config: &LlamaConfig,
        tiling: &Tiling,
    ) -> Result<Workspace> {
        let rows = config.step_tokens_max;
        let f32s = |columns| alloc(device, DType::F32, &[rows, columns]);
        Ok(Workspace {
            input: alloc(device, DType::U32, &[WorkList::words_max(tiling, rows).saturating_add(4 * rows)])?,
            tiling: *tiling,
            x: f32s(p.n_embd)?,
            normed: f32s(p.n_embd)?,
            qkv: f32s(p.q_dim() + 2 * p.kv_dim())?,
            attn: f32s(p.q_dim())?,
            glu: f32s(p.n_ff)?,
        })
    }

    /// The bytes that [`Workspace::new`] allocates; saturates.
    pub(crate) fn n_bytes(p: &ModelParams, config: &LlamaConfig, tiling: &Tiling) -> u64 {
        let work = (WorkList::words_max(tiling, config.step_tokens_max) as u64).saturating_mul(4);
        let columns = [2 * p.n_embd, 2 * p.q_dim(), 2 * p.kv_dim(), p.n_ff, 4];
        let columns = columns.iter().fold(0u64, |n, c| n.saturating_add(*c as u64));
        columns.saturating_mul(4).saturating_mul(config.step_tokens_max as u64).saturating_add(work)
    }
}

impl LogitsWorkspace {
    pub(crate) fn new(device: &Device, p: &ModelParams, config: &LlamaConfig) -> Result<LogitsWorkspace> {
        let n = config.logits_rows();
        Ok(LogitsWorkspace {
            x: alloc(device, DType::F32, &[n, p.n_embd])?,
            logits: alloc(device, DType::F32, &[n, p.vocab])?,
            greedy: alloc(device, DType::U32, &[n])?,
            top: alloc(device, DType::U32, &[n, TOP_K_MAX, 2])?,
        })
    }

    /// The bytes that [`LogitsWorkspace::new`] allocates; saturates.
    pub(crate) fn n_bytes(p: &ModelParams, config: &LlamaConfig) -> u64 {
        let columns = 1 + 2 * TOP_K_MAX as u64 + p.n_embd as u64 + p.vocab as u64;
        columns.saturating_mul(4).saturating_mul(config.logits_rows() as u64)
    }
}

fn alloc(device: &Device, dtype: DType, dims: &[usize]) -> Result<Buffer> {
    device.alloc(dtype, dims).map_err(|source| Error::Allocation {
        what: "the workspace".into(),
        advice: SMALLER_CACHE,
        source,
    })
}
