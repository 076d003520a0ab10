// The work list of attention (work.rs in recua-compute says how it is written). Whatever the buffer contains, the results here are in
// range: rows inside the pass, at most block_rows of them, and places inside the workspace.
@group(0) @binding(4) var<storage, read> work: array<u32>;

const ALL = 0xffffffffu;
const HEADER_WORDS = 4u;
const ENTRY_WORDS = 5u;

// Entries [first, end) of the list.
struct Entries { first: u32, end: u32 }

fn tiles() -> Entries {
    return Entries(0u, min(work[args.work_start], work_entries()));
}
fn wide_tiles() -> Entries {
    let first = tiles().end;
    return Entries(first, first + min(work[args.work_start + 1u], work_entries() - first));
}
fn merges() -> Entries {
    let first = wide_tiles().end;
    return Entries(first, first + min(work[args.work_start + 2u], work_entries() - first));
}
fn work_entries() -> u32 {
    return (args.work_words - HEADER_WORDS) / ENTRY_WORDS;
}

// Rows of one sequence, and the chunks that they attend to; place is ALL if the tile is not split, so that its result is final. No rows:
// nothing to do.
struct Tile { first_row: u32, n_rows: u32, first_chunk: u32, end_chunk: u32, place: u32 }

// A word of an entry, or the last word of the list: an entry may be read before it is known to exist.
fn work_at(entry: u32, i: u32) -> u32 {
    return work[args.work_start + min(HEADER_WORDS + entry * ENTRY_WORDS + i, args.work_words - 1u)];
}

fn tile_at(entry: u32) -> Tile {
    let first_row = min(work_at(entry, 0u), args.n_rows);
    var n_rows = min(work_at(entry, 1u), min(args.block_rows, args.n_rows - first_row));
    let place = work_at(entry, 4u);
    if place != ALL && (place > args.places || args.places - place < n_rows) {
        n_rows = 0u;
    }
    return Tile(first_row, n_rows, work_at(entry, 2u), work_at(entry, 3u), place);
}

// A tile whose pieces must be merged: n_first chunks are in the first piece, one chunk in each of the others.
struct Merge { first_row: u32, n_rows: u32, n_pieces: u32, n_first: u32, place: u32 }

fn merge_at(entry: u32) -> Merge {
    let first_row = min(work_at(entry, 0u), args.n_rows);
    let n_rows = min(work_at(entry, 1u), min(args.block_rows, args.n_rows - first_row));
    let place = min(work_at(entry, 4u), args.places);
    let n_pieces = min(work_at(entry, 2u), (args.places - place) / max(n_rows, 1u));
    return Merge(first_row, n_rows, n_pieces, work_at(entry, 3u), place);
}

// The number of pieces that a row of n_tokens visible tokens sees.
fn pieces_seen(tile: Merge, n_tokens: u32) -> u32 {
    let n_chunks = (n_tokens + CHUNK - 1u) / CHUNK;
    return min(1u + max(n_chunks, tile.n_first) - tile.n_first, tile.n_pieces);
}
