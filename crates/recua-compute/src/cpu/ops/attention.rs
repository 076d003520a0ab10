//! `attention`: out = softmax(scale · q · Kᵀ) · V for every row over its own sequence, up to its own position.
//!
//! A piece of work is a block of consecutive rows of one sequence and one KV head: the query heads that share the KV head, times
//! the rows, are its *queries*. Pages are taken from position 0 on; each is converted to f32 once and used for all queries of the
//! block, because a prompt has hundreds of rows of one sequence. A query keeps a running maximum, a running sum and its weighted
//! sum of V, and rescales them at each page (online softmax). Each *span* of pages is summed up by itself and then added to the spans
//! before it, so its bits depend on nothing but itself and its sequence, however rows are cut into blocks, and where there are
//! fewer blocks than threads, as many threads as a sequence has spans work on it. Bound by arithmetic for prompts, by reading the cache
//! for single rows.
//!
//! The page layout is `rope_store`'s: lanes are tokens for K, elements of the head for V. Slots behind a row's position hold what
//! an earlier use left, perhaps NaN: their scores are replaced, and their values of V are not read.

use super::Rows;
use crate::cpu::Allocated;
use crate::cpu::isa::Isa;
use crate::cpu::kv::Kv;
use crate::cpu::math::{LANES, Lanes, Vector, exp, vectorised};
use crate::cpu::memory::{Memory, row_of, slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::{Error, Result};
use crate::kv::{KvShape, KvType};
use crate::op::{Attention, Op, PAGE_TOKENS};
use half::f16;
use std::cell::RefCell;
use std::cmp::Reverse;

/// Queries in a block, about: enough to make converting a page cheap, few enough for their sums to stay in the first caches.
const BLOCK_QUERIES: usize = 64;

/// Pages of a span.
const SPAN: usize = 8;

/// Elements of the head in the unit of the weighted sum: heads are padded to a multiple of it.
const CHUNK: usize = 2 * LANES;

/// Checks the row map against the cache.
pub(crate) fn check_attention(op: &Attention) -> Result<()> {
    Kv::of("attention", &op.cache)?;
    // SAFETY: the queue is held and no op is running.
    unsafe { Rows::new(&op.rows) }.check("attention", &op.cache, true)
}

/// Where threads leave the spans that they summed up, where several work on one sequence.
#[derive(Default)]
pub(crate) struct Spans(Option<Memory>);

impl Spans {
    /// Makes room for the ops. Allocates only when they need more than any op before.
    pub(crate) fn reserve<'a>(
        &mut self,
        ops: impl Iterator<Item = &'a Op>,
        n_threads: usize,
        allocated: &Allocated,
    ) -> Result<()> {
        let mut most = 0;
        for op in ops {
            if let Op::Attention(op) = op {
                // As many rows as ever share, so that the largest pass makes room for all.
                let rows = op.q.n_rows().min(rows_that_share(op, n_threads));
                let spans = op.rows.pages.n_cols().div_ceil(SPAN);
                let head_dim = op.cache.shape().head_dim;
                let n_heads = op.q.n_cols() / head_dim;
                let state = State::len(n_heads, padded(head_dim));
                most = most.max(rows * spans * state * size_of::<f32>());
            }
        }
        if most > self.0.as_ref().map_or(0, Memory::len) {
            self.0 = Some(allocated.memory(most, "workspace")?);
        }
        Ok(())
    }

    /// State `i` of `len` floats each.
    ///
    /// # Safety
    /// Nobody else has this state, which lies in what was reserved.
    #[allow(clippy::mut_from_ref, reason = "the caller promises exclusive access")]
    unsafe fn state(&self, i: usize, len: usize) -> &mut [f32] {
        let memory = self.0.as_ref().expect("reserved before the op runs");
        assert!(
            (i + 1) * len * size_of::<f32>() <= memory.len(),
            "more spans than the page table has room for"
        );
        // SAFETY: inside, as was just checked; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(memory.as_ptr().cast::<f32>().add(i * len), len) }
    }
}

/// Up to how many rows several threads may work on one sequence: as long as heads and rows do not keep all of them busy.
fn rows_that_share(op: &Attention, n_threads: usize) -> usize {
    if n_threads == 1 { 0 } else { (2 * n_threads - 1) / op.cache.shape().n_kv_heads }
}

/// See [`Attention`].
pub(crate) fn attention(op: &Attention, worker: &Worker<'_>, isa: Isa, spans: &Spans) -> Result<()> {
    // SAFETY: the op writes `out` alone, which overlaps neither q nor the cache (`Op::check`), and the row map has another type.
    let rows = unsafe { Rows::new(&op.rows) };
    let cache = Kv::of("attention", &op.cache)?;
    let live = (0..op.q.n_rows()).filter(|row| rows.is_live(*row));
    let most_pages = live.map(|row| rows.positions[row] as usize / PAGE_TOKENS + 1).max().unwrap_or(0);
    let shares = op.q.n_rows() <= rows_that_share(op, worker.n_threads()) && most_pages > SPAN;
    SCRATCH.with_borrow_mut(|scratch| {
        let KvShape { n_kv_heads, head_dim, .. } = *op.cache.shape();
        let group = op.q.n_cols() / head_dim / n_kv_heads;
        let Scratch { blocks, memory } = scratch;
        let rows_max = if shares { 1 } else { (BLOCK_QUERIES / group).max(1) };
        let ready = cut_blocks(&rows, rows_max, blocks)
            .and_then(|()| Piece::new(memory, head_dim, group, blocks.iter().map(|b| b.n_rows).max()));
        let mut piece = match ready {
            Ok(piece) => piece,
            Err(e) => {
                // The others wait there.
                if shares {
                    worker.barrier();
                }
                return Err(e);
            }
        };
        let sum_up = |piece: &mut Piece<'_>, block: &Block, kv_head: usize, span: usize| {
            let positions = &rows.positions[block.first_row..][..block.n_rows];
            piece.begin_span();
            for page_idx in span * SPAN..block.n_pages.min((span + 1) * SPAN) {
                let n_tokens = block.last_position + 1 - page_idx * PAGE_TOKENS;
                let page = rows.page(block.first_row, page_idx) * n_kv_heads + kv_head;
                piece.load_page(isa, cache, op.cache.shape().kv_type, page, n_tokens.min(PAGE_TOKENS));
                add_page(isa, piece, positions, page_idx);
            }
        };
        let write = |piece: &Piece<'_>, block: &Block, kv_head: usize| {
            for row in 0..block.n_rows {
                let place = (block.first_row + row) * op.q.n_cols() + kv_head * group * head_dim;
                // SAFETY: these heads of this row belong to this piece alone, and a piece is claimed once.
                let out: &mut [f32] = unsafe { slice_mut(&op.out, place, group * head_dim) };
                piece.end(row, out);
            }
        };
        if !shares {
            while let Some(claimed) = worker.claim(blocks.len() * n_kv_heads, 1) {
                let (block, kv_head) = (&blocks[claimed.start / n_kv_heads], claimed.start % n_kv_heads);
                piece.begin(block, kv_head, op);
                for span in 0..block.n_pages.div_ceil(SPAN) {
                    sum_up(&mut piece, block, kv_head, span);
                    add_span(isa, &mut piece.whole, &piece.span, piece.n_queries);
                }
                write(&piece, block, kv_head);
            }
            return Ok(());
        }
        let (n_spans, len) = (most_pages.div_ceil(SPAN), State::len(group, piece.padded));
        while let Some(claimed) = worker.claim(blocks.len() * n_kv_heads * n_spans, 1) {
            let (i, span) = (claimed.start / n_spans, claimed.start % n_spans);
            let (block, kv_head) = (&blocks[i / n_kv_heads], i % n_kv_heads);
            if span * SPAN < block.n_pages {
                piece.begin(block, kv_head, op);
                sum_up(&mut piece, block, kv_head, span);
                // SAFETY: a piece is claimed once, and read behind the barrier.
                piece.span.copy_to(unsafe { spans.state(claimed.start, len) });
            }
        }
        worker.barrier();
        while let Some(claimed) = worker.claim(blocks.len() * n_kv_heads, 1) {
            let (block, kv_head) = (&blocks[claimed.start / n_kv_heads], claimed.start % n_kv_heads);
            piece.begin(block, kv_head, op);
            for span in 0..block.n_pages.div_ceil(SPAN) {
                // SAFETY: all were written before the barrier, and the spans of this block and head are this piece's.
                let state = unsafe { spans.state(claimed.start * n_spans + span, len) };
                add_span(isa, &mut piece.whole, &State::of(state, group, piece.padded), piece.n_queries);
            }
            write(&piece, block, kv_head);
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
    let all = rows.sequences.iter().zip(rows.positions).enumerate();
    for (row, (&sequence, &position)) in all.filter(|(row, _)| rows.is_live(*row)) {
        let position = position as usize;
        match blocks.last_mut() {
            Some(block)
                if block.n_rows < rows_max
                    && block.first_row + block.n_rows == row
                    && rows.sequences[block.first_row] == sequence =>
            {
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

/// `head_dim`, padded to whole chunks.
fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(CHUNK)
}

/// What some queries have summed up.
struct State<'a> {
    /// `[n_queries, padded]`: the weighted sums of V
    acc: &'a mut [f32],
    /// `[n_queries]`: the largest score so far
    largest: &'a mut [f32],
    /// `[n_queries]`: the sum of the weights so far
    total: &'a mut [f32],
}

impl<'a> State<'a> {
    /// Floats of `n_queries`.
    fn len(n_queries: usize, padded: usize) -> usize {
        n_queries * (padded + 2)
    }

    /// Of `State::len` floats.
    fn of(floats: &'a mut [f32], n_queries: usize, padded: usize) -> State<'a> {
        let (acc, rest) = floats.split_at_mut(n_queries * padded);
        let (largest, total) = rest.split_at_mut(n_queries);
        State { acc, largest, total }
    }

    /// Leaves the first queries there, as many as fill it.
    fn copy_to(&self, floats: &mut [f32]) {
        let n_queries = floats.len() / (self.acc.len() / self.total.len() + 2);
        let to = State::of(floats, n_queries, self.acc.len() / self.total.len());
        to.acc.copy_from_slice(&self.acc[..to.acc.len()]);
        to.largest.copy_from_slice(&self.largest[..n_queries]);
        to.total.copy_from_slice(&self.total[..n_queries]);
    }

    fn empty(&mut self) {
        self.acc.fill(0.0);
        self.total.fill(0.0);
        // Not minus infinity: a difference of two of them would be NaN.
        self.largest.fill(f32::MIN);
    }
}

vectorised! {
    fn add_span(isa, whole: &mut State<'_>, span: &State<'_>, n_queries: usize) = add_span_body
}

/// Adds a span to those before it. A query that saw nothing of it keeps its bits.
#[inline(always)]
fn add_span_body<V: Lanes>(whole: &mut State<'_>, span: &State<'_>, n_queries: usize) {
    let n_vectors = span.acc.len() / span.total.len() / LANES;
    let (to, _) = whole.acc.as_chunks_mut::<LANES>();
    let (from, _) = span.acc.as_chunks::<LANES>();
    for query in 0..n_queries {
        if span.total[query] == 0.0 {
            continue;
        }
        let largest = whole.largest[query].larger(span.largest[query]);
        let before = exp(whole.largest[query] - largest);
        let now = exp(span.largest[query] - largest);
        whole.largest[query] = largest;
        whole.total[query] = f32::mul_add(span.total[query], now, whole.total[query] * before);
        let vectors = query * n_vectors..(query + 1) * n_vectors;
        for (to, from) in to[vectors.clone()].iter_mut().zip(&from[vectors]) {
            V::load(from).mul_add(V::splat(now), V::load(to).mul(V::splat(before))).store(to);
        }
    }
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
    /// The span at work.
    span: State<'a>,
    /// The spans before.
    whole: State<'a>,
}

impl<'a> Piece<'a> {
    fn new(
        memory: &'a mut Vec<Line>,
        head_dim: usize,
        group: usize,
        rows_max: Option<usize>,
    ) -> Result<Piece<'a>> {
        let padded = padded(head_dim);
        let queries_max = group * rows_max.unwrap_or(0);
        let lines = |n: usize| n.div_ceil(LANES);
        let sizes = [
            lines(head_dim * PAGE_TOKENS),
            lines(padded * PAGE_TOKENS),
            lines(queries_max * head_dim),
            lines(queries_max * padded),
            lines(queries_max),
            lines(queries_max),
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
        let mut next = |n: usize| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(lines(n) * LANES);
            rest = after;
            &mut part[..n]
        };
        let (k, v) = (next(head_dim * PAGE_TOKENS), next(padded * PAGE_TOKENS));
        let q = next(queries_max * head_dim);
        let mut state = || State {
            acc: next(queries_max * padded),
            largest: next(queries_max),
            total: next(queries_max),
        };
        let (span, whole) = (state(), state());
        // The padding of V is never written, and what an op with other sizes left there must not be read.
        v.fill(0.0);
        Ok(Piece { head_dim, padded, group, n_queries: 0, k, v, q, span, whole })
    }

    /// Takes the queries of a block.
    fn begin(&mut self, block: &Block, kv_head: usize, op: &Attention) {
        self.n_queries = block.n_rows * self.group;
        let width = self.group * self.head_dim;
        for row in 0..block.n_rows {
            // SAFETY: the op writes `out` alone, which overlaps q nowhere (`Op::check`).
            let from: &[f32] = unsafe { row_of(&op.q, block.first_row + row, kv_head * width, width) };
            for (scaled, q) in self.q[row * width..][..width].iter_mut().zip(from) {
                *scaled = q * op.scale;
            }
        }
        self.whole.empty();
    }

    /// Begins a span of the same queries.
    fn begin_span(&mut self) {
        self.span.empty();
    }

    /// Reads K and V of the `page`th [head_dim, PAGE_TOKENS] slice of the cache, of which `n_tokens` are used.
    fn load_page(&mut self, isa: Isa, cache: &Kv, kv_type: KvType, page: usize, n_tokens: usize) {
        let n = self.head_dim * PAGE_TOKENS;
        let Kv { k, v } = cache;
        if kv_type == KvType::F32 {
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
            let factor = 1.0 / self.whole.total[query];
            for (out, acc) in out.iter_mut().zip(&self.whole.acc[query * self.padded..]) {
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
        let before = piece.span.largest[query + j];
        let largest = before.larger(lanes.max());
        let mut total = V::splat(0.0);
        for (i, to) in weights[j].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let weight = exp(scores[j][i].sub(V::splat(largest)));
            weight.store(to);
            total = total.add(weight);
        }
        factors[j] = exp(before - largest);
        piece.span.largest[query + j] = largest;
        piece.span.total[query + j] = f32::mul_add(piece.span.total[query + j], factors[j], total.sum());
    }

    let n_vectors = piece.padded / LANES;
    let (v, _) = piece.v.as_chunks::<LANES>();
    let (sums, _) = piece.span.acc.as_chunks_mut::<LANES>();
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
