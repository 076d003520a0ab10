//! [`Tensor`]: the result of a forward pass.

use std::fmt;

/// A matrix of f32 in host memory, row-major. Logits have one row per token and one column per vocabulary entry.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    // [rows, columns]
    shape: [usize; 2],
    data: Vec<f32>,
}

impl Tensor {
    /// `data` has `n_rows * n_cols` elements.
    pub(crate) fn new(n_rows: usize, n_cols: usize, data: Vec<f32>) -> Tensor {
        assert_eq!(data.len(), n_rows * n_cols, "a tensor's data has the size of its shape");
        Tensor { shape: [n_rows, n_cols], data }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The number of rows.
    pub fn n_rows(&self) -> usize {
        self.shape[0]
    }

    /// The number of columns.
    pub fn n_cols(&self) -> usize {
        self.shape[1]
    }

    /// All elements, row after row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All elements, row after row, without a copy.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Row `i`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.shape[1]..(i + 1) * self.shape[1]]
    }

    /// The last row: the logits for the token after the sequence. Empty if there are no rows.
    pub fn last_row(&self) -> &[f32] {
        self.data.rchunks_exact(self.shape[1].max(1)).next().unwrap_or_default()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}
