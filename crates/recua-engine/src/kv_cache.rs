//! [`KvCache`]: the keys and values of every sequence, in pages.
//!
//! A slot is a sequence's line of the page table; its tokens lie at positions `[0, cached_tokens)`. Pages are taken as a sequence
//! grows and returned when it is cleared or truncated. Addressed by slot it is the `[layers][batch][tokens, kv_dim]` of the batch
//! plan; on the device a layer's K and V are one pool each, laid out as `recua_compute`'s `op.rs` says.
//!
//! Several may refer to a page: two slots with the same beginning, or a caller that keeps prefixes. Nobody writes to a page that
//! another refers to: a sequence that continues inside one gets a copy first.

use crate::config::{KvType, ModelParams};
use crate::error::{Error, Result};
use crate::pages::{Pages, problem};
use recua_compute::{Buffer, DType, Device, KvLayer, PAGE_TOKENS, Plan, Record};
use std::fmt;
use std::ops::Range;

/// What fixes the size of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) n_layers: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) kv_type: KvType,
    pub(crate) batch_size: usize,
    pub(crate) max_seq_len: usize,
    // `None`: enough for every slot to grow to `max_seq_len`.
    pub(crate) kv_pages: Option<usize>,
}

impl KvShape {
    pub(crate) fn new(p: &ModelParams, config: &crate::config::LlamaConfig) -> KvShape {
        KvShape {
            n_layers: p.n_layers,
            n_kv_heads: p.n_kv_heads,
            head_dim: p.head_dim,
            kv_type: config.kv_type,
            batch_size: config.batch_size,
            max_seq_len: config.max_seq_len,
            kv_pages: config.kv_pages,
        }
    }

    /// Pages of the longest sequence.
    pub(crate) fn pages_max(&self) -> usize {
        self.max_seq_len.div_ceil(PAGE_TOKENS)
    }

    /// Pages in the pool; saturates.
    pub(crate) fn n_pages(&self) -> usize {
        self.kv_pages.unwrap_or(self.batch_size.saturating_mul(self.pages_max()))
    }

    /// Bytes of all layers' K and V; saturates.
    pub(crate) fn n_bytes(&self) -> u64 {
        [self.n_layers, self.n_kv_heads, PAGE_TOKENS, self.head_dim, self.kv_type.dtype().size_of()]
            .iter()
            .fold(2 * self.n_pages() as u64, |n, d| n.saturating_mul(*d as u64))
    }
}

/// New tokens of one sequence: positions `[start, end)` of `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) slot: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A sequence's line of the page table.
#[derive(Clone, Debug, Default)]
struct Slot {
    // Page i holds the positions [PAGE_TOKENS * i, PAGE_TOKENS * (i + 1)).
    pages: Vec<u32>,
    n_tokens: usize,
}

/// The paged key-value cache of a model.
pub struct KvCache {
    shape: KvShape,
    pages: Pages,
    slots: Vec<Slot>,
    // One a layer: f16 or f32 [n_pages, n_kv_heads, PAGE_TOKENS, head_dim], twice
    layers: Vec<KvLayer>,
    // u32 [batch_size, pages_max]
    table: Buffer,
    // Lines of `slots` that `table` does not show yet.
    changed: Range<usize>,
}

impl KvCache {
    /// Allocates all of it.
    pub(crate) fn new(device: &Device, shape: KvShape) -> Result<KvCache> {
        let (layers, table) = allocate(device, &shape)?;
        let (pages, slots) = (Pages::new(shape.n_pages())?, resize_slots(Vec::new(), shape.batch_size)?);
        Ok(KvCache { shape, pages, slots, layers, table, changed: 0..shape.batch_size })
    }

    /// Slots.
    pub fn batch_size(&self) -> usize {
        self.slots.len()
    }

    /// The longest sequence a slot can hold.
    pub fn max_seq_len(&self) -> usize {
        self.shape.max_seq_len
    }

    /// Pages in the pool.
    pub fn n_pages(&self) -> usize {
        self.pages.n_pages()
    }

    /// Pages nobody refers to.
    pub fn free_pages(&self) -> usize {
        self.pages.n_free()
    }

    /// The pool's counts.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Bytes of all layers' keys and values on the device.
    pub fn bytes(&self) -> u64 {
        self.shape.n_bytes()
    }

    /// Tokens that `slot` holds.
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

    /// Forgets the sequence in `slot` and returns its pages.
    ///
    /// # Errors
    /// If there is no such slot.
    pub fn clear_batch(&mut self, slot: usize) -> Result<()> {
        self.truncate(slot, 0)
    }

    /// Forgets the tokens of `slot` from position `n_tokens` on, if there are any, and returns the pages that held only those.
    ///
    /// # Errors
    /// If there is no such slot.
    pub fn truncate(&mut self, slot: usize, n_tokens: usize) -> Result<()> {
        let n_tokens = self.slot(slot)?.n_tokens.min(n_tokens);
        let n_pages = n_tokens.div_ceil(PAGE_TOKENS);
        self.slots[slot].n_tokens = n_tokens;
        while self.slots[slot].pages.len() > n_pages {
            if let Some(page) = self.slots[slot].pages.pop() {
                self.pages.release(page)?;
            }
        }
        self.touch(slot);
        Ok(())
    }

    /// Lets the empty `slot` begin with these full pages, which hold the first `PAGE_TOKENS * pages.len()` tokens of its sequence
    /// and stay the property of others too.
    ///
    /// # Errors
    /// If the slot does not exist or is not empty, a page is not in use, or they are more than a sequence can have.
    pub fn adopt(&mut self, slot: usize, pages: &[u32]) -> Result<()> {
        let Slot { pages: own, n_tokens } = self.slot(slot)?;
        if !own.is_empty() || *n_tokens != 0 {
            return Err(Error::SlotInUse { slot, cached: *n_tokens });
        }
        let n_tokens = pages.len().saturating_mul(PAGE_TOKENS);
        if n_tokens > self.max_seq_len() {
            return Err(Error::KvOverflow { slot, start: 0, n_tokens, max_seq_len: self.max_seq_len() });
        }
        if let Some(&page) = pages.iter().find(|page| self.pages.references(**page) == 0) {
            return Err(problem(page, "is not in use, so it cannot be adopted"));
        }
        for &page in pages {
            self.pages.retain(page)?;
        }
        self.slots[slot] = Slot { pages: pages.to_vec(), n_tokens };
        self.touch(slot);
        Ok(())
    }

    /// Keeps a page that is in use from being reused, until it is [released](Self::release).
    ///
    /// # Errors
    /// If the page is not in use.
    pub fn retain(&mut self, page: u32) -> Result<()> {
        self.pages.retain(page)
    }

    /// Gives up a page that was [retained](Self::retain).
    ///
    /// # Errors
    /// If the page is not in use.
    pub fn release(&mut self, page: u32) -> Result<()> {
        self.pages.release(page).map(drop)
    }

    /// Audits the cache: every page is free or referred to, every slot has the pages its tokens need, and no page is referred to
    /// by more slots than it counts.
    pub fn check(&self) -> Result<()> {
        self.pages.check()?;
        for (i, slot) in self.slots.iter().enumerate() {
            if slot.pages.len() != slot.n_tokens.div_ceil(PAGE_TOKENS) {
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

    /// How many slots refer to each page.
    fn slot_references(&self) -> Vec<u32> {
        let mut references = vec![0u32; self.n_pages()];
        for page in self.slots.iter().flat_map(|slot| &slot.pages) {
            references[*page as usize] += 1;
        }
        references
    }

    fn touch(&mut self, slot: usize) {
        self.changed = if self.changed.is_empty() {
            slot..slot + 1
        } else {
            self.changed.start.min(slot)..self.changed.end.max(slot + 1)
        };
    }
}

/// What a step needs.
impl KvCache {
    pub(crate) fn layers(&self) -> &[KvLayer] {
        &self.layers
    }

    pub(crate) fn table(&self) -> &Buffer {
        &self.table
    }

    /// Whether the runs fit; changes nothing.
    pub(crate) fn check_runs(&self, runs: &[Run]) -> Result<()> {
        let (mut needed, mut freed) = (0, 0);
        for run in runs {
            let slot = self.slot(run.slot)?;
            if run.end > self.max_seq_len() {
                return Err(Error::KvOverflow {
                    slot: run.slot,
                    start: run.start,
                    n_tokens: run.end - run.start,
                    max_seq_len: self.max_seq_len(),
                });
            }
            if run.start > slot.n_tokens {
                let (slot, start, cached) = (run.slot, run.start, slot.n_tokens);
                return Err(Error::PositionGap { slot, start, cached });
            }
            let kept = run.start.div_ceil(PAGE_TOKENS);
            let copied = self.shared_last_page(run).is_some();
            needed += run.end.div_ceil(PAGE_TOKENS) - kept + usize::from(copied);
            freed += slot.pages[kept..].iter().filter(|page| self.pages.references(**page) == 1).count();
        }
        let free = self.pages.n_free() + freed;
        if needed > free {
            return Err(Error::OutOfPages { needed, free, n_pages: self.n_pages() });
        }
        Ok(())
    }

    /// The page that the run's first token goes into, if it holds tokens to be kept and somebody else refers to it.
    fn shared_last_page(&self, run: &Run) -> Option<u32> {
        let page = *self.slots[run.slot].pages.get(run.start / PAGE_TOKENS)?;
        (!run.start.is_multiple_of(PAGE_TOKENS) && self.pages.references(page) > 1).then_some(page)
    }

    /// Drops what the runs replace and takes the pages they need; [`check_runs`](Self::check_runs) has passed. The plan copies
    /// pages that others refer to, and must run before anything is written. The new tokens count from [`commit`](Self::commit) on.
    pub(crate) fn reserve(&mut self, device: &Device, runs: &[Run]) -> Result<Option<Plan>> {
        for run in runs {
            self.truncate(run.slot, run.start)?;
        }
        let mut copies = Vec::new();
        for run in runs {
            if let Some(shared) = self.shared_last_page(run) {
                let own = self.take()?;
                self.slots[run.slot].pages[run.start / PAGE_TOKENS] = own;
                self.pages.release(shared)?;
                copies.push(PageCopy { from: shared, to: own, n: 1 });
            }
            while self.slots[run.slot].pages.len() < run.end.div_ceil(PAGE_TOKENS) {
                let page = self.take()?;
                self.slots[run.slot].pages.push(page);
            }
        }
        if copies.is_empty() {
            return Ok(None);
        }
        let mut plan = device.plan();
        record_copies(&mut plan, &self.layers, &self.layers, &copies)?;
        Ok(Some(plan))
    }

    fn take(&mut self) -> Result<u32> {
        self.pages.take().ok_or(Error::OutOfPages { needed: 1, free: 0, n_pages: self.pages.n_pages() })
    }

    /// Brings the lines that changed to the device.
    pub(crate) fn write_table(&mut self, device: &Device) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let pages_max = self.shape.pages_max();
        let mut lines = vec![0u32; self.changed.len() * pages_max];
        for (line, slot) in lines.chunks_exact_mut(pages_max).zip(&self.slots[self.changed.clone()]) {
            line[..slot.pages.len()].copy_from_slice(&slot.pages);
        }
        let view = self.table.view(self.changed.start * pages_max, &[self.changed.len(), pages_max])?;
        device.write(&view, &lines)?;
        self.changed = 0..0;
        Ok(())
    }

    /// The runs' tokens are in the cache.
    pub(crate) fn commit(&mut self, runs: &[Run]) {
        for run in runs {
            self.slots[run.slot].n_tokens = run.end;
        }
    }

    /// The step failed: the runs' sequences end where the runs began, because what was there has been overwritten.
    pub(crate) fn roll_back(&mut self, runs: &[Run]) -> Result<()> {
        runs.iter().try_for_each(|run| self.truncate(run.slot, run.start))
    }

    /// Whether the cache can have this number of slots; changes nothing.
    pub(crate) fn check_resize(&self, batch_size: usize) -> Result<()> {
        let live = (batch_size..self.batch_size()).filter(|i| self.slots[*i].n_tokens > 0);
        let live: Vec<usize> = live.collect();
        if !live.is_empty() {
            return Err(Error::BelowLiveSequences { requested: batch_size, live });
        }
        self.moves(KvShape { batch_size, ..self.shape }.n_pages()).map(drop)
    }

    /// A cache of another number of slots with the same sequences, and the plan that copies their pages. `self` is as before;
    /// [`check_resize`](Self::check_resize) has passed.
    pub(crate) fn resized(&self, device: &Device, batch_size: usize) -> Result<(KvCache, Plan)> {
        let shape = KvShape { batch_size, ..self.shape };
        let moves = self.moves(shape.n_pages())?;
        let (layers, table) = allocate(device, &shape)?;
        let mut references = Vec::new();
        let bytes = shape.n_pages().saturating_mul(4);
        references
            .try_reserve_exact(shape.n_pages())
            .map_err(|_| Error::HostMemory { what: "the list of pages", bytes })?;
        references.resize(shape.n_pages(), 0);
        let mut new_number = vec![0u32; self.n_pages()];
        for &(from, to) in &moves {
            references[to as usize] = self.pages.references(from);
            new_number[from as usize] = to;
        }
        let mut slots = resize_slots(self.slots.clone(), batch_size)?;
        for page in slots.iter_mut().flat_map(|slot| &mut slot.pages) {
            *page = new_number[*page as usize];
        }
        let mut plan = device.plan();
        record_copies(&mut plan, &self.layers, &layers, &join(&moves))?;
        let pages = Pages::with_references(references)?;
        Ok((KvCache { shape, pages, slots, layers, table, changed: 0..batch_size }, plan))
    }

    /// Where each page in use goes in a pool of `n_pages`: to its own number if there is one, else to the lowest that is free.
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

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens: Vec<usize> = self.slots.iter().map(|slot| slot.n_tokens).collect();
        write!(f, "KvCache({tokens:?} tokens, {} of {} pages free)", self.free_pages(), self.n_pages())
    }
}

/// The device's part: the pools of all layers, and the page table. It comes before the host's lists, which are a thousandth of it,
/// so that a size beyond all memory is refused while nothing has been touched.
fn allocate(device: &Device, shape: &KvShape) -> Result<(Vec<KvLayer>, Buffer)> {
    let alloc = |what: &str, dtype, dims: &[usize]| {
        let named = |source| Error::Allocation { what: what.into(), source };
        device.alloc(dtype, dims).map_err(named)
    };
    let dims = [shape.n_pages(), shape.n_kv_heads, PAGE_TOKENS, shape.head_dim];
    let dtype = shape.kv_type.dtype();
    let mut layers = Vec::new();
    for i in 0..shape.n_layers {
        let what = format!("the KV cache of layer {i}");
        layers.push(KvLayer { k: alloc(&what, dtype, &dims)?, v: alloc(&what, dtype, &dims)? });
    }
    let table = alloc("the page table", DType::U32, &[shape.batch_size, shape.pages_max()])?;
    Ok((layers, table))
}

fn resize_slots(mut slots: Vec<Slot>, n: usize) -> Result<Vec<Slot>> {
    let bytes = n.saturating_mul(size_of::<Slot>());
    slots
        .try_reserve_exact(n.saturating_sub(slots.len()))
        .map_err(|_| Error::HostMemory { what: "the list of slots", bytes })?;
    slots.resize(n, Slot::default());
    Ok(slots)
}

/// The `n` pages from `from` on become those from `to` on.
struct PageCopy {
    from: u32,
    to: u32,
    n: usize,
}

/// Neighbours that stay neighbours are copied together.
fn join(moves: &[(u32, u32)]) -> Vec<PageCopy> {
    let mut copies: Vec<PageCopy> = Vec::new();
    for &(from, to) in moves {
        match copies.last_mut() {
            Some(last)
                if (from as usize, to as usize)
                    == (last.from as usize + last.n, last.to as usize + last.n) =>
            {
                last.n += 1;
            }
            _ => copies.push(PageCopy { from, to, n: 1 }),
        }
    }
    copies
}

fn record_copies(
    plan: &mut impl Record,
    src: &[KvLayer],
    dst: &[KvLayer],
    copies: &[PageCopy],
) -> Result<()> {
    for (src, dst) in src.iter().zip(dst) {
        for copy in copies {
            for (src, dst) in [(&src.k, &dst.k), (&src.v, &dst.v)] {
                let from = pages_view(src, copy.from, copy.n)?;
                plan.copy(&from, &pages_view(dst, copy.to, copy.n)?)?;
            }
        }
    }
    Ok(())
}

fn pages_view(pool: &Buffer, first: u32, n: usize) -> Result<Buffer> {
    let mut dims = pool.shape().to_vec();
    let page_elements: usize = dims[1..].iter().product();
    dims[0] = n;
    Ok(pool.view(first as usize * page_elements, &dims)?)
}
