//! Lists of work that can be encoded in parts: the products of the first experiment, or the ops of a real step.

use std::ops::Range;

use recua::Device;
use recua::compute::hazards::{Hazards, reads, writes};
use recua::compute::{
    Arrange, Buffer, Commands, DType, Error, Op, Plan, QuantizedMatmulParams, RawMatrix, Record, Result,
    Weight,
};
use recua::gguf::{GgmlType, Random, encode};
use serde::Serialize;

use super::args::{Dependency, EncodingArgs};

/// One list, and its results.
pub(super) struct Work {
    pub(super) about: About,
    pub(super) list: List,
    /// f32; compared between the variants.
    pub(super) outputs: Vec<Buffer>,
}

/// The report's description of a list.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct About {
    /// `independent`, `chained`, or `step` and the shape.
    pub(super) name: String,
    pub(super) description: String,
    pub(super) n_ops: usize,
    /// Groups of ops that could run side by side; the groups run one after the other.
    pub(super) n_groups: usize,
    /// Bytes of weights on the device that the list uses.
    pub(super) weight_bytes: u64,
}

/// The work to encode.
pub(super) enum List {
    /// Through [`recua::compute::CommandEncoder::quantized_matmul`].
    Products(Vec<Product>),
    /// Through [`Record::push`].
    Ops(Plan),
}

/// One `y = x · wᵀ`.
pub(super) struct Product {
    x: Buffer,
    w: Weight,
    y: Buffer,
    params: QuantizedMatmulParams,
}

impl List {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Products(products) => products.len(),
            Self::Ops(plan) => plan.ops().len(),
        }
    }

    /// Part `i` of `n` parts of about the same length.
    pub(super) fn part(&self, i: usize, n: usize) -> Range<usize> {
        self.len() * i / n..self.len() * (i + 1) / n
    }

    /// Encodes a part, on the calling thread.
    pub(super) fn encode(&self, device: &Device, range: Range<usize>) -> Result<Commands> {
        let mut encoder = device.command_encoder()?;
        match self {
            Self::Products(products) => {
                for Product { x, w, y, params } in &products[range] {
                    encoder.quantized_matmul(x, w, y, params)?;
                }
            }
            Self::Ops(plan) => {
                for op in &plan.ops()[range] {
                    encoder.push(Op::clone(op))?;
                }
            }
        }
        encoder.finish()
    }

    fn n_groups(&self) -> usize {
        let mut hazards = Hazards::new();
        match self {
            Self::Products(products) => {
                products.iter().for_each(|p| _ = hazards.add(&[&p.x], &[&p.y]));
            }
            Self::Ops(plan) => plan.ops().iter().for_each(|op| _ = hazards.add(&reads(op), &writes(op))),
        }
        hazards.groups().len()
    }
}

impl Work {
    /// The ops of a step.
    pub(super) fn step(mut about: About, plan: Plan, outputs: Vec<Buffer>) -> Self {
        let list = List::Ops(plan);
        (about.n_ops, about.n_groups) = (list.len(), list.n_groups());
        Self { about, list, outputs }
    }
}

/// The weights of the products: one per product, used by both variants.
pub(super) fn product_weights(device: &Device, args: &EncodingArgs) -> Result<Vec<Weight>> {
    let mut random = Random::new(1);
    // Scaled so that values neither grow nor shrink along a chain.
    let std = (args.k as f32).powf(-0.5);
    (0..args.ops).map(|_| weight(device, &mut random, args.ggml_type, args.n, args.k, std)).collect()
}

/// The bytes of a matrix, or why no matrix can have this shape.
pub(super) fn n_bytes(ty: GgmlType, n: usize, k: usize) -> std::result::Result<usize, String> {
    let block = ty.block_values();
    let row =
        ty.row_bytes(k).ok_or_else(|| format!("k = {k} is not a multiple of {block}, as {ty} needs"))?;
    row.checked_mul(n).ok_or_else(|| format!("a matrix of {n} times {k} is too large"))
}

fn normal(random: &mut Random, n: usize, std: f32) -> Vec<f32> {
    (0..n).map(|_| random.normal() * std).collect()
}

/// A matrix of `n` rows and `k` columns whose values have a standard deviation of `std`. The values repeat after a while, because encoding
/// gigabytes takes minutes.
pub(super) fn weight(
    device: &Device,
    random: &mut Random,
    ty: GgmlType,
    n: usize,
    k: usize,
    std: f32,
) -> Result<Weight> {
    /// A whole number of blocks of every type.
    const PERIOD_VALUES: usize = 1 << 17;
    let argument = |problem| Error::Argument { op: "weight", problem };
    let n_bytes = n_bytes(ty, n, k).map_err(argument)?;
    let mut raw = Vec::new();
    encode(ty, &normal(random, PERIOD_VALUES, std), &mut raw).map_err(|e| argument(e.to_string()))?;
    let period = raw.len();
    raw.try_reserve_exact(n_bytes.saturating_sub(period)).map_err(|_| Error::OutOfMemory {
        device: "host".into(),
        what: format!("a weight {ty}[{n}, {k}]"),
        requested_bytes: n_bytes,
    })?;
    while raw.len() < n_bytes {
        raw.extend_from_within(..period.min(n_bytes - raw.len()));
    }
    device.upload_weight(&[RawMatrix::new(ty, n, k, &raw[..n_bytes])], Arrange::Stacked)
}

/// Products with their own inputs, or each with the output of the one before as its input.
pub(super) fn products(
    device: &Device,
    args: &EncodingArgs,
    weights: &[Weight],
    dependency: Dependency,
) -> Result<Work> {
    let EncodingArgs { m, n, k, ggml_type, .. } = *args;
    let params = QuantizedMatmulParams { m, n, k, ggml_type };
    let mut random = Random::new(1);
    let mut list: Vec<Product> = Vec::new();
    for w in weights {
        let x = match list.last() {
            Some(before) if dependency == Dependency::Chained => before.y.clone(),
            _ => device.upload(&normal(&mut random, m * k, 1.0), DType::F32, &[m, k])?,
        };
        let y = device.alloc(DType::F32, &[m, n])?;
        list.push(Product { x, w: w.clone(), y, params });
    }
    let outputs = list.iter().map(|product| product.y.clone()).collect();
    let list = List::Products(list);
    let about = About {
        name: dependency.name().to_owned(),
        description: format!("{} products of {ggml_type}, m = {m}, n = {n}, k = {k}", weights.len()),
        n_ops: list.len(),
        n_groups: list.n_groups(),
        weight_bytes: weights.iter().map(|w| w.n_bytes() as u64).sum(),
    };
    Ok(Work { about, list, outputs })
}
