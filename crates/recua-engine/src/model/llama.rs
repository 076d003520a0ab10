//! The forward pass of every Llama-like architecture, as data.

use super::workspace::{Head, Workspace};
use crate::config::ModelParams;
use crate::error::Result;
use crate::kv_cache::KvCache;
use crate::weights::Weights;
use recua_compute::{Activation, Attention, Buffer, HeadNorm, KvLayer, Matmul, Record, RopeStore, RowMap};

/// All that a pass reads and writes.
pub(crate) struct Pass<'a> {
    pub(crate) params: &'a ModelParams,
    pub(crate) weights: &'a Weights,
    // f32 [max_seq_len, n_rot / 2, 2]
    pub(crate) rope_table: &'a Buffer,
    pub(crate) kv_cache: &'a KvCache,
    pub(crate) workspace: &'a Workspace,
    pub(crate) head: &'a Head,
}

/// What attention needs of a pass.
pub(crate) struct Heads<'a> {
    pub(crate) params: &'a ModelParams,
    pub(crate) rope_table: &'a Buffer,
    pub(crate) kv_cache: &'a KvCache,
    pub(crate) workspace: &'a Workspace,
}

/// What tells the plans of one model apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Rows of the pass. Without any it is the head alone, over what the pass before left in the residual stream.
    pub(crate) n_rows: usize,
    /// How many of them end in logits.
    pub(crate) n_logits_rows: usize,
    /// Whether these end in the likeliest token as well, and in the likeliest few.
    pub(crate) likeliest: bool,
    pub(crate) top: bool,
}

/// Records a pass.
pub(crate) fn record(plan: &mut impl Record, pass: &Pass<'_>, shape: Shape) -> Result<()> {
    let Pass { params: p, weights, kv_cache, workspace: w, head, .. } = *pass;
    let Shape { n_rows, n_logits_rows, likeliest, top } = shape;
    let input = w.input(n_rows, n_logits_rows)?;
    if n_rows > 0 {
        let (x, normed, glu) = (w.x.rows(n_rows)?, w.normed.rows(n_rows)?, w.glu.rows(n_rows)?);
        let (qkv, attn) = (w.qkv.rows(n_rows)?, w.attn.rows(n_rows)?);
        let heads = Heads { params: p, rope_table: pass.rope_table, kv_cache, workspace: w };

        plan.embed(&weights.token_embd, &input.tokens, &x)?;
        for (layer, cache) in weights.layers.iter().zip(kv_cache.layers()) {
            plan.rms_norm(&x, &layer.attn_norm, &normed, p.rms_eps)?;
            plan.matmul(layer.attn_qkv.matmul(&normed, &qkv))?;
            let norm = layer.head_norm.as_ref();
            let norm = norm.map(|(q, k)| HeadNorm { q: q.clone(), k: k.clone(), eps: p.rms_eps });
            attend(plan, &heads, cache, n_rows, norm)?;
            plan.matmul(layer.attn_output.matmul(&attn, &x).with_add(&x))?;
            plan.rms_norm(&x, &layer.ffn_norm, &normed, p.rms_eps)?;
            plan.matmul_glu(&normed, &layer.ffn_gate_up, Activation::Silu, &glu)?;
            plan.matmul(layer.ffn_down.matmul(&glu, &x).with_add(&x))?;
        }
    }
    if n_logits_rows > 0 {
        let (head_x, logits) = (head.x.rows(n_logits_rows)?, head.logits.rows(n_logits_rows)?);
        plan.gather_rows(&w.x, &input.logits_rows, &head_x)?;
        plan.rms_norm(&head_x, &weights.output_norm, &head_x, p.rms_eps)?;
        plan.matmul(Matmul::new(&head_x, &weights.output, &logits))?;
        if likeliest {
            plan.argmax(&logits, &head.likeliest.rows(n_logits_rows)?)?;
        }
        if top {
            plan.top_k(&logits, &head.top.rows(n_logits_rows)?)?;
        }
    }
    Ok(())
}

/// Records a layer's attention over its `cache`, from q, k and v in the workspace to what its heads found.
pub(crate) fn attend(
    plan: &mut impl Record,
    heads: &Heads<'_>,
    cache: &KvLayer,
    n_rows: usize,
    norm: Option<HeadNorm>,
) -> Result<()> {
    let Heads { params: p, rope_table, kv_cache, workspace: w } = *heads;
    let input = w.input(n_rows, 0)?;
    let rows = RowMap { positions: input.positions, sequences: input.slots, pages: kv_cache.table().clone() };
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
