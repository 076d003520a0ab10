//! What attention must not depend on: rows of no sequence, the width of the page table, the order of rows, and where pages lie.

use super::{Layer, NOBODY, PAGES_MAX, Row, World, ragged_rows};
use crate::cases::data::{Random, upload_u32};
use crate::cases::{Measured, Report, run};
use crate::device::Device;
use crate::error::Result;
use crate::op::{INERT, PAGE_TOKENS};
use crate::plan::Record;

/// For each sequence, the tokens already there and the new ones: prompts and single rows.
const SEQUENCES: [(usize, usize); 4] = [(130, 1), (0, 37), (64, 1), (31, 3)];

/// The number of columns of a page table with room for very long sequences.
const WIDE_TABLE: usize = 5000;

pub(super) fn check(device: &Device, layer: Layer, report: &mut Report) {
    report.case("attention", format!("{layer:?}, rows of no sequence"), || inert(device, layer));
    report.case("attention", format!("{layer:?}, a wide page table"), || wide(device, layer));
    report.case("attention", format!("{layer:?}, rows in any order"), || shuffled(device, layer));
    report.case("copy_pages", format!("{layer:?}, between pools"), || between_pools(device, layer));
    report.case("copy_pages", format!("{layer:?}, within a pool"), || within_a_pool(device, layer));
}

/// A world that holds the sequences' first tokens, and the rows to come.
fn begun(device: &Device, layer: Layer, arrangement: u64) -> Result<(World<'_>, Vec<Row>)> {
    let world = World::new(device, layer, SEQUENCES.len(), arrangement)?;
    let (before, new) = ragged_rows(&SEQUENCES);
    world.pass(&before)?;
    Ok((world, new))
}

/// The result of a pass, as bits, row by row.
fn bits(world: &World<'_>, rows: &[Row]) -> Result<Vec<Vec<u32>>> {
    let (q, out) = world.pass(rows)?;
    let width = q.len() / rows.len();
    let row = |(q, out): (&[f32], &[f32])| q.iter().chain(out).map(|x| x.to_bits()).collect();
    Ok(q.chunks(width).zip(out.chunks(width)).map(row).collect())
}

/// Every byte of the cache.
fn bytes(world: &World<'_>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for memory in world.cache.memory() {
        all.extend(world.device.read_vec::<u8>(memory)?);
    }
    Ok(all)
}

fn inert(device: &Device, layer: Layer) -> Result<Vec<Measured>> {
    let (alone, new) = begun(device, layer, 1)?;
    let expected = bits(&alone, &new)?;
    // Between rows of one sequence, between sequences, at both ends.
    let mut rows = vec![NOBODY];
    for row in &new {
        rows.extend([*row, NOBODY].iter().take(if row.1 % 5 == 0 { 2 } else { 1 }));
    }
    rows.extend([NOBODY; 3]);
    let (among, _) = begun(device, layer, 1)?;
    let found = bits(&among, &rows)?;
    let found: Vec<_> =
        rows.iter().zip(found).filter(|(row, _)| **row != NOBODY).map(|(_, bits)| bits).collect();
    Ok(vec![
        Measured::exact("a row beside rows of no sequence", &found, &expected),
        Measured::exact("the cache", &bytes(&among)?, &bytes(&alone)?),
    ])
}

fn wide(device: &Device, layer: Layer) -> Result<Vec<Measured>> {
    let (mut world, new) = begun(device, layer, 1)?;
    let expected = bits(&world, &new)?;
    world.n_cols = WIDE_TABLE;
    Ok(vec![Measured::exact("a row", &bits(&world, &new)?, &expected)])
}

fn shuffled(device: &Device, layer: Layer) -> Result<Vec<Measured>> {
    let (world, new) = begun(device, layer, 1)?;
    let expected = bits(&world, &new)?;
    let order = Random::new(17).shuffled(new.len());
    let (other, _) = begun(device, layer, 2)?;
    let found = bits(&other, &order.iter().map(|i| new[*i]).collect::<Vec<_>>())?;
    let expected: Vec<_> = order.iter().map(|i| expected[*i].clone()).collect();
    Ok(vec![Measured::exact("a row", &found, &expected)])
}

/// The pages of a sequence's tokens before the new ones.
fn used(world: &World<'_>, sequence: usize) -> Vec<u32> {
    let line = &world.pages[world.lines[sequence] * PAGES_MAX..];
    line[..SEQUENCES[sequence].0.div_ceil(PAGE_TOKENS)].to_vec()
}

fn copy(from: &World<'_>, to: &World<'_>, pairs: &[[u32; 2]]) -> Result<()> {
    let list = upload_u32(from.device, pairs.as_flattened(), &[pairs.len(), 2])?;
    run(from.device, |plan| plan.copy_pages(&from.cache, &to.cache, &list))
}

fn between_pools(device: &Device, layer: Layer) -> Result<Vec<Measured>> {
    let (from, new) = begun(device, layer, 3)?;
    // Another number of pages, and other places in it.
    let to = World::new(device, layer, SEQUENCES.len() + 2, 4)?;
    let mut pairs = vec![[INERT, 0], [0, INERT]];
    for sequence in 0..SEQUENCES.len() {
        pairs.extend(used(&from, sequence).into_iter().zip(used(&to, sequence)).map(|(a, b)| [a, b]));
        pairs.push([INERT; 2]);
    }
    copy(&from, &to, &pairs)?;
    let expected = bits(&from, &new)?;
    Ok(vec![Measured::exact("a row over copied pages", &bits(&to, &new)?, &expected)])
}

fn within_a_pool(device: &Device, layer: Layer) -> Result<Vec<Measured>> {
    let (mut world, new) = begun(device, layer, 5)?;
    let expected = bits(&world, &new)?;
    // The first sequence's second page, which new rows read and do not write, moves.
    let place = world.lines[0] * PAGES_MAX + 1;
    let (old, moved) = (world.pages[place], world.free[0]);
    copy(&world, &world, &[[old, moved], [INERT, old]])?;
    world.pages[place] = moved;
    Ok(vec![Measured::exact("a row over a copied page", &bits(&world, &new)?, &expected)])
}
