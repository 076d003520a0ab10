//! The tensors of a model: those that a file must hold, and their upload. Fields have the names of the GGUF tensors.

use super::loaded::LoadProgress;
use super::params::{ModelParams, OUTPUT, ROPE_FREQS, RopeScaling, TOKEN_EMBD};
use crate::error::{Error, Result, SMALLER_CACHE, SMALLER_WEIGHTS};
use recua_compute::{Arrange, Buffer, DType, Device, Matmul, RawMatrix, Weight};
use recua_gguf::{Gguf, TensorInfo, decode, shorten};
use std::collections::HashSet;

const OUTPUT_NORM: &str = "output_norm.weight";

/// The weights on the device.
pub(crate) struct Weights {
    // [vocab, n_embd]
    pub(crate) token_embd: Weight,
    pub(crate) layers: Vec<Layer>,
    // f32 [n_embd]
    pub(crate) output_norm: Buffer,
    // [vocab, n_embd]; token_embd in a tied model
    pub(crate) output: Weight,
}

/// The weights of one layer. `q_dim` is `n_heads * head_dim`, `kv_dim` is `n_kv_heads * head_dim`.
pub(crate) struct Layer {
    // f32 [n_embd]
    pub(crate) attn_norm: Buffer,
    // attn_q, attn_k, attn_v: [q_dim + 2 * kv_dim, n_embd]
    pub(crate) attn_qkv: Linear,
    // f32 [head_dim] each
    pub(crate) head_norm: Option<(Buffer, Buffer)>,
    // [n_embd, q_dim]
    pub(crate) attn_output: Linear,
    // f32 [n_embd]
    pub(crate) ffn_norm: Buffer,
    // ffn_gate and ffn_up: [n_ff, n_embd] each, interleaved
    pub(crate) ffn_gate_up: Weight,
    // [n_embd, n_ff]
    pub(crate) ffn_down: Linear,
}

/// A matrix, or several that share their input, and an optional bias.
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    // f32 [n]
    pub(crate) bias: Option<Buffer>,
}

impl Linear {
    /// The product of `x` and this matrix.
    pub(crate) fn matmul(&self, x: &Buffer, out: &Buffer) -> Matmul {
        Matmul::new(x, &self.weight, out).with_bias(self.bias.as_ref())
    }
}

/// A tensor that a file must or may hold. A vector has one dimension.
struct Spec {
    name: String,
    // [n] or [rows, columns]
    shape: Vec<usize>,
    is_optional: bool,
}

/// The tensors outside the layers.
fn model_specs(p: &ModelParams) -> Vec<Spec> {
    let spec = |name: &str, shape: &[usize], is_optional| Spec {
        name: name.into(),
        shape: shape.to_vec(),
        is_optional,
    };
    vec![
        spec(TOKEN_EMBD, &[p.vocab, p.n_embd], false),
        spec(OUTPUT_NORM, &[p.n_embd], false),
        spec(OUTPUT, &[p.vocab, p.n_embd], true),
        spec(ROPE_FREQS, &[p.rope.n_rot / 2], true),
    ]
}

/// The tensors of layer `i`.
fn layer_specs(p: &ModelParams, i: usize) -> Vec<Spec> {
    let (q_dim, kv_dim) = (p.q_dim(), p.kv_dim());
    let mut specs = Vec::new();
    let mut push = |name: &str, shape: &[usize], is_optional| {
        specs.push(Spec { name: layer_name(i, name), shape: shape.to_vec(), is_optional });
    };
    push("attn_norm.weight", &[p.n_embd], false);
    for (name, n, k) in [
        ("attn_q", q_dim, p.n_embd),
        ("attn_k", kv_dim, p.n_embd),
        ("attn_v", kv_dim, p.n_embd),
        ("attn_output", p.n_embd, q_dim),
        ("ffn_down", p.n_embd, p.n_ff),
    ] {
        push(&format!("{name}.weight"), &[n, k], false);
        push(&format!("{name}.bias"), &[n], true);
    }
    if p.architecture.has_head_norm() {
        push("attn_q_norm.weight", &[p.head_dim], false);
        push("attn_k_norm.weight", &[p.head_dim], false);
    }
    push("ffn_norm.weight", &[p.n_embd], false);
    push("ffn_gate.weight", &[p.n_ff, p.n_embd], false);
    push("ffn_up.weight", &[p.n_ff, p.n_embd], false);
    specs
}

fn layer_name(i: usize, name: &str) -> String {
    format!("blk.{i}.{name}")
}

/// Compares the file's tensors with those that `params` requires: none may be missing, have another shape, or be left over. An unknown
/// tensor is refused, because the result would lack its effect.
pub(crate) fn check(gguf: &Gguf, params: &ModelParams) -> Result<()> {
    let n_tensors = gguf.tensors().len();
    if params.n_layers > n_tensors {
        let problem = format!("is {}, but the file has {n_tensors} tensors in all", params.n_layers);
        return Err(Error::Key { key: format!("{}.block_count", params.architecture), problem });
    }
    let mut known = HashSet::new();
    let layers = (0..params.n_layers).flat_map(|i| layer_specs(params, i));
    for spec in model_specs(params).into_iter().chain(layers) {
        match gguf.tensor(&spec.name) {
            Some(tensor) => check_tensor(tensor, &spec)?,
            None if spec.is_optional => {}
            None => return Err(Error::MissingTensor { name: spec.name }),
        }
        known.insert(spec.name);
    }
    match gguf.tensors().iter().find(|t| !known.contains(&t.name)) {
        Some(tensor) => {
            let problem = format!("is not a known part of a {} model", params.architecture);
            Err(Error::Tensor { name: shorten(&tensor.name), problem })
        }
        None => Ok(()),
    }
}

fn check_tensor(tensor: &TensorInfo, spec: &Spec) -> Result<()> {
    let found: Vec<u64> = tensor.dims().iter().rev().copied().collect();
    // A vector may be stored as a matrix of one row.
    let bare = found.iter().position(|d| *d != 1).unwrap_or(found.len().saturating_sub(1));
    let expected: Vec<u64> = spec.shape.iter().map(|d| *d as u64).collect();
    if found == expected || (expected.len() == 1 && found[bare..] == expected[..]) {
        if !tensor.ty.is_decodable() {
            let problem = format!("is of type {}, which is not supported", tensor.ty);
            return Err(Error::Tensor { name: shorten(&tensor.name), problem });
        }
        return Ok(());
    }
    // As the file has them.
    let expected = expected.into_iter().rev().collect();
    Err(Error::TensorShape { name: shorten(&tensor.name), found: tensor.dims().to_vec(), expected })
}

/// The file's tensors during the upload; [`check`] has passed.
struct Loader<'a> {
    gguf: &'a Gguf,
    device: &'a Device,
}

impl Loader<'_> {
    fn find(&self, name: &str) -> Result<&TensorInfo> {
        self.gguf.tensor(name).ok_or_else(|| Error::MissingTensor { name: name.into() })
    }

    fn raw(&self, name: &str) -> Result<RawMatrix<'_>> {
        let tensor = self.find(name)?;
        Ok(RawMatrix::new(tensor.ty, tensor.rows(), tensor.cols(), self.gguf.data(tensor)))
    }

    /// One weight from the tensors of these names.
    fn matrices(&self, names: &[String], arrange: Arrange) -> Result<Weight> {
        let parts = names.iter().map(|name| self.raw(name)).collect::<Result<Vec<_>>>()?;
        self.device.upload_weight(&parts, arrange).map_err(|source| match (source, names) {
            // One of several may have a type that the device does not support.
            (source @ recua_compute::Error::UnsupportedType { ty, .. }, names) => {
                let at = parts.iter().position(|part| part.ty == ty).unwrap_or(0);
                self.refused(&names[at], source)
            }
            (source, names) => self.refused(&names.join(", "), source),
        })
    }

    fn matrix(&self, name: &str) -> Result<Weight> {
        self.matrices(&[name.to_string()], Arrange::Stacked)
    }

    /// A decoded vector on the device: norms and biases are a thousandth of the bytes.
    fn vector(&self, name: &str) -> Result<Buffer> {
        let values = host_vector(self.gguf, self.find(name)?)?;
        self.device.upload(&values, DType::F32, &[values.len()]).map_err(|source| self.refused(name, source))
    }

    /// The device's refusal of a tensor. The cache is already allocated: if the device has held as many bytes as all tensors have, a smaller
    /// cache makes room.
    fn refused(&self, name: &str, source: recua_compute::Error) -> Error {
        match source {
            recua_compute::Error::OutOfMemory { .. } => {
                let weights_bytes: u64 = self.gguf.tensors().iter().map(|t| t.n_bytes() as u64).sum();
                let fits = weights_bytes <= self.device.allocated_bytes();
                let advice = if fits { SMALLER_CACHE } else { SMALLER_WEIGHTS };
                Error::Allocation { what: format!("tensor {name:?}"), advice, source }
            }
            recua_compute::Error::File(source) => Error::Gguf(source),
            source => Error::Weight { name: name.into(), source },
        }
    }

    fn linear(&self, names: &[String]) -> Result<Linear> {
        let weights: Vec<String> = names.iter().map(|name| format!("{name}.weight")).collect();
        let weight = self.matrices(&weights, Arrange::Stacked)?;
        let biases: Vec<_> = names.iter().map(|name| self.gguf.tensor(&format!("{name}.bias"))).collect();
        if biases.iter().all(Option::is_none) {
            return Ok(Linear { weight, bias: None });
        }
        let mut values = Vec::new();
        for (bias, part) in biases.into_iter().zip(weight.parts()) {
            match bias {
                Some(tensor) => values.extend(host_vector(self.gguf, tensor)?),
                // A matrix without a bias adds nothing to its product.
                None => values.extend(std::iter::repeat_n(0.0, part.n)),
            }
        }
        let bias = self.device.upload(&values, DType::F32, &[values.len()]);
        let bias = bias.map_err(|source| self.refused(&format!("{}.bias", names.join(".bias, ")), source))?;
        Ok(Linear { weight, bias: Some(bias) })
    }

    fn layer(&self, p: &ModelParams, i: usize) -> Result<Layer> {
        let name = |name| layer_name(i, name);
        let head_norm = if p.architecture.has_head_norm() {
            let q = self.vector(&name("attn_q_norm.weight"))?;
            Some((q, self.vector(&name("attn_k_norm.weight"))?))
        } else {
            None
        };
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm.weight"))?,
            attn_qkv: self.linear(&["attn_q", "attn_k", "attn_v"].map(name))?,
            head_norm,
            attn_output: self.linear(&[name("attn_output")])?,
            ffn_norm: self.vector(&name("ffn_norm.weight"))?,
            ffn_gate_up: self
                .matrices(&["ffn_gate.weight", "ffn_up.weight"].map(name), Arrange::Interleaved)?,
            ffn_down: self.linear(&[name("ffn_down")])?,
        })
    }
}

impl Weights {
    /// Uploads every tensor. `params` must come from this file. `progress` is told before each layer.
    pub(crate) fn load(
        gguf: &Gguf,
        device: &Device,
        params: &ModelParams,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Weights> {
        let loader = Loader { gguf, device };
        let bytes = |specs: Vec<Spec>| {
            let tensors = specs.iter().filter_map(|spec| gguf.tensor(&spec.name));
            tensors.fold(0u64, |n, tensor| n.saturating_add(tensor.n_bytes() as u64))
        };
        let all = gguf.tensors().iter().fold(0u64, |n, tensor| n.saturating_add(tensor.n_bytes() as u64));
        let mut done = 0;
        progress(LoadProgress::Uploading { done, all });
        let token_embd = loader.matrix(TOKEN_EMBD)?;
        let output = if params.tied { token_embd.clone() } else { loader.matrix(OUTPUT)? };
        done += bytes(model_specs(params));
        let mut layers = Vec::new();
        for i in 0..params.n_layers {
            progress(LoadProgress::Uploading { done, all });
            layers.push(loader.layer(params, i)?);
            done += bytes(layer_specs(params, i));
        }
        Ok(Weights { token_embd, layers, output_norm: loader.vector(OUTPUT_NORM)?, output })
    }

    /// Bytes that one pass reads: everything but the embedding, of which it reads only single rows, unless that is also the output matrix.
    pub(crate) fn step_bytes(&self) -> u64 {
        let layers: usize = self.layers.iter().map(Layer::n_bytes).sum();
        (layers + self.output_norm.n_bytes() + self.output.n_bytes()) as u64
    }

    /// Bytes on the device.
    pub(crate) fn n_bytes(&self, params: &ModelParams) -> u64 {
        self.step_bytes() + if params.tied { 0 } else { self.token_embd.n_bytes() as u64 }
    }
}

impl Layer {
    fn n_bytes(&self) -> usize {
        let linears = [&self.attn_qkv, &self.attn_output, &self.ffn_down];
        let norms = self.head_norm.iter().flat_map(|(q, k)| [q, k]);
        let vectors = norms.chain([&self.attn_norm, &self.ffn_norm]);
        linears.map(|l| l.weight.n_bytes() + l.bias.as_ref().map_or(0, Buffer::n_bytes)).iter().sum::<usize>()
            + vectors.map(Buffer::n_bytes).sum::<usize>()
            + self.ffn_gate_up.n_bytes()
    }
}

/// The values of a small tensor.
fn host_vector(gguf: &Gguf, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let n = tensor.n_elements();
    let mut values = Vec::new();
    values.try_reserve_exact(n).map_err(|_| Error::HostMemory { what: "a vector", bytes: n * 4 })?;
    values.resize(n, 0.0);
    decode(tensor.ty, &gguf.data(tensor).to_vec()?, &mut values)?;
    Ok(values)
}

/// The divisor of each pair's frequency; empty if there is none.
pub(crate) fn rope_divisors(gguf: &Gguf, params: &ModelParams) -> Result<Vec<f32>> {
    let Some(tensor) = gguf.tensor(ROPE_FREQS).filter(|_| params.rope.scaling == RopeScaling::Llama3) else {
        return Ok(Vec::new());
    };
    let values = host_vector(gguf, tensor)?;
    match values.iter().position(|v| !(v.is_finite() && *v > 0.0)) {
        Some(i) => {
            let problem = format!("entry {i} is {}; a positive number is needed", values[i]);
            Err(Error::Tensor { name: ROPE_FREQS.into(), problem })
        }
        None => Ok(values),
    }
}
