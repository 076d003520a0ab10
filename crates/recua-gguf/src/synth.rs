//! Models of real shapes with random weights, for timing and for comparing engines where no download is
//! possible. Weights are generated directly in their block format, so gigabytes take seconds.

mod blocks;

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result, shorten};
use crate::format::GgmlType;
use crate::mix::{Facts, FileType};
use crate::output::Output;
use crate::quantize::{QUANTIZATION_VERSION, spawn};
use crate::writer::{Header, Writer};

/// The dimensions of a Llama model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The name that [`FromStr`] accepts and `general.name` records.
    pub name: &'static str,
    /// Width of the residual stream; a multiple of 256.
    pub dim: u64,
    /// Number of layers.
    pub n_layers: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the feed-forward network; a multiple of 256.
    pub ffn_dim: u64,
    /// Number of tokens, at least 259.
    pub vocab: u32,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
    /// Longest context, in tokens.
    pub context: u32,
    /// True if the token embedding is also the output matrix.
    pub tied: bool,
}

impl Shape {
    /// About three million weights: for tests.
    pub const TINY: Self = Self {
        name: "tiny",
        dim: 256,
        n_layers: 4,
        n_heads: 8,
        n_kv_heads: 4,
        head_dim: 32,
        ffn_dim: 768,
        vocab: 512,
        rope_base: 10_000.0,
        context: 2048,
        tied: false,
    };
    /// The shape of Llama 3.2 1B.
    pub const B1: Self = Self {
        name: "1b",
        dim: 2048,
        n_layers: 16,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 64,
        ffn_dim: 8192,
        vocab: 128_256,
        rope_base: 500_000.0,
        context: 131_072,
        tied: true,
    };
    /// The shape of Llama 3.2 3B.
    pub const B3: Self = Self { name: "3b", dim: 3072, n_layers: 28, n_heads: 24, head_dim: 128, ..Self::B1 };
    /// The shape of Llama 3.1 8B.
    pub const B8: Self = Self {
        name: "8b",
        dim: 4096,
        n_layers: 32,
        n_heads: 32,
        head_dim: 128,
        ffn_dim: 14_336,
        tied: false,
        ..Self::B1
    };
    /// All named shapes.
    pub const ALL: &'static [Self] = &[Self::TINY, Self::B1, Self::B3, Self::B8];

    fn facts(&self) -> Facts {
        Facts {
            n_layers: self.n_layers as usize,
            n_heads: self.n_heads as usize,
            n_kv_heads: self.n_kv_heads as usize,
            n_experts: 0,
            tied: self.tied,
            falcon: false,
        }
    }

    /// Names and shapes (ggml order) of all tensors, in the file's order.
    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let (dim, ffn) = (self.dim, self.ffn_dim);
        let q = self.n_heads as u64 * self.head_dim as u64;
        let kv = self.n_kv_heads as u64 * self.head_dim as u64;
        let mut all = vec![("token_embd.weight".to_owned(), vec![dim, self.vocab as u64])];
        for i in 0..self.n_layers {
            let layer: [(&str, &[u64]); 9] = [
                ("attn_norm", &[dim]),
                ("attn_q", &[dim, q]),
                ("attn_k", &[dim, kv]),
                ("attn_v", &[dim, kv]),
                ("attn_output", &[q, dim]),
                ("ffn_norm", &[dim]),
                ("ffn_gate", &[dim, ffn]),
                ("ffn_up", &[dim, ffn]),
                ("ffn_down", &[ffn, dim]),
            ];
            all.extend(layer.map(|(name, dims)| (format!("blk.{i}.{name}.weight"), dims.to_vec())));
        }
        all.push(("output_norm.weight".to_owned(), vec![dim]));
        if !self.tied {
            all.push(("output.weight".to_owned(), vec![dim, self.vocab as u64]));
        }
        all
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|shape| shape.name.eq_ignore_ascii_case(s)).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|shape| shape.name).collect();
            Error::other(format!("unknown shape {:?}; one of: {}", shorten(s), known.join(" ")))
        })
    }
}

/// Writes a Llama model of random weights to `out` and returns its size in bytes.
///
/// Weights of matrices have a mean near 0 and a standard deviation of about `1 / sqrt(cols)`, so that
/// activations keep a magnitude of about 1 through the layers; weights of norms are 1. The vocabulary is a
/// valid SentencePiece one: three control tokens, the 256 bytes, and made-up words. The K mixes give each
/// tensor the type that [`quantize`](crate::quantize()) would; all other file types use one type for all
/// matrices. The same arguments give the same bytes on every machine. `progress` is told before each tensor how many of the
/// tensors' bytes are written, and how many there are in all.
///
/// # Errors
/// If the file cannot be written, or no thread can be started. An older file of this name is replaced only when the new one is complete; a
/// link is followed, and what is no regular file, such as a named pipe, is written in place.
pub fn synth(
    shape: Shape,
    file_type: FileType,
    out: &Path,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64> {
    let model = Model::new(shape, file_type)?;
    let mut writer = Writer::new(Output::create(out)?, &model.header).map_err(|e| e.in_file(out))?;
    model.write(&mut writer, seed, progress).map_err(|e| e.in_file(out))?;
    let n_bytes = writer.file_bytes();
    writer.finish()?.commit()?;
    Ok(n_bytes)
}

/// The bytes of the file that [`synth`] writes.
///
/// # Errors
/// If there is no memory for them.
pub fn synth_in_memory(shape: Shape, file_type: FileType, seed: u64) -> Result<Vec<u8>> {
    let model = Model::new(shape, file_type)?;
    let mut bytes = Vec::new();
    let n_bytes = model.bytes_max()?;
    let short = || Error::other(format!("no memory for {n_bytes} bytes of a synthetic {shape} {file_type}"));
    bytes.try_reserve_exact(usize::try_from(n_bytes).map_err(|_| short())?).map_err(|_| short())?;
    let mut writer = Writer::new(bytes, &model.header)?;
    model.write(&mut writer, seed, &mut |_, _| {})?;
    writer.finish()
}

/// A model about to be written.
struct Model {
    shape: Shape,
    header: Header,
    tensors: Vec<(String, Vec<u64>, GgmlType)>,
}

impl Model {
    /// No file of it is larger: the header, and each tensor with what may come before it for its alignment.
    fn bytes_max(&self) -> Result<u64> {
        const ALIGNMENT_MAX: u64 = 4096;
        let header = Writer::new(std::io::sink(), &self.header)?.file_bytes();
        let most = |tensor| n_bytes(tensor).saturating_add(ALIGNMENT_MAX);
        Ok(self.tensors.iter().map(most).fold(header, u64::saturating_add))
    }

    fn new(shape: Shape, file_type: FileType) -> Result<Model> {
        let facts = shape.facts();
        let k_mix = file_type.base_type().block_values() == 256;
        let mut header = Header::new();
        put_metadata(&mut header, &shape, file_type)?;
        let tensors: Vec<_> = shape
            .tensors()
            .into_iter()
            .map(|(name, dims)| {
                let ty = if k_mix || dims.len() == 1 {
                    file_type.tensor_type(&name, &dims, &facts)
                } else {
                    file_type.base_type()
                };
                (name, dims, ty)
            })
            .collect();
        for (name, dims, ty) in &tensors {
            header.tensor(name, *ty, dims)?;
        }
        Ok(Model { shape, header, tensors })
    }

    fn write<W: Write>(
        &self,
        writer: &mut Writer<W>,
        seed: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut filler = Filler::new();
        let all = self.tensors.iter().map(n_bytes).fold(0, u64::saturating_add);
        let mut done = 0;
        for (i, tensor) in self.tensors.iter().enumerate() {
            progress(done, all);
            done += n_bytes(tensor);
            let (name, dims, ty) = tensor;
            if let [cols] = dims[..] {
                let ones: Vec<u8> = (0..cols).flat_map(|_| 1.0f32.to_le_bytes()).collect();
                writer.write(name, &ones)?;
                continue;
            }
            // An untied embedding only feeds a norm, so its scale does not matter; a tied one is also the output
            // matrix.
            let is_embedding = name == "token_embd.weight" && !self.shape.tied;
            let std = if is_embedding { 1.0 } else { (dims[0] as f32).powf(-0.5) };
            let source = blocks::Source::new(*ty, std, seed, i as u64);
            let n_units = dims.iter().product::<u64>() / source.unit_values() as u64;
            filler.write(writer, name, &source, n_units)?;
        }
        Ok(())
    }
}

fn n_bytes((_, dims, ty): &(String, Vec<u64>, GgmlType)) -> u64 {
    (dims.iter().product::<u64>() / ty.block_values() as u64).saturating_mul(ty.block_bytes() as u64)
}

fn put_metadata(header: &mut Header, shape: &Shape, file_type: FileType) -> Result<()> {
    header.set("general.architecture", "llama")?;
    header.set("general.name", format!("synthetic {shape} {file_type}"))?;
    header.set("general.file_type", file_type.id())?;
    header.set("general.quantization_version", QUANTIZATION_VERSION)?;
    header.set("llama.context_length", shape.context)?;
    header.set("llama.embedding_length", shape.dim as u32)?;
    header.set("llama.block_count", shape.n_layers)?;
    header.set("llama.feed_forward_length", shape.ffn_dim as u32)?;
    header.set("llama.attention.head_count", shape.n_heads)?;
    header.set("llama.attention.head_count_kv", shape.n_kv_heads)?;
    header.set("llama.attention.key_length", shape.head_dim)?;
    header.set("llama.attention.value_length", shape.head_dim)?;
    header.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32)?;
    header.set("llama.rope.freq_base", shape.rope_base)?;
    header.set("llama.rope.dimension_count", shape.head_dim)?;
    header.set("llama.vocab_size", shape.vocab)?;
    header.set("tokenizer.ggml.model", "llama")?;
    header.set("tokenizer.ggml.pre", "default")?;
    header.set_strings("tokenizer.ggml.tokens", (0..shape.vocab).map(token))?;
    header
        .set_f32s("tokenizer.ggml.scores", &(0..shape.vocab).map(|i| 0.0 - i as f32).collect::<Vec<_>>())?;
    // SentencePiece's kinds: 1 normal, 2 unknown, 3 control, 6 byte.
    let kind = |i| match i {
        0 => 2,
        1 | 2 => 3,
        3..N_FIXED => 6,
        _ => 1,
    };
    header.set_i32s("tokenizer.ggml.token_type", &(0..shape.vocab).map(kind).collect::<Vec<_>>())?;
    header.set("tokenizer.ggml.bos_token_id", 1u32)?;
    header.set("tokenizer.ggml.eos_token_id", 2u32)
}

/// The number of control and byte tokens, which come before the words.
const N_FIXED: u32 = 259;

/// The text of token `i`. No two tokens are equal, every letter is a token, and half the words start with
/// SentencePiece's space.
fn token(i: u32) -> String {
    match i {
        0 => "<unk>".to_owned(),
        1 => "<s>".to_owned(),
        2 => "</s>".to_owned(),
        3..N_FIXED => format!("<0x{:02X}>", i - 3),
        _ => {
            const LETTERS: u32 = 26;
            let n = i - N_FIXED;
            let mut word = String::from(if n % 2 == 1 { "\u{2581}" } else { "" });
            let mut rest = n;
            loop {
                word.push(char::from(b'a' + (rest % LETTERS) as u8));
                rest /= LETTERS;
                if rest == 0 {
                    break;
                }
            }
            if n >= 2 * LETTERS {
                // The number makes each word unique.
                word.push_str(&"z".repeat(n as usize % 3));
                word.push_str(&n.to_string());
            }
            word
        }
    }
}

/// Generates blocks on all threads while the blocks generated before are being written.
struct Filler {
    drawn: Vec<Vec<u8>>,
    written: Vec<Vec<u8>>,
}

impl Filler {
    const CHUNK_BYTES: usize = 4 << 20;

    fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(16);
        Self { drawn: vec![Vec::new(); threads], written: vec![Vec::new(); threads] }
    }

    fn write<W: Write>(
        &mut self,
        writer: &mut Writer<W>,
        name: &str,
        source: &blocks::Source,
        n_units: u64,
    ) -> Result<()> {
        let chunk_units = (Self::CHUNK_BYTES / source.unit_bytes()).max(1) as u64;
        let mut next = 0;
        loop {
            let last = next == n_units;
            std::thread::scope(|scope| {
                for out in &mut self.drawn {
                    let n = chunk_units.min(n_units - next);
                    out.resize(n as usize * source.unit_bytes(), 0);
                    if n > 0 {
                        let first = next;
                        spawn(scope, move || source.fill(first, out))?;
                    }
                    next += n;
                }
                for bytes in self.written.iter_mut().filter(|b| !b.is_empty()) {
                    writer.append(name, bytes)?;
                    bytes.clear();
                }
                Ok::<(), Error>(())
            })?;
            std::mem::swap(&mut self.drawn, &mut self.written);
            if last {
                return Ok(());
            }
        }
    }
}
