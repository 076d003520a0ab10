//! `attention`: out = softmax(scale · q · Kᵀ) · V for every row over its own sequence, up to its own position.
//!
//! A *piece* of work is a block of consecutive rows of one sequence, together with one KV head. Its *queries* are these rows, once for each
//! query head that shares the KV head. Pages are processed from position 0 on; each is converted to f32 once and used for all queries of the
//! block, because a prompt has hundreds of rows of one sequence. A query keeps a running maximum, a running sum and its weighted sum of V,
//! and rescales them at each page (online softmax). Each *span* of pages is summed by itself and then added to the spans before it. So the
//! bits of a query depend only on itself and its sequence, not on how rows are cut into blocks; and if there are fewer blocks than threads, as
//! many threads as a sequence has spans can work on it. Bound by arithmetic for prompts, by reading the cache for single rows.
//!
//! The page layout is `rope_store`'s: lanes are tokens for K and elements of the head for V. Positions after a row's own hold whatever an
//! earlier use left there, perhaps NaN: their scores are replaced, and their values of V are not read.

mod piece;

use super::Rows;
use crate::cpu::Allocated;
use crate::cpu::isa::Isa;
use crate::cpu::kv::Kv;
use crate::cpu::memory::{Memory, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::Result;
use crate::kv::KvShape;
use crate::op::{Attention, Op, PAGE_TOKENS};
use piece::{Line, Piece, State, add_page, add_span, out_of_memory, padded};
use std::cell::RefCell;
use std::cmp::Reverse;

/// The approximate number of queries in a block: enough to make converting a page cheap, few enough for their sums to stay in the L1 and L2
/// caches.
const BLOCK_QUERIES: usize = 64;

/// The number of pages in a span.
const SPAN: usize = 8;

/// Checks the row map against the cache.
pub(crate) fn check_attention(op: &Attention) -> Result<()> {
    Kv::of("attention", &op.cache)?;
    // SAFETY: the queue is held and no op is running.
    unsafe { Rows::new(&op.rows) }.check("attention", &op.cache, true)
}

/// Where threads leave the sums of spans if several threads work on one sequence.
#[derive(Default)]
pub(crate) struct Spans(Option<Memory>);

impl Spans {
    /// Reserves memory for the ops. Allocates only if they need more than any op before.
    pub(crate) fn reserve<'a>(
        &mut self,
        ops: impl Iterator<Item = &'a Op>,
        n_threads: usize,
        allocated: &Allocated,
    ) -> Result<()> {
        let mut most = 0;
        for op in ops {
            if let Op::Attention(op) = op {
                // The maximum over all numbers of rows up to this one, so that reserving for the largest pass is enough for smaller ones.
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
    /// No other thread uses this state while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "the caller promises exclusive access")]
    unsafe fn state(&self, i: usize, len: usize) -> &mut [f32] {
        let memory = self.0.as_ref().expect("reserved before the op runs");
        assert!(
            (i + 1) * len * size_of::<f32>() <= memory.len(),
            "the state lies outside the reserved memory"
        );
        // SAFETY: inside, as was just checked; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(memory.as_ptr().cast::<f32>().add(i * len), len) }
    }
}

/// The largest number of rows for which several threads share a sequence: with more rows, heads and rows keep all threads busy.
fn rows_that_share(op: &Attention, n_threads: usize) -> usize {
    if n_threads == 1 { 0 } else { (2 * n_threads - 1) / op.cache.shape().n_kv_heads }
}

/// See [`Attention`].
pub(crate) fn attention(op: &Attention, worker: &Worker<'_>, isa: Isa, spans: &Spans) -> Result<()> {
    // SAFETY: the op writes only `out`, which overlaps neither q nor the cache (`Op::check`), and the row map has another type.
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
                // The other threads wait at this barrier.
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
                // SAFETY: these heads of this row belong only to this piece, and a piece is claimed once.
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
                // SAFETY: each state is claimed once, and read only after the barrier.
                piece.span.copy_to(unsafe { spans.state(claimed.start, len) });
            }
        }
        worker.barrier();
        while let Some(claimed) = worker.claim(blocks.len() * n_kv_heads, 1) {
            let (block, kv_head) = (&blocks[claimed.start / n_kv_heads], claimed.start % n_kv_heads);
            piece.begin(block, kv_head, op);
            for span in 0..block.n_pages.div_ceil(SPAN) {
                // SAFETY: all states were written before the barrier, and those of this block and head belong to this piece.
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

/// Cuts the rows into blocks, the most expensive first, so that the threads end together. Every thread makes the same list.
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

/// What a thread keeps between ops, so that a step allocates nothing.
struct Scratch {
    blocks: Vec<Block>,
    memory: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { blocks: Vec::new(), memory: Vec::new() }) };
}
