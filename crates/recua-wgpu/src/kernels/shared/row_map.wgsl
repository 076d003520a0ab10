// Where rows stand. Importing kernels bind these three behind the status.
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> sequences: array<u32>;
@group(0) @binding(3) var<storage, read> pages: array<u32>;

struct RowMap {
    positions_start: u32,
    sequences_start: u32,
    pages_start: u32,
    n_sequences: u32,
    pages_max: u32,
}
