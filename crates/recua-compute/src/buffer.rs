//! Memory on a device: [`Buffer`], typed, shaped and cheap to clone. A view is a range of elements, or some columns of a wider matrix.

use crate::error::{Result, argument};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The type of a buffer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DType {
    F32,
    F16,
    BF16,
    U8,
    U16,
    U32,
    I32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size_of(self) -> usize {
        match self {
            DType::F32 | DType::U32 | DType::I32 => 4,
            DType::F16 | DType::BF16 | DType::U16 => 2,
            DType::U8 => 1,
        }
    }

    /// The lower-case name, such as `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::I32 => "i32",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Identifies a device, so that a buffer of one is not used on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(u64);

impl DeviceId {
    /// A new identity; each device takes one when it is opened.
    pub fn unique() -> DeviceId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        DeviceId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A device's own allocation behind a [`Buffer`]. The device that made it downcasts it to its own type.
pub trait Storage: Any + Send + Sync {
    /// The size of the allocation.
    fn n_bytes(&self) -> usize;
}

/// A typed, shaped region of device memory. Cloning and viewing share the allocation.
#[derive(Clone)]
pub struct Buffer {
    storage: Arc<dyn Storage>,
    device: DeviceId,
    dtype: DType,
    shape: Vec<usize>,
    offset_bytes: usize,
    /// Elements from the start of a row to the start of the next.
    row_stride: usize,
}

impl Buffer {
    /// Wraps an allocation of `device`. Nothing else may use it with another element type: kernels rely on buffers of different types never
    /// overlapping. Fails unless the shape fits the allocation.
    pub(crate) fn from_storage(
        storage: Arc<dyn Storage>,
        device: DeviceId,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Buffer> {
        let row_stride = shape.last().copied().unwrap_or(1);
        let buffer = Buffer { storage, device, dtype, shape: shape.to_vec(), offset_bytes: 0, row_stride };
        match n_bytes(dtype, shape) {
            Some(n) if n <= buffer.storage.n_bytes() => Ok(buffer),
            _ => Err(argument(
                "from_storage",
                format!("{dtype}{shape:?} does not fit an allocation of {} bytes", buffer.storage.n_bytes()),
            )),
        }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first; elements along the last are adjacent.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of bytes of this view's elements.
    pub fn n_bytes(&self) -> usize {
        self.n_elements() * self.dtype.size_of()
    }

    /// Bytes from the first element to the end of the last: more than [`Buffer::n_bytes`] if other elements lie between the rows.
    pub fn span_bytes(&self) -> usize {
        match self.n_elements() {
            0 => 0,
            _ => ((self.n_rows() - 1) * self.row_stride + self.n_cols()) * self.dtype.size_of(),
        }
    }

    /// Elements from the start of a row to the start of the next: [`Buffer::n_cols`], unless this view is [`Buffer::columns`] of a wider
    /// matrix.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Whether the elements lie next to each other, without others between the rows.
    pub fn is_contiguous(&self) -> bool {
        self.row_stride == self.n_cols() || self.n_rows() <= 1
    }

    /// Where this view begins in its allocation.
    pub fn offset_bytes(&self) -> usize {
        self.offset_bytes
    }

    /// The device that the memory belongs to.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The allocation, for the device that made it.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The allocation as the device's own type; `None` for a buffer of another kind of device.
    pub fn storage_as<T: Storage>(&self) -> Option<&T> {
        (&*self.storage as &dyn Any).downcast_ref()
    }

    /// The number of rows of a matrix: the product of all dimensions but the last.
    pub fn n_rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// The length of the last dimension; 1 for a scalar.
    pub fn n_cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The elements from `first` on, as a view of `shape`.
    ///
    /// # Errors
    /// If `shape` does not fit into this view, or this view is columns of a wider matrix.
    pub fn view(&self, first: usize, shape: &[usize]) -> Result<Buffer> {
        if !self.is_contiguous() {
            return Err(argument(
                "view",
                format!("{self:?} are columns of a wider matrix: take its rows first"),
            ));
        }
        let fits = shape
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .and_then(|n| n.checked_add(first))
            .is_some_and(|end| end <= self.n_elements());
        if !fits {
            return Err(argument(
                "view",
                format!("{shape:?} from element {first} is outside {}{:?}", self.dtype, self.shape),
            ));
        }
        let row_stride = shape.last().copied().unwrap_or(1);
        Ok(self.at(first, shape.to_vec(), row_stride))
    }

    /// The first `n` entries of the outermost dimension.
    ///
    /// # Errors
    /// If there are fewer than `n`, or this view is a scalar.
    pub fn rows(&self, n: usize) -> Result<Buffer> {
        let mut shape = self.shape.clone();
        match shape.first_mut() {
            Some(outer) if n <= *outer => *outer = n,
            _ => return Err(argument("rows", format!("{n} rows of {}{:?}", self.dtype, self.shape))),
        }
        Ok(self.at(0, shape, self.row_stride))
    }

    /// Some rows of a matrix.
    ///
    /// # Errors
    /// If this view does not have two dimensions, or does not have these rows.
    pub fn row_range(&self, rows: Range<usize>) -> Result<Buffer> {
        match *self.shape {
            [n_rows, n_cols] if rows.start <= rows.end && rows.end <= n_rows => {
                Ok(self.at(rows.start * self.row_stride, vec![rows.len(), n_cols], self.row_stride))
            }
            _ => Err(argument("row_range", format!("rows {rows:?} of {self:?}"))),
        }
    }

    /// Some columns of a matrix: all its rows, still [`Buffer::row_stride`] elements apart.
    ///
    /// # Errors
    /// If this view does not have two dimensions, or does not have these columns.
    pub fn columns(&self, columns: Range<usize>) -> Result<Buffer> {
        match *self.shape {
            [n_rows, n_cols] if columns.start <= columns.end && columns.end <= n_cols => {
                Ok(self.at(columns.start, vec![n_rows, columns.len()], self.row_stride))
            }
            _ => Err(argument("columns", format!("columns {columns:?} of {self:?}"))),
        }
    }

    /// A view that begins at element `first` of this one; the caller has checked that it ends inside.
    fn at(&self, first: usize, shape: Vec<usize>, row_stride: usize) -> Buffer {
        Buffer {
            storage: self.storage.clone(),
            device: self.device,
            dtype: self.dtype,
            shape,
            offset_bytes: self.offset_bytes + first * self.dtype.size_of(),
            row_stride,
        }
    }

    /// Fails unless `n_bytes` fit into this view, which must be contiguous, and its elements have `element` bytes; an `element` of 1, raw
    /// bytes, fits every type.
    pub(crate) fn check_bytes(&self, op: &'static str, n_bytes: usize, element: usize) -> Result<()> {
        if element != self.dtype.size_of() && element != 1 {
            return Err(argument(op, format!("elements of {element} bytes for {self:?}")));
        }
        if !self.is_contiguous() {
            let problem = format!("{self:?} are columns of a wider matrix; all of its rows would do");
            return Err(argument(op, problem));
        }
        if n_bytes > self.n_bytes() {
            return Err(argument(op, format!("{n_bytes} bytes do not fit {self:?}")));
        }
        Ok(())
    }

    /// Whether two views share at least one byte. Different columns of one matrix do not.
    pub fn overlaps(&self, other: &Buffer) -> bool {
        if !Arc::ptr_eq(&self.storage, &other.storage) {
            return false;
        }
        let (Some(a), Some(b)) = (Runs::of(self), Runs::of(other)) else { return false };
        match (a.count, b.count) {
            (1, _) => Runs { stride: b.stride, ..a }.meets(&b),
            (_, 1) => a.meets(&Runs { stride: a.stride, ..b }),
            _ if a.stride == b.stride => a.meets(&b),
            _ => (0..a.count)
                .any(|i| Runs { start: a.start + i * a.stride, count: 1, stride: b.stride, ..a }.meets(&b)),
        }
    }

    /// Whether two views consist of the same bytes, row by row.
    pub fn is_same(&self, other: &Buffer) -> bool {
        let has_same_rows = || self.row_stride == other.row_stride && self.n_cols() == other.n_cols();
        Arc::ptr_eq(&self.storage, &other.storage)
            && self.offset_bytes == other.offset_bytes
            && self.n_bytes() == other.n_bytes()
            && (self.is_contiguous() && other.is_contiguous() || has_same_rows())
    }
}

/// The bytes of a view: `count` runs of `len` bytes, `stride` bytes from the start of one to the start of the next.
#[derive(Clone, Copy)]
struct Runs {
    start: usize,
    len: usize,
    count: usize,
    stride: usize,
}

impl Runs {
    /// `None` for a view without elements.
    fn of(buffer: &Buffer) -> Option<Runs> {
        let (start, size) = (buffer.offset_bytes, buffer.dtype.size_of());
        match buffer.n_bytes() {
            0 => None,
            len if buffer.is_contiguous() => Some(Runs { start, len, count: 1, stride: len }),
            _ => Some(Runs {
                start,
                len: buffer.n_cols() * size,
                count: buffer.n_rows(),
                stride: buffer.row_stride * size,
            }),
        }
    }

    /// Whether these runs share a byte with others of the same stride, which is at least one byte.
    fn meets(&self, other: &Runs) -> bool {
        // Run i of these and run j of the others meet if b - a - a_len < (i - j) * stride < b - a + b_len. Allocations are far too small
        // for these numbers to overflow an i128.
        let [a, b, a_len, b_len, stride] =
            [self.start, other.start, self.len, other.len, self.stride].map(|n| n as i128);
        let (lowest, highest) = (-(other.count as i128 - 1), self.count as i128 - 1);
        // The smallest i - j above the lower bound.
        let strides = (b - a - a_len).div_euclid(stride) + 1;
        let strides = strides.max(lowest);
        strides <= highest && strides * stride < b - a + b_len
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Bytes of `shape` elements; `None` on overflow.
pub(crate) fn n_bytes(dtype: DType, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size_of(), |n, &d| n.checked_mul(d))
}
