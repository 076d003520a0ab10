//! `attention`: out = softmax(scale · q · Kᵀ) · V for every row over its own sequence, up to its own position.
//!
//! A piece of work is a block of consecutive rows of one sequence and one KV head: the query heads that share the KV head, times
//! the rows, are its *queries*. Pages are taken from position 0 on; each is converted to f32 once and used for all queries of the
//! block, because a prompt has hundreds of rows of one sequence. A query keeps a running maximum, a running sum and its weighted
//! sum of V, and rescales them at each page (online softmax), so its bits depend on nothing but itself and its sequence, however
//! rows are cut into blocks. Bound by arithmetic for prompts, by reading the cache for single rows.
//!
//! The page layout is `rope_store`'s: lanes are tokens for K, elements of the head for V. Slots behind a row's position hold what
//! an earlier use left, perhaps NaN: their scores are replaced, and their values of V are not read.

use super::Rows;
use crate::buffer::{Buffer, DType};
use crate::cpu::isa::Isa;
use crate::cpu::math::{LANES, Lanes, Vector, exp, vectorised};
use crate::cpu::memory::{slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::{Error, Result};
use crate::op::{Attention, PAGE_TOKENS};
use half::f16;
use std::cell::RefCell;
use std::cmp::Reverse;

/// Queries in a block, about: enough to make converting a page cheap, few enough for their sums to stay in the first caches.
const BLOCK_QUERIES: usize = 64;

/// Elements of the head in the unit of the weighted sum: heads are padded to a multiple of it.
const CHUNK: usize = 2 * LANES;

/// Checks the row map against the cache.
pub(crate) fn check_attention(op: &Attention) -> Result<()> {
    // SAFETY: the queue is held and no op is running.
    unsafe { Rows::new(&op.rows) }.check("attention", &op.cache, true)
}

/// See [`Attention`].
pub(crate) fn attention(op: &Attention, worker: &Worker<'_>, isa: Isa) -> Result<()> {
    // SAFETY: the op writes `out` alone, which overlaps neither q nor the cache (`Op::check`), and the row map has another type.
    let (rows, q) = unsafe { (Rows::new(&op.rows), slice::<f32>(&op.q)) };
    SCRATCH.with_borrow_mut(|scratch| {
        let (n_kv_heads, head_dim) = (op.cache.n_kv_heads(), op.cache.k.n_cols());
        let group = op.q.n_cols() / head_dim / n_kv_heads;
        cut_blocks(&rows, (BLOCK_QUERIES / group).max(1), &mut scratch.blocks)?;
        let Scratch { blocks, memory } = scratch;
        let mut piece = Piece::new(memory, head_dim, group, blocks.iter().map(|b| b.n_rows).max())?;
        while let Some(claimed) = worker.claim(blocks.len() * n_kv_heads, 1) {
            let (block, kv_head) = (&blocks[claimed.start / n_kv_heads], claimed.start % n_kv_heads);
            let positions = &rows.positions[block.first_row..][..block.n_rows];
            piece.begin(block, kv_head, q, op);
            for page_idx in 0..block.n_pages {
                let n_tokens = block.last_position + 1 - page_idx * PAGE_TOKENS;
                let page = rows.page(block.first_row, page_idx) * n_kv_heads + kv_head;
                piece.load_page(isa, &op.cache.k, &op.cache.v, page, n_tokens.min(PAGE_TOKENS));
                add_page(isa, &mut piece, positions, page_idx);
            }
            for row in 0..block.n_rows {
                let place = (block.first_row + row) * op.q.n_cols() + kv_head * group * head_dim;
                // SAFETY: these heads of this row belong to this piece alone, and a piece is claimed once.
                let out: &mut [f32] = unsafe { slice_mut(&op.out, place, group * head_dim) };
                piece.end(row, out);
            }
        }
        Ok(())
    })
}

/// Consecutive rows of one sequence.
struct Block {
    first_row: usize,
    n_rows: usize,
    /// The highest position among them.
    last_position: usize,
    n_pages: usize,
}

/// Cuts the rows into blocks, the dearest first, so that the threads end together. Every thread makes the same list.
fn cut_blocks(rows: &Rows<'_>, rows_max: usize, blocks: &mut Vec<Block>) -> Result<()> {
    blocks.clear();
    for (row, (&sequence, &position)) in rows.sequences.iter().zip(rows.positions).enumerate() {
        let position = position as usize;
        match blocks.last_mut() {
            Some(block) if block.n_rows < rows_max && rows.sequences[block.first_row] == sequence => {
                block.n_rows += 1;
                block.last_position = block.last_position.max(position);
            }
            _ => {
                blocks.try_reserve(1).map_err(|_| out_of_memory(size_of::<Block>()))?;
                blocks.push(Block { first_row: row, n_rows: 1, last_position: position, n_pages: 0 });
            }
        }
    }
    for block in blocks.iter_mut() {
        block.n_pages = block.last_position / PAGE_TOKENS + 1;
    }
    blocks.sort_unstable_by_key(|block| (Reverse(block.n_pages * block.n_rows), block.first_row));
    Ok(())
}

/// A cache line of floats: gives the scratch its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// What a thread keeps from op to op, so that a step allocates nothing.
struct Scratch {
    blocks: Vec<Block>,
    memory: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { blocks: Vec::new(), memory: Vec::new() }) };
}

fn out_of_memory(requested_bytes: usize) -> Error {
    Error::OutOfMemory { device: "cpu".into(), what: "scratch of attention".into(), requested_bytes }
}

/// The state of one piece of work. All parts begin at a cache line.
struct Piece<'a> {
    head_dim: usize,
    /// `head_dim`, padded to whole chunks.
    padded: usize,
    /// Query heads of a KV head.
    group: usize,
    n_queries: usize,
    /// `[head_dim, PAGE_TOKENS]`
    k: &'a mut [f32],
    /// `[PAGE_TOKENS, padded]`
    v: &'a mut [f32],
    /// `[n_queries, head_dim]`, scaled
    q: &'a mut [f32],
    /// `[n_queries, padded]`: the weighted sums of V
    acc: &'a mut [f32],
    /// `[n_queries]`: the largest score so far
    largest: &'a mut [f32],
    /// `[n_queries]`: the sum of the weights so far
    total: &'a mut [f32],
}

impl<'a> Piece<'a> {
    fn new(
        memory: &'a mut Vec<Line>,
        head_dim: usize,
        group: usize,
        rows_max: Option<usize>,
    ) -> Result<Piece<'a>> {
        let padded = head_dim.next_multiple_of(CHUNK);
        let queries_max = group * rows_max.unwrap_or(0);
        let lines = |n: usize| n.div_ceil(LANES);
        let sizes = [
            lines(head_dim * PAGE_TOKENS),
            lines(padded * PAGE_TOKENS),
            lines(queries_max * head_dim),
            lines(queries_max * padded),
            lines(queries_max),
            lines(queries_max),
        ];
        let n: usize = sizes.iter().sum();
        if memory.len() < n {
            memory.try_reserve_exact(n - memory.len()).map_err(|_| out_of_memory(n * size_of::<Line>()))?;
            memory.resize(n, Line([0.0; LANES]));
        }
        // SAFETY: a `Line` is sixteen floats without padding, so its memory is that many floats.
        let mut rest: &'a mut [f32] =
            unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), n * LANES) };
        let [k, v, q, acc, largest, total] = sizes.map(|lines| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(lines * LANES);
            rest = after;
            part
        });
        // The padding of V is never written, and what an op with other sizes left there must not be read.
        v.fill(0.0);
        Ok(Piece { head_dim, padded, group, n_queries: 0, k, v, q, acc, largest, total })
    }

    /// Takes the queries of a block.
    fn begin(&mut self, block: &Block, kv_head: usize, q: &[f32], op: &Attention) {
        self.n_queries = block.n_rows * self.group;
        let width = self.group * self.head_dim;
        for row in 0..block.n_rows {
            let from = &q[(block.first_row + row) * op.q.n_cols() + kv_head * width..][..width];
            for (scaled, q) in self.q[row * width..][..width].iter_mut().zip(from) {
                *scaled = q * op.scale;
            }
        }
        self.acc[..self.n_queries * self.padded].fill(0.0);
        self.total[..self.n_queries].fill(0.0);
        // Not minus infinity: a difference of two of them would be NaN.
        self.largest[..self.n_queries].fill(f32::MIN);
    }

    /// Reads K and V of the `page`th [head_dim, PAGE_TOKENS] slice of the cache, of which `n_tokens` are used.
    fn load_page(&mut self, isa: Isa, k: &Buffer, v: &Buffer, page: usize, n_tokens: usize) {
        let n = self.head_dim * PAGE_TOKENS;
        if k.dtype() == DType::F32 {
            // SAFETY: the op does not write the cache.
            let (k, v): (&[f32], &[f32]) = unsafe { (slice(k), slice(v)) };
            self.k[..n].copy_from_slice(&k[page * n..][..n]);
            let v = v[page * n..][..n_tokens * self.head_dim].chunks(self.head_dim);
            for (to, from) in self.v.chunks_exact_mut(self.padded).zip(v) {
                to[..self.head_dim].copy_from_slice(from);
            }
            return;
        }
        // SAFETY: the op does not write the cache, and its type is f16 if not f32 (`Op::check`).
        let (k, v): (&[f16], &[f16]) = unsafe { (slice(k), slice(v)) };
        convert(isa, &k[page * n..][..n], self.k, n, n);
        convert(isa, &v[page * n..][..n_tokens * self.head_dim], self.v, self.head_dim, self.padded);
    }

    /// Writes the results of one row.
    fn end(&self, row: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(self.head_dim).enumerate() {
            let query = row * self.group + i;
            let factor = 1.0 / self.total[query];
            for (out, acc) in out.iter_mut().zip(&self.acc[query * self.padded..]) {
                *out = acc * factor;
            }
        }
    }
}

vectorised! {
    fn convert(isa, from: &[f16], to: &mut [f32], n_cols: usize, stride: usize) = convert_body
}

/// Converts rows of `n_cols` elements to rows that lie `stride` apart.
#[inline(always)]
fn convert_body<V: Lanes>(from: &[f16], to: &mut [f32], n_cols: usize, stride: usize) {
    for (from, to) in from.chunks_exact(n_cols).zip(to.chunks_exact_mut(stride)) {
        let (from, rest) = from.as_chunks::<LANES>();
        let (to, rest_to) = to[..n_cols].as_chunks_mut::<LANES>();
        for (from, to) in from.iter().zip(to) {
            V::load_f16(from).store(to);
        }
        for (from, to) in rest.iter().zip(rest_to) {
            *to = from.to_f32();
        }
    }
}

vectorised! {
    fn add_page(isa, piece: &mut Piece<'_>, positions: &[u32], page_idx: usize) = add_page_body
}

/// Adds the loaded page to every query whose row reaches it. Several queries at a time share each load of K and V: as many as there
/// are registers for. How many does not change any query's bits.
#[inline(always)]
fn add_page_body<V: Lanes>(piece: &mut Piece<'_>, positions: &[u32], page_idx: usize) {
    let tile = if V::MANY_REGISTERS { 4 } else { 2 };
    let mut query = 0;
    while query + tile <= piece.n_queries {
        if V::MANY_REGISTERS {
            add_page_to_tile::<V, 4>(piece, positions, page_idx, query);
        } else {
            add_page_to_tile::<V, 2>(piece, positions, page_idx, query);
        }
        query += tile;
    }
    while query < piece.n_queries {
        add_page_to_tile::<V, 1>(piece, positions, page_idx, query);
        query += 1;
    }
}

/// Registers of scores for a page.
const VECTORS: usize = PAGE_TOKENS / LANES;

#[allow(clippy::needless_range_loop, reason = "one index runs over several arrays")]
#[inline(always)]
fn add_page_to_tile<V: Lanes, const TILE: usize>(
    piece: &mut Piece<'_>,
    positions: &[u32],
    page_idx: usize,
    query: usize,
) {
    // How many tokens of the page each query sees.
    let mut n_seen = [0; TILE];
    let (mut fewest, mut most) = (PAGE_TOKENS, 0);
    for (j, n_seen) in n_seen.iter_mut().enumerate() {
        let position = positions[(query + j) / piece.group] as usize;
        *n_seen = (position + 1).saturating_sub(page_idx * PAGE_TOKENS).min(PAGE_TOKENS);
        fewest = fewest.min(*n_seen);
        most = most.max(*n_seen);
    }
    if most == 0 {
        return;
    }

    let head_dim = piece.head_dim;
    let q = &piece.q[query * head_dim..][..TILE * head_dim];
    let (k, _) = piece.k.as_chunks::<LANES>();
    let (k, _) = k.as_chunks::<VECTORS>();
    let mut scores = [[V::splat(0.0); VECTORS]; TILE];
    for (d, k) in k[..head_dim].iter().enumerate() {
        let k = [V::load(&k[0]), V::load(&k[1])];
        for j in 0..TILE {
            let q = V::splat(q[j * head_dim + d]);
            for i in 0..VECTORS {
                scores[j][i] = k[i].mul_add(q, scores[j][i]);
            }
        }
    }

    let mut factors = [0.0f32; TILE];
    let mut weights = [[0.0f32; PAGE_TOKENS]; TILE];
    for j in 0..TILE {
        let mut lanes = V::splat(f32::MIN);
        for i in 0..VECTORS {
            let n = n_seen[j].saturating_sub(i * LANES);
            scores[j][i] = scores[j][i].first(n, V::splat(f32::NEG_INFINITY));
            lanes = lanes.larger(scores[j][i]);
        }
        let before = piece.largest[query + j];
        let largest = before.larger(lanes.max());
        let mut total = V::splat(0.0);
        for (i, to) in weights[j].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let weight = exp(scores[j][i].sub(V::splat(largest)));
            weight.store(to);
            total = total.add(weight);
        }
        factors[j] = exp(before - largest);
        piece.largest[query + j] = largest;
        piece.total[query + j] = f32::mul_add(piece.total[query + j], factors[j], total.sum());
    }

    let n_vectors = piece.padded / LANES;
    let (v, _) = piece.v.as_chunks::<LANES>();
    let (sums, _) = piece.acc.as_chunks_mut::<LANES>();
    let add = |acc: &mut [V; 2], v: [V; 2], weight: f32| {
        *acc = [v[0].mul_add(V::splat(weight), acc[0]), v[1].mul_add(V::splat(weight), acc[1])];
    };
    for first in (0..n_vectors).step_by(CHUNK / LANES) {
        let mut acc = [[V::splat(0.0); CHUNK / LANES]; TILE];
        for j in 0..TILE {
            for (i, acc) in acc[j].iter_mut().enumerate() {
                *acc = V::load(&sums[(query + j) * n_vectors + first + i]).mul(V::splat(factors[j]));
            }
        }
        let load = |t: usize| {
            let v = &v[t * n_vectors + first..][..2];
            [V::load(&v[0]), V::load(&v[1])]
        };
        for t in 0..fewest {
            let v = load(t);
            for j in 0..TILE {
                add(&mut acc[j], v, weights[j][t]);
            }
        }
        for j in 0..TILE {
            for t in fewest..n_seen[j] {
                add(&mut acc[j], load(t), weights[j][t]);
            }
            for (i, acc) in acc[j].iter().enumerate() {
                acc.store(&mut sums[(query + j) * n_vectors + first + i]);
            }
        }
    }
}
