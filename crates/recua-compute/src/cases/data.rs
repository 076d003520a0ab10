//! Seeded data: numbers, blocks of every type, uploads. The tests of every crate take their blocks from here, so that only one place says
//! where a format has its scales.

use crate::buffer::{Buffer, DType};
use crate::device::Device;
use crate::error::{Result, argument};
use crate::weight::{Arrange, RawMatrix, Weight};
use half::f16;
use recua_gguf::GgmlType;

pub use recua_gguf::Random;

/// `n` values in [-1, 1).
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    Random::new(seed).f32s(n)
}

/// Every type whose blocks can be decoded.
pub fn types() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable())
}

/// A matrix of a weight: its blocks and its values.
pub(super) struct Matrix {
    pub(super) ty: GgmlType,
    raw: Vec<u8>,
    /// `[n, k]`
    pub(super) values: Vec<f32>,
    pub(super) n: usize,
    pub(super) k: usize,
}

impl Matrix {
    /// Blocks with every bit pattern of codes and inner scales, their values within about [-2, 2].
    pub(super) fn random(ty: GgmlType, n: usize, k: usize, seed: u64) -> Result<Matrix> {
        let raw = blocks(ty, n * k, seed)?;
        let mut values = vec![0.0; n * k];
        recua_gguf::decode(ty, &raw, &mut values).map_err(|e| argument("decode", e.to_string()))?;
        Ok(Matrix { ty, raw, values, n, k })
    }

    /// All of it, for an upload.
    pub(super) fn raw(&self) -> RawMatrix<'_> {
        RawMatrix::new(self.ty, self.n, self.k, &self.raw)
    }

    /// A weight of this matrix alone.
    pub(super) fn upload(&self, device: &Device) -> Result<Weight> {
        device.upload_weight(&[self.raw()], Arrange::Stacked)
    }

    pub(super) fn row(&self, n: usize) -> &[f32] {
        &self.values[n * self.k..][..self.k]
    }
}

/// Where a block has its f16 scales, and the largest value that they are multiplied with.
fn scales(ty: GgmlType) -> Option<(&'static [usize], f32)> {
    Some(match ty {
        GgmlType::Q4_0 => (&[0], 8.0),
        GgmlType::Q4_1 => (&[0, 2], 15.0),
        GgmlType::Q5_0 => (&[0], 16.0),
        GgmlType::Q5_1 => (&[0, 2], 31.0),
        GgmlType::Q8_0 => (&[0], 127.0),
        GgmlType::Q2_K => (&[80, 82], 45.0),
        GgmlType::Q3_K => (&[108], 128.0),
        GgmlType::Q4_K => (&[0, 2], 945.0),
        GgmlType::Q5_K => (&[0, 2], 1953.0),
        GgmlType::Q6_K => (&[208], 4096.0),
        GgmlType::IQ4_NL => (&[0], 127.0),
        GgmlType::IQ4_XS => (&[0], 4064.0),
        _ => return None,
    })
}

/// Interleaves a gate and an up matrix.
pub(super) fn upload_glu(device: &Device, gate: &Matrix, up: &Matrix) -> Result<Weight> {
    device.upload_weight(&[gate.raw(), up.raw()], Arrange::Interleaved)
}

/// The blocks of `n_values` values of `ty`: every bit pattern of codes and inner scales, values within about [-2, 2].
///
/// # Errors
/// If `ty` cannot be decoded, or `scales` does not know it.
pub fn blocks(ty: GgmlType, n_values: usize, seed: u64) -> Result<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut raw = vec![0; n_values / ty.block_values() * ty.block_bytes()];
    random.fill(&mut raw);
    if let Some((places, largest)) = scales(ty) {
        for block in raw.chunks_exact_mut(ty.block_bytes()) {
            for &place in places {
                let scale = f16::from_f32((1.25 + 0.75 * random.f32()) / largest);
                let scale = if random.below(4) == 0 { -scale } else { scale };
                block[place..place + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
    } else if ty == GgmlType::MXFP4 {
        for block in raw.chunks_exact_mut(ty.block_bytes()) {
            // A power of two: 2^(e - 128) times up to 12.
            block[0] = 122 + random.below(4) as u8;
        }
    } else if ty.is_encodable() {
        raw.clear();
        recua_gguf::encode(ty, &random.f32s(n_values), &mut raw)
            .map_err(|e| argument("encode", e.to_string()))?;
    } else {
        return Err(argument("cases", format!("no data for {ty}: say where its scales are")));
    }
    Ok(raw)
}

pub(super) fn upload_f32(device: &Device, values: &[f32], shape: &[usize]) -> Result<Buffer> {
    device.upload(values, DType::F32, shape)
}

pub(super) fn upload_u32(device: &Device, values: &[u32], shape: &[usize]) -> Result<Buffer> {
    device.upload(values, DType::U32, shape)
}

/// A buffer of NaN, so that a test finds elements that a kernel forgets to write.
pub(super) fn output(device: &Device, shape: &[usize]) -> Result<Buffer> {
    upload_f32(device, &vec![f32::NAN; shape.iter().product()], shape)
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

pub(super) fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}
