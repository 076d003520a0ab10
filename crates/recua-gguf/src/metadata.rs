//! A file's metadata: keys and values. Scalars and strings are copied; arrays, such as vocabularies of 10^5 strings, stay in the head of the
//! file and are read in place.

mod typed;

use std::fmt;
use std::sync::Arc;

use crate::cursor::Cursor;
use crate::error::{Error, Result, try_vec};
use crate::source::Bytes;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is the Rust type of its name")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(Box<str>),
    Array(Array),
}

/// The type of an array's items. Arrays of arrays are refused when a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the Rust type of its name")]
pub enum ArrayType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    Bool,
    String,
}

impl ArrayType {
    /// The type with this id in a file. Arrays (id 9) cannot be items.
    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    pub(crate) fn id(self) -> u32 {
        match self {
            Self::U8 => 0,
            Self::I8 => 1,
            Self::U16 => 2,
            Self::I16 => 3,
            Self::U32 => 4,
            Self::I32 => 5,
            Self::F32 => 6,
            Self::Bool => 7,
            Self::String => 8,
            Self::U64 => 10,
            Self::I64 => 11,
            Self::F64 => 12,
        }
    }

    /// The fewest bytes an item can take: a number's size, or the size of a string's length.
    pub(crate) fn item_bytes_min(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
        }
    }

    /// The name used in messages, such as `u32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

impl fmt::Display for ArrayType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An array as the file stores it.
#[derive(Clone)]
pub struct Array(Box<ArrayRange>);

#[derive(Clone)]
struct ArrayRange {
    head: Arc<Bytes>,
    start: usize,
    end: usize,
    len: usize,
    ty: ArrayType,
}

impl Array {
    /// `head[start..end]` must have been checked to hold exactly `len` items of type `ty`.
    pub(crate) fn new(head: &Arc<Bytes>, ty: ArrayType, len: usize, start: usize, end: usize) -> Self {
        Self(Box::new(ArrayRange { head: Arc::clone(head), start, end, len, ty }))
    }

    /// The type of the items.
    pub fn item_type(&self) -> ArrayType {
        self.0.ty
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// True if there are no items.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The items as the file stores them, little-endian (strings with their 64-bit lengths).
    pub(crate) fn raw(&self) -> &[u8] {
        &self.0.head[self.0.start..self.0.end]
    }

    /// The items of an array of strings; `None` for one of numbers.
    pub fn strings(&self) -> Option<StringArray<'_>> {
        (self.0.ty == ArrayType::String).then(|| StringArray::new(self.raw(), self.0.len))
    }

    /// Item `i`, or `None` past the end. In a string that is not UTF-8, replacement characters stand for
    /// invalid bytes. For many items of an array of strings, [`strings`](Self::strings) is faster.
    pub fn get(&self, i: usize) -> Option<Value> {
        if i >= self.0.len {
            return None;
        }
        if let Some(strings) = self.strings() {
            return Some(Value::String(String::from_utf8_lossy(strings.get(i)?).into()));
        }
        self.numbers().nth(i)
    }

    /// The items of an array of numbers or booleans; nothing for an array of strings.
    fn numbers(&self) -> impl Iterator<Item = Value> + '_ {
        let ty = self.0.ty;
        let raw = if ty == ArrayType::String { &[] } else { self.raw() };
        raw.chunks_exact(ty.item_bytes_min()).map(move |b| number(ty, b))
    }

    fn convert<T>(&self, key: &str, wanted: &str, item: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        if self.0.ty == ArrayType::String {
            return Err(Error::key(key, format!("is an array of string, expected an array of {wanted}")));
        }
        let mut out = try_vec(self.0.len)?;
        for (i, v) in self.numbers().enumerate() {
            out.push(item(&v).ok_or_else(|| {
                Error::key(key, format!("item {i} is {v} of type {}, expected {wanted}", self.0.ty))
            })?);
        }
        Ok(out)
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} x {})", self.0.len, self.0.ty)
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        self.0.ty == other.0.ty && self.0.len == other.0.len && self.raw() == other.raw()
    }
}

/// `bytes` has exactly the size of the type.
fn number(ty: ArrayType, bytes: &[u8]) -> Value {
    fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(bytes);
        out
    }
    match ty {
        ArrayType::U8 => Value::U8(bytes[0]),
        ArrayType::I8 => Value::I8(bytes[0] as i8),
        ArrayType::Bool => Value::Bool(bytes[0] != 0),
        ArrayType::U16 => Value::U16(u16::from_le_bytes(fixed(bytes))),
        ArrayType::I16 => Value::I16(i16::from_le_bytes(fixed(bytes))),
        ArrayType::U32 => Value::U32(u32::from_le_bytes(fixed(bytes))),
        ArrayType::I32 => Value::I32(i32::from_le_bytes(fixed(bytes))),
        ArrayType::F32 => Value::F32(f32::from_le_bytes(fixed(bytes))),
        ArrayType::U64 => Value::U64(u64::from_le_bytes(fixed(bytes))),
        ArrayType::I64 => Value::I64(i64::from_le_bytes(fixed(bytes))),
        ArrayType::F64 => Value::F64(f64::from_le_bytes(fixed(bytes))),
        ArrayType::String => unreachable!("strings are not numbers"),
    }
}

/// Reads a scalar that is not a string.
pub(crate) fn read_number(cursor: &mut Cursor<'_>, ty: ArrayType, what: impl fmt::Display) -> Result<Value> {
    let offset = cursor.pos();
    let bytes = cursor.take(ty.item_bytes_min(), &what)?;
    if ty == ArrayType::Bool && bytes[0] > 1 {
        return Err(Error::offset(offset, format!("{what} is the boolean {}, expected 0 or 1", bytes[0])));
    }
    Ok(number(ty, bytes))
}

/// An array of strings, borrowed from the file. Items are bytes: tokens need not be UTF-8.
#[derive(Clone)]
pub struct StringArray<'a> {
    raw: &'a [u8],
    // Where every STRIDE-th item starts in `raw`: `get` then skips only a few items, and the list stays short.
    marks: Vec<usize>,
    len: usize,
}

const STRIDE: usize = 8;

impl<'a> StringArray<'a> {
    /// `raw` holds `len` items, each checked when the file was opened.
    fn new(raw: &'a [u8], len: usize) -> Self {
        let mut marks = Vec::with_capacity(len.div_ceil(STRIDE));
        let mut items = StringIter { raw, pos: 0, left: len };
        for i in 0..len {
            if i % STRIDE == 0 {
                marks.push(items.pos);
            }
            items.next();
        }
        Self { raw, marks, len }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no items.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Item `i`, or `None` past the end. Takes constant time.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        if i >= self.len {
            return None;
        }
        StringIter { raw: self.raw, pos: self.marks[i / STRIDE], left: i % STRIDE + 1 }.last()
    }

    /// All items in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        StringIter { raw: self.raw, pos: 0, left: self.len }
    }
}

impl fmt::Debug for StringArray<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StringArray({})", self.len)
    }
}

struct StringIter<'a> {
    raw: &'a [u8],
    pos: usize,
    left: usize,
}

impl<'a> Iterator for StringIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.raw[self.pos..].split_first_chunk::<8>()?;
        let item = rest.get(..u64::from_le_bytes(*len) as usize)?;
        self.pos += 8 + item.len();
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for StringIter<'_> {}

impl Value {
    /// The name used in messages, such as `u32` or `array of string`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(a) => match a.item_type() {
                ArrayType::U8 => "array of u8",
                ArrayType::I8 => "array of i8",
                ArrayType::U16 => "array of u16",
                ArrayType::I16 => "array of i16",
                ArrayType::U32 => "array of u32",
                ArrayType::I32 => "array of i32",
                ArrayType::U64 => "array of u64",
                ArrayType::I64 => "array of i64",
                ArrayType::F32 => "array of f32",
                ArrayType::F64 => "array of f64",
                ArrayType::Bool => "array of bool",
                ArrayType::String => "array of string",
            },
        }
    }

    /// The value as an integer, whatever its integer type; `None` for anything else.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }

    fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(v) => Some(v),
            Self::F64(v) => Some(v as f32),
            _ => None,
        }
    }
}

macro_rules! value_from {
    ($($t:ty => $variant:ident),*) => {
        $(impl From<$t> for Value {
            fn from(v: $t) -> Self {
                Self::$variant(v.into())
            }
        })*
    };
}

value_from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool, &str => String, String => String, Array => Array
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32(v) => v.fmt(f),
            Self::F64(v) => v.fmt(f),
            Self::Bool(v) => v.fmt(f),
            Self::String(v) => v.fmt(f),
            Self::Array(a) => write!(f, "[{} x {}]", a.len(), a.item_type()),
            other => other.as_integer().unwrap_or_default().fmt(f),
        }
    }
}

/// A file's metadata, in the file's order.
///
/// The typed getters return `Ok(None)` if the key is absent. If the value has another type or is out of range,
/// they return an error that names the key, the type found and the type expected.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(Box<str>, Value)>,
    // Indexes of `entries` ordered by key.
    by_key: Vec<u32>,
}

impl Metadata {
    /// Refuses a key that occurs twice.
    pub(crate) fn new(entries: Vec<(Box<str>, Value)>) -> Result<Self> {
        let n = u32::try_from(entries.len()).map_err(|_| Error::other("more than 2^32 metadata keys"))?;
        let mut by_key = try_vec(entries.len())?;
        by_key.extend(0..n);
        by_key.sort_unstable_by(|a: &u32, b: &u32| entries[*a as usize].0.cmp(&entries[*b as usize].0));
        for pair in by_key.windows(2) {
            if entries[pair[0] as usize].0 == entries[pair[1] as usize].0 {
                return Err(Error::key(&entries[pair[0] as usize].0, "occurs twice; a key may occur once"));
            }
        }
        Ok(Self { entries, by_key })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let i = self.by_key.binary_search_by(|i| (*self.entries[*i as usize].0).cmp(key)).ok()?;
        Some(&self.entries[self.by_key[i] as usize].1)
    }

    /// Keys and values in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }
}
