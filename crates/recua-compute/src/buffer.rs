//! Memory on a device: [`Buffer`] (typed, shaped, cheap to clone) and [`Weight`] (a quantised matrix in the device's own layout).

use crate::error::{Result, argument};
use recua_gguf::GgmlType;
use std::any::Any;
use std::fmt;
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
        let buffer = Buffer { storage, device, dtype, shape: shape.to_vec(), offset_bytes: 0 };
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

    /// The dimensions, outermost first; the last one is contiguous.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of bytes this view covers.
    pub fn n_bytes(&self) -> usize {
        self.n_elements() * self.dtype.size_of()
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

    /// The same bytes from `first` elements on, seen as `shape`. Fails outside this view.
    pub fn view(&self, first: usize, shape: &[usize]) -> Result<Buffer> {
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
        Ok(Buffer {
            storage: self.storage.clone(),
            device: self.device,
            dtype: self.dtype,
            shape: shape.to_vec(),
            offset_bytes: self.offset_bytes + first * self.dtype.size_of(),
        })
    }

    /// The first `n` entries of the outermost dimension.
    pub fn rows(&self, n: usize) -> Result<Buffer> {
        let mut shape = self.shape.clone();
        match shape.first_mut() {
            Some(outer) if n <= *outer => *outer = n,
            _ => return Err(argument("rows", format!("{n} rows of {}{:?}", self.dtype, self.shape))),
        }
        self.view(0, &shape)
    }

    /// Fails unless `n_bytes` of elements of `element` bytes fit the start of this view; bytes always are elements.
    pub(crate) fn check_bytes(&self, op: &'static str, n_bytes: usize, element: usize) -> Result<()> {
        if element != self.dtype.size_of() && element != 1 {
            return Err(argument(op, format!("elements of {element} bytes for {self:?}")));
        }
        if n_bytes > self.n_bytes() {
            return Err(argument(op, format!("{n_bytes} bytes do not fit {self:?}")));
        }
        Ok(())
    }

    /// Whether two views share at least one byte.
    pub fn overlaps(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
            && self.offset_bytes < other.offset_bytes + other.n_bytes()
            && other.offset_bytes < self.offset_bytes + self.n_bytes()
    }

    /// Whether two views are the same bytes.
    pub fn is_same(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
            && self.offset_bytes == other.offset_bytes
            && self.n_bytes() == other.n_bytes()
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

/// A weight matrix of `n` rows and `k` columns, checked and re-laid-out once by [`crate::Device::upload_weight`].
#[derive(Clone)]
pub struct Weight {
    storage: Arc<dyn Any + Send + Sync>,
    device: DeviceId,
    ty: GgmlType,
    n: usize,
    k: usize,
    n_bytes: usize,
}

impl Weight {
    /// Wraps a device's own layout; for device crates. `n_bytes` is what the layout occupies.
    pub fn from_storage(
        storage: Arc<dyn Any + Send + Sync>,
        device: DeviceId,
        ty: GgmlType,
        n: usize,
        k: usize,
        n_bytes: usize,
    ) -> Weight {
        Weight { storage, device, ty, n, k, n_bytes }
    }

    /// The GGML type of the blocks it was made from.
    pub fn ggml_type(&self) -> GgmlType {
        self.ty
    }

    /// Rows: the outputs of a product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: the length of each dot product.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes on the device.
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
        write!(f, "{}[{}, {}]", self.ty, self.n, self.k)
    }
}
