//! Greedy merging of neighbours, shared by SentencePiece's BPE and byte-level BPE: of all adjacent pairs that the vocabulary can
//! join, the best is joined, ties go to the leftmost, until no pair can be joined. O(n log n) in the number of symbols,
//! whatever the vocabulary.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No neighbour, or no token.
pub(super) const NONE: u32 = u32::MAX;

/// A stretch of text that is one symbol so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// First byte within the text.
    pub(super) start: u32,
    /// Bytes; 0 once it has been joined to its left neighbour.
    pub(super) len: u32,
    /// The token or symbol id, [`NONE`] if the vocabulary has none for it.
    pub(super) id: u32,
    prev: u32,
    next: u32,
}

/// A pair that could be joined. Ordered by key, then by place; `len` tells whether both symbols are still the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    key: u32,
    left: u32,
    len: u32,
    id: u32,
}

/// Working memory, kept between words so that a long text does not allocate for each word.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Reverse<Pair>>,
}

impl Merger {
    /// Forgets the last word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.pairs.clear();
    }

    /// Appends a symbol that follows directly on the last one.
    pub(super) fn push(&mut self, start: u32, len: u32, id: u32) {
        let idx = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = idx;
        }
        let prev = if idx == 0 { NONE } else { idx - 1 };
        self.symbols.push(Symbol { start, len, id, prev, next: NONE });
    }

    /// Joins pairs until `join` accepts none. `join` returns the key of a pair (the lowest key is joined first) and the id of
    /// the joined symbol. [`Merger::symbols`] has the result.
    pub(super) fn run(&mut self, join: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for right in 1..self.symbols.len() as u32 {
            self.offer(right - 1, right, &join);
        }
        while let Some(Reverse(pair)) = self.pairs.pop() {
            let left = self.symbols[pair.left as usize];
            if left.len == 0 || left.next == NONE {
                continue;
            }
            let right = self.symbols[left.next as usize];
            // A symbol only ever grows to the right, so an equal length means the same two symbols.
            if left.len + right.len != pair.len {
                continue;
            }
            self.symbols[left.next as usize].len = 0;
            let joined = &mut self.symbols[pair.left as usize];
            joined.len = pair.len;
            joined.id = pair.id;
            joined.next = right.next;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = pair.left;
                self.offer(pair.left, right.next, &join);
            }
            if left.prev != NONE {
                self.offer(left.prev, pair.left, &join);
            }
        }
    }

    /// The remaining symbols, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn offer(&mut self, left: u32, right: u32, join: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let (l, r) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((key, id)) = join(l, r) {
            self.pairs.push(Reverse(Pair { key, left, len: l.len + r.len, id }));
        }
    }
}
