//! A weight in this device's layout: every byte of the blocks, in the order in which kernels read them.
//!
//! A tile is 32 rows, a *unit* a few blocks of each (64 or 256 columns). A format's include says in its first line how a unit of one
//! row is cut: `layout COLUMNS: RANGES`, where a piece is one or more byte ranges joined by `+`. Tile after tile and unit after unit,
//! a piece of whole vectors of 16 bytes lies as `[vector][row]`, any other as `[row]`: 32 invocations that read the same vector of
//! 32 rows read 512 bytes next to each other. Rows behind the last one and columns behind K are zero bytes, which decode to zero.
//!
//! A weight that no binding can hold is cut into several allocations at whole tiles.

use crate::kernels;
use crate::memory::Memory;
use crate::shared::Shared;
use recua_compute::{Error, GgmlType, Result, Weight};

/// Rows of a tile.
pub(crate) const TILE: usize = 32;

/// Columns that a kernel decodes at a time.
pub(crate) const PART: usize = 64;

/// Bytes that are laid out before they are sent.
const STAGE_BYTES: usize = 32 << 20;

/// A weight on the device.
pub(crate) struct Packed {
    pub(crate) pieces: Vec<Piece>,
    /// The include of its format, as a define.
    pub(crate) format: &'static str,
    /// Units of a row.
    pub(crate) units: usize,
    /// Parts of [`PART`] columns of a row.
    pub(crate) parts: usize,
}

/// Rows of a weight that one binding holds.
pub(crate) struct Piece {
    pub(crate) memory: Memory,
    /// The first row, and how many.
    pub(crate) first: usize,
    pub(crate) n: usize,
}

impl Packed {
    /// The layout of a weight; for weights of this device, which the plan has checked.
    pub(crate) fn of(weight: &Weight) -> Result<&Packed> {
        weight.storage_as().ok_or(Error::WrongDevice { op: "wgpu", what: "a weight" })
    }
}

/// Checks and re-lays out raw blocks, once.
pub(crate) fn upload(shared: &Shared, raw: &[u8], ty: GgmlType, n: usize, k: usize) -> Result<Weight> {
    let gpu = &shared.gpu;
    let unsupported = || Error::UnsupportedType { device: gpu.info.name.clone(), ty };
    let (format, text) = kernels::format(ty).ok_or_else(unsupported)?;
    let layout = Layout::parse(text, ty).ok_or_else(unsupported)?;
    let row_bytes = ty.row_bytes(k).ok_or_else(unsupported)?;
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
    let mut pieces = Vec::new();
    let mut n_bytes = 0;
    for (i, raw) in raw.chunks(tiles_max * TILE * row_bytes).enumerate() {
        let n = raw.len() / row_bytes;
        let memory = Memory::new(gpu, n.div_ceil(TILE) * tile_bytes, "a weight")?;
        n_bytes += memory.n_bytes();
        send(shared, &memory, &layout, raw, row_bytes, tile_bytes)?;
        pieces.push(Piece { memory, first: i * tiles_max * TILE, n });
    }
    let packed = Packed { pieces, format, units, parts: units * layout.columns / PART };
    Ok(Weight::from_storage(std::sync::Arc::new(packed), gpu.id, ty, n, k, n_bytes))
}

/// Lays rows out, a stage at a time on all cores, and sends them.
fn send(
    shared: &Shared,
    memory: &Memory,
    layout: &Layout,
    raw: &[u8],
    row_bytes: usize,
    tile_bytes: usize,
) -> Result<()> {
    let tiles = raw.len().div_ceil(TILE * row_bytes);
    let stage_tiles = (STAGE_BYTES / tile_bytes).clamp(1, tiles);
    let mut stage = Vec::new();
    stage.try_reserve_exact(stage_tiles * tile_bytes).map_err(|_| Error::OutOfMemory {
        device: "host".into(),
        what: "staging".into(),
        requested_bytes: stage_tiles * tile_bytes,
    })?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    for (i, raw) in raw.chunks(stage_tiles * TILE * row_bytes).enumerate() {
        let n_bytes = raw.len().div_ceil(TILE * row_bytes) * tile_bytes;
        stage.clear();
        stage.resize(n_bytes, 0u8);
        let tiles_each = (n_bytes / tile_bytes).div_ceil(cores);
        let pack = |(raw, out): (&[u8], &mut [u8])| {
            for (raw, out) in raw.chunks(TILE * row_bytes).zip(out.chunks_exact_mut(tile_bytes)) {
                layout.pack(raw, row_bytes, out);
            }
        };
        let mut shares =
            raw.chunks(tiles_each * TILE * row_bytes).zip(stage.chunks_mut(tiles_each * tile_bytes));
        let own = shares.next();
        std::thread::scope(|scope| {
            shares.for_each(|share| drop(scope.spawn(move || pack(share))));
            own.into_iter().for_each(pack);
        });
        shared.transfers.upload(&shared.gpu, memory, (i * stage_tiles * tile_bytes) as u64, &stage)?;
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
    /// Where those of row 0 go, and how far apart rows are.
    to: usize,
    stride: usize,
}

impl Layout {
    /// Reads the first line of an include. `None` unless it covers each byte of whole blocks of `ty` once.
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
            // What lies together of one row.
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

    /// Lays up to [`TILE`] raw rows out into a zeroed tile.
    fn pack(&self, rows: &[u8], row_bytes: usize, out: &mut [u8]) {
        for (row, raw) in rows.chunks_exact(row_bytes).enumerate() {
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
                    // The usual length as a constant: one move instead of a call.
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
        // 33 blocks: a unit of two and a last one of one.
        let row_bytes = 3 * 18;
        let raw: Vec<u8> = (0..5 * row_bytes).map(|i| (i % 251) as u8 + 1).collect();
        let mut out = vec![0u8; 2 * layout.unit_bytes * TILE];
        layout.pack(&raw, row_bytes, &mut out);
        let count = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte != 0).count();
        assert_eq!(count(&out), count(&raw));
        // Row 1's first nibbles come 16 bytes behind row 0's; its two scales lie together.
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
