// The work list of attention (recua-compute's work.rs says how it is written). Whatever the buffer holds, what is found here lies in
// range: rows inside the pass, at most so many as a tile has, and places inside the workspace.
#pragma once
#include "base.cuh"

#define ALL 0xffffffffu
#define HEADER_WORDS 4
#define ENTRY_WORDS 5

struct Work {
    const u32* words;
    u32 n_words, n_places;
};

struct Entries {
    u32 first, end;
};

DEVICE Entries entries(const Work& work, int kind) {
    const u32 most = (work.n_words - HEADER_WORDS) / ENTRY_WORDS;
    u32 first = 0, n = 0;
    for (int i = 0; i <= kind; i++) {
        first += n;
        n = min(work.words[i], most - first);
    }
    return Entries{first, first + n};
}
#define NARROW 0
#define WIDE 1
#define MERGES 2

// Rows of one sequence, and the chunks that they attend to; place is ALL if what comes of it is the result.
struct Tile {
    u32 first_row, n_rows, first_chunk, end_chunk, place;
};
DEVICE Tile tile_at(const Work& work, u32 entry, u32 rows_max, u32 n_rows) {
    const u32* words = work.words + HEADER_WORDS + entry * ENTRY_WORDS;
    Tile tile = {words[0], words[1], words[2], words[3], words[4]};
    tile.first_row = min(tile.first_row, n_rows);
    tile.n_rows = min(tile.n_rows, min(rows_max, n_rows - tile.first_row));
    if (tile.place != ALL && (tile.place > work.n_places || work.n_places - tile.place < tile.n_rows)) tile.n_rows = 0;
    return tile;
}

// A tile whose pieces are to be merged: n_first chunks are in the first, one in each other.
struct Merge {
    u32 first_row, n_rows, n_pieces, n_first, place;
};
DEVICE Merge merge_at(const Work& work, u32 entry, u32 rows_max, u32 n_rows) {
    const u32* words = work.words + HEADER_WORDS + entry * ENTRY_WORDS;
    Merge merge = {words[0], words[1], words[2], words[3], words[4]};
    merge.first_row = min(merge.first_row, n_rows);
    merge.n_rows = min(merge.n_rows, min(rows_max, n_rows - merge.first_row));
    merge.place = min(merge.place, work.n_places);
    merge.n_pieces = min(merge.n_pieces, (work.n_places - merge.place) / max(merge.n_rows, 1u));
    return merge;
}
