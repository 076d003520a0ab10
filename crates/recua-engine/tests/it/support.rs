//! Shared by the tests of models: devices, files, generated tiny models, and the bits and errors of logits.

use recua_compute::{Device, cpu};
use recua_engine::{LlamaConfig, LlamaModel};
use recua_gguf::{GgmlType, Gguf, Header, Writer, encode};

/// The models in `testdata/golden`, by type.
pub(crate) const GOLDEN: [&str; 6] = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"];

pub(crate) fn cpu() -> Device {
    cpu::open(cpu::Options { threads: Some(2), ..cpu::Options::default() }).unwrap()
}

pub(crate) fn golden_path(file: &str) -> String {
    format!("{}/../../testdata/golden/{file}", env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn golden(ty: &str) -> Gguf {
    Gguf::open(golden_path(&format!("tiny-{ty}.gguf"))).unwrap()
}

pub(crate) fn config(batch_size: usize, max_seq_len: usize) -> LlamaConfig {
    LlamaConfig { batch_size, max_seq_len, ..LlamaConfig::default() }
}

pub(crate) fn load(gguf: &Gguf, config: LlamaConfig) -> LlamaModel {
    LlamaModel::load(gguf, cpu(), config).unwrap()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Squared error over squared signal.
pub(crate) fn nmse(exact: &[f32], found: &[f32]) -> f64 {
    assert_eq!(exact.len(), found.len());
    let square = |v: f64| v * v;
    let error: f64 = exact.iter().zip(found).map(|(e, f)| square(f64::from(*e) - f64::from(*f))).sum();
    error / exact.iter().map(|e| square(f64::from(*e))).sum::<f64>()
}

/// A generator whose numbers are the same everywhere (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `[0, n)`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From `(-1, 1)`.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn tokens(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(vocab) as u32).collect()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A model with random weights.
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) architecture: &'static str,
    pub(crate) n_layers: usize,
    pub(crate) n_embd: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    // `None`: the file has no key_length.
    pub(crate) head_dim: Option<usize>,
    pub(crate) n_rot: Option<usize>,
    pub(crate) n_ff: usize,
    pub(crate) vocab: usize,
    pub(crate) rope_base: f32,
    pub(crate) rope_factor: Option<f32>,
    pub(crate) rope_freqs: bool,
    pub(crate) bias: bool,
    pub(crate) tied: bool,
    pub(crate) ty: GgmlType,
}

impl Tiny {
    pub(crate) fn new(architecture: &'static str) -> Tiny {
        Tiny {
            architecture,
            n_layers: 2,
            n_embd: 64,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: None,
            n_rot: None,
            n_ff: 96,
            vocab: 80,
            rope_base: 10_000.0,
            rope_factor: None,
            rope_freqs: false,
            bias: architecture == "qwen2",
            tied: false,
            ty: GgmlType::F32,
        }
    }

    fn dim(&self) -> usize {
        self.head_dim.unwrap_or(self.n_embd / self.n_heads)
    }

    /// Name, type, shape `[rows, columns]` (a vector has one row), spread and mean of every tensor.
    fn tensors(&self) -> Vec<(String, GgmlType, [usize; 2], f32, f32)> {
        let mut list = Vec::new();
        let mut push = |name: &str, ty, n: usize, k: usize, spread: f32, mean: f32| {
            list.push((name.to_owned(), ty, [n, k], spread, mean));
        };
        let (e, q, kv, f32s) =
            (self.n_embd, self.n_heads * self.dim(), self.n_kv_heads * self.dim(), GgmlType::F32);
        let spread = |k: usize| 2.0 / (k as f32).sqrt();
        push("token_embd.weight", self.ty, self.vocab, e, 1.0, 0.0);
        push("output_norm.weight", f32s, 1, e, 0.3, 1.0);
        if !self.tied {
            push("output.weight", self.ty, self.vocab, e, spread(e), 0.0);
        }
        if self.rope_freqs {
            push("rope_freqs.weight", f32s, 1, self.n_rot.unwrap_or(self.dim()) / 2, 3.0, 4.5);
        }
        for i in 0..self.n_layers {
            let mut push =
                |name: &str, ty, n, k, spread, mean| push(&format!("blk.{i}.{name}"), ty, n, k, spread, mean);
            for (name, n, k) in [
                ("attn_q", q, e),
                ("attn_k", kv, e),
                ("attn_v", kv, e),
                ("attn_output", e, q),
                ("ffn_gate", self.n_ff, e),
                ("ffn_up", self.n_ff, e),
                ("ffn_down", e, self.n_ff),
            ] {
                push(&format!("{name}.weight"), self.ty, n, k, spread(k), 0.0);
                if self.bias && matches!(name, "attn_q" | "attn_k" | "attn_v") {
                    push(&format!("{name}.bias"), f32s, 1, n, 0.7, 0.0);
                }
            }
            push("attn_norm.weight", f32s, 1, e, 0.3, 1.0);
            push("ffn_norm.weight", f32s, 1, e, 0.3, 1.0);
            if self.architecture == "qwen3" {
                push("attn_q_norm.weight", f32s, 1, self.dim(), 0.3, 1.0);
                push("attn_k_norm.weight", f32s, 1, self.dim(), 0.3, 1.0);
            }
        }
        list
    }

    pub(crate) fn header(&self) -> Header {
        let mut header = Header::new();
        header.set("general.architecture", self.architecture).unwrap();
        let mut set = |key: &str, value: usize| {
            header.set(&format!("{}.{key}", self.architecture), value as u32).unwrap();
        };
        set("block_count", self.n_layers);
        set("embedding_length", self.n_embd);
        set("attention.head_count", self.n_heads);
        set("attention.head_count_kv", self.n_kv_heads);
        set("feed_forward_length", self.n_ff);
        set("context_length", 256);
        if let Some(n) = self.head_dim {
            set("attention.key_length", n);
            set("attention.value_length", n);
        }
        if let Some(n) = self.n_rot {
            set("rope.dimension_count", n);
        }
        let mut set = |key: &str, value: f32| {
            header.set(&format!("{}.{key}", self.architecture), value).unwrap();
        };
        set("attention.layer_norm_rms_epsilon", 1e-5);
        set("rope.freq_base", self.rope_base);
        if let Some(factor) = self.rope_factor {
            set("rope.scaling.factor", factor);
            header.set(&format!("{}.rope.scaling.type", self.architecture), "linear").unwrap();
        }
        header
    }

    pub(crate) fn gguf(&self) -> Gguf {
        self.gguf_with(|_| {}, |_, _| true)
    }

    /// The file after `edit` changed its metadata; `keep` sees each tensor's name, and may change its shape or leave it out.
    pub(crate) fn gguf_with(
        &self,
        edit: impl FnOnce(&mut Header),
        keep: impl Fn(&mut String, &mut [usize; 2]) -> bool,
    ) -> Gguf {
        let mut header = self.header();
        edit(&mut header);
        let mut tensors = self.tensors();
        tensors.retain_mut(|(name, _, shape, _, _)| keep(name, shape));
        for (name, ty, [n, k], ..) in &tensors {
            let dims = if *n == 1 { vec![*k as u64] } else { vec![*k as u64, *n as u64] };
            header.tensor(name, *ty, &dims).unwrap();
        }
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        let mut random = Random(7);
        for (name, ty, [n, k], spread, mean) in &tensors {
            let values: Vec<f32> = (0..n * k).map(|_| mean + spread * random.float()).collect();
            let mut bytes = Vec::new();
            encode(*ty, &values, &mut bytes).unwrap();
            writer.write(name, &bytes).unwrap();
        }
        Gguf::from_vec(writer.finish().unwrap()).unwrap()
    }
}
