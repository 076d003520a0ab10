//! A weight in this device's layout: every byte of the blocks, in the order in which kernels read them.
//!
//! A tile is 32 rows; a *unit* is a few blocks of each row (64 or 256 columns). The first line of a format's include says how a unit of one
//! row is cut into pieces: `layout COLUMNS: RANGES`, where a piece is one or more byte ranges joined by `+`. Tile after tile and unit after
//! unit, a piece of whole 16-byte vectors is stored as `[vector][row]`, any other as `[row]`: 32 invocations that read the same vector of
//! 32 rows read 512 adjacent bytes. Rows after the last one and columns after K are zero bytes, which decode to zero.
//!
//! Adjacent matrices of one type are one *segment*: their rows are stored one after the other, whatever their number. A gate and an up
//! matrix of one type are a segment too, with tiles of [`GLU_ROWS`] rows of each, so that a kernel has both halves of the GLU; if their
//! types differ, they are a segment each. A segment that no binding can hold is cut into several allocations at whole tiles.

use crate::kernels;
use crate::memory::Memory;
use crate::shared::Shared;
use recua_compute::{Arrange, Error, GgmlType, RawMatrix, RawRows, Result, Weight, fill_shares};
use std::ops::Range;

/// Rows of a tile.
pub(crate) const TILE: usize = 32;

/// Columns that a kernel decodes at a time.
pub(crate) const PART: usize = 64;

/// Bytes that are converted before they are uploaded.
const STAGE_BYTES: usize = 32 << 20;

/// Rows of gate, and rows of up, in a tile of both.
pub(crate) const GLU_ROWS: usize = TILE / 2;

/// A weight on the device.
pub(crate) struct Packed {
    /// For a GLU, one whose tiles have both gate and up, or one of each.
    pub(crate) segments: Vec<Segment>,
}

/// Rows of one format.
pub(crate) struct Segment {
    pub(crate) pieces: Vec<Piece>,
    /// The include of its format, which is also its define.
    pub(crate) format: &'static str,
    /// Units in a row.
    pub(crate) units: usize,
    /// Parts of [`PART`] columns in a row.
    pub(crate) parts: usize,
}

/// Tiles that fit into one binding.
pub(crate) struct Piece {
    pub(crate) memory: Memory,
    pub(crate) tiles: usize,
    /// The first output in the weight, and the number of outputs: rows, or in a GLU pairs of rows.
    pub(crate) first: usize,
    pub(crate) n: usize,
}

impl Packed {
    /// The layout of a weight of this device; the plan has checked that it is one.
    pub(crate) fn of(weight: &Weight) -> Result<&Packed> {
        weight.storage_as().ok_or(Error::WrongDevice { op: "wgpu", what: "a weight" })
    }
}

/// Converts matrices to this layout, once.
pub(crate) fn upload(shared: &Shared, parts: &[RawMatrix<'_>], arrange: Arrange) -> Result<Weight> {
    let same_type = parts.windows(2).all(|pair| pair[0].ty == pair[1].ty);
    let is_glu = arrange == Arrange::Interleaved && same_type;
    let (mut segments, mut first, mut n_bytes) = (Vec::new(), 0, 0);
    for parts in parts.chunk_by(|a, b| is_glu || arrange == Arrange::Stacked && a.ty == b.ty) {
        let (rows, tile_outputs) = match is_glu {
            true => (RawRows::interleaved(parts, GLU_ROWS), GLU_ROWS),
            false => (RawRows::stacked(parts), TILE),
        };
        let segment = upload_segment(shared, parts, rows, tile_outputs, first)?;
        n_bytes += segment.pieces.iter().map(|piece| piece.memory.n_bytes()).sum::<usize>();
        segments.push(segment);
        // In a GLU that is not interleaved, each matrix has all outputs.
        first += if arrange == Arrange::Stacked { rows.n_outputs() } else { 0 };
    }
    let packed = std::sync::Arc::new(Packed { segments });
    Ok(Weight::from_storage(packed, shared.gpu.id, parts, arrange, n_bytes))
}

/// Converts and uploads the rows of `parts`, which are of one type; `first` is their first output, and a tile has `tile_outputs` of them.
fn upload_segment(
    shared: &Shared,
    parts: &[RawMatrix<'_>],
    rows: RawRows<'_, '_>,
    tile_outputs: usize,
    first: usize,
) -> Result<Segment> {
    let gpu = &shared.gpu;
    let (ty, k) = (parts[0].ty, parts[0].columns.len());
    let unsupported = || Error::UnsupportedType { device: gpu.info.name.clone(), ty };
    let (format, text) = kernels::format(ty).ok_or_else(unsupported)?;
    let layout = Layout::parse(text, ty).ok_or_else(unsupported)?;
    let units = k.div_ceil(layout.columns);
    let tile_bytes = units * layout.unit_bytes * TILE;
    let limit = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size);
    let tiles_max = usize::try_from(limit).unwrap_or(usize::MAX) / tile_bytes;
    if tiles_max == 0 {
        return Err(Error::OutOfMemory {
            device: gpu.info.name.clone(),
            what: format!("{TILE} rows of a weight (a binding here holds at most {limit} bytes)"),
            requested_bytes: tile_bytes,
        });
    }
    let n_outputs = rows.n_outputs();
    let n_tiles = n_outputs.div_ceil(tile_outputs);
    let mut pieces = Vec::new();
    for first_tile in (0..n_tiles).step_by(tiles_max) {
        let tiles = tiles_max.min(n_tiles - first_tile);
        let memory = Memory::new(gpu, tiles * tile_bytes, "a weight")?;
        send(shared, &memory, &layout, rows, first_tile..first_tile + tiles, tile_bytes)?;
        let before = first_tile * tile_outputs;
        let n = (tiles * tile_outputs).min(n_outputs - before);
        pieces.push(Piece { memory, tiles, first: first + before, n });
    }
    Ok(Segment { pieces, format, units, parts: units * layout.columns / PART })
}

/// Converts tiles, one stage at a time on all cores, and uploads them.
fn send(
    shared: &Shared,
    memory: &Memory,
    layout: &Layout,
    rows: RawRows<'_, '_>,
    tiles: Range<usize>,
    tile_bytes: usize,
) -> Result<()> {
    let stage_tiles = (STAGE_BYTES / tile_bytes).clamp(1, tiles.len());
    let mut stage = Vec::new();
    let no_memory = |requested_bytes| Error::OutOfMemory {
        device: "host".into(),
        what: "staging".into(),
        requested_bytes,
    };
    stage.try_reserve_exact(stage_tiles * tile_bytes).map_err(|_| no_memory(stage_tiles * tile_bytes))?;
    let row_bytes = rows.row_bytes();
    let raw_bytes = TILE * row_bytes;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    for first in tiles.clone().step_by(stage_tiles) {
        let n_tiles = stage_tiles.min(tiles.end - first);
        stage.clear();
        stage.resize(n_tiles * tile_bytes, 0u8);
        fill_shares(&mut stage, tile_bytes, cores, |tile, out| {
            let mut raw = Vec::new();
            raw.try_reserve_exact(raw_bytes).map_err(|_| no_memory(raw_bytes))?;
            raw.resize(raw_bytes, 0u8);
            for (tile, out) in (first + tile..).zip(out.chunks_exact_mut(tile_bytes)) {
                rows.read(tile * TILE, &mut raw)?;
                layout.pack(raw.chunks_exact(row_bytes), out);
            }
            Ok(())
        })?;
        let at = ((first - tiles.start) * tile_bytes) as u64;
        shared.transfers.upload(&shared.gpu, memory, at, &stage)?;
    }
    Ok(())
}

/// How a unit is cut.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    columns: usize,
    unit_bytes: usize,
    copies: Vec<Copy>,
}

/// Bytes of a row's unit that stay together.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    from: usize,
    len: usize,
    /// Where the bytes of row 0 go, and the distance between rows.
    to: usize,
    stride: usize,
}

impl Layout {
    /// Parses the first line of an include. `None` unless it covers each byte of whole blocks of `ty` exactly once.
    fn parse(text: &str, ty: GgmlType) -> Option<Layout> {
        let line = text.lines().next()?.strip_prefix("// layout ")?;
        let (columns, pieces) = line.split_once(':')?;
        let columns: usize = columns.parse().ok()?;
        let unit_bytes = ty.row_bytes(columns)?;
        let mut covered = vec![false; unit_bytes];
        let (mut copies, mut base) = (Vec::new(), 0);
        for piece in pieces.split_whitespace() {
            let range = |range: &str| {
                let (start, end) = range.split_once("..")?;
                Some(start.parse().ok()?..end.parse().ok()?)
            };
            let ranges = piece.split('+').map(range).collect::<Option<Vec<std::ops::Range<usize>>>>()?;
            let len: usize = ranges.iter().map(ExactSizeIterator::len).sum();
            // The bytes of one row that stay together.
            let together = if len.is_multiple_of(16) { 16 } else { len };
            let mut at = 0;
            for range in ranges {
                let mut from = range.start;
                while from < range.end {
                    let len = (range.end - from).min(together - at % together);
                    let to = base + at / together * together * TILE + at % together;
                    copies.push(Copy { from, len, to, stride: together });
                    covered.get_mut(from..from + len)?.fill(true);
                    (from, at) = (from + len, at + len);
                }
            }
            base += len * TILE;
        }
        let is_whole = covered.iter().all(|&covered| covered) && base == unit_bytes * TILE;
        (is_whole && columns.is_multiple_of(PART)).then_some(Layout { columns, unit_bytes, copies })
    }

    /// Converts the raw rows of a tile into `out`, which is zeroed.
    fn pack<'a>(&self, rows: impl Iterator<Item = &'a [u8]>, out: &mut [u8]) {
        for (row, raw) in rows.enumerate() {
            let units = raw.chunks(self.unit_bytes).zip(out.chunks_exact_mut(self.unit_bytes * TILE));
            for (raw, out) in units {
                let mut padded = [0u8; 1024];
                let unit = if raw.len() == self.unit_bytes {
                    raw
                } else {
                    padded[..raw.len()].copy_from_slice(raw);
                    &padded[..self.unit_bytes]
                };
                for copy in &self.copies {
                    let to = copy.to + row * copy.stride;
                    let from = &unit[copy.from..copy.from + copy.len];
                    // With the usual length as a constant, this is one move instead of a call.
                    match <&[u8; 16]>::try_from(from) {
                        Ok(from) => out[to..to + 16].copy_from_slice(from),
                        Err(_) => out[to..to + copy.len].copy_from_slice(from),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decodable_type_has_a_layout_of_all_its_bytes() {
        for ty in GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable()) {
            let (_, text) = kernels::format(ty).unwrap_or_else(|| panic!("{ty} has no include"));
            let layout = Layout::parse(text, ty).unwrap_or_else(|| panic!("{ty}: {:?}", text.lines().next()));
            let vectors = layout.unit_bytes * TILE / 16;
            assert!(text.contains(&format!("const UNIT_VECTORS: u32 = {vectors}u;")), "{ty}: {vectors}");
            assert!(text.contains(&format!("const PARTS: u32 = {}u;", layout.columns / PART)), "{ty}");
            assert!(layout.unit_bytes <= 1024, "{ty}: the padded unit of `pack` is too small");
        }
    }

    #[test]
    fn packing_keeps_every_byte_once() {
        let text = kernels::format(GgmlType::Q4_0).unwrap().1;
        let layout = Layout::parse(text, GgmlType::Q4_0).unwrap();
        // 33 blocks: a unit of two, and a last unit of one.
        let row_bytes = 3 * 18;
        let raw: Vec<u8> = (0..5 * row_bytes).map(|i| (i % 251) as u8 + 1).collect();
        let mut out = vec![0u8; 2 * layout.unit_bytes * TILE];
        layout.pack(raw.chunks(row_bytes), &mut out);
        let count = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte != 0).count();
        assert_eq!(count(&out), count(&raw));
        // Row 1's first nibbles come 16 bytes after row 0's; its two scales are adjacent.
        assert_eq!(out[16..32], raw[row_bytes + 2..row_bytes + 18]);
        assert_eq!(out[1024 + 4..1024 + 6], raw[row_bytes..row_bytes + 2]);
        assert_eq!(out[1024 + 6..1024 + 8], raw[row_bytes + 18..row_bytes + 20]);
    }

    #[test]
    fn a_layout_that_leaves_bytes_out_is_none() {
        let parse = |line| Layout::parse(line, GgmlType::Q4_0);
        assert_eq!(parse("// layout 64: 2..18 20..36 0..2"), None);
        assert_eq!(parse("// layout 64: 2..18 20..38 0..2+18..20"), None);
        assert_eq!(parse("layout"), None);
    }
}
