//! How a product runs: which arrangement of `kernels/matmul.cu` takes which matrix and how many rows. None of it changes a bit of a result.

use crate::gpu::Gpu;
use crate::kernels::KernelKey;
use crate::weight::Format;

/// Slices of the sum over K.
pub(super) const SLICES: usize = 8;

/// Rows of x that a block takes at a time: the numbers there are kernels for.
pub(crate) const COLUMNS: &[usize] = &[1, 2, 4, 8, 16, 32, 64];

/// Bytes of a tile of x, for each row.
const X_ROW_BYTES: usize = 512;

/// Shared memory in front of x and the weights' rings: barriers.
const FRONT_BYTES: usize = 1024;

/// What a block takes of a multiprocessor's shared memory beside its own.
const RESERVED_BYTES: usize = 1024;

/// Copies that a multiprocessor may have under way, and bytes that are enough.
const COPIES_MAX: usize = 64;
const ENOUGH_BYTES: usize = 144 << 10;

/// Up to how many blocks of a multiprocessor there are registers to decode a tile before the wait for the kernel before: 80 for each thread.
const EARLY_BLOCKS: usize = 3;

/// Rows from which on four warps multiply together where the card can.
const GROUP_COLUMNS: usize = 32;

/// Up to how many rows all of x may lie in shared memory.
pub(super) const SIDE_COLUMNS: usize = 8;

/// Tiles of x there may be in a ring: there are barriers for so many.
const X_STAGES_MAX: usize = 16;

/// Who does what in a block; see the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrange {
    Side,
    Stream,
}

/// How a product runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) arrange: Arrange,
    pub(super) columns: usize,
    /// Warps that multiply.
    pub(super) warps: usize,
    pub(super) stages: usize,
    pub(super) x_stages: usize,
    /// Blocks that share the sum over K.
    pub(super) parts: usize,
    /// Whether the first tile is decoded before the wait for the kernel before.
    pub(super) is_early: bool,
    /// Blocks of a multiprocessor that the compiler leaves registers for.
    pub(super) blocks: usize,
    pub(super) shared_bytes: usize,
    /// Blocks, for each block of columns.
    pub(super) grid: usize,
}

/// The rows of x of a block, in a pass of so many.
pub(crate) fn columns(n_rows: usize) -> usize {
    COLUMNS.iter().copied().find(|columns| *columns >= n_rows).unwrap_or(COLUMNS[COLUMNS.len() - 1])
}

/// The shape of a product.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) tile_bytes: usize,
    pub(super) n_tiles: usize,
    pub(super) k_tiles: usize,
    pub(super) n_rows: usize,
}

impl Config {
    pub(super) fn new(gpu: &Gpu, shape: Shape) -> Config {
        let columns = columns(shape.n_rows);
        if columns <= SIDE_COLUMNS
            && let Some(config) = Config::side(gpu, shape, columns)
        {
            return config;
        }
        Config::stream(gpu, shape, columns)
    }

    fn side(gpu: &Gpu, shape: Shape, columns: usize) -> Option<Config> {
        let Shape { tile_bytes, n_tiles, k_tiles, .. } = shape;
        // Places for what the slices add up to.
        let (places, lanes) = match columns {
            1 | 2 => (8, 8),
            4 => (2, 16),
            _ => (2, 32),
        };
        let bytes = |stages: usize| {
            let x = k_tiles * columns * X_ROW_BYTES;
            FRONT_BYTES + x + SLICES * stages * tile_bytes + places * SLICES * lanes * 16
        };
        // Bytes under way make the speed, but too many copies at once break it, and blocks without rows or places without tiles are of
        // no use.
        let n_sms = gpu.n_sms as usize;
        let fitting = |stages: usize| {
            let blocks = gpu.shared_bytes_sm / (bytes(stages) + RESERVED_BYTES);
            let blocks = blocks.min(COPIES_MAX / (SLICES * stages)).min(n_tiles.div_ceil(n_sms));
            (bytes(stages) <= gpu.shared_bytes_max && blocks > 0).then_some((blocks, stages))
        };
        let (blocks, stages) =
            [4, 3, 2, 1].into_iter().filter_map(fitting).max_by_key(|(blocks, stages)| {
                let tiles = n_tiles.div_ceil(n_sms * blocks) * k_tiles.div_ceil(SLICES);
                ((blocks * stages.min(&tiles) * SLICES * tile_bytes).min(ENOUGH_BYTES), *blocks)
            })?;
        // No more of them fit, so that the next kernel's, which come early, do not crowd some multiprocessors.
        let share = (gpu.shared_bytes_sm / blocks).saturating_sub(RESERVED_BYTES) / 128 * 128;
        let shared_bytes = share.min(gpu.shared_bytes_max).max(bytes(stages));
        let grid = n_tiles.min(n_sms * blocks);
        Some(Config {
            arrange: Arrange::Side,
            columns,
            warps: SLICES,
            stages,
            x_stages: SLICES,
            parts: 1,
            is_early: blocks <= EARLY_BLOCKS,
            blocks: 2,
            shared_bytes,
            grid,
        })
    }

    /// The cheapest of the ways there are, by [`Config::cycles`].
    fn stream(gpu: &Gpu, shape: Shape, columns: usize) -> Config {
        let warps: &[usize] = if columns >= GROUP_COLUMNS { &[16, 12, 8, 4] } else { &[16, 14, 12, 8, 4] };
        let ways = warps.iter().flat_map(|&warps| [1, 2, 4, 8].map(|parts| (warps, parts)));
        let ways = ways.flat_map(|(warps, parts)| [1, 2].map(|blocks| (warps, parts, blocks)));
        let configs = ways.filter_map(|(warps, parts, blocks)| {
            // Warps beyond these have no registers.
            if warps * blocks > 16 {
                return None;
            }
            Config::fitting(gpu, shape, columns, warps, parts, blocks)
        });
        let best = configs.min_by_key(|config| config.cycles(gpu, shape));
        // A card of little shared memory has room for fewer warps.
        best.or_else(|| Config::fitting(gpu, shape, columns, 2, 1, 1)).unwrap_or_else(|| {
            let shared_bytes = FRONT_BYTES + 2 * columns * X_ROW_BYTES + shape.tile_bytes;
            let grid = shape.n_tiles.min(gpu.n_sms as usize);
            Config {
                arrange: Arrange::Stream,
                columns,
                warps: 1,
                stages: 1,
                x_stages: 2,
                parts: 1,
                is_early: false,
                blocks: 1,
                shared_bytes,
                grid,
            }
        })
    }

    /// The longest rings for so many warps and blocks of a multiprocessor.
    fn fitting(
        gpu: &Gpu,
        shape: Shape,
        columns: usize,
        warps: usize,
        parts: usize,
        blocks: usize,
    ) -> Option<Config> {
        let n_groups = shape.n_tiles.div_ceil(warps);
        let grid = if parts > 1 { n_groups * parts } else { n_groups.min(gpu.n_sms as usize * blocks) };
        let groups_of_block = (n_groups * parts).div_ceil(grid);
        // Where all of x fits, nobody waits for a place in its ring.
        let whole = groups_of_block * shape.k_tiles.div_ceil(parts);
        // Groups of warps sum their slices in shared memory.
        let is_grouped = gpu.cc.0 == 9 && columns >= GROUP_COLUMNS && warps.is_multiple_of(4);
        let sums = if is_grouped && parts == 1 { warps * columns.div_ceil(8) * 512 } else { 0 };
        let bytes = |(stages, x_stages): (usize, usize)| {
            FRONT_BYTES + x_stages * columns * X_ROW_BYTES + warps * stages * shape.tile_bytes + sums
        };
        let limit = gpu.shared_bytes_max.min((gpu.shared_bytes_sm / blocks).saturating_sub(RESERVED_BYTES));
        let whole =
            [(3, whole), (2, whole)].into_iter().filter(|(_, whole)| (2..=X_STAGES_MAX).contains(whole));
        let rings = [(3, 6), (2, 6), (2, 4), (2, 3), (2, 2), (1, 2)];
        let (stages, x_stages) = whole.chain(rings).find(|stages| bytes(*stages) <= limit)?;
        Some(Config {
            arrange: Arrange::Stream,
            columns,
            warps,
            stages,
            x_stages,
            parts,
            is_early: false,
            blocks,
            shared_bytes: bytes((stages, x_stages)),
            grid,
        })
    }

    /// About how long it takes on a multiprocessor of compute capability 9.0 (fitted to an H200): what a tile takes alone, and what it
    /// takes of what all warps share; what parts of sums cost goes through the second cache.
    fn cycles(&self, gpu: &Gpu, shape: Shape) -> usize {
        let alone = if self.columns >= GROUP_COLUMNS { 400 } else { 1200 };
        const START: usize = 4000;
        const PART: usize = 800;
        const CACHE_BYTES: usize = 2500;
        let column_blocks = shape.n_rows.div_ceil(self.columns);
        let n_blocks = shape.n_tiles.div_ceil(self.warps) * self.parts * column_blocks;
        let rounds = n_blocks.div_ceil(gpu.n_sms as usize * self.blocks);
        let tile = alone + self.warps * self.blocks * (45 + self.columns * 7 / 5);
        let sums = shape.n_tiles * column_blocks * self.columns.div_ceil(8) * 512 * SLICES;
        let sums = if self.parts > 1 { PART * self.parts + 2 * sums / CACHE_BYTES } else { 0 };
        rounds * (shape.k_tiles.div_ceil(self.parts) * tile + START) + sums
    }

    pub(super) fn kernel(&self, format: &Format, is_glu: bool) -> KernelKey {
        let arrange = match self.arrange {
            Arrange::Side => "SIDE",
            Arrange::Stream => "STREAM",
        };
        let key = format.define(KernelKey::new("matmul"));
        let key = key.define("COLUMNS", self.columns).define("ARRANGE", arrange).define("PARTS", self.parts);
        let key = key.define("WARPS", self.warps).define("STAGES", self.stages);
        let key = key.define("X_STAGES", self.x_stages).define("BLOCKS", self.blocks);
        let key = if self.is_early { key.define("EARLY", 1) } else { key };
        if is_glu { key.define("GLU", 1) } else { key }
    }
}
