//! Lists as text: `first row+rows@start position` becomes tiles, wide tiles and merges.

use super::*;
use std::fmt::Write;

/// Tiles of up to 4 rows, wide ones of 8, chunks of 128; 8 KV heads on a device that 128 workgroups fill.
const TILING: Tiling = Tiling {
    rows: 4,
    rows_wide: 8,
    wide_from: 33,
    chunk: 128,
    groups: 8,
    fill: 128,
    split_from: 3,
    places: 64,
};

fn runs(script: &str) -> Vec<RowRun> {
    let run = |word: &str| {
        let (first_row, rest) = word.split_once('+').unwrap();
        let (n_rows, start) = rest.split_once('@').unwrap();
        let [first_row, n_rows, start] = [first_row, n_rows, start].map(|n| n.parse().unwrap());
        RowRun { first_row, n_rows, start }
    };
    script.split_whitespace().map(run).collect()
}

fn text(words: &[u32]) -> String {
    let [n_tiles, n_wide, n_merges, _] = words[..HEADER_WORDS] else { unreachable!() };
    let (entries, rest) = words[HEADER_WORDS..].as_chunks::<ENTRY_WORDS>();
    assert_eq!((entries.len() as u32, rest.len()), (n_tiles + n_wide + n_merges, 0));
    let mut out = String::new();
    for (i, &[first_row, n_rows, a, b, place]) in (0u32..).zip(entries) {
        let rows = format!("{first_row}..{}", first_row + n_rows);
        match i {
            _ if i >= n_tiles + n_wide => writeln!(out, "merge {rows} of {a}, {b} first, from {place}"),
            _ if b == ALL && i >= n_tiles => writeln!(out, "wide {rows}"),
            _ if b == ALL => writeln!(out, "whole {rows}"),
            _ => writeln!(out, "piece {rows} chunks {a}..{b} to {place}"),
        }
        .unwrap();
    }
    out
}

fn check(tiling: &Tiling, n_rows: usize, script: &str, expected: &str) {
    let mut list = WorkList::new();
    let words = list.build(tiling, n_rows, runs(script)).unwrap();
    assert!(words.len() <= WorkList::words_max(tiling, n_rows));
    let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(text(words), expected, "{script}");
}

#[test]
fn short_sequences_are_whole() {
    check(&TILING, 1, "0+1@0", "whole 0..1");
    check(&TILING, 1, "0+1@255", "whole 0..1");
    check(&TILING, 3, "0+1@200 1+1@7 2+1@128", "whole 0..1\nwhole 2..3\nwhole 1..2");
}

#[test]
fn a_row_that_others_would_wait_for_is_split() {
    check(
        &TILING,
        2,
        "0+1@400 1+1@3",
        "piece 0..1 chunks 0..1 to 0
         whole 1..2
         piece 0..1 chunks 1..2 to 1
         piece 0..1 chunks 2..3 to 2
         piece 0..1 chunks 3..4 to 3
         merge 0..1 of 4, 1 first, from 0",
    );
}

#[test]
fn rows_that_fill_the_device_are_whole() {
    let script: String = (0..16).map(|row| format!("{row}+1@9999 ")).collect();
    let expected: String = (0..16).map(|row| format!("whole {row}..{}\n", row + 1)).collect();
    check(&TILING, 16, &script, &expected);
}

#[test]
fn runs_are_cut_into_tiles_the_longest_first() {
    check(&TILING, 7, "0+6@126 6+1@0", "whole 0..4\nwhole 4..6\nwhole 6..7");
    check(&TILING, 6, "0+6@124", "whole 4..6\nwhole 0..4");
}

#[test]
fn tiles_of_several_rows_are_split_too() {
    check(
        &TILING,
        6,
        "1+5@380",
        "piece 5..6 chunks 0..1 to 0
         piece 1..5 chunks 0..1 to 4
         piece 5..6 chunks 1..2 to 1
         piece 5..6 chunks 2..3 to 2
         piece 5..6 chunks 3..4 to 3
         piece 1..5 chunks 1..2 to 8
         piece 1..5 chunks 2..3 to 12
         merge 5..6 of 4, 1 first, from 0
         merge 1..5 of 3, 1 first, from 4",
    );
}

#[test]
fn where_places_are_scarce_the_first_piece_folds_several_chunks() {
    let tiling = Tiling { places: 6, ..TILING };
    check(
        &tiling,
        2,
        "0+1@1000 1+1@600",
        "piece 0..1 chunks 0..6 to 0
         piece 1..2 chunks 0..3 to 3
         piece 0..1 chunks 6..7 to 1
         piece 0..1 chunks 7..8 to 2
         piece 1..2 chunks 3..4 to 4
         piece 1..2 chunks 4..5 to 5
         merge 0..1 of 3, 6 first, from 0
         merge 1..2 of 3, 3 first, from 3",
    );
    // A single piece is not a split.
    check(&Tiling { places: 3, ..TILING }, 2, "0+1@1000 1+1@600", "whole 0..1\nwhole 1..2");
    check(&Tiling { places: 0, ..TILING }, 1, "0+1@1000", "whole 0..1");
}

#[test]
fn large_passes_have_wide_tiles() {
    check(
        &TILING,
        33,
        "0+21@0 21+4@3 25+1@70 26+5@200",
        "whole 21..25\nwhole 25..26\nwide 26..31\nwide 0..8\nwide 8..16\nwide 16..21",
    );
    // What wide tiles leave of a run may be a narrow tile.
    check(&TILING, 40, "0+10@0", "whole 8..10\nwide 0..8");
    // Single rows for a kernel of single rows.
    let alone = Tiling { rows: 1, ..TILING };
    check(&alone, 33, "0+9@0 9+1@5", "whole 8..9\nwhole 9..10\nwide 0..8");
    check(&alone, 3, "0+3@0", "whole 0..1\nwhole 1..2\nwhole 2..3");
}

#[test]
fn a_device_that_finds_its_work_itself_has_an_empty_list() {
    let mut list = WorkList::new();
    assert_eq!(list.build(&Tiling::default(), 9, runs("0+9@0")).unwrap(), [0; HEADER_WORDS]);
    assert_eq!(WorkList::words_max(&Tiling::default(), 9), HEADER_WORDS);
}

#[test]
fn the_list_follows_the_rows_there_are() {
    let mut list = WorkList::new();
    let long = list.build(&TILING, 8, runs("0+8@5000")).unwrap().len();
    let short = list.build(&TILING, 8, runs("0+8@0")).unwrap().len();
    assert!(short < long, "a list is built anew in the same memory");
    assert_eq!(short, HEADER_WORDS + 2 * ENTRY_WORDS);
}

#[test]
fn runs_outside_the_pass_are_refused() {
    let mut list = WorkList::new();
    let mut fails = |first_row, n_rows, start| {
        list.build(&TILING, 8, [RowRun { first_row, n_rows, start }]).map(drop).unwrap_err().to_string()
    };
    for (first_row, n_rows, start) in [
        (7, 2, 0),
        (8, 1, 0),
        (0, 0, 0),
        (usize::MAX, 1, 0),
        (0, 2, u32::MAX as usize - 1),
        (0, 1, usize::MAX),
    ] {
        let found = fails(first_row, n_rows, start);
        assert!(found.ends_with("is outside a pass of 8 rows"), "{found}");
    }
}

#[test]
fn runs_are_neighbours_of_a_sequence() {
    let of = |sequences: &[u32], positions: &[u32]| {
        let run = |run: RowRun| format!("{}+{}@{}", run.first_row, run.n_rows, run.start);
        RowRun::of(sequences, positions).map(run).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(of(&[0, 0, 0, 1, 1, 0], &[4, 5, 6, 7, 8, 9]), "0+3@4 3+2@7 5+1@9");
    assert_eq!(of(&[0, 0, 0], &[4, 6, 5]), "0+1@4 1+1@6 2+1@5");
    assert_eq!(of(&[INERT, 2, INERT, INERT, 2, 2, INERT], &[0, 1, 1, 2, 2, 3, 4]), "1+1@1 4+2@2");
    assert_eq!(of(&[INERT; 3], &[0; 3]), "");
    assert_eq!(of(&[], &[]), "");
}
