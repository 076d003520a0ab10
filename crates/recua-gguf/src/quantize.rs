//! Re-encodes a model file: streams tensor by tensor, rows in parallel, and leaves either a complete file or
//! none.

use std::path::Path;

use crate::decode::decode;
use crate::encode::encode_from;
use crate::error::{Error, Result, try_vec};
use crate::format::{GgmlType, names_where};
use crate::mix::{Facts, FileType};
use crate::output::Output;
use crate::reader::Gguf;
use crate::tensor::TensorInfo;
use crate::writer::{Header, Writer};

/// Values each thread decodes at a time, a multiple of every block size: 4 MiB of f32 keep a thread busy for
/// many milliseconds.
const CHUNK_VALUES: usize = 1 << 20;

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
/// The output is one file. It keeps all metadata except the `split.*` keys and `general.alignment`;
/// `general.file_type` and `general.quantization_version` are set. Tensors that already have the right type are
/// copied, and so are tensors of integers or F64. `progress` is called with the number of tensors done, the
/// number of all tensors, and the name of the next one (empty at the end). The output appears, replacing an
/// older file, only when it is complete.
///
/// # Errors
/// If a tensor cannot be decoded or holds values that its new type cannot hold (the error names the tensor), or
/// the output cannot be written.
pub fn quantize(
    input: &Gguf,
    output: &Path,
    file_type: FileType,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Report> {
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
    for (i, tensor) in input.tensors().iter().enumerate() {
        progress(i, n, &tensor.name);
        let ty = output_type(tensor, file_type, &facts)?;
        if ty == tensor.ty {
            writer.write(&tensor.name, input.data(tensor)).map_err(|e| e.in_file(output))?;
        } else {
            convert(input, tensor, ty, threads.clamp(1, THREADS_MAX), &mut |bytes| {
                writer.append(&tensor.name, bytes).map_err(|e| e.in_file(output))
            })?;
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

/// Decodes and encodes a tensor chunk by chunk, `threads` chunks at a time, and passes the results to `write`
/// in order.
fn convert(
    input: &Gguf,
    tensor: &TensorInfo,
    ty: GgmlType,
    threads: usize,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    // Rows are whole blocks of both types, so the tensor can be cut between any two blocks.
    let chunk_bytes = CHUNK_VALUES / tensor.ty.block_values() * tensor.ty.block_bytes();
    let mut chunks = input.data(tensor).chunks(chunk_bytes).enumerate().peekable();
    let mut buffers: Vec<Vec<u8>> = vec![Vec::new(); threads];
    while chunks.peek().is_some() {
        let done: Vec<Result<()>> = std::thread::scope(|scope| {
            let workers: Vec<_> = buffers
                .iter_mut()
                .zip(&mut chunks)
                .map(|(out, (i, chunk))| {
                    scope.spawn(move || convert_chunk(tensor, i * CHUNK_VALUES, chunk, ty, out))
                })
                .collect();
            workers
                .into_iter()
                .map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for (result, out) in done.into_iter().zip(&buffers) {
            result.map_err(|e| Error::tensor(&tensor.name, e.to_string()))?;
            write(out)?;
        }
    }
    Ok(())
}

/// `first` is the index in the tensor of the chunk's first value.
fn convert_chunk(
    tensor: &TensorInfo,
    first: usize,
    chunk: &[u8],
    ty: GgmlType,
    out: &mut Vec<u8>,
) -> Result<()> {
    let n = chunk.len() / tensor.ty.block_bytes() * tensor.ty.block_values();
    let mut values = try_vec(n)?;
    values.resize(n, 0.0);
    decode(tensor.ty, chunk, &mut values)?;
    out.clear();
    encode_from(first, ty, &values, out)
}
