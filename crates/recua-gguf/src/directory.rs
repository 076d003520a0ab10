//! Parses what lies before the tensor data: header, metadata and tensor directory of one file.
//!
//! Everything is read twice. The first pass ([`scan`]) checks and allocates nothing, so that the second ([`parse`]) allocates exactly as
//! much as the file is known to contain. Memory therefore stays within a small multiple of the file's size, whatever its counts claim.

use std::sync::Arc;

use crate::cursor::Cursor;
use crate::error::{Error, Result, shorten, try_vec};
use crate::format::{GgmlType, names_where, withdrawn_name};
use crate::metadata::{Array, ArrayType, Metadata, Value, read_number};
use crate::source::Bytes;
use crate::tensor::{DIMS_MAX, TensorInfo, check_shape};

pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// Alignment of the tensor data in a file without `general.alignment`.
pub(crate) const ALIGNMENT_DEFAULT: usize = 32;
/// The largest alignment there may be.
const ALIGNMENT_MAX: usize = 1 << 20;
/// The longest key the format allows.
pub(crate) const KEY_BYTES_MAX: usize = 65535;
/// The value type id of arrays.
pub(crate) const ARRAY_ID: u32 = 9;

pub(crate) struct Directory {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    /// What every tensor's start is a multiple of, counted from the start of the data.
    pub(crate) alignment: usize,
    /// The first byte after the last tensor, or where the data would start.
    pub(crate) data_end: usize,
}

/// The first pass: checks everything up to the tensor data and returns where that part ends. `head` is the beginning of a file of
/// `file_bytes`; if it is too short, the error says how much would do.
pub(crate) fn scan(head: &[u8], file_bytes: usize) -> Result<usize> {
    let mut cursor = Cursor::new(head, file_bytes);
    let Counts { n_tensors, n_keys, .. } = read_counts(&mut cursor)?;
    for i in 0..n_keys {
        read_entry(&mut cursor, i)?;
    }
    for i in 0..n_tensors {
        read_line(&mut cursor, i)?;
    }
    Ok(cursor.pos())
}

/// The second pass, over a head that [`scan`] has accepted. `part` is the file's index in a split model; its tensors store it.
pub(crate) fn parse(head: &Arc<Bytes>, file_bytes: usize, part: u16) -> Result<Directory> {
    let mut cursor = Cursor::new(head, file_bytes);
    let Counts { version, n_tensors, n_keys } = read_counts(&mut cursor)?;
    let mut entries = try_vec(n_keys)?;
    for i in 0..n_keys {
        let entry = read_entry(&mut cursor, i)?;
        entries.push((entry.key.into(), entry.value.own(head)));
    }
    let metadata = Metadata::new(entries)?;
    let alignment = read_alignment(&metadata)?;

    let mut ahead = cursor;
    for i in 0..n_tensors {
        read_line(&mut ahead, i)?;
    }
    let data_start = ahead.pos().next_multiple_of(alignment);
    let mut tensors = try_vec(n_tensors)?;
    for i in 0..n_tensors {
        let line = read_line(&mut cursor, i)?;
        let (start, n_bytes) = line.place(data_start, alignment, file_bytes)?;
        tensors.push(TensorInfo {
            name: line.name.to_owned(),
            ty: line.ty,
            n_dims: line.n_dims as u8,
            part,
            dims: line.dims,
            start,
            n_bytes,
        });
    }
    check_overlap(&tensors)?;
    // The sums do not overflow: every range lies inside the file.
    let data_end = tensors.iter().map(|t| t.start + t.n_bytes).max().unwrap_or(data_start);
    Ok(Directory { version, metadata, tensors, alignment, data_end })
}

struct Counts {
    version: u32,
    n_tensors: usize,
    n_keys: usize,
}

fn read_counts(cursor: &mut Cursor<'_>) -> Result<Counts> {
    let version = parse_version(cursor)?;
    // A directory line has at least a name's length, a number of dimensions, one dimension, a type and an
    // offset.
    let n_tensors = cursor.count(8 + 4 + 8 + 4 + 8, "the tensor count")?;
    let n_keys = cursor.count(8 + 4 + 1, "the metadata count")?;
    Ok(Counts { version, n_tensors, n_keys })
}

fn parse_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    check_magic(cursor.head())?;
    let magic: [u8; 4] = cursor.array("the magic number")?;
    if magic != MAGIC {
        let message =
            format!("not a GGUF file: it starts with {magic:02x?}; a GGUF file starts with the letters GGUF");
        return Err(Error::offset(0, message));
    }
    let offset = cursor.pos();
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        1 => Err(Error::offset(
            offset,
            "GGUF version 1 is not supported; convert the model again to get version 3",
        )),
        v if v & 0xffff == 0 && v != 0 => Err(Error::offset(
            offset,
            "the file is big-endian; only little-endian files are supported (gguf-py's gguf-convert-endian converts it)",
        )),
        v => Err(Error::offset(offset, format!("unknown GGUF version {v}; versions 2 and 3 are supported"))),
    }
}

/// Names what is often found under the name of a model that it is not.
fn check_magic(head: &[u8]) -> Result<()> {
    let text = head.trim_ascii_start();
    let begins =
        |start: &str| text.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start.as_bytes()));
    let what = if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        "a Git LFS pointer, which stands for a file that is elsewhere; get the file itself with `git lfs pull`"
    } else if begins("<!doctype html") || begins("<html") {
        "an HTML page, perhaps about a download that failed; download the file itself (on Hugging Face, from an address \
         with /resolve/ instead of /blob/)"
    } else if begins("{\"") {
        "JSON text, perhaps about a download that failed; download the file itself"
    } else if ["lmgg", "fmgg", "tjgg", "algg"].iter().any(|magic| head.starts_with(magic.as_bytes())) {
        "in a format older than GGUF; convert the model again"
    } else if head.starts_with(b"PK\x03\x04") {
        "a zip file, perhaps a PyTorch checkpoint; convert it to GGUF first"
    } else if head.get(8..10) == Some(b"{\"") {
        "probably a safetensors file; convert it to GGUF first"
    } else if head.len() >= 4 && head.iter().take(1024).all(|byte| *byte == 0) {
        "empty where it should begin: its space was reserved, but its download has not come that far; download it again"
    } else {
        return Ok(());
    };
    Err(Error::other(format!("not a GGUF file, but {what}")))
}

struct Entry<'a> {
    key: &'a str,
    value: BorrowedValue<'a>,
}

enum BorrowedValue<'a> {
    Number(Value),
    String(&'a str),
    Array { ty: ArrayType, len: usize, start: usize, end: usize },
}

impl BorrowedValue<'_> {
    fn own(self, head: &Arc<Bytes>) -> Value {
        match self {
            Self::Number(value) => value,
            Self::String(s) => Value::String(s.into()),
            Self::Array { ty, len, start, end } => Value::Array(Array::new(head, ty, len, start, end)),
        }
    }
}

/// Reads a key and its value without allocating.
fn read_entry<'a>(cursor: &mut Cursor<'a>, i: usize) -> Result<Entry<'a>> {
    let offset = cursor.pos();
    let key = cursor.utf8(format_args!("the name of metadata key {i}"))?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::offset(
            offset,
            format!("metadata key {i} has {} bytes; a key has 1 to {KEY_BYTES_MAX}", key.len()),
        ));
    }
    let value = read_value(cursor, key).map_err(|e| e.in_key(key))?;
    Ok(Entry { key, value })
}

fn read_value<'a>(cursor: &mut Cursor<'a>, key: &str) -> Result<BorrowedValue<'a>> {
    let id = cursor.u32("the value's type")?;
    if id != ARRAY_ID {
        return match value_type(key, id)? {
            ArrayType::String => Ok(BorrowedValue::String(cursor.utf8("the string")?)),
            ty => Ok(BorrowedValue::Number(read_number(cursor, ty, "the value")?)),
        };
    }
    let item_id = cursor.u32("the type of the array's items")?;
    if item_id == ARRAY_ID {
        return Err(Error::key(
            key,
            "is an array of arrays; only arrays of scalars and strings are supported",
        ));
    }
    let ty = value_type(key, item_id)?;
    let len = cursor.count(ty.item_bytes_min(), "the array's length")?;
    let start = cursor.pos();
    match ty {
        ArrayType::String => {
            for j in 0..len {
                cursor.string(format_args!("item {j}"))?;
            }
        }
        ArrayType::Bool => {
            for j in 0..len {
                read_number(cursor, ty, format_args!("item {j}"))?;
            }
        }
        // The count was checked against the remaining bytes, so the product cannot overflow.
        _ => drop(cursor.take(len * ty.item_bytes_min(), "the array")?),
    }
    Ok(BorrowedValue::Array { ty, len, start, end: cursor.pos() })
}

fn value_type(key: &str, id: u32) -> Result<ArrayType> {
    ArrayType::from_id(id)
        .ok_or_else(|| Error::key(key, format!("has unknown value type {id}; known types are 0 to 12")))
}

fn read_alignment(metadata: &Metadata) -> Result<usize> {
    metadata.get(ALIGNMENT_KEY).map_or(Ok(ALIGNMENT_DEFAULT), check_alignment)
}

/// The value of `general.alignment` as an alignment.
pub(crate) fn check_alignment(value: &Value) -> Result<usize> {
    let alignment = value.as_integer().and_then(|v| usize::try_from(v).ok());
    alignment.filter(|a| a.is_power_of_two() && *a <= ALIGNMENT_MAX).ok_or_else(|| {
        let message = format!(
            "is {} of type {}; an alignment is a power of two up to {ALIGNMENT_MAX}",
            shorten(&value.to_string()),
            value.type_name()
        );
        Error::key(ALIGNMENT_KEY, message)
    })
}

struct Line<'a> {
    name: &'a str,
    ty: GgmlType,
    n_dims: usize,
    dims: [u64; DIMS_MAX],
    n_bytes: usize,
    // From the start of the tensor data.
    offset: u64,
}

/// Reads a line of the tensor directory without allocating.
fn read_line<'a>(cursor: &mut Cursor<'a>, i: usize) -> Result<Line<'a>> {
    let name = cursor.utf8(format_args!("the name of tensor {i}"))?;
    read_line_rest(cursor, name).map_err(|e| e.in_tensor(name))
}

fn read_line_rest<'a>(cursor: &mut Cursor<'a>, name: &'a str) -> Result<Line<'a>> {
    let n_dims = cursor.u32("the number of dimensions")? as usize;
    if n_dims == 0 || n_dims > DIMS_MAX {
        return Err(Error::tensor(name, format!("has {n_dims} dimensions; a tensor has 1 to {DIMS_MAX}")));
    }
    let mut dims = [1; DIMS_MAX];
    for dim in &mut dims[..n_dims] {
        *dim = cursor.u64("a dimension")?;
    }
    let id = cursor.u32("the type")?;
    let ty = GgmlType::from_id(id).ok_or_else(|| {
        let message = match withdrawn_name(id) {
            Some(old) => format!("has type {id} ({old}), which ggml has withdrawn; quantize the model again"),
            None => format!("has unknown type {id}; known types: {}", names_where(|_| true)),
        };
        Error::tensor(name, message)
    })?;
    let (_, n_bytes) = check_shape(ty, &dims[..n_dims]).map_err(|m| Error::tensor(name, m))?;
    let offset = cursor.u64("the data offset")?;
    Ok(Line { name, ty, n_dims, dims, n_bytes, offset })
}

impl Line<'_> {
    /// The tensor's start in the file and its size, checked to lie inside the file.
    fn place(&self, data_start: usize, alignment: usize, file_bytes: usize) -> Result<(usize, usize)> {
        if !self.offset.is_multiple_of(alignment as u64) {
            return Err(Error::tensor(
                self.name,
                format!("data offset {} is not a multiple of the alignment {alignment}", self.offset),
            ));
        }
        let end = usize::try_from(self.offset)
            .ok()
            .and_then(|offset| data_start.checked_add(offset))
            .and_then(|start| Some((start, start.checked_add(self.n_bytes)?)));
        match end {
            Some((start, end)) if end <= file_bytes => Ok((start, self.n_bytes)),
            _ => Err(Error::tensor(
                self.name,
                format!(
                    "its {} bytes at data offset {} (the data starts at byte {data_start}) do not fit in the file of \
                     {file_bytes} bytes; the file is incomplete: finish its download",
                    self.n_bytes, self.offset
                ),
            )),
        }
    }
}

fn check_overlap(tensors: &[TensorInfo]) -> Result<()> {
    let mut by_start = try_vec(tensors.len())?;
    by_start.extend(0..tensors.len() as u32);
    by_start.sort_unstable_by_key(|i: &u32| tensors[*i as usize].start);
    for pair in by_start.windows(2) {
        let (a, b) = (&tensors[pair[0] as usize], &tensors[pair[1] as usize]);
        if a.start + a.n_bytes > b.start {
            return Err(Error::tensor(
                &b.name,
                format!("its data overlaps that of tensor {:?}", shorten(&a.name)),
            ));
        }
    }
    Ok(())
}
