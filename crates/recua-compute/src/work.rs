//! The work list of attention: which tiles of rows attend to which chunks. The host writes it for each step from the rows of that step, so
//! that the work follows the actual lengths, never the possible ones.
//!
//! Integers only. A device says how its work should be cut ([`Tiling`]), and [`WorkList`] cuts the rows. No bit of a result depends on the
//! cut: a chunk is always the same tokens of a sequence, and chunks are always folded in order.
//!
//! The list, in u32 words:
//!
//! ```text
//! [n_tiles, n_wide, n_merges, 0]                                     the header
//! n_tiles  x [first_row, n_rows, first_chunk, end_chunk, place]      tiles of at most `rows` rows
//! n_wide   x the same                                                tiles of at most `rows_wide` rows, each whole
//! n_merges x [first_row, n_rows, n_pieces, n_first, place]           tiles that were split into pieces
//! ```
//!
//! A tile is consecutive rows of one sequence. A *whole* tile folds all its chunks in order (`end_chunk` is [`ALL`]), and its results are
//! final (`place` is [`ALL`]). A *piece* of a split tile leaves what it folded for each of its rows in the `n_rows` places from `place` on:
//! the first piece folds the chunks `[0, n_first)`, every later one a single chunk. A merge folds the pieces, whose places are adjacent, in
//! order. The tiles that take longest come first.

use crate::error::{Result, argument};
use std::cmp::Reverse;

/// In [`crate::RowMap::sequences`]: no sequence, so the row is skipped. In the list of [`crate::CopyPages`]: no page, so the pair is skipped.
pub const INERT: u32 = u32::MAX;

/// In a tile, as `end_chunk`: all chunks that its rows see; as `place`: no place.
pub const ALL: u32 = u32::MAX;

/// Words of the header.
pub const HEADER_WORDS: usize = 4;

/// Words of a tile or a merge.
pub const ENTRY_WORDS: usize = 5;

/// How a device wants the work of attention to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiling {
    /// The maximum number of rows of a tile; 0 for a device that finds its work itself, whose list is empty.
    pub rows: usize,
    /// The maximum number of rows of a wide tile, which is never split; 0 if there are no wide tiles.
    pub rows_wide: usize,
    /// The number of rows from which on a pass has wide tiles: runs longer than `rows` are then cut into those.
    pub wide_from: usize,
    /// Tokens in a chunk.
    pub chunk: usize,
    /// Workgroups that work on a tile in parallel, such as one per KV head.
    pub groups: usize,
    /// The number of workgroups that keeps the device busy.
    pub fill: usize,
    /// The number of chunks from which on splitting a tile may pay.
    pub split_from: usize,
    /// The number of places for what pieces leave. A place holds one row, all its heads.
    pub places: usize,
}

/// Consecutive rows of a pass that are consecutive positions of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRun {
    /// The first of the rows.
    pub first_row: usize,
    /// How many.
    pub n_rows: usize,
    /// The position of the first.
    pub start: usize,
}

impl RowRun {
    /// The runs of a pass whose row `r` is position `positions[r]` of sequence `sequences[r]`. [`INERT`] rows are in no run.
    pub fn of<'a>(sequences: &'a [u32], positions: &'a [u32]) -> impl Iterator<Item = RowRun> + 'a {
        let n = sequences.len().min(positions.len());
        let mut row = 0;
        std::iter::from_fn(move || {
            row += sequences[row..n].iter().position(|sequence| *sequence != INERT)?;
            let first_row = row;
            let follows = |row: usize| {
                sequences[row] == sequences[row - 1]
                    && positions[row - 1].checked_add(1) == Some(positions[row])
            };
            row += 1;
            while row < n && follows(row) {
                row += 1;
            }
            Some(RowRun { first_row, n_rows: row - first_row, start: positions[first_row] as usize })
        })
    }
}

/// A tile, before it is decided whether it is split.
#[derive(Clone, Copy, Debug)]
struct Tile {
    first_row: u32,
    n_rows: u32,
    n_chunks: usize,
    is_wide: bool,
}

/// Builds lists, reusing its memory.
#[derive(Debug, Default)]
pub struct WorkList {
    words: Vec<u32>,
    tiles: Vec<Tile>,
    merges: Vec<[u32; ENTRY_WORDS]>,
}

impl WorkList {
    /// Nothing allocated yet.
    pub fn new() -> WorkList {
        WorkList::default()
    }

    /// The number of words of the longest possible list of a pass of `n_rows` rows; saturates.
    pub fn words_max(tiling: &Tiling, n_rows: usize) -> usize {
        if tiling.rows == 0 {
            return HEADER_WORDS;
        }
        // The worst case: every row is a tile of its own, pieces fill all places, and every split tile has a merge.
        let entries = n_rows.saturating_mul(2).saturating_add(tiling.places);
        entries.saturating_mul(ENTRY_WORDS).saturating_add(HEADER_WORDS)
    }

    /// The list of a pass recorded with `n_rows` rows, of which those in `runs` attend.
    ///
    /// # Errors
    /// If a run has no row, ends after `n_rows`, or has positions that do not fit a `u32`.
    pub fn build(
        &mut self,
        tiling: &Tiling,
        n_rows: usize,
        runs: impl IntoIterator<Item = RowRun>,
    ) -> Result<&[u32]> {
        let WorkList { words, tiles, merges } = self;
        tiles.clear();
        merges.clear();
        words.clear();
        words.extend([0; HEADER_WORDS]);
        if tiling.rows == 0 {
            return Ok(words);
        }
        let mut total = 0u64;
        for run in runs {
            cut(tiling, n_rows, run, tiles)?;
        }
        for tile in tiles.iter() {
            total = total.saturating_add(tile.n_chunks as u64 * tiling.groups as u64);
        }
        // As good as stable: no two tiles share a row.
        tiles.sort_unstable_by_key(|tile| (tile.is_wide, Reverse(tile.n_chunks), tile.first_row));

        // A tile is worth splitting if it takes longer than the whole work would if it were spread evenly over the device: the others would
        // wait for it.
        let is_long = |tile: &Tile| {
            let is_split = tile.n_chunks >= tiling.split_from.max(2) && !tile.is_wide;
            is_split && tile.n_chunks as u64 * tiling.fill as u64 > total
        };
        let long_rows: usize =
            tiles.iter().filter(|tile| is_long(tile)).map(|tile| tile.n_rows as usize).sum();
        // The number of pieces that each long tile may have.
        let pieces_max = tiling.places.checked_div(long_rows).unwrap_or(0);
        let whole = |tile: &Tile| [tile.first_row, tile.n_rows, 0, ALL, ALL];
        let mut place = 0u32;
        let n_wide = tiles.iter().filter(|tile| tile.is_wide).count();
        let (narrow, wide) = tiles.split_at(tiles.len() - n_wide);
        let is_split = |tile: &Tile| is_long(tile) && pieces_max >= 2;
        for tile in narrow.iter().filter(|tile| is_split(tile)) {
            let n_pieces = tile.n_chunks.min(pieces_max);
            let n_first = tile.n_chunks - (n_pieces - 1);
            merges.push([tile.first_row, tile.n_rows, n_pieces as u32, n_first as u32, place]);
            place += n_pieces as u32 * tile.n_rows;
        }
        // First pieces may take longest of all; the other pieces take least.
        for &[first_row, n_rows, _, n_first, place] in merges.iter() {
            words.extend([first_row, n_rows, 0, n_first, place]);
        }
        narrow.iter().filter(|tile| !is_split(tile)).for_each(|tile| words.extend(whole(tile)));
        for &[first_row, n_rows, n_pieces, n_first, place] in merges.iter() {
            for piece in 1..n_pieces {
                let first_chunk = n_first + piece - 1;
                words.extend([first_row, n_rows, first_chunk, first_chunk + 1, place + piece * n_rows]);
            }
        }
        words[0] = ((words.len() - HEADER_WORDS) / ENTRY_WORDS) as u32;
        wide.iter().for_each(|tile| words.extend(whole(tile)));
        merges.iter().for_each(|merge| words.extend(merge));
        (words[1], words[2]) = (n_wide as u32, merges.len() as u32);
        Ok(words)
    }
}

/// Cuts a run into tiles.
fn cut(tiling: &Tiling, n_rows: usize, run: RowRun, tiles: &mut Vec<Tile>) -> Result<()> {
    let RowRun { first_row, n_rows: n, start } = run;
    let fits = |first: usize, limit: usize| first.checked_add(n).is_some_and(|end| end <= limit);
    if n == 0 || !fits(first_row, n_rows.min(u32::MAX as usize)) || !fits(start, u32::MAX as usize) {
        return Err(argument("work list", format!("{run:?} is outside a pass of {n_rows} rows")));
    }
    let has_wide = tiling.rows_wide > tiling.rows && n_rows >= tiling.wide_from;
    let mut done = 0;
    while done < n {
        let is_wide = has_wide && n - done > tiling.rows;
        let rows = (n - done).min(if is_wide { tiling.rows_wide } else { tiling.rows });
        let n_chunks = (start + done + rows).div_ceil(tiling.chunk.max(1));
        tiles.push(Tile { first_row: (first_row + done) as u32, n_rows: rows as u32, n_chunks, is_wide });
        done += rows;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
