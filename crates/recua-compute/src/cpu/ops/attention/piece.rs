//! A piece of work of `attention`: the queries of a block and KV head, a page of K and V as f32, and the queries' sums so far.

use super::Block;
use crate::cpu::isa::Isa;
use crate::cpu::kv::Kv;
use crate::cpu::math::{LANES, Lanes, Vector, exp, vectorised};
use crate::cpu::memory::{row_of, slice};
use crate::error::{Error, Result};
use crate::kv::KvType;
use crate::op::{Attention, PAGE_TOKENS};
use half::f16;

/// The number of elements of a head that the weighted sum processes at once: heads are padded to a multiple of it.
const CHUNK: usize = 2 * LANES;

/// A cache line of floats, which gives the scratch its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([f32; LANES]);

pub(super) fn out_of_memory(requested_bytes: usize) -> Error {
    Error::OutOfMemory { device: "cpu".into(), what: "scratch of attention".into(), requested_bytes }
}

/// `head_dim`, padded to whole chunks.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(CHUNK)
}

/// The sums of some queries.
pub(super) struct State<'a> {
    /// `[n_queries, padded]`: the weighted sums of V
    acc: &'a mut [f32],
    /// `[n_queries]`: the largest score so far
    largest: &'a mut [f32],
    /// `[n_queries]`: the sum of the weights so far
    total: &'a mut [f32],
}

impl<'a> State<'a> {
    /// The number of floats for `n_queries`.
    pub(super) fn len(n_queries: usize, padded: usize) -> usize {
        n_queries * (padded + 2)
    }

    /// Splits `State::len` floats.
    pub(super) fn of(floats: &'a mut [f32], n_queries: usize, padded: usize) -> State<'a> {
        let (acc, rest) = floats.split_at_mut(n_queries * padded);
        let (largest, total) = rest.split_at_mut(n_queries);
        State { acc, largest, total }
    }

    /// Copies the first queries to `floats`, as many as fit.
    pub(super) fn copy_to(&self, floats: &mut [f32]) {
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
    pub(super) fn add_span(isa, whole: &mut State<'_>, span: &State<'_>, n_queries: usize) = add_span_body
}

/// Adds a span to those before it. A query that sees nothing of the span keeps its bits.
#[inline(always)]
fn add_span_body<V: Lanes>(set: V::Set, whole: &mut State<'_>, span: &State<'_>, n_queries: usize) {
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
            V::load(set, from)
                .mul_add(V::splat(set, now), V::load(set, to).mul(V::splat(set, before)))
                .store(to);
        }
    }
}

/// The state of a piece of work. All parts begin at a cache line.
pub(super) struct Piece<'a> {
    head_dim: usize,
    /// `head_dim`, padded to whole chunks.
    pub(super) padded: usize,
    /// Query heads of a KV head.
    group: usize,
    pub(super) n_queries: usize,
    /// `[head_dim, PAGE_TOKENS]`
    k: &'a mut [f32],
    /// `[PAGE_TOKENS, padded]`
    v: &'a mut [f32],
    /// `[n_queries, head_dim]`, scaled
    q: &'a mut [f32],
    /// The sums of the current span.
    pub(super) span: State<'a>,
    /// The sums of the spans before it.
    pub(super) whole: State<'a>,
}

impl<'a> Piece<'a> {
    pub(super) fn new(
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
        // Loading a page does not write V's padding, and what an op with other sizes left there must not be read.
        v.fill(0.0);
        Ok(Piece { head_dim, padded, group, n_queries: 0, k, v, q, span, whole })
    }

    /// Takes the queries of a block.
    pub(super) fn begin(&mut self, block: &Block, kv_head: usize, op: &Attention) {
        self.n_queries = block.n_rows * self.group;
        let width = self.group * self.head_dim;
        for row in 0..block.n_rows {
            // SAFETY: the op writes only `out`, which does not overlap q (`Op::check`).
            let from: &[f32] = unsafe { row_of(&op.q, block.first_row + row, kv_head * width, width) };
            for (scaled, q) in self.q[row * width..][..width].iter_mut().zip(from) {
                *scaled = q * op.scale;
            }
        }
        self.whole.empty();
    }

    /// Begins a span of the same queries.
    pub(super) fn begin_span(&mut self) {
        self.span.empty();
    }

    /// Reads K and V of the `page`th [head_dim, PAGE_TOKENS] slice of the cache, of which `n_tokens` are used.
    pub(super) fn load_page(&mut self, isa: Isa, cache: &Kv, kv_type: KvType, page: usize, n_tokens: usize) {
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
    pub(super) fn end(&self, row: usize, out: &mut [f32]) {
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
fn convert_body<V: Lanes>(set: V::Set, from: &[f16], to: &mut [f32], n_cols: usize, stride: usize) {
    for (from, to) in from.chunks_exact(n_cols).zip(to.chunks_exact_mut(stride)) {
        let (from, rest) = from.as_chunks::<LANES>();
        let (to, rest_to) = to[..n_cols].as_chunks_mut::<LANES>();
        for (from, to) in from.iter().zip(to) {
            V::load_f16(set, from).store(to);
        }
        for (from, to) in rest.iter().zip(rest_to) {
            *to = from.to_f32();
        }
    }
}

vectorised! {
    pub(super) fn add_page(isa, piece: &mut Piece<'_>, positions: &[u32], page_idx: usize) = add_page_body
}

/// Adds the loaded page to every query whose row reaches it. As many queries as there are registers for share each load of K and V; their
/// number does not change any query's bits.
#[inline(always)]
fn add_page_body<V: Lanes>(set: V::Set, piece: &mut Piece<'_>, positions: &[u32], page_idx: usize) {
    let tile = if V::MANY_REGISTERS { 4 } else { 2 };
    let mut query = 0;
    while query + tile <= piece.n_queries {
        if V::MANY_REGISTERS {
            add_page_to_tile::<V, 4>(set, piece, positions, page_idx, query);
        } else {
            add_page_to_tile::<V, 2>(set, piece, positions, page_idx, query);
        }
        query += tile;
    }
    while query < piece.n_queries {
        add_page_to_tile::<V, 1>(set, piece, positions, page_idx, query);
        query += 1;
    }
}

/// The number of registers that hold the scores of a page.
const VECTORS: usize = PAGE_TOKENS / LANES;

#[allow(clippy::needless_range_loop, reason = "one index runs over several arrays")]
#[inline(always)]
fn add_page_to_tile<V: Lanes, const TILE: usize>(
    set: V::Set,
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
    let mut scores = [[V::splat(set, 0.0); VECTORS]; TILE];
    for (d, k) in k[..head_dim].iter().enumerate() {
        let k = [V::load(set, &k[0]), V::load(set, &k[1])];
        for j in 0..TILE {
            let q = V::splat(set, q[j * head_dim + d]);
            for i in 0..VECTORS {
                scores[j][i] = k[i].mul_add(q, scores[j][i]);
            }
        }
    }

    let mut factors = [0.0f32; TILE];
    let mut weights = [[0.0f32; PAGE_TOKENS]; TILE];
    for j in 0..TILE {
        let mut lanes = V::splat(set, f32::MIN);
        for i in 0..VECTORS {
            let n = n_seen[j].saturating_sub(i * LANES);
            scores[j][i] = scores[j][i].first(n, V::splat(set, f32::NEG_INFINITY));
            lanes = lanes.larger(scores[j][i]);
        }
        let before = piece.span.largest[query + j];
        let largest = before.larger(lanes.max());
        let mut total = V::splat(set, 0.0);
        for (i, to) in weights[j].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let weight = exp(scores[j][i].sub(V::splat(set, largest)));
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
        *acc = [v[0].mul_add(V::splat(set, weight), acc[0]), v[1].mul_add(V::splat(set, weight), acc[1])];
    };
    for first in (0..n_vectors).step_by(CHUNK / LANES) {
        let mut acc = [[V::splat(set, 0.0); CHUNK / LANES]; TILE];
        for j in 0..TILE {
            for (i, acc) in acc[j].iter_mut().enumerate() {
                *acc =
                    V::load(set, &sums[(query + j) * n_vectors + first + i]).mul(V::splat(set, factors[j]));
            }
        }
        let load = |t: usize| {
            let v = &v[t * n_vectors + first..][..2];
            [V::load(set, &v[0]), V::load(set, &v[1])]
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
