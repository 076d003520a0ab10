//! Re-encodes a model file: streams tensor by tensor, rows in parallel, and leaves either a complete file or
//! none.

use std::path::Path;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::decode::decode;
use crate::encode::encode_from;
use crate::error::{Error, Result, no_memory};
use crate::format::{GgmlType, names_where};
use crate::mix::{Facts, FileType};
use crate::output::Output;
use crate::reader::Gguf;
use crate::source::TensorData;
use crate::tensor::TensorInfo;
use crate::writer::{Header, Writer};

/// Values each thread decodes at a time, a multiple of every block size: 4 MiB of f32 keep a thread busy for
/// many milliseconds.
const CHUNK_VALUES: usize = 1 << 20;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 4 << 20;

/// More threads than this would only cost memory.
const THREADS_MAX: usize = 256;

/// The version of the block formats, which `general.quantization_version` records.
pub(crate) const QUANTIZATION_VERSION: u32 = 2;

/// What [`quantize`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the input's files.
    pub bytes_in: u64,
    /// Bytes of the output file.
    pub bytes_out: u64,
    /// Tensors and bytes of each type in the output, in order of first appearance.
    pub types: Vec<(GgmlType, usize, u64)>,
}

/// Writes `input` to the file `output` with its tensors encoded as `file_type` prescribes.
///
/// The output is one file. It keeps all metadata except the `split.*` keys, and the alignment; `general.file_type` and
/// `general.quantization_version` are set. Tensors that already have the right type are
/// copied, and so are tensors of integers or F64. `progress` is called with the number of tensors done, the
/// number of all tensors, and the name of the next one (empty at the end). The output appears, replacing an
/// older file, only when it is complete; a link is followed, and what is no regular file, such as a named pipe, is written in place.
///
/// # Errors
/// If a tensor cannot be decoded or holds values that its new type cannot hold (the error names the tensor), the input has become shorter,
/// the output is one of its files or cannot be written, or no thread can be started.
pub fn quantize(
    input: &Gguf,
    output: &Path,
    file_type: FileType,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Report> {
    if input.has_file(output) {
        let message = "is also the input, or a part of it; give the output another name";
        return Err(Error::other(message).in_file(output));
    }
    let facts = Facts::of(input);
    let mut header = Header::new();
    header.copy_metadata(input.metadata(), |key| !key.starts_with("split."))?;
    header.set("general.file_type", file_type.id())?;
    header.set("general.quantization_version", QUANTIZATION_VERSION)?;
    let mut report = Report { bytes_in: input.file_bytes(), bytes_out: 0, types: Vec::new() };
    for tensor in input.tensors() {
        let ty = output_type(tensor, file_type, &facts)?;
        header.tensor(&tensor.name, ty, tensor.dims())?;
        let n_bytes = ty.row_bytes(tensor.n_elements()).unwrap_or(0) as u64;
        match report.types.iter_mut().find(|t| t.0 == ty) {
            Some((_, n, bytes)) => (*n, *bytes) = (*n + 1, *bytes + n_bytes),
            None => report.types.push((ty, 1, n_bytes)),
        }
    }
    let mut writer = Writer::new(Output::create(output)?, &header).map_err(|e| e.in_file(output))?;
    let n = input.tensors().len();
    let mut lanes: Vec<Lane> = (0..threads.clamp(1, THREADS_MAX)).map(|_| Lane::default()).collect();
    for (i, tensor) in input.tensors().iter().enumerate() {
        progress(i, n, &tensor.name);
        let ty = output_type(tensor, file_type, &facts)?;
        let mut write = |bytes: &[u8]| writer.append(&tensor.name, bytes).map_err(|e| e.in_file(output));
        if ty == tensor.ty {
            copy(input.data(tensor), &mut lanes[0].raw, &mut write)?;
        } else {
            convert(input, tensor, ty, &mut lanes, &mut write)?;
        }
    }
    report.bytes_out = writer.file_bytes();
    writer.finish()?.commit()?;
    progress(n, n, "");
    Ok(report)
}

fn output_type(tensor: &TensorInfo, file_type: FileType, facts: &Facts) -> Result<GgmlType> {
    use GgmlType::{F64, I8, I16, I32, I64};
    if matches!(tensor.ty, I8 | I16 | I32 | I64 | F64) {
        return Ok(tensor.ty);
    }
    let ty = file_type.tensor_type(&tensor.name, tensor.dims(), facts);
    if ty != tensor.ty && !tensor.ty.is_decodable() {
        let known = names_where(GgmlType::is_decodable);
        let message =
            format!("is {}, which cannot be decoded; start from a file of these types: {known}", tensor.ty);
        return Err(Error::tensor(&tensor.name, message));
    }
    Ok(ty)
}

/// Passes a tensor's bytes to `write`.
fn copy(
    data: TensorData<'_>,
    buffer: &mut Vec<u8>,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for start in (0..data.len()).step_by(COPY_BYTES) {
        write(read(&data, start, COPY_BYTES, buffer)?)?;
    }
    Ok(())
}

/// At most `len` bytes from `start` on, in `buffer`.
fn read<'b>(data: &TensorData<'_>, start: usize, len: usize, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
    let len = len.min(data.len() - start);
    buffer.clear();
    buffer.try_reserve_exact(len).map_err(|_| no_memory(len))?;
    buffer.resize(len, 0);
    data.read(start, buffer)?;
    Ok(buffer)
}

/// What a thread keeps from chunk to chunk.
#[derive(Default)]
struct Lane {
    raw: Vec<u8>,
    values: Vec<f32>,
    out: Vec<u8>,
}

/// Decodes and encodes a tensor chunk by chunk, one chunk per lane at a time, and passes the results to `write` in order.
fn convert(
    input: &Gguf,
    tensor: &TensorInfo,
    ty: GgmlType,
    lanes: &mut [Lane],
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    // Rows are whole blocks of both types, so the tensor can be cut between any two blocks.
    let chunk_bytes = CHUNK_VALUES / tensor.ty.block_values() * tensor.ty.block_bytes();
    let data = input.data(tensor);
    let mut chunks = (0..data.len()).step_by(chunk_bytes).enumerate().peekable();
    while chunks.peek().is_some() {
        let n_chunks = std::thread::scope(|scope| {
            let mut workers = Vec::new();
            for (lane, (i, start)) in lanes.iter_mut().zip(&mut chunks) {
                workers.push(spawn(scope, move || {
                    let raw = read(&data, start, chunk_bytes, &mut lane.raw)?;
                    convert_chunk(tensor, i * CHUNK_VALUES, raw, &mut lane.values, ty, &mut lane.out)
                        .map_err(|e| e.in_tensor(&tensor.name))
                })?);
            }
            let n_chunks = workers.len();
            for worker in workers {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok::<_, Error>(n_chunks)
        })?;
        lanes[..n_chunks].iter().try_for_each(|lane| write(&lane.out))?;
    }
    Ok(())
}

/// Starts a thread.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).map_err(|e| {
        let message = format!("no thread can be started: {e}; fewer may work (--threads)");
        Error::from(std::io::Error::new(e.kind(), message))
    })
}

/// `first` is the index in the tensor of the chunk's first value.
fn convert_chunk(
    tensor: &TensorInfo,
    first: usize,
    chunk: &[u8],
    values: &mut Vec<f32>,
    ty: GgmlType,
    out: &mut Vec<u8>,
) -> Result<()> {
    let n = chunk.len() / tensor.ty.block_bytes() * tensor.ty.block_values();
    values.clear();
    values.try_reserve_exact(n).map_err(|_| no_memory(n * size_of::<f32>()))?;
    values.resize(n, 0.0);
    decode(tensor.ty, chunk, values)?;
    out.clear();
    encode_from(first, ty, values, out)
}
