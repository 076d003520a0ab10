//! `rope_store` and `attention` together, because only `attention` reads what `rope_store` writes, in a layout that is the device's own.
//!
//! Every (sequence, position) has its own data, so a row is the same in whichever pass it occurs. The cache starts full of NaN, because what
//! lies beyond a row's position may be anything.

mod pages;
mod range;

use super::data::{Random, output, upload_f32, upload_u32};
use super::{Measured, Report, Tolerance, run};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Result;
use crate::kv::{KvPool, KvShape, KvType};
use crate::op::{Attention, HeadNorm, INERT, PAGE_TOKENS, RopeStore, RopeStyle, RowMap};
use crate::plan::Record;
use crate::work::{RowRun, WorkList};
use half::f16;
use std::collections::HashMap;
use std::ops::Range;

/// Pages that a sequence may have.
const PAGES_MAX: usize = 5;

/// A row: its sequence and its position.
pub(super) type Row = (usize, usize);

/// A row that belongs to no sequence.
const NOBODY: Row = (usize::MAX, 0);

/// The sizes and options of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    kv_type: KvType,
    style: RopeStyle,
    /// Elements of a head that are rotated.
    n_rot: usize,
    norm: bool,
}

const NORM_EPS: f32 = 1e-6;

pub(super) fn layers() -> Vec<Layer> {
    use KvType::{F16, F32};
    use RopeStyle::{Halves, Interleaved};
    let layer = |(n_heads, n_kv_heads, head_dim), kv_type, style, n_rot, norm| Layer {
        n_heads,
        n_kv_heads,
        head_dim,
        kv_type,
        style,
        n_rot,
        norm,
    };
    vec![
        layer((4, 2, 64), F16, Interleaved, 64, false),
        layer((4, 2, 64), F32, Halves, 64, true),
        layer((2, 2, 32), F16, Halves, 32, false),
        layer((8, 1, 32), F32, Interleaved, 20, true),
        layer((5, 1, 80), F16, Interleaved, 80, false),
        layer((3, 1, 80), F32, Halves, 32, false),
        layer((4, 1, 128), F16, Halves, 128, true),
        layer((9, 3, 6), F32, Interleaved, 6, false),
        layer((2, 1, 256), F16, Interleaved, 256, false),
        layer((3, 1, 320), F16, Interleaved, 320, false),
        layer((1, 1, 514), F32, Halves, 514, true),
    ]
}

pub(super) fn check(device: &Device, report: &mut Report) {
    // Sequences as (positions already there, new rows).
    let batches: [&[(usize, usize)]; 7] = [
        &[(0, 1)],
        &[(0, 2)],
        &[(0, 33)],
        &[(63, 1), (0, 1), (31, 1), (32, 1), (100, 1), (7, 1), (64, 1)],
        &[(5, 7), (0, 20), (40, 1), (30, 5)],
        &[(0, 100), (90, 30), (126, 2)],
        &[(140, 2), (126, 5)],
    ];
    for layer in layers() {
        for sequences in batches {
            let shape = format!("{layer:?}, (before, new) {sequences:?}");
            report.case("attention", shape.clone(), || ragged(device, layer, sequences, 1));
            report.case("attention", shape + ", one buffer", || ragged(device, layer, sequences, 2));
        }
        pages::check(device, layer, report);
    }
    range::check(device, report);
}

/// For sequences given as (positions already there, new rows): the rows that are there, and the new ones.
fn ragged_rows(sequences: &[(usize, usize)]) -> (Vec<Row>, Vec<Row>) {
    let rows = |range: &dyn Fn(usize, usize) -> Range<usize>| {
        let of = |(s, &(n, new)): (usize, &(usize, usize))| range(n, new).map(move |p| (s, p));
        sequences.iter().enumerate().flat_map(of).collect()
    };
    (rows(&|n, _| 0..n), rows(&|n, new| n..n + new))
}

fn ragged(
    device: &Device,
    layer: Layer,
    sequences: &[(usize, usize)],
    arrangement: u64,
) -> Result<Vec<Measured>> {
    let world = World::new(device, layer, sequences.len(), arrangement)?;
    let (before, new) = ragged_rows(sequences);
    if !before.is_empty() {
        world.pass(&before)?;
    }
    let (q, out) = world.pass(&new)?;

    let mut reference = Reference::new(layer);
    let (mut expected_q, mut expected, mut q_units) = (Vec::new(), Vec::new(), Vec::new());
    for &row in &new {
        let q = reference.q(row);
        expected.extend(reference.attention(row, &q));
        for head in q.chunks(layer.head_dim) {
            // A rotation mixes the two elements of a pair, so the unit is the size of the head.
            let size = (head.iter().map(|x| x * x).sum::<f64>() / layer.head_dim as f64).sqrt();
            q_units.extend(head.iter().map(|_| size));
        }
        expected_q.extend(q);
    }
    let tolerance = if layer.kv_type == KvType::F16 { Tolerance::F16_CACHE } else { Tolerance::F32_CACHE };
    Ok(vec![
        Measured::new("rotated q", &q, &expected_q, |i| q_units[i], Tolerance::F32_ROWS),
        Measured::new("out", &out, &expected, |_| 1.0, tolerance),
    ])
}

/// The data of a row: `part` 0 is q, 1 is k, 2 is v.
fn row_data(layer: Layer, row: Row, part: u64) -> Vec<f32> {
    let heads = if part == 0 { layer.n_heads } else { layer.n_kv_heads };
    let mut random = Random::new((row.0 as u64) << 40 | (row.1 as u64) << 8 | part);
    // Scores that differ by a few, so that the result is neither a mean nor a single token's V.
    let size = if part == 0 { 3.0 } else { 1.0 };
    (0..heads * layer.head_dim).map(|_| random.f32() * size).collect()
}

fn norm_weight(layer: Layer, part: u64) -> Vec<f32> {
    Random::new(part ^ 0xbeef).f32s(layer.head_dim)
}

/// Cosines and sines `[positions, n_rot / 2, 2]`.
fn table(layer: Layer) -> Vec<f32> {
    let mut table = Vec::new();
    for position in 0..PAGES_MAX * PAGE_TOKENS {
        for i in 0..layer.n_rot / 2 {
            let angle = position as f64 * 1e4f64.powf(-2.0 * i as f64 / layer.n_rot as f64);
            table.extend([angle.cos() as f32, angle.sin() as f32]);
        }
    }
    table
}

fn scale(layer: Layer) -> f32 {
    1.0 / (layer.head_dim as f32).sqrt()
}

/// A layer's cache on a device, with its sequences at scattered pages.
pub(super) struct World<'a> {
    device: &'a Device,
    layer: Layer,
    cache: KvPool,
    table: Buffer,
    norm: Option<HeadNorm>,
    /// `[lines, PAGES_MAX]`
    pages: Vec<u32>,
    /// Pages that belong to no sequence.
    free: Vec<u32>,
    /// The number of columns of the page table on the device; those beyond `PAGES_MAX` contain no pages.
    n_cols: usize,
    /// The line of each sequence in the page table.
    lines: Vec<usize>,
    /// Whether q, k and v come as columns of one buffer.
    is_one_buffer: bool,
}

impl<'a> World<'a> {
    /// `arrangement` decides which pages and which line a sequence gets, and whether q, k and v share a buffer.
    pub(super) fn new(
        device: &'a Device,
        layer: Layer,
        n_sequences: usize,
        arrangement: u64,
    ) -> Result<World<'a>> {
        let Layer { n_kv_heads, head_dim, kv_type, .. } = layer;
        let mut random = Random::new(arrangement);
        let n_lines = n_sequences + random.below(3);
        let n_pages = n_lines * PAGES_MAX + 1 + random.below(4);
        let cache = device.alloc_kv(&KvShape { n_pages, n_kv_heads, head_dim, kv_type })?;
        for memory in cache.memory() {
            device.write(memory, &vec![0xffu8; memory.n_bytes()])?;
        }
        let mut pages: Vec<u32> = random.shuffled(n_pages).into_iter().map(|page| page as u32).collect();
        let free = pages.split_off(n_lines * PAGES_MAX);
        let lines = random.shuffled(n_lines)[..n_sequences].to_vec();
        let table = upload_f32(device, &table(layer), &[PAGES_MAX * PAGE_TOKENS, layer.n_rot / 2, 2])?;
        let weight = |part| upload_f32(device, &norm_weight(layer, part), &[head_dim]);
        let norm = match layer.norm {
            true => Some(HeadNorm { q: weight(0)?, k: weight(1)?, eps: NORM_EPS }),
            false => None,
        };
        let is_one_buffer = arrangement.is_multiple_of(2);
        Ok(World { device, layer, cache, table, norm, pages, free, n_cols: PAGES_MAX, lines, is_one_buffer })
    }

    /// Runs `rows` in one pass; returns the rotated q and the results.
    pub(super) fn pass(&self, rows: &[Row]) -> Result<(Vec<f32>, Vec<f32>)> {
        self.pass_of(rows, |row, part| row_data(self.layer, row, part))
    }

    /// The same with other data; see [`row_data`].
    fn pass_of(&self, rows: &[Row], row_data: impl Fn(Row, u64) -> Vec<f32>) -> Result<(Vec<f32>, Vec<f32>)> {
        let Layer { n_heads, n_kv_heads, head_dim, style, .. } = self.layer;
        let (device, n) = (self.device, rows.len());
        let data = |parts: &[u64]| -> Result<Buffer> {
            let values = rows.iter().flat_map(|&row| parts.iter().map(move |&part| (row, part)));
            let values: Vec<f32> = values.flat_map(|(row, part)| row_data(row, part)).collect();
            upload_f32(device, &values, &[n, values.len() / n])
        };
        let (q_dim, kv_dim) = (n_heads * head_dim, n_kv_heads * head_dim);
        // Buffers of their own, or columns of one; of either kind, q is read and written where it lies.
        let (whole_q, q, k, v) = if self.is_one_buffer {
            let all = data(&[0, 1, 2])?;
            let columns = |first: usize, n: usize| all.columns(first..first + n);
            (all.clone(), columns(0, q_dim)?, columns(q_dim, kv_dim)?, columns(q_dim + kv_dim, kv_dim)?)
        } else {
            let q = data(&[0])?;
            (q.clone(), q, data(&[1])?, data(&[2])?)
        };
        let line = |row: &Row| self.lines.get(row.0).map_or(INERT, |line| *line as u32);
        let sequences: Vec<u32> = rows.iter().map(line).collect();
        let positions: Vec<u32> = rows.iter().map(|row| row.1 as u32).collect();
        let mut list = WorkList::new();
        let tiling = device.tiling(self.cache.shape(), n_heads);
        let work = list.build(&tiling, n, RowRun::of(&sequences, &positions))?;
        let mut pages = Vec::new();
        for line in self.pages.chunks(PAGES_MAX) {
            pages.extend(line);
            pages.resize(pages.len() + self.n_cols - PAGES_MAX, INERT);
        }
        let map = RowMap {
            positions: upload_u32(device, &positions, &[n])?,
            sequences: upload_u32(device, &sequences, &[n])?,
            pages: upload_u32(device, &pages, &[pages.len() / self.n_cols, self.n_cols])?,
            work: upload_u32(device, work, &[work.len()])?,
        };
        let out = output(device, &[n, n_heads * head_dim])?;
        let cache = self.cache.clone();
        run(device, |plan| {
            plan.rope_store(RopeStore {
                q: q.clone(),
                k,
                v,
                norm: self.norm.clone(),
                table: self.table.clone(),
                style,
                rows: map.clone(),
                cache: cache.clone(),
            })?;
            plan.attention(Attention {
                q: q.clone(),
                rows: map,
                cache,
                scale: scale(self.layer),
                out: out.clone(),
            })
        })?;
        let whole_q = device.read_vec::<f32>(&whole_q)?;
        let q = whole_q.chunks_exact(whole_q.len() / n).flat_map(|row| row[..q_dim].iter().copied());
        Ok((q.collect(), device.read_vec(&out)?))
    }
}

/// The reference in f64.
struct Reference {
    layer: Layer,
    table: Vec<f32>,
    /// The rotated K and V of each row, as the cache's type holds them.
    cache: HashMap<Row, (Vec<f64>, Vec<f64>)>,
}

impl Reference {
    fn new(layer: Layer) -> Reference {
        Reference { layer, table: table(layer), cache: HashMap::new() }
    }

    fn q(&self, row: Row) -> Vec<f64> {
        self.rotated(row, 0)
    }

    fn rotated(&self, row: Row, part: u64) -> Vec<f64> {
        let Layer { head_dim, n_rot, style, norm, .. } = self.layer;
        let mut heads: Vec<f64> = row_data(self.layer, row, part).into_iter().map(f64::from).collect();
        let weight = norm_weight(self.layer, part);
        let angles = &self.table[row.1 * n_rot..][..n_rot];
        for head in heads.chunks_exact_mut(head_dim) {
            if norm {
                let square = head.iter().map(|x| x * x).sum::<f64>() / head_dim as f64;
                let scale = 1.0 / (square + f64::from(NORM_EPS)).sqrt();
                head.iter_mut().zip(&weight).for_each(|(x, w)| *x *= scale * f64::from(*w));
            }
            for i in 0..n_rot / 2 {
                let (a, b) = match style {
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                    RopeStyle::Halves => (i, i + n_rot / 2),
                };
                let (cos, sin) = (f64::from(angles[2 * i]), f64::from(angles[2 * i + 1]));
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
        heads
    }

    fn attention(&mut self, row: Row, q: &[f64]) -> Vec<f64> {
        let layer = self.layer;
        for position in 0..=row.1 {
            let row = (row.0, position);
            if !self.cache.contains_key(&row) {
                let held = |x: f64| match layer.kv_type {
                    KvType::F16 => f16::from_f64(x).to_f64(),
                    KvType::F32 => x,
                };
                let k = self.rotated(row, 1).into_iter().map(held).collect();
                let v = row_data(layer, row, 2).into_iter().map(|x| held(x.into())).collect();
                self.cache.insert(row, (k, v));
            }
        }
        let mut out = Vec::new();
        for (h, q) in q.chunks_exact(layer.head_dim).enumerate() {
            let at = h / (layer.n_heads / layer.n_kv_heads) * layer.head_dim;
            let held: Vec<_> = (0..=row.1).map(|position| &self.cache[&(row.0, position)]).collect();
            let score = |k: &[f64]| -> f64 {
                q.iter().zip(&k[at..]).map(|(q, k)| q * k).sum::<f64>() * f64::from(scale(layer))
            };
            let scores: Vec<f64> = held.iter().map(|(k, _)| score(k)).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..layer.head_dim {
                let sum: f64 = weights.iter().zip(&held).map(|(w, (_, v))| w * v[at + d]).sum();
                out.push(sum / total);
            }
        }
        out
    }
}

/// The bits of every layer's results for one ragged set of sequences.
pub(super) fn bits(device: &Device) -> Result<Vec<(String, Vec<u32>)>> {
    let rows: Vec<Row> =
        [40usize, 3, 70].into_iter().enumerate().flat_map(|(s, n)| (0..n).map(move |p| (s, p))).collect();
    let mut all = Vec::new();
    for layer in layers() {
        let (q, out) = World::new(device, layer, 3, 1)?.pass(&rows)?;
        let bits = q.iter().chain(&out).map(|x| x.to_bits()).collect();
        all.push((format!("attention {layer:?}"), bits));
    }
    Ok(all)
}
