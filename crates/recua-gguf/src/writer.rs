//! Writes version 3 files: a [`Header`] of metadata and declared tensors first, then the data, tensor by tensor
//! as it becomes ready, so that a model larger than memory can be written.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use crate::directory::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, ARRAY_ID, KEY_BYTES_MAX, MAGIC, check_alignment};
use crate::error::{Error, Result};
use crate::format::GgmlType;
use crate::metadata::{ArrayType, Metadata, Value};
use crate::tensor::check_shape;

const VERSION: u32 = 3;

/// What comes before the data: metadata in order, and the name, type and shape of every tensor.
#[derive(Clone, Debug, Default)]
pub struct Header {
    // Key, and type and value as the file stores them.
    entries: Vec<(String, Vec<u8>)>,
    // Key to index in `entries`.
    index: HashMap<String, usize>,
    tensors: Vec<Declared>,
    // What `general.alignment` says, if it is set.
    alignment: Option<usize>,
}

#[derive(Clone, Debug)]
struct Declared {
    name: String,
    ty: GgmlType,
    dims: Vec<u64>,
    n_bytes: usize,
}

impl Header {
    /// A header without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies the keys for which `keep` holds.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn copy_metadata(&mut self, from: &Metadata, keep: impl Fn(&str) -> bool) -> Result<()> {
        for (key, value) in from.iter().filter(|(key, _)| keep(key)) {
            self.set(key, value.clone())?;
        }
        Ok(())
    }

    /// Sets a key. An existing key keeps its place; a new one goes to the end. `general.alignment` also decides where the tensors' data
    /// starts; it is 32 without the key.
    ///
    /// # Errors
    /// If the key is empty or longer than 65535 bytes, or if it is `general.alignment` and the value is no power of two up to 1048576.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        let mut value = value.into();
        if key == ALIGNMENT_KEY {
            let alignment = check_alignment(&value)?;
            // The type that every reader expects.
            value = Value::U32(alignment as u32);
            self.alignment = Some(alignment);
        }
        self.put(key, encode_value(&value))
    }

    /// Sets a key to an array of strings, which may be any bytes.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_strings<S: AsRef<[u8]>>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        let mut bytes = array_header(ArrayType::String, 0);
        let mut n = 0u64;
        for item in items {
            put_string(&mut bytes, item.as_ref());
            n += 1;
        }
        bytes[8..16].copy_from_slice(&n.to_le_bytes());
        self.put_array(key, bytes)
    }

    /// Sets a key to an array of f32.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_f32s(&mut self, key: &str, items: &[f32]) -> Result<()> {
        self.put_array(key, numbers(ArrayType::F32, items.iter().map(|v| v.to_le_bytes())))
    }

    /// Sets a key to an array of i32.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_i32s(&mut self, key: &str, items: &[i32]) -> Result<()> {
        self.put_array(key, numbers(ArrayType::I32, items.iter().map(|v| v.to_le_bytes())))
    }

    /// Sets a key to an array of u32.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_u32s(&mut self, key: &str, items: &[u32]) -> Result<()> {
        self.put_array(key, numbers(ArrayType::U32, items.iter().map(|v| v.to_le_bytes())))
    }

    fn put_array(&mut self, key: &str, value: Vec<u8>) -> Result<()> {
        if key == ALIGNMENT_KEY {
            return Err(Error::key(key, "is a number; it cannot be set to an array"));
        }
        self.put(key, value)
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<()> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Error::key(key, format!("has {} bytes; a key has 1 to {KEY_BYTES_MAX}", key.len())));
        }
        match self.index.get(key) {
            Some(i) => self.entries[*i].1 = value,
            None => {
                self.index.insert(key.to_owned(), self.entries.len());
                self.entries.push((key.to_owned(), value));
            }
        }
        Ok(())
    }

    /// Declares the next tensor. `dims` are in ggml's order, the contiguous one first. The data must be written
    /// in the order of declaration.
    ///
    /// # Errors
    /// If the shape cannot be stored in this type. A name declared twice is found by [`Writer::new`].
    pub fn tensor(&mut self, name: &str, ty: GgmlType, dims: &[u64]) -> Result<()> {
        let (_, n_bytes) = check_shape(ty, dims).map_err(|m| Error::tensor(name, m))?;
        self.tensors.push(Declared { name: name.to_owned(), ty, dims: dims.to_vec(), n_bytes });
        Ok(())
    }

    fn alignment(&self) -> usize {
        self.alignment.unwrap_or(ALIGNMENT_DEFAULT)
    }

    /// The bytes before the data, padded to where the data starts.
    fn encode(&self) -> Result<Vec<u8>> {
        let mut names: Vec<_> = self.tensors.iter().map(|t| &t.name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::tensor(pair[0], "is declared twice; a name may occur once"));
        }
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            put_string(&mut out, key.as_bytes());
            out.extend(value);
        }
        let mut offset = 0u64;
        for t in &self.tensors {
            put_string(&mut out, t.name.as_bytes());
            out.extend((t.dims.len() as u32).to_le_bytes());
            for dim in &t.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(t.ty.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (t.n_bytes as u64)
                .checked_next_multiple_of(self.alignment() as u64)
                .and_then(|n| offset.checked_add(n))
                .ok_or_else(|| Error::tensor(&t.name, "the file would be larger than 2^64 bytes"))?;
        }
        out.resize(out.len().next_multiple_of(self.alignment()), 0);
        Ok(out)
    }
}

fn put_string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

fn array_header(ty: ArrayType, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(ARRAY_ID.to_le_bytes());
    out.extend(ty.id().to_le_bytes());
    out.extend((len as u64).to_le_bytes());
    out
}

fn numbers<const N: usize>(ty: ArrayType, items: impl ExactSizeIterator<Item = [u8; N]>) -> Vec<u8> {
    let mut out = array_header(ty, items.len());
    items.for_each(|b| out.extend(b));
    out
}

/// Type id and value.
fn encode_value(value: &Value) -> Vec<u8> {
    let scalar = |ty: ArrayType, bytes: &[u8]| [&ty.id().to_le_bytes(), bytes].concat();
    match value {
        Value::U8(v) => scalar(ArrayType::U8, &v.to_le_bytes()),
        Value::I8(v) => scalar(ArrayType::I8, &v.to_le_bytes()),
        Value::U16(v) => scalar(ArrayType::U16, &v.to_le_bytes()),
        Value::I16(v) => scalar(ArrayType::I16, &v.to_le_bytes()),
        Value::U32(v) => scalar(ArrayType::U32, &v.to_le_bytes()),
        Value::I32(v) => scalar(ArrayType::I32, &v.to_le_bytes()),
        Value::U64(v) => scalar(ArrayType::U64, &v.to_le_bytes()),
        Value::I64(v) => scalar(ArrayType::I64, &v.to_le_bytes()),
        Value::F32(v) => scalar(ArrayType::F32, &v.to_le_bytes()),
        Value::F64(v) => scalar(ArrayType::F64, &v.to_le_bytes()),
        Value::Bool(v) => scalar(ArrayType::Bool, &[u8::from(*v)]),
        Value::String(v) => {
            let mut out = ArrayType::String.id().to_le_bytes().to_vec();
            put_string(&mut out, v.as_bytes());
            out
        }
        Value::Array(a) => {
            let mut out = array_header(a.item_type(), a.len());
            out.extend(a.raw());
            out
        }
    }
}

/// Writes a file's data after its header. Tensors must be written in the order in which they were declared,
/// each in one call ([`write`](Self::write)) or in pieces ([`append`](Self::append)).
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    tensors: Vec<Declared>,
    alignment: usize,
    // The tensor being written and how much of it has been.
    next: usize,
    written: usize,
    file_bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If two tensors have the same name, or writing fails.
    pub fn new(mut out: W, header: &Header) -> Result<Self> {
        let bytes = header.encode()?;
        out.write_all(&bytes)?;
        let (tensors, alignment) = (header.tensors.clone(), header.alignment());
        Ok(Self { out, tensors, alignment, next: 0, written: 0, file_bytes: bytes.len() as u64 })
    }

    /// Writes all data of a tensor.
    ///
    /// # Errors
    /// If it is not this tensor's turn, `bytes` has not exactly the declared size, or writing fails.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let n_bytes = self.turn(name)?;
        if bytes.len() != n_bytes || self.written != 0 {
            let n = self.written + bytes.len();
            return Err(Error::tensor(name, format!("got {n} bytes of data, but {n_bytes} were declared")));
        }
        self.append(name, bytes)
    }

    /// Writes the next piece of a tensor's data; the tensor is complete when its declared size is reached.
    ///
    /// # Errors
    /// If it is not this tensor's turn, the declared size is exceeded, or writing fails.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let n_bytes = self.turn(name)?;
        let written = self.written + bytes.len();
        if written > n_bytes {
            return Err(Error::tensor(
                name,
                format!("got {written} bytes of data, but {n_bytes} were declared"),
            ));
        }
        self.out.write_all(bytes)?;
        self.file_bytes += bytes.len() as u64;
        self.written = written;
        if written == n_bytes {
            let padding = (n_bytes.next_multiple_of(self.alignment) - n_bytes) as u64;
            io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
            self.file_bytes += padding;
            (self.next, self.written) = (self.next + 1, 0);
        }
        Ok(())
    }

    /// The declared size of `name`, if it is next.
    fn turn(&self, name: &str) -> Result<usize> {
        match self.tensors.get(self.next) {
            Some(t) if t.name == name => Ok(t.n_bytes),
            Some(t) => Err(Error::tensor(name, format!("written out of order: tensor {:?} is next", t.name))),
            None => Err(Error::tensor(name, "all declared tensors have already been written")),
        }
    }

    /// Bytes written so far.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Flushes and returns the output.
    ///
    /// # Errors
    /// If a declared tensor is missing or incomplete, or writing fails.
    pub fn finish(mut self) -> Result<W> {
        if let Some(t) = self.tensors.get(self.next) {
            let message = format!("only {} of {} declared bytes were written", self.written, t.n_bytes);
            return Err(Error::tensor(&t.name, message));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}
