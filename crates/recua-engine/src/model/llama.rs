//! The forward pass of every Llama-like architecture, as data.

use super::params::ModelParams;
use super::tensors::Weights;
use super::workspace::{Input, LogitsWorkspace, Workspace};
use crate::cache::Store;
use crate::error::Result;
use recua_compute::{
    Activation, Attention, Buffer, Embed, HeadNorm, KvPool, Matmul, Op, Record, RopeStore, RowMap,
};

/// Everything that a pass reads and writes.
pub(crate) struct Pass<'a> {
    pub(crate) params: &'a ModelParams,
    pub(crate) weights: &'a Weights,
    // f32 [max_seq_len, n_rot / 2, 2]
    pub(crate) rope_table: &'a Buffer,
    pub(crate) store: &'a Store,
    pub(crate) workspace: &'a Workspace,
    pub(crate) logits: &'a LogitsWorkspace,
}

/// The parts of a pass that attention needs.
pub(crate) struct AttentionInputs<'a> {
    pub(crate) params: &'a ModelParams,
    pub(crate) rope_table: &'a Buffer,
    pub(crate) store: &'a Store,
    pub(crate) workspace: &'a Workspace,
}

/// Distinguishes the plans of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Rows in the pass. With 0, only the output matrix runs, over what the pass before left in the residual stream.
    pub(crate) n_rows: usize,
    /// How many of them end in logits.
    pub(crate) n_logits_rows: usize,
    /// Whether the device also chooses the token of the largest logit, and the `TOP_K_MAX` largest.
    pub(crate) greedy: bool,
    pub(crate) top: bool,
}

/// Records a pass.
pub(crate) fn record(plan: &mut impl Record, pass: &Pass<'_>, shape: Shape) -> Result<()> {
    let Pass { params: p, weights, store, workspace: w, logits: l, .. } = *pass;
    let Shape { n_rows, n_logits_rows, greedy, top } = shape;
    let input = w.input(n_rows, n_logits_rows)?;
    if n_rows > 0 {
        let (x, normed, glu) = (w.x.rows(n_rows)?, w.normed.rows(n_rows)?, w.glu.rows(n_rows)?);
        let (qkv, attn) = (w.qkv.rows(n_rows)?, w.attn.rows(n_rows)?);
        let inputs = AttentionInputs { params: p, rope_table: pass.rope_table, store, workspace: w };

        // A row's token may be one that the pass before chose, whatever its shape: this pass reads its place before it chooses new tokens.
        let (table, chosen) = (weights.token_embd.clone(), Some(l.greedy.clone()));
        plan.push(Op::Embed(Embed { table, tokens: input.tokens.clone(), chosen, out: x.clone() }))?;
        for (layer, cache) in weights.layers.iter().zip(store.layers()) {
            plan.rms_norm(&x, &layer.attn_norm, &normed, p.rms_eps)?;
            plan.matmul(layer.attn_qkv.matmul(&normed, &qkv))?;
            let norm = layer.head_norm.as_ref();
            let norm = norm.map(|(q, k)| HeadNorm { q: q.clone(), k: k.clone(), eps: p.rms_eps });
            attend(plan, &inputs, cache, &input, norm)?;
            plan.matmul(layer.attn_output.matmul(&attn, &x).with_add(&x))?;
            plan.rms_norm(&x, &layer.ffn_norm, &normed, p.rms_eps)?;
            plan.matmul_glu(&normed, &layer.ffn_gate_up, Activation::Silu, &glu)?;
            plan.matmul(layer.ffn_down.matmul(&glu, &x).with_add(&x))?;
        }
    }
    if n_logits_rows > 0 {
        let (x, logits) = (l.x.rows(n_logits_rows)?, l.logits.rows(n_logits_rows)?);
        plan.gather_rows(&w.x, &input.logits_rows, &x)?;
        plan.rms_norm(&x, &weights.output_norm, &x, p.rms_eps)?;
        plan.matmul(Matmul::new(&x, &weights.output, &logits))?;
        if greedy {
            plan.argmax(&logits, &l.greedy.rows(n_logits_rows)?)?;
        }
        if top {
            plan.top_k(&logits, &l.top.rows(n_logits_rows)?)?;
        }
    }
    Ok(())
}

/// Records a layer's attention over its `cache`: from q, k and v in the workspace to `attn`.
pub(crate) fn attend(
    plan: &mut impl Record,
    inputs: &AttentionInputs<'_>,
    cache: &KvPool,
    input: &Input,
    norm: Option<HeadNorm>,
) -> Result<()> {
    let AttentionInputs { params: p, rope_table, store, workspace: w } = *inputs;
    let n_rows = input.tokens.n_elements();
    let rows = RowMap {
        positions: input.positions.clone(),
        sequences: input.slots.clone(),
        pages: store.table().clone(),
        work: input.work.clone(),
    };
    let qkv = w.qkv.rows(n_rows)?;
    let (q_dim, kv_dim) = (p.q_dim(), p.kv_dim());
    let q = qkv.columns(0..q_dim)?;
    plan.rope_store(RopeStore {
        q: q.clone(),
        k: qkv.columns(q_dim..q_dim + kv_dim)?,
        v: qkv.columns(q_dim + kv_dim..q_dim + 2 * kv_dim)?,
        norm,
        table: rope_table.clone(),
        style: p.rope.style,
        rows: rows.clone(),
        cache: cache.clone(),
    })?;
    let scale = (1.0 / (p.head_dim as f64).sqrt()) as f32;
    plan.attention(Attention { q, rows, cache: cache.clone(), scale, out: w.attn.rows(n_rows)? })?;
    Ok(())
}
