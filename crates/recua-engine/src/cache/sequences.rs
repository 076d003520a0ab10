//! [`Sequences`]: which pages belong to which sequence. Integers only: it knows slots, lengths and page numbers, and no token or device.
//!
//! A slot is a sequence's line of the page table; its tokens are at positions `[0, cached_tokens)`. A sequence takes pages as it grows and
//! returns them when it is cleared or truncated.
//!
//! A page may have several references: from slots whose sequences begin alike, or from an outside holder that keeps prefixes. A page with
//! several references is never written to: a sequence that grows inside one first gets a copy.

use super::pages::{Pages, problem};
use crate::error::{Error, Result};
use std::fmt;

/// The capacity for sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRoom {
    /// The number of sequences that can have tokens at once.
    pub n_slots: usize,
    /// The number of pages in the pool.
    pub n_pages: usize,
    /// Tokens per page.
    pub page_tokens: usize,
    /// The length of the longest possible sequence, in tokens.
    pub max_seq_len: usize,
}

/// The updates that a device needs before it runs the rows for which sequences grew: first the copies, then the table.
///
/// No page is both copied from and copied to, as long as no sequence is cleared or truncated between the first growth and the delivery; so
/// the copies may be made in any order or at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries of the page table: (slot, index, page). Page `page` holds the slot's positions from `index * page_tokens` on.
    pub table: Vec<(u32, u32, u32)>,
    /// Pages to copy: (from, to).
    pub copies: Vec<(u32, u32)>,
}

impl Changes {
    /// Removes all changes but keeps the memory.
    pub fn clear(&mut self) {
        self.table.clear();
        self.copies.clear();
    }
}

/// The positions `[start, end)` of the sequence in `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) slot: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A sequence's line of the page table.
#[derive(Clone, Debug, Default)]
struct Slot {
    // Page i holds the positions [page_tokens * i, page_tokens * (i + 1)).
    pages: Vec<u32>,
    n_tokens: usize,
    // The device's page table has the first `n_told` pages.
    n_told: usize,
}

/// The sequences of a cache and their pages.
#[derive(Clone)]
pub struct Sequences {
    page_tokens: usize,
    max_seq_len: usize,
    pages: Pages,
    slots: Vec<Slot>,
}

/// Reading.
impl Sequences {
    /// No sequences.
    ///
    /// # Errors
    /// If the host has no memory for the lists.
    ///
    /// # Panics
    /// If a page holds no tokens.
    pub fn new(room: CacheRoom) -> Result<Sequences> {
        let CacheRoom { n_slots, n_pages, page_tokens, max_seq_len } = room;
        assert!(page_tokens > 0, "a page holds tokens: {room:?}");
        let (pages, slots) = (Pages::new(n_pages)?, resize(Vec::new(), n_slots)?);
        Ok(Sequences { page_tokens, max_seq_len, pages, slots })
    }

    /// The number of slots.
    pub fn batch_size(&self) -> usize {
        self.slots.len()
    }

    /// The length of the longest sequence that a slot can hold, in tokens.
    pub fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    /// Tokens per page.
    pub fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// The number of pages in the pool.
    pub fn n_pages(&self) -> usize {
        self.pages.n_pages()
    }

    /// Pages without references.
    pub fn free_pages(&self) -> usize {
        self.pages.n_free()
    }

    /// The pool's counts.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The number of tokens that `slot` holds.
    ///
    /// # Errors
    /// If there is no such slot.
    pub fn cached_tokens(&self, slot: usize) -> Result<usize> {
        Ok(self.slot(slot)?.n_tokens)
    }

    /// The pages of `slot`, in the order of its positions.
    ///
    /// # Errors
    /// If there is no such slot.
    pub fn slot_pages(&self, slot: usize) -> Result<&[u32]> {
        Ok(&self.slot(slot)?.pages)
    }

    /// Audits the lists: every page is free or in use, every slot has the pages that its tokens need, and no page is in more slots than it
    /// has references.
    ///
    /// # Errors
    /// If one of these does not hold, which is a bug.
    pub fn check(&self) -> Result<()> {
        self.pages.check()?;
        for (i, slot) in self.slots.iter().enumerate() {
            if slot.pages.len() != slot.n_tokens.div_ceil(self.page_tokens) || slot.n_told > slot.pages.len()
            {
                let (n_tokens, n_pages) = (slot.n_tokens, slot.pages.len());
                return Err(Error::Books { slot: i, n_tokens, n_pages });
            }
        }
        for (page, count) in (0u32..).zip(self.slot_references()) {
            if count > self.pages.references(page) {
                return Err(problem(page, "is in more slots than it has references"));
            }
        }
        Ok(())
    }

    fn slot(&self, slot: usize) -> Result<&Slot> {
        self.slots.get(slot).ok_or(Error::SlotOutOfRange { slot, batch_size: self.slots.len() })
    }

    /// The number of slots that refer to each page.
    fn slot_references(&self) -> Vec<u32> {
        let mut references = vec![0u32; self.n_pages()];
        for page in self.slots.iter().flat_map(|slot| &slot.pages) {
            references[*page as usize] += 1;
        }
        references
    }
}

/// Adding, growing and removing sequences.
impl Sequences {
    /// Starts the empty `slot` with these full pages, which hold the first `page_tokens * pages.len()` tokens of its sequence and remain
    /// shared with their other holders.
    ///
    /// # Errors
    /// If the slot does not exist or is not empty, a page is not in use, or there are more pages than a sequence can have. Nothing has
    /// changed then.
    pub fn open(&mut self, slot: usize, shared: &[u32]) -> Result<()> {
        self.share(slot, shared, shared.len().saturating_mul(self.page_tokens))
    }

    /// Starts the empty slot `to` with everything that `from` holds. Full pages stay shared; the first of the two sequences to grow gets a
    /// copy of the last page.
    ///
    /// # Errors
    /// If a slot does not exist, or `to` is not empty. Nothing has changed then.
    pub fn fork(&mut self, from: usize, to: usize) -> Result<()> {
        let Slot { pages, n_tokens, .. } = self.slot(from)?.clone();
        self.share(to, &pages, n_tokens)
    }

    fn share(&mut self, slot: usize, pages: &[u32], n_tokens: usize) -> Result<()> {
        let Slot { pages: own, n_tokens: cached, .. } = self.slot(slot)?;
        if !own.is_empty() || *cached != 0 {
            return Err(Error::SlotInUse { slot, cached: *cached });
        }
        if n_tokens > self.max_seq_len {
            return Err(Error::KvOverflow { slot, start: 0, n_tokens, max_seq_len: self.max_seq_len });
        }
        if let Some(&page) = pages.iter().find(|page| self.pages.references(**page) == 0) {
            return Err(problem(page, "is not in use, so it cannot be shared"));
        }
        for &page in pages {
            self.pages.retain(page)?;
        }
        self.slots[slot] = Slot { pages: pages.to_vec(), n_tokens, n_told: 0 };
        Ok(())
    }

    /// Makes room for the tokens of `slot` up to position `end`. From now on they count as present: the caller must run them, or
    /// [truncate](Self::truncate) the slot. Appends the updates for the device to `out`.
    ///
    /// # Errors
    /// If there is no such slot, `end` is beyond the longest sequence, or pages run out. Nothing has changed then.
    pub fn grow(&mut self, slot: usize, end: usize, out: &mut Changes) -> Result<()> {
        let (n_tokens, n_pages) = (self.cached_tokens(slot)?, self.slots[slot].pages.len());
        if end > self.max_seq_len {
            let (start, n_tokens) = (n_tokens, end - n_tokens);
            return Err(Error::KvOverflow { slot, start, n_tokens, max_seq_len: self.max_seq_len });
        }
        if end <= n_tokens {
            return Ok(());
        }
        let shared = self.shared_last_page(slot, n_tokens);
        let needed = end.div_ceil(self.page_tokens) - n_pages + usize::from(shared.is_some());
        if needed > self.free_pages() {
            return Err(self.out_of_pages(needed, self.free_pages()));
        }
        if let Some(shared) = shared {
            let own = self.take()?;
            let line = &mut self.slots[slot];
            line.pages[n_pages - 1] = own;
            line.n_told = line.n_told.min(n_pages - 1);
            self.pages.release(shared)?;
            out.copies.push((shared, own));
        }
        while self.slots[slot].pages.len() < end.div_ceil(self.page_tokens) {
            let page = self.take()?;
            self.slots[slot].pages.push(page);
        }
        let line = &mut self.slots[slot];
        let untold = (0u32..).zip(&line.pages).skip(line.n_told);
        out.table.extend(untold.map(|(index, page)| (slot as u32, index, *page)));
        (line.n_told, line.n_tokens) = (line.pages.len(), end);
        Ok(())
    }

    /// The page that holds position `n_tokens` of `slot` and earlier tokens, if it has other references too.
    fn shared_last_page(&self, slot: usize, n_tokens: usize) -> Option<u32> {
        let page = *self.slots[slot].pages.get(n_tokens / self.page_tokens)?;
        (!n_tokens.is_multiple_of(self.page_tokens) && self.pages.references(page) > 1).then_some(page)
    }

    fn take(&mut self) -> Result<u32> {
        self.pages.take().ok_or_else(|| self.out_of_pages(1, 0))
    }

    fn out_of_pages(&self, needed: usize, free: usize) -> Error {
        Error::OutOfPages { needed, free, n_pages: self.n_pages() }
    }

    /// Removes the sequence in `slot` and returns its pages.
    ///
    /// # Errors
    /// If there is no such slot.
    pub fn clear_batch(&mut self, slot: usize) -> Result<()> {
        self.truncate(slot, 0)
    }

    /// Removes the tokens of `slot` from position `n_tokens` on, if there are any, and returns the pages that held only those. The device
    /// needs no update: it reads a line of the table only up to the sequence's length.
    ///
    /// # Errors
    /// If there is no such slot.
    pub fn truncate(&mut self, slot: usize, n_tokens: usize) -> Result<()> {
        let n_tokens = self.slot(slot)?.n_tokens.min(n_tokens);
        let n_pages = n_tokens.div_ceil(self.page_tokens);
        let line = &mut self.slots[slot];
        (line.n_tokens, line.n_told) = (n_tokens, line.n_told.min(n_pages));
        while self.slots[slot].pages.len() > n_pages {
            if let Some(page) = self.slots[slot].pages.pop() {
                self.pages.release(page)?;
            }
        }
        Ok(())
    }

    /// Keeps a page that is in use from being reused, until it is [released](Self::release).
    ///
    /// # Errors
    /// If the page is not in use.
    pub fn retain(&mut self, page: u32) -> Result<()> {
        self.pages.retain(page)
    }

    /// Releases a page that was [retained](Self::retain).
    ///
    /// # Errors
    /// If the page is not in use.
    pub fn release(&mut self, page: u32) -> Result<()> {
        self.pages.release(page).map(drop)
    }
}

/// Whole steps: one span per slot, which replaces what the slot held from `start` on.
impl Sequences {
    /// Checks that the spans fit; changes nothing.
    ///
    /// # Errors
    /// If a slot does not exist, a span starts beyond its sequence or ends beyond the longest, or pages run out.
    pub(crate) fn check_spans(&self, spans: &[Span]) -> Result<()> {
        let (mut needed, mut freed) = (0, 0);
        for &Span { slot, start, end } in spans {
            let line = self.slot(slot)?;
            if end > self.max_seq_len {
                let n_tokens = end - start;
                return Err(Error::KvOverflow { slot, start, n_tokens, max_seq_len: self.max_seq_len });
            }
            if start > line.n_tokens {
                return Err(Error::PositionGap { slot, start, cached: line.n_tokens });
            }
            let kept = start.div_ceil(self.page_tokens);
            let copied = self.shared_last_page(slot, start).is_some();
            needed += end.div_ceil(self.page_tokens) - kept + usize::from(copied);
            freed += line.pages[kept..].iter().filter(|page| self.pages.references(**page) == 1).count();
        }
        let free = self.free_pages() + freed;
        if needed > free { Err(self.out_of_pages(needed, free)) } else { Ok(()) }
    }

    /// Truncates and grows the slots of the spans, which must have passed [`check_spans`](Self::check_spans).
    pub(crate) fn replace(&mut self, spans: &[Span], out: &mut Changes) -> Result<()> {
        spans.iter().try_for_each(|span| self.truncate(span.slot, span.start))?;
        spans.iter().try_for_each(|span| self.grow(span.slot, span.end, out))
    }

    /// Call this if the rows of `spans` failed, when it is unknown which of `changes` reached the device: a sequence then ends where its
    /// span began, because what followed has been overwritten, or before a page whose copy may not have been made.
    pub(crate) fn roll_back(&mut self, spans: &[Span], changes: &Changes) -> Result<()> {
        for span in spans {
            self.truncate(span.slot, span.start)?;
            let line = &mut self.slots[span.slot];
            line.n_told = 0;
            let n_pages = line.pages.len();
            let last = line.pages.last().copied();
            if changes.copies.iter().any(|(_, to)| Some(*to) == last) {
                self.truncate(span.slot, (n_pages - 1) * self.page_tokens)?;
            }
        }
        Ok(())
    }
}

/// Changing the number of slots.
impl Sequences {
    /// Checks that there can be this many slots and pages; changes nothing.
    ///
    /// # Errors
    /// If a slot that would be removed holds tokens, or a page that would be removed is held outside the slots.
    pub(crate) fn check_resize(&self, n_slots: usize, n_pages: usize) -> Result<()> {
        let live: Vec<usize> = (n_slots..self.batch_size()).filter(|i| self.slots[*i].n_tokens > 0).collect();
        if !live.is_empty() {
            return Err(Error::BelowLiveSequences { requested: n_slots, live });
        }
        self.moves(n_pages).map(drop)
    }

    /// The same sequences with another number of slots and pages, and the new place of each page in use: (from, to). The device has none of
    /// the new entries. `self` stays unchanged; [`check_resize`](Self::check_resize) must have passed.
    ///
    /// # Errors
    /// As `check_resize`, or if the host has no memory for the lists.
    pub(crate) fn resized(&self, n_slots: usize, n_pages: usize) -> Result<(Sequences, Vec<(u32, u32)>)> {
        let moves = self.moves(n_pages)?;
        let mut references = Vec::new();
        let bytes = n_pages.saturating_mul(4);
        let no_memory = |_| Error::HostMemory { what: "the list of pages", bytes };
        references.try_reserve_exact(n_pages).map_err(no_memory)?;
        references.resize(n_pages, 0);
        let mut new_number = vec![0u32; self.n_pages()];
        for &(from, to) in &moves {
            references[to as usize] = self.pages.references(from);
            new_number[from as usize] = to;
        }
        let mut slots = resize(self.slots.clone(), n_slots)?;
        for slot in &mut slots {
            slot.n_told = 0;
            slot.pages.iter_mut().for_each(|page| *page = new_number[*page as usize]);
        }
        Ok((Sequences { pages: Pages::with_references(references)?, slots, ..*self }, moves))
    }

    /// The new place of each page in use in a pool of `n_pages`: its own number if that exists, otherwise the lowest free number.
    fn moves(&self, n_pages: usize) -> Result<Vec<(u32, u32)>> {
        let used = (0..self.n_pages() as u32).filter(|page| self.pages.references(*page) > 0);
        let used: Vec<u32> = used.collect();
        if used.iter().all(|page| (*page as usize) < n_pages) {
            return Ok(used.into_iter().map(|page| (page, page)).collect());
        }
        // Holders outside the slots know pages by number.
        let in_slots = self.slot_references();
        let is_held = |page: &&u32| self.pages.references(**page) > in_slots[**page as usize];
        let held = used.iter().filter(is_held).count();
        if held > 0 {
            return Err(Error::PagesHeld { held });
        }
        if used.len() > n_pages {
            return Err(Error::OutOfPages { needed: used.len(), free: n_pages, n_pages });
        }
        Ok(used.into_iter().zip(0u32..).collect())
    }
}

impl fmt::Debug for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens: Vec<usize> = self.slots.iter().map(|slot| slot.n_tokens).collect();
        write!(f, "Sequences({tokens:?} tokens, {} of {} pages free)", self.free_pages(), self.n_pages())
    }
}

fn resize(mut slots: Vec<Slot>, n: usize) -> Result<Vec<Slot>> {
    let bytes = n.saturating_mul(size_of::<Slot>());
    slots
        .try_reserve_exact(n.saturating_sub(slots.len()))
        .map_err(|_| Error::HostMemory { what: "the list of slots", bytes })?;
    slots.resize(n, Slot::default());
    Ok(slots)
}
