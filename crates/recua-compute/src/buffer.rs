//! Memory on a device: [`Buffer`], typed, shaped, cheap to clone. A view is a run of elements, or some columns of a wider matrix.

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

/// Tells devices apart, so that a buffer of one is not handed to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(u64);

impl DeviceId {
    /// A new identity; a device takes one when it is opened.
    pub fn unique() -> DeviceId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        DeviceId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A device's own allocation behind a [`Buffer`]. The device that made it downcasts it.
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
    /// Wraps an allocation of `device`. Nobody may hold it as another type: kernels rely on it that buffers of two types never
    /// overlap. Fails unless the shape fits the allocation.
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

    /// The dimensions, outermost first; elements of the last one follow each other.
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

    /// Bytes from the first element to the end of the last: more than [`Buffer::n_bytes`] if there are others between the rows.
    pub fn span_bytes(&self) -> usize {
        match self.n_elements() {
            0 => 0,
            _ => ((self.n_rows() - 1) * self.row_stride + self.n_cols()) * self.dtype.size_of(),
        }
    }

    /// Elements from the start of a row to the start of the next: [`Buffer::n_cols`], unless this is some [`Buffer::columns`] of a
    /// wider matrix.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Whether nothing lies between the elements.
    pub fn is_contiguous(&self) -> bool {
        self.row_stride == self.n_cols() || self.n_rows() <= 1
    }

    /// Where this view begins in its allocation.
    pub fn offset_bytes(&self) -> usize {
        self.offset_bytes
    }

    /// The device the memory belongs to.
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

    /// The rows of a matrix (all dimensions but the last, multiplied).
    pub fn n_rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// The length of the last dimension; 1 for a scalar.
    pub fn n_cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The same bytes from `first` elements on, seen as `shape`.
    ///
    /// # Errors
    /// If `shape` reaches outside this view, or elements of others lie between this view's rows.
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
    /// If there are fewer than `n`, or this is a scalar.
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
    /// If this has not two dimensions, or not these rows.
    pub fn row_range(&self, rows: Range<usize>) -> Result<Buffer> {
        match *self.shape {
            [n_rows, n_cols] if rows.start <= rows.end && rows.end <= n_rows => {
                Ok(self.at(rows.start * self.row_stride, vec![rows.len(), n_cols], self.row_stride))
            }
            _ => Err(argument("row_range", format!("rows {rows:?} of {self:?}"))),
        }
    }

    /// Some columns of a matrix: all its rows, [`Buffer::row_stride`] elements apart as before.
    ///
    /// # Errors
    /// If this has not two dimensions, or not these columns.
    pub fn columns(&self, columns: Range<usize>) -> Result<Buffer> {
        match *self.shape {
            [n_rows, n_cols] if columns.start <= columns.end && columns.end <= n_cols => {
                Ok(self.at(columns.start, vec![n_rows, columns.len()], self.row_stride))
            }
            _ => Err(argument("columns", format!("columns {columns:?} of {self:?}"))),
        }
    }

    /// A view that begins at an element of this one; the caller has checked that it ends inside.
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

    /// Fails unless `n_bytes` of elements of `element` bytes fit the start of this view; bytes always are elements.
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

    /// Whether two views share at least one byte. Columns that lie beside each other in one matrix do not.
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

    /// Whether two views are the same bytes, row by row.
    pub fn is_same(&self, other: &Buffer) -> bool {
        let has_same_rows = || self.row_stride == other.row_stride && self.n_cols() == other.n_cols();
        Arc::ptr_eq(&self.storage, &other.storage)
            && self.offset_bytes == other.offset_bytes
            && self.n_bytes() == other.n_bytes()
            && (self.is_contiguous() && other.is_contiguous() || has_same_rows())
    }
}

/// The bytes of a view: `count` runs of `len` bytes, `stride` from one to the next.
#[derive(Clone, Copy)]
struct Runs {
    start: usize,
    len: usize,
    count: usize,
    stride: usize,
}

impl Runs {
    /// `None` of a view without elements.
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

    /// Whether they share a byte with others of the same stride, which is at least one byte.
    fn meets(&self, other: &Runs) -> bool {
        // Run i of these and run j of the others meet if (i - j) strides lie between -len and the other's len, counted from how far
        // apart the first ones are. Sizes of allocations are far below the limits of i128.
        let [a, b, a_len, b_len, stride] =
            [self.start, other.start, self.len, other.len, self.stride].map(|n| n as i128);
        let (lowest, highest) = (-(other.count as i128 - 1), self.count as i128 - 1);
        // The lowest number of strides that is above the lower bound.
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
