//! One line of the tensor directory, already checked against the file.

use crate::format::GgmlType;

/// Most dimensions a tensor can have.
pub(crate) const DIMS_MAX: usize = 4;

/// A tensor's name, type and shape. Its bytes come from [`Gguf::data`](crate::Gguf::data).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name in the file, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// How the values are stored.
    pub ty: GgmlType,
    pub(crate) n_dims: u8,
    pub(crate) part: u16,
    pub(crate) dims: [u64; DIMS_MAX],
    // Range in the part's file.
    pub(crate) start: usize,
    pub(crate) n_bytes: usize,
}

impl TensorInfo {
    /// The shape in ggml's order, 1 to 4 numbers of at least 1: `dims()[0]` is contiguous in memory. A matrix
    /// that maps `k` inputs to `n` outputs is `[k, n]`.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..self.n_dims as usize]
    }

    /// Values in a row: `dims()[0]`.
    pub fn cols(&self) -> usize {
        self.dims[0] as usize
    }

    /// Rows: the product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        self.dims[1..].iter().product::<u64>() as usize
    }

    /// Number of values.
    pub fn n_elements(&self) -> usize {
        self.cols() * self.rows()
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.cols() / self.ty.block_values() * self.ty.block_bytes()
    }

    /// Size in bytes: `rows() * row_bytes()`.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// The elements and bytes of a tensor, or the reason why no tensor can have this shape.
pub(crate) fn check_shape(ty: GgmlType, dims: &[u64]) -> Result<(usize, usize), String> {
    if dims.is_empty() || dims.len() > DIMS_MAX {
        return Err(format!("has {} dimensions; a tensor has 1 to {DIMS_MAX}", dims.len()));
    }
    if let Some(i) = dims.iter().position(|d| *d == 0) {
        return Err(format!("dimension {i} is 0; every dimension is at least 1"));
    }
    let too_large = || format!("dimensions {dims:?} overflow the size of any file");
    // ggml counts elements in an i64, so a larger product could not be read elsewhere either.
    let n =
        dims.iter().try_fold(1i64, |n, d| n.checked_mul(i64::try_from(*d).ok()?)).ok_or_else(too_large)?;
    let n = usize::try_from(n).map_err(|_| too_large())?;
    if !dims[0].is_multiple_of(ty.block_values() as u64) {
        return Err(format!(
            "rows of {} values are not a whole number of {ty} blocks of {}",
            dims[0],
            ty.block_values()
        ));
    }
    let n_bytes = (n / ty.block_values()).checked_mul(ty.block_bytes()).ok_or_else(too_large)?;
    Ok((n, n_bytes))
}
