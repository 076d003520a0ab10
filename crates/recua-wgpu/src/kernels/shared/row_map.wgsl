// Where rows are in their sequences. For kernels whose arguments begin with positions_start, sequences_start, pages_start, n_sequences and
// pages_max. They bind these three after the status.
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> sequences: array<u32>;
@group(0) @binding(3) var<storage, read> pages: array<u32>;

// In `sequences`: the row belongs to no sequence and is skipped.
const INERT = 0xffffffffu;
