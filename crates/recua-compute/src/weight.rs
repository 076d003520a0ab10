//! [`Weight`], matrices in the device's own layout; [`RawMatrix`] and [`Arrange`], what they are made from and how they are combined.

mod rows;

pub use rows::{RawRows, fill_shares};

use crate::buffer::DeviceId;
use crate::error::{Error, Result, argument};
use recua_gguf::{GgmlType, TensorData};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A matrix as raw GGML blocks, row by row, in memory or in a file, and a selection of its rows and columns, which at first is all of them.
#[derive(Clone, Debug)]
pub struct RawMatrix<'a> {
    /// The type of the blocks.
    pub ty: GgmlType,
    /// Rows of the whole matrix.
    pub n: usize,
    /// Columns of the whole matrix.
    pub k: usize,
    /// The blocks of the whole matrix.
    pub raw: TensorData<'a>,
    /// The selected rows.
    pub rows: Range<usize>,
    /// The selected columns: whole blocks.
    pub columns: Range<usize>,
}

impl<'a> RawMatrix<'a> {
    /// All of a matrix of `n` rows and `k` columns.
    pub fn new(ty: GgmlType, n: usize, k: usize, raw: impl Into<TensorData<'a>>) -> RawMatrix<'a> {
        RawMatrix { ty, n, k, raw: raw.into(), rows: 0..n, columns: 0..k }
    }

    /// The same matrix with other rows selected: a shard of its outputs.
    pub fn rows(self, rows: Range<usize>) -> RawMatrix<'a> {
        RawMatrix { rows, ..self }
    }

    /// The same matrix with other columns selected: a shard of its inputs.
    pub fn columns(self, columns: Range<usize>) -> RawMatrix<'a> {
        RawMatrix { columns, ..self }
    }

    /// The bytes of a row's selected columns; for a checked matrix.
    pub fn row_bytes(&self) -> usize {
        self.columns.len() / self.ty.block_values() * self.ty.block_bytes()
    }

    /// Fills `out`, which has room for whole rows, with the selected blocks of the selected rows from `first` on; for a checked matrix.
    fn read(&self, first: usize, out: &mut [u8]) -> Result<()> {
        let blocks_bytes = |columns: usize| columns / self.ty.block_values() * self.ty.block_bytes();
        let (whole_bytes, row_bytes) = (blocks_bytes(self.k), self.row_bytes());
        let start = (self.rows.start + first) * whole_bytes + blocks_bytes(self.columns.start);
        if row_bytes == whole_bytes {
            return self.raw.read(start, out).map_err(Error::File);
        }
        for (i, out) in out.chunks_exact_mut(row_bytes).enumerate() {
            self.raw.read(start + i * whole_bytes, out).map_err(Error::File)?;
        }
        Ok(())
    }

    /// Fails unless the blocks are exactly those of the whole matrix and the selection lies inside it.
    fn check(&self) -> Result<()> {
        let RawMatrix { ty, n, k, raw, rows, columns } = self;
        let (n, k, block) = (*n, *k, ty.block_values());
        let bytes = ty.row_bytes(k).and_then(|row| row.checked_mul(n));
        let problem = match bytes {
            _ if n == 0 || k == 0 => format!("{ty} cannot be [{n}, {k}]: blocks hold {block} values"),
            None => format!("{ty} cannot be [{n}, {k}]: blocks hold {block} values"),
            Some(bytes) if bytes != raw.len() => {
                format!("{ty}[{n}, {k}] takes {bytes} bytes, {} were given", raw.len())
            }
            _ if rows.start >= rows.end || rows.end > n => {
                format!("rows {rows:?} of {ty}[{n}, {k}]: at least one row of [0, {n}) is needed")
            }
            _ if columns.start >= columns.end || columns.end > k => {
                format!("columns {columns:?} of {ty}[{n}, {k}]: at least one block of [0, {k}) is needed")
            }
            _ if !columns.start.is_multiple_of(block) || !columns.end.is_multiple_of(block) => {
                let (start, end) = (columns.start / block * block, columns.end.next_multiple_of(block));
                format!(
                    "columns {columns:?} of {ty}[{n}, {k}] are not whole blocks of {block}; {start}..{end} would be"
                )
            }
            _ => return Ok(()),
        };
        Err(argument("upload_weight", problem))
    }
}

/// How the matrices of a weight are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrange {
    /// One after the other: a product has the outputs of the first matrix, then those of the second.
    Stacked,
    /// A gate and what it gates, with the same number of rows, for [`crate::MatmulGlu`]: side by side, in pieces that the device chooses.
    Interleaved,
}

/// One matrix of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightPart {
    /// The type of its blocks.
    pub ty: GgmlType,
    /// The number of its rows.
    pub n: usize,
}

/// Matrices of `k` columns that one product reads, checked and converted once by [`crate::Device::upload_weight`].
#[derive(Clone)]
pub struct Weight {
    storage: Arc<dyn Any + Send + Sync>,
    device: DeviceId,
    parts: Arc<[WeightPart]>,
    arrange: Arrange,
    k: usize,
    n_bytes: usize,
}

impl Weight {
    /// Wraps a device's own layout of `parts`, which `Device::upload_weight` has checked; for device crates. `n_bytes` is the size of the
    /// layout.
    pub fn from_storage(
        storage: Arc<dyn Any + Send + Sync>,
        device: DeviceId,
        parts: &[RawMatrix<'_>],
        arrange: Arrange,
        n_bytes: usize,
    ) -> Weight {
        let k = parts.first().map_or(0, |part| part.columns.len());
        let parts = parts.iter().map(|part| WeightPart { ty: part.ty, n: part.rows.len() }).collect();
        Weight { storage, device, parts, arrange, k, n_bytes }
    }

    /// Its matrices, of which there is at least one.
    pub fn parts(&self) -> &[WeightPart] {
        &self.parts
    }

    /// The GGML type of all its blocks; `None` if they are of several types.
    pub fn ggml_type(&self) -> Option<GgmlType> {
        let first = self.parts.first()?.ty;
        self.parts.iter().all(|part| part.ty == first).then_some(first)
    }

    /// How its matrices are combined.
    pub fn arrange(&self) -> Arrange {
        self.arrange
    }

    /// The number of rows of all its matrices together.
    pub fn n(&self) -> usize {
        self.parts.iter().map(|part| part.n).sum()
    }

    /// The number of columns: the length of each dot product.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Its size on the device in bytes.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The device it belongs to.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The layout as the device's own type.
    pub fn storage_as<T: Any>(&self) -> Option<&T> {
        self.storage.downcast_ref()
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = match self.arrange {
            Arrange::Stacked => " + ",
            Arrange::Interleaved => " | ",
        };
        let parts: Vec<String> =
            self.parts.iter().map(|part| format!("{}[{}, {}]", part.ty, part.n, self.k)).collect();
        match &parts[..] {
            [one] => f.write_str(one),
            several => write!(f, "({})", several.join(between)),
        }
    }
}

/// Fails unless `parts` can be one weight; `device` is the name of the device.
pub(crate) fn check_parts(parts: &[RawMatrix<'_>], arrange: Arrange, device: &str) -> Result<()> {
    let Some(first) = parts.first() else {
        return Err(argument("upload_weight", "there is no matrix: at least one is needed"));
    };
    let k = first.columns.len();
    let mut n = 0usize;
    for part in parts {
        part.check()?;
        if !part.ty.is_decodable() {
            return Err(Error::UnsupportedType { device: device.into(), ty: part.ty });
        }
        if part.columns.len() != k {
            let found = part.columns.len();
            let problem = format!(
                "matrices of {k} and of {found} columns: all matrices of a weight need the same number"
            );
            return Err(argument("upload_weight", problem));
        }
        let sum = n.checked_add(part.rows.len());
        n =
            sum.ok_or_else(|| argument("upload_weight", "the matrices have more rows than can be counted"))?;
    }
    match (arrange, parts) {
        (Arrange::Stacked, _) => Ok(()),
        (Arrange::Interleaved, [gate, up]) if gate.rows.len() == up.rows.len() => Ok(()),
        (Arrange::Interleaved, _) => {
            let rows: Vec<usize> = parts.iter().map(|part| part.rows.len()).collect();
            let problem = format!(
                "matrices of {rows:?} rows cannot be interleaved: two with the same number of rows can"
            );
            Err(argument("upload_weight", problem))
        }
    }
}
