//! The op list of a real model's decode step, on random weights.

use std::collections::HashMap;

use recua::Device;
use recua::compute::{
    Activation, Arrange, Attention, Buffer, DType, Error, KvPool, KvShape, KvType, Matmul, PAGE_TOKENS, Record,
    Result, RopeStore, RopeStyle, RowMap, RowRun, Weight, WorkList, cpu,
};
use recua::gguf::mix::Facts;
use recua::gguf::{FileType, GgmlType, Shape, encode};

use super::weights::Weights;
use super::work::{About, Work};
use crate::output::note;

/// Tokens that each sequence holds already.
const DEPTH: usize = 128;
/// The mix of types that most files of these models have.
const FILE_TYPE: FileType = FileType::Q4_K_M;
const RMS_EPS: f32 = 1e-5;

/// A step of one token for each of `rows` sequences.
pub(super) fn work(device: &Device, shape: &Shape, rows: usize) -> Result<Work> {
    if has_room(device, shape) {
        match record(device, shape, rows, false) {
            Err(e @ Error::OutOfMemory { .. }) => note!("{e}"),
            done => return done,
        }
    }
    note!("{shape}: the memory is short, so all layers use the same weights");
    record(device, shape, rows, true)
}

/// Whether there is memory for the weights of all layers, with as much again to spare: the device's layout may take
/// more than the file's, and others use the machine too.
fn has_room(device: &Device, shape: &Shape) -> bool {
    let (dim, ffn) = (shape.dim, shape.ffn_dim);
    let q = u64::from(shape.n_heads * shape.head_dim);
    let kv = u64::from(shape.n_kv_heads * shape.head_dim);
    let layer = 2 * dim * q + 2 * dim * kv + 3 * dim * ffn;
    let values = layer * u64::from(shape.n_layers) + 2 * dim * u64::from(shape.vocab);
    // A device that does not tell is taken to have what the host has.
    let of_host = || {
        let options = cpu::Options { threads: Some(1), ..cpu::Options::default() };
        cpu::open(options).ok()?.info().memory_bytes
    };
    // Q4_K_M has less than 5 bits a value.
    device.info().memory_bytes.or_else(of_host).is_some_and(|memory| values / 8 * 5 * 2 < memory)
}

/// The weights of a model, made when they are first asked for.
struct Model<'a> {
    shape: &'a Shape,
    facts: Facts,
    /// Whether a layer uses what another one has made.
    shares: bool,
    random: Weights<'a>,
    made: HashMap<(String, Vec<GgmlType>), Weight>,
}

impl Model<'_> {
    /// Matrices of a layer by their names, `n` rows of `k` each, as one weight.
    fn layer(&mut self, i: u32, parts: &[(&str, usize)], k: usize, arrange: Arrange) -> Result<Weight> {
        let full: Vec<_> = parts.iter().map(|(name, n)| (format!("blk.{i}.{name}.weight"), *n)).collect();
        let parts: Vec<_> = full.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        let key = if self.shares { parts[0].0.trim_start_matches(&format!("blk.{i}")) } else { parts[0].0 };
        self.weight(&parts, key, k, arrange)
    }

    /// The matrix that a file would call `name`.
    fn matrix(&mut self, name: &str, key: &str, n: usize, k: usize) -> Result<Weight> {
        self.weight(&[(name, n)], key, k, Arrange::Stacked)
    }

    /// One weight of matrices as a file would call them; one with the same key and types is made once.
    fn weight(&mut self, parts: &[(&str, usize)], key: &str, k: usize, arrange: Arrange) -> Result<Weight> {
        let name = parts[0].0;
        let typed =
            |&(name, n): &(&str, usize)| (FILE_TYPE.tensor_type(name, &[k as u64, n as u64], &self.facts), n);
        let parts: Vec<_> = parts.iter().map(typed).collect();
        let key = (key.to_owned(), parts.iter().map(|(ty, _)| *ty).collect());
        if let Some(weight) = self.made.get(&key) {
            return Ok(weight.clone());
        }
        // An untied embedding feeds a norm, whatever its size.
        let is_embedding = name == "token_embd.weight" && !self.shape.tied;
        let std = if is_embedding { 1.0 } else { (k as f32).powf(-0.5) };
        let weight = self.random.make(&parts, k, std, arrange)?;
        self.made.insert(key, weight.clone());
        Ok(weight)
    }
}

fn record(device: &Device, shape: &Shape, rows: usize, shares: bool) -> Result<Work> {
    let facts = Facts {
        n_layers: shape.n_layers as usize,
        n_heads: shape.n_heads as usize,
        n_kv_heads: shape.n_kv_heads as usize,
        n_experts: 0,
        tied: shape.tied,
        falcon: false,
    };
    let mut model = Model { shape, facts, shares, random: Weights::new(device), made: HashMap::new() };
    let (dim, ffn, vocab) = (shape.dim as usize, shape.ffn_dim as usize, shape.vocab as usize);
    let head_dim = shape.head_dim as usize;
    let (q_dim, kv_dim) = (shape.n_heads as usize * head_dim, shape.n_kv_heads as usize * head_dim);
    let matrix = |cols| device.alloc(DType::F32, &[rows, cols]);
    let [x, normed] = [matrix(dim)?, matrix(dim)?];
    let (qkv, attn) = (matrix(q_dim + 2 * kv_dim)?, matrix(q_dim)?);
    let q = qkv.columns(0..q_dim)?;
    let [k, v] = [q_dim, q_dim + kv_dim].map(|first| qkv.columns(first..first + kv_dim));
    let (k, v) = (k?, v?);
    let (glu, logits) = (matrix(ffn)?, matrix(vocab)?);
    let tokens = device.upload(&model.random.tokens(rows, vocab), DType::U32, &[rows])?;
    let norm = device.upload(&vec![1f32; dim], DType::F32, &[dim])?;
    let pages = DEPTH / PAGE_TOKENS + 1;
    let upload = |values: Vec<u32>, dims: &[usize]| device.upload(&values, DType::U32, dims);
    let kv = KvShape {
        n_pages: rows * pages,
        n_kv_heads: shape.n_kv_heads as usize,
        head_dim,
        kv_type: KvType::F16,
    };
    let runs = (0..rows).map(|row| RowRun { first_row: row, n_rows: 1, start: DEPTH });
    let mut list = WorkList::new();
    let work = list.build(&device.tiling(&kv, shape.n_heads as usize), rows, runs)?;
    let row_map = RowMap {
        work: device.upload(work, DType::U32, &[work.len()])?,
        positions: upload(vec![DEPTH as u32; rows], &[rows])?,
        sequences: upload((0..rows as u32).collect(), &[rows])?,
        pages: upload((0..(rows * pages) as u32).collect(), &[rows, pages])?,
    };
    let table = rope_table(device, shape, pages * PAGE_TOKENS)?;
    let embedding = model.matrix("token_embd.weight", "token_embd", vocab, dim)?;

    let mut plan = device.plan();
    plan.embed(&embedding, &tokens, &x)?;
    for i in 0..shape.n_layers {
        let cache = cache(device, &mut model, &kv)?;
        let parts = [("attn_q", q_dim), ("attn_k", kv_dim), ("attn_v", kv_dim)];
        let w_qkv = model.layer(i, &parts, dim, Arrange::Stacked)?;
        let wo = model.layer(i, &[("attn_output", dim)], q_dim, Arrange::Stacked)?;
        let gate_up = model.layer(i, &[("ffn_gate", ffn), ("ffn_up", ffn)], dim, Arrange::Interleaved)?;
        let down = model.layer(i, &[("ffn_down", dim)], ffn, Arrange::Stacked)?;
        plan.rms_norm(&x, &norm, &normed, RMS_EPS)?;
        plan.matmul(Matmul::new(&normed, &w_qkv, &qkv))?;
        plan.rope_store(RopeStore {
            q: q.clone(),
            k: k.clone(),
            v: v.clone(),
            norm: None,
            table: table.clone(),
            style: RopeStyle::Interleaved,
            rows: row_map.clone(),
            cache: cache.clone(),
        })?;
        let scale = (head_dim as f32).powf(-0.5);
        plan.attention(Attention { q: q.clone(), rows: row_map.clone(), cache, scale, out: attn.clone() })?;
        plan.matmul(Matmul::new(&attn, &wo, &x).with_add(&x))?;
        plan.rms_norm(&x, &norm, &normed, RMS_EPS)?;
        plan.matmul_glu(&normed, &gate_up, Activation::Silu, &glu)?;
        plan.matmul(Matmul::new(&glu, &down, &x).with_add(&x))?;
    }
    plan.rms_norm(&x, &norm, &normed, RMS_EPS)?;
    let output = if shape.tied { embedding } else { model.matrix("output.weight", "output", vocab, dim)? };
    plan.matmul(Matmul::new(&normed, &output, &logits))?;

    let about = About {
        name: format!("step {shape}"),
        description: format!(
            "decode step of the {shape} shape, {FILE_TYPE}, {rows} row(s) at position {DEPTH}"
        ),
        n_ops: 0,
        n_groups: 0,
        weight_bytes: model.made.values().map(|w| w.n_bytes() as u64).sum(),
        shares_weights: Some(shares),
    };
    Ok(Work::step(about, plan, vec![x, logits]))
}

/// A layer's cache, filled with what keys and values could be.
fn cache(device: &Device, model: &mut Model<'_>, shape: &KvShape) -> Result<KvPool> {
    let pool = device.alloc_kv(shape)?;
    for memory in pool.memory() {
        let values = model.random.values(memory.n_bytes() / 2);
        let mut halves = Vec::new();
        encode(GgmlType::F16, &values, &mut halves)
            .map_err(|e| Error::Argument { op: "cache", problem: e.to_string() })?;
        device.write(memory, &halves)?;
    }
    Ok(pool)
}

/// Cosine and sine of each pair's angle at each position.
fn rope_table(device: &Device, shape: &Shape, positions: usize) -> Result<Buffer> {
    let pairs = shape.head_dim as usize / 2;
    let angle = |position: usize, i: usize| {
        position as f64 * f64::from(shape.rope_base).powf(-(i as f64) / pairs as f64)
    };
    let values: Vec<f32> = (0..positions * pairs)
        .flat_map(|at| {
            let (sin, cos) = angle(at / pairs, at % pairs).sin_cos();
            [cos as f32, sin as f32]
        })
        .collect();
    device.upload(&values, DType::F32, &[positions, pairs, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_share_their_weights_only_where_they_must() {
        let device = recua::open_device("cpu").unwrap();
        let [own, shared] =
            [false, true].map(|shares| record(&device, &Shape::TINY, 2, shares).unwrap().about);
        assert_eq!((own.n_ops, own.shares_weights), (1 + 4 * 8 + 2, Some(false)));
        assert_eq!(
            (shared.n_ops, shared.n_groups, shared.shares_weights),
            (own.n_ops, own.n_groups, Some(true))
        );
        // The types of the layers stay: two of them have some tensors of more bits.
        assert!(
            shared.weight_bytes < own.weight_bytes * 3 / 4,
            "{} of {}",
            shared.weight_bytes,
            own.weight_bytes
        );
        assert!(has_room(&device, &Shape::TINY));
        let endless = Shape { n_layers: 10_000_000, ..Shape::B8 };
        assert!(!has_room(&device, &endless));
    }
}
