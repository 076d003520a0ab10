//! An independent forward pass in f64, straight from a file: no cache, no batch, no device.

use recua_gguf::{Gguf, decode};

/// A file's tensors and parameters, as f64.
struct Reference<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Reference<'_> {
    fn integer(&self, key: &str) -> Option<usize> {
        self.gguf.metadata().u32(&format!("{}.{key}", self.architecture)).unwrap().map(|n| n as usize)
    }

    fn float(&self, key: &str) -> Option<f64> {
        self.gguf.metadata().f32(&format!("{}.{key}", self.architecture)).unwrap().map(f64::from)
    }

    fn tensor(&self, name: &str) -> Option<Vec<f64>> {
        let tensor = self.gguf.tensor(name)?;
        let mut values = vec![0.0; tensor.n_elements()];
        decode(tensor.ty, &self.gguf.data(tensor).to_vec().unwrap(), &mut values).unwrap();
        Some(values.into_iter().map(f64::from).collect())
    }

    /// `x · wᵀ + bias` for each row.
    fn linear(&self, rows: &[Vec<f64>], name: &str) -> Vec<Vec<f64>> {
        let w = self.tensor(&format!("{name}.weight")).unwrap();
        let bias = self.tensor(&format!("{name}.bias"));
        let product = |x: &Vec<f64>| {
            let dot = |w: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            let mut y: Vec<f64> = w.chunks(x.len()).map(dot).collect();
            if let Some(bias) = &bias {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
            y
        };
        rows.iter().map(product).collect()
    }
}

fn norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(v, w)| v / (mean + eps).sqrt() * w).collect()
}

fn add(x: &mut [Vec<f64>], y: &[Vec<f64>]) {
    for (x, y) in x.iter_mut().flatten().zip(y.iter().flatten()) {
        *x += y;
    }
}

/// The logits of every position, row after row.
pub(crate) fn logits(gguf: &Gguf, tokens: &[u32]) -> Vec<f32> {
    let architecture = gguf.metadata().require_str("general.architecture").unwrap();
    let r = Reference { gguf, architecture };
    let n_embd = r.integer("embedding_length").unwrap();
    let n_heads = r.integer("attention.head_count").unwrap();
    let n_kv_heads = r.integer("attention.head_count_kv").unwrap_or(n_heads);
    let dim = r.integer("attention.key_length").unwrap_or(n_embd / n_heads);
    let n_rot = r.integer("rope.dimension_count").unwrap_or(dim);
    let eps = r.float("attention.layer_norm_rms_epsilon").unwrap();
    let base = r.float("rope.freq_base").unwrap_or(10_000.0);
    let factor = r.float("rope.scaling.factor").unwrap_or(1.0);
    let divisors = r.tensor("rope_freqs.weight").unwrap_or(vec![1.0; n_rot / 2]);
    let rotate = |head: &mut [f64], position: usize| {
        for (i, divisor) in divisors.iter().enumerate() {
            let angle = position as f64 / factor * base.powf(-((2 * i) as f64) / n_rot as f64) / divisor;
            let (a, b) = if architecture == "llama" { (2 * i, 2 * i + 1) } else { (i, i + n_rot / 2) };
            let (x, y) = (head[a], head[b]);
            head[a] = x * angle.cos() - y * angle.sin();
            head[b] = x * angle.sin() + y * angle.cos();
        }
    };
    let heads = |rows: &mut [Vec<f64>], weight: Option<Vec<f64>>| {
        for (position, row) in rows.iter_mut().enumerate() {
            for head in row.chunks_mut(dim) {
                if let Some(weight) = &weight {
                    let normed = norm(head, weight, eps);
                    head.copy_from_slice(&normed);
                }
                rotate(head, position);
            }
        }
    };

    let embedding = r.tensor("token_embd.weight").unwrap();
    let mut x: Vec<Vec<f64>> =
        tokens.iter().map(|t| embedding[*t as usize * n_embd..][..n_embd].to_vec()).collect();
    for i in 0..r.integer("block_count").unwrap() {
        let name = |name: &str| format!("blk.{i}.{name}");
        let normed = |x: &[Vec<f64>], which: &str| {
            let weight = r.tensor(&name(which)).unwrap();
            x.iter().map(|row| norm(row, &weight, eps)).collect::<Vec<_>>()
        };
        let h = normed(&x, "attn_norm.weight");
        let (mut q, mut k) = (r.linear(&h, &name("attn_q")), r.linear(&h, &name("attn_k")));
        let v = r.linear(&h, &name("attn_v"));
        heads(&mut q, r.tensor(&name("attn_q_norm.weight")));
        heads(&mut k, r.tensor(&name("attn_k_norm.weight")));
        let mut attended = vec![vec![0.0; n_heads * dim]; tokens.len()];
        for (t, out) in attended.iter_mut().enumerate() {
            for head in 0..n_heads {
                let kv = head / (n_heads / n_kv_heads) * dim;
                let own = &q[t][head * dim..][..dim];
                let score = |k: &Vec<f64>| {
                    own.iter().zip(&k[kv..]).map(|(a, b)| a * b).sum::<f64>() / (dim as f64).sqrt()
                };
                let scores: Vec<f64> = k[..=t].iter().map(score).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (weight, v) in weights.iter().zip(&v) {
                    for (out, v) in out[head * dim..][..dim].iter_mut().zip(&v[kv..]) {
                        *out += weight / sum * v;
                    }
                }
            }
        }
        add(&mut x, &r.linear(&attended, &name("attn_output")));
        let h = normed(&x, "ffn_norm.weight");
        let mut gate = r.linear(&h, &name("ffn_gate"));
        let up = r.linear(&h, &name("ffn_up"));
        for (g, u) in gate.iter_mut().flatten().zip(up.iter().flatten()) {
            *g = *g / (1.0 + (-*g).exp()) * u;
        }
        add(&mut x, &r.linear(&gate, &name("ffn_down")));
    }
    let weight = r.tensor("output_norm.weight").unwrap();
    let x: Vec<_> = x.iter().map(|row| norm(row, &weight, eps)).collect();
    let head = if gguf.tensor("output.weight").is_some() { "output" } else { "token_embd" };
    r.linear(&x, head).into_iter().flatten().map(|v| v as f32).collect()
}
