//! Opens a model: one file, or all parts of a split one, as a single list of tensors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory;
use crate::error::{Error, Result, no_memory, try_vec};
use crate::metadata::Metadata;
use crate::source::{Bytes, ModelFile, Source, TensorData};
use crate::tensor::TensorInfo;

const SPLIT_COUNT: &str = "split.count";
const SPLIT_NO: &str = "split.no";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// A whole model: metadata, tensor directory and tensor data. Cloning shares it.
#[derive(Clone)]
pub struct Gguf(Arc<Inner>);

struct Inner {
    parts: Vec<Source>,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    // Indexes of `tensors` ordered by name.
    by_name: Vec<u32>,
    version: u32,
}

impl Gguf {
    /// Opens a model. If `path` is the first part of a split model (`NAME-00001-of-0000N.gguf`), opens all its
    /// parts.
    ///
    /// Opening reads the metadata into memory; tensor data stays in the files, which remain open, and is read when [`data`](Self::data) is
    /// asked for it. Replace model files by renaming: the one that is open then stays as it was.
    ///
    /// # Errors
    /// If a file cannot be read, is no regular file or not a well-formed GGUF file of version 2 or 3, or is not the first part. The error
    /// names the file and the key, tensor or byte at fault.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        let path = path.as_ref();
        let first = Part::open(path, 0)?;
        let n_parts = first.n_parts().map_err(|e| e.in_file(path))?;
        let name = SplitName::parse(path);
        let no = first.split_no().map_err(|e| e.in_file(path))?;
        if no != 0 {
            let hint = name.map_or("the first part".to_owned(), |n| n.part(0).display().to_string());
            let message = format!("is part {} of {n_parts} of a split model; open {hint}", no as u32 + 1);
            return Err(Error::other(message).in_file(path));
        }
        if n_parts > 1 {
            first.check_end(n_parts).map_err(|e| e.in_file(path))?;
        }
        let mut parts = vec![first];
        if n_parts > 1 {
            let name = name.filter(|n| n.no == 1 && n.count == n_parts as u32).ok_or_else(|| {
                let message = format!(
                    "is the first of {n_parts} parts; to find the others, its name must end in \
                     -00001-of-{n_parts:05}.gguf"
                );
                Error::other(message).in_file(path)
            })?;
            for i in 1..n_parts {
                let path = name.part(i);
                let part = Part::open(&path, i)?;
                part.check_place(i, n_parts).map_err(|e| e.in_file(&path))?;
                parts.push(part);
            }
        }
        Self::join(parts).map_err(|e| e.in_file(path))
    }

    /// A model embedded in the program. The slice may have any alignment.
    ///
    /// # Errors
    /// As [`open`](Self::open); a part of a split model is refused.
    pub fn from_bytes(bytes: &'static [u8]) -> Result<Gguf> {
        Self::single(Bytes::Embedded(bytes))
    }

    /// A model in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open); a part of a split model is refused.
    pub fn from_vec(bytes: Vec<u8>) -> Result<Gguf> {
        Self::single(Bytes::Owned(bytes))
    }

    fn single(bytes: Bytes) -> Result<Gguf> {
        directory::scan(&bytes, bytes.len())?;
        let part = Part::parse(Source { head: Arc::new(bytes), file: None }, 0)?;
        let n_parts = part.n_parts()?;
        if n_parts > 1 {
            return Err(Error::key(SPLIT_COUNT, format!("is {n_parts}; open a split model by its path")));
        }
        Self::join(vec![part])
    }

    /// Joins all parts into one model. The metadata is that of the first part.
    fn join(mut parts: Vec<Part>) -> Result<Gguf> {
        let n_tensors: usize = parts.iter().map(|p| p.tensors.len()).sum();
        let mut tensors = std::mem::take(&mut parts[0].tensors);
        tensors
            .try_reserve_exact(n_tensors - tensors.len())
            .map_err(|_| no_memory(n_tensors.saturating_mul(size_of::<TensorInfo>())))?;
        for part in &mut parts[1..] {
            tensors.append(&mut part.tensors);
        }
        if parts.len() > 1
            && let Some(wanted) = parts[0].metadata.u64(SPLIT_TENSORS)?
            && wanted != tensors.len() as u64
        {
            let message =
                format!("is {wanted}, but the {} parts hold {} tensors", parts.len(), tensors.len());
            return Err(Error::key(SPLIT_TENSORS, message));
        }
        let n = u32::try_from(tensors.len()).map_err(|_| Error::other("more than 2^32 tensors"))?;
        let mut by_name = try_vec(tensors.len())?;
        by_name.extend(0..n);
        by_name
            .sort_unstable_by(|a: &u32, b: &u32| tensors[*a as usize].name.cmp(&tensors[*b as usize].name));
        for pair in by_name.windows(2) {
            if tensors[pair[0] as usize].name == tensors[pair[1] as usize].name {
                return Err(Error::tensor(
                    &tensors[pair[0] as usize].name,
                    "occurs twice; a name may occur once",
                ));
            }
        }
        let version = parts[0].version;
        let metadata = std::mem::take(&mut parts[0].metadata);
        let parts = parts.into_iter().map(|p| p.source).collect();
        Ok(Self(Arc::new(Inner { parts, metadata, tensors, by_name, version })))
    }

    /// The metadata. For a split model, that of the first part.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// All tensors, in the order of the directory.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.0.tensors
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let tensors = &self.0.tensors;
        let i = self.0.by_name.binary_search_by(|i| (*tensors[*i as usize].name).cmp(name)).ok()?;
        Some(&tensors[self.0.by_name[i] as usize])
    }

    /// A tensor's bytes as the file stores them: [`rows`](TensorInfo::rows) rows of [`row_bytes`](TensorInfo::row_bytes) each,
    /// little-endian.
    ///
    /// # Panics
    /// If the tensor belongs to another model and its range does not exist in this one.
    pub fn data(&self, tensor: &TensorInfo) -> TensorData<'_> {
        self.0
            .parts
            .get(tensor.part as usize)
            .and_then(|part| part.data(tensor.start, tensor.n_bytes))
            .expect("the tensor belongs to this model, whose ranges were checked when it was opened")
    }

    /// The format version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// Bytes of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.0.parts.iter().map(Source::len).sum()
    }

    /// True if `path` leads to one of the model's files, whatever its name: writing there would destroy the model.
    pub fn has_file(&self, path: impl AsRef<Path>) -> bool {
        self.0.parts.iter().filter_map(|p| p.file.as_ref()).any(|file| file.is_at(path.as_ref()))
    }

    /// Number of files.
    pub fn n_files(&self) -> usize {
        self.0.parts.len()
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { metadata, tensors, .. } = &*self.0;
        write!(f, "Gguf({} keys, {} tensors, {} bytes)", metadata.len(), tensors.len(), self.file_bytes())
    }
}

/// One file of a model.
struct Part {
    source: Source,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    version: u32,
    alignment: usize,
    data_end: usize,
}

impl Part {
    fn open(path: &Path, i: u16) -> Result<Self> {
        let file = ModelFile::open(path)?;
        read_head(&file)
            .and_then(|head| Self::parse(Source { head: Arc::new(Bytes::Owned(head)), file: Some(file) }, i))
            .map_err(|e| e.in_file(path))
    }

    /// `source.head` must have passed [`directory::scan`].
    fn parse(source: Source, i: u16) -> Result<Self> {
        let file_bytes = size(source.len())?;
        let directory::Directory { version, metadata, tensors, alignment, data_end } =
            directory::parse(&source.head, file_bytes, i)?;
        Ok(Self { source, metadata, tensors, version, alignment, data_end })
    }

    /// Refuses a first part that another file follows directly.
    fn check_end(&self, n_parts: u16) -> Result<()> {
        let padded = self.data_end.checked_next_multiple_of(self.alignment);
        for end in [Some(self.data_end), padded].into_iter().flatten() {
            if let Some(next) = self.source.data(end, directory::MAGIC.len())
                && next.to_vec()? == directory::MAGIC
            {
                return Err(Error::other(format!(
                    "is the first of {n_parts} parts with other parts behind it, as `cat` joins them; that makes no model. Get the parts \
                     as separate files and open the first, or join them with `llama-gguf-split --merge`"
                )));
            }
        }
        Ok(())
    }

    /// How many files the model has according to this file's metadata.
    fn n_parts(&self) -> Result<u16> {
        match self.metadata.u64(SPLIT_COUNT)? {
            // llama.cpp writes 0 into a model merged from parts.
            None | Some(0) => Ok(1),
            Some(n) => u16::try_from(n)
                .map_err(|_| Error::key(SPLIT_COUNT, format!("is {n}; a model has at most 65535 parts"))),
        }
    }

    fn split_no(&self) -> Result<u16> {
        let n_parts = self.n_parts()?;
        match self.metadata.u64(SPLIT_NO)? {
            None if n_parts > 1 => Err(Error::key(SPLIT_NO, "is missing, though split.count is present")),
            None => Ok(0),
            Some(no) if no < n_parts as u64 => Ok(no as u16),
            Some(no) => Err(Error::key(SPLIT_NO, format!("is {no}, but split.count is {n_parts}"))),
        }
    }

    fn check_place(&self, i: u16, n_parts: u16) -> Result<()> {
        let count = self.n_parts()?;
        if count != n_parts {
            return Err(Error::key(
                SPLIT_COUNT,
                format!("is {count}, but it is {n_parts} in the first part"),
            ));
        }
        let no = self.split_no()?;
        if no != i {
            return Err(Error::key(SPLIT_NO, format!("is {no}, expected {i} for a file of this name")));
        }
        Ok(())
    }
}

/// What is read first of a file: enough for all metadata of most models.
const HEAD_BYTES: usize = 4 << 20;

/// The most that metadata and tensor directory may take: several times the largest vocabularies.
const HEAD_BYTES_MAX: usize = 1 << 30;

/// Reads and scans what lies before the tensor data.
fn read_head(file: &ModelFile) -> Result<Vec<u8>> {
    let file_bytes = size(file.len())?;
    let mut head = Vec::new();
    let mut wanted = HEAD_BYTES.min(file_bytes);
    loop {
        let n = head.len();
        head.try_reserve_exact(wanted - n).map_err(|_| no_memory(wanted))?;
        head.resize(wanted, 0);
        file.read(n as u64, &mut head[n..])?;
        match directory::scan(&head, file_bytes) {
            Ok(end) => {
                head.truncate(end);
                head.shrink_to_fit();
                return Ok(head);
            }
            Err(e) => match e.head_bytes() {
                None => return Err(e),
                Some(needed) if needed > HEAD_BYTES_MAX => {
                    return Err(Error::other(format!(
                        "metadata and tensor directory take more than {HEAD_BYTES_MAX} bytes; no model needs that many"
                    )));
                }
                // Twice as much each time, so that everything is scanned about twice.
                Some(needed) => wanted = needed.max(2 * wanted).min(HEAD_BYTES_MAX).min(file_bytes),
            },
        }
    }
}

/// A file's size as a number that memory could have.
fn size(n_bytes: u64) -> Result<usize> {
    usize::try_from(n_bytes)
        .map_err(|_| Error::other(format!("{n_bytes} bytes are too many for this machine")))
}

/// The pieces of a path that ends in `-00002-of-00005.gguf`.
struct SplitName {
    directory: PathBuf,
    prefix: String,
    // From 1.
    no: u32,
    count: u32,
}

impl SplitName {
    fn parse(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, no) = rest.rsplit_once('-')?;
        let number = |s: &str| (s.len() == 5).then(|| s.parse::<u32>().ok())?;
        Some(Self {
            directory: path.parent()?.to_path_buf(),
            prefix: prefix.to_owned(),
            no: number(no)?,
            count: number(count)?,
        })
    }

    /// The path of part `i`, counted from 0.
    fn part(&self, i: u16) -> PathBuf {
        self.directory.join(format!("{}-{:05}-of-{:05}.gguf", self.prefix, i as u32 + 1, self.count))
    }
}
