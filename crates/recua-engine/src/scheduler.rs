//! Which requests run in the next step, with how many rows, and in which pages.
//!
//! Pure bookkeeping: it knows lengths, slots and pages, and no token, text or device. Every decision follows from integers, so a test can
//! write it down. It owns the [`Sequences`]: nothing else counts pages.
//!
//! *Admission* is first come, first served. A sequence starts when there is a slot, and enough pages for its greatest possible length: a
//! running sequence never waits for memory that another took. *A step* has a budget of rows. Sequences that need only one row go first, so
//! another's long prompt never delays their next token; the rest goes to those that need more, in the order of their admission, and a
//! prompt that does not fit is cut. There is no prompt or generation flag: a sequence has rows to run, or waits for the token that its last
//! row gives. It does not matter here whether the host has seen that token.
//!
//! A future prefix cache would open a slot with shared pages; a future preemption would truncate it to nothing.

use std::collections::VecDeque;

use crate::cache::{Changes, Sequences};
use crate::request::RequestId;

/// A sequence, by its lengths: `n_present <= n_max`, always.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    id: RequestId,
    // [0, n_present) are known or in flight, [n_present, n_max) are not.
    n_present: usize,
    n_max: usize,
}

/// A sequence that has a slot. The [`Sequences`] know how many of its tokens have run or are in flight.
#[derive(Clone, Copy, Debug)]
struct Running {
    lengths: Lengths,
    slot: usize,
    // The step in which it last had a turn, or was admitted.
    last_turn: u64,
}

/// The rows `[start, start + n_new)` of a sequence, in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The request.
    pub id: RequestId,
    /// The slot that holds its keys and values.
    pub slot: usize,
    /// The position of the first row.
    pub start: usize,
    /// The number of rows, at least 1.
    pub n_new: usize,
    /// Whether the last row is the last token known: its logits give the next one.
    pub completes: bool,
}

/// A step as decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The rows of each running sequence.
    pub sequences: Vec<Scheduled>,
    /// The updates that the device needs before it runs them.
    pub changes: Changes,
}

/// Shares out slots, pages and rows.
#[derive(Debug)]
pub struct Scheduler {
    sequences: Sequences,
    // Pages that sequences can have; the others are held elsewhere.
    n_pages: usize,
    step_rows_max: usize,
    waiting: VecDeque<Lengths>,
    // In the order of admission.
    running: Vec<Running>,
    n_turns: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do, for steps of at most `step_rows_max` rows. Sequences share these: if there are fewer than slots,
    /// they take turns; the more there are, the longer a step with a prompt delays the others. The sequences in the slots of `sequences`
    /// are cleared.
    ///
    /// # Panics
    ///
    /// If there are no slots, no free pages or no rows to share out.
    pub fn new(sequences: Sequences, step_rows_max: usize) -> Scheduler {
        let mut sequences = sequences;
        for slot in 0..sequences.batch_size() {
            sequences.clear_batch(slot).expect("it is one of its slots");
        }
        let n_pages = sequences.free_pages();
        let room = [sequences.batch_size(), n_pages, step_rows_max];
        assert!(!room.contains(&0), "nothing to share: {room:?} slots, pages and rows");
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Scheduler { sequences, n_pages, step_rows_max, waiting, running, n_turns: 0 }
    }

    /// The most tokens for which one sequence could ever have pages.
    pub fn sequence_tokens_max(&self) -> usize {
        self.n_pages.saturating_mul(self.sequences.page_tokens()).min(self.sequences.max_seq_len())
    }

    /// Queues a sequence of `n_present` known tokens that may grow to `n_max`.
    ///
    /// # Panics
    ///
    /// If it has no tokens, no room for one more, or could never get its pages: it would block the queue for ever.
    pub fn add(&mut self, id: RequestId, n_present: usize, n_max: usize) {
        assert!(n_max <= self.sequence_tokens_max(), "{n_max} tokens never fit into {:?}", self.sequences);
        assert!(0 < n_present && n_present < n_max, "a sequence has tokens, and room for one more");
        self.waiting.push_back(Lengths { id, n_present, n_max });
    }

    /// Admits the sequences that fit, shares out the rows of the next step, and takes the pages they need. The rows count as run from now
    /// on: a sequence that they complete waits for [`append`](Self::append) before it has rows again. If the step fails, the sequences in
    /// it must be [removed](Self::remove).
    pub fn schedule(&mut self) -> Schedule {
        self.admit();
        let mut schedule = Schedule::default();
        let mut budget = self.step_rows_max;
        // The index and the rows to run of each sequence that has any.
        let pending = self.running.iter().map(|running| self.n_pending(running)).enumerate();
        let pending = pending.filter(|(_, n_pending)| *n_pending > 0);
        let (mut short, long): (Vec<_>, Vec<_>) = pending.partition(|(_, n_pending)| *n_pending == 1);
        // If the budget is too small for all, those that have waited longest go first.
        short.sort_by_key(|(idx, _)| self.running[*idx].last_turn);
        for (idx, n_pending) in short.into_iter().chain(long) {
            let n_new = n_pending.min(budget);
            if n_new == 0 {
                break;
            }
            budget -= n_new;
            self.n_turns += 1;
            let running = &mut self.running[idx];
            running.last_turn = self.n_turns;
            let Running { lengths: Lengths { id, n_present, .. }, slot, .. } = *running;
            let start = n_present - n_pending;
            let completes = n_new == n_pending;
            self.sequences
                .grow(slot, start + n_new, &mut schedule.changes)
                .expect("admission left the pages it may need");
            schedule.sequences.push(Scheduled { id, slot, start, n_new, completes });
        }
        schedule
    }

    /// Records that a sequence has one more token, known or in flight. Returns whether it may get another.
    pub fn append(&mut self, id: RequestId) -> bool {
        let running = self.running.iter_mut().find(|running| running.lengths.id == id);
        // A missing sequence was cancelled in the meantime.
        let Some(Running { lengths, .. }) = running else { return false };
        assert!(lengths.n_present < lengths.n_max, "a sequence outgrew its pages");
        lengths.n_present += 1;
        lengths.n_present < lengths.n_max
    }

    /// Removes a sequence, running or waiting, and frees what it held. Returns whether it was running.
    ///
    /// Its pages may go to another sequence in the next step, even while its own rows are in flight: a device runs its launches in order,
    /// so the other's rows are written after these.
    pub fn remove(&mut self, id: RequestId) -> bool {
        let Some(idx) = self.running.iter().position(|running| running.lengths.id == id) else {
            self.waiting.retain(|lengths| lengths.id != id);
            return false;
        };
        let running = self.running.remove(idx);
        self.sequences.clear_batch(running.slot).expect("it ran in one of the slots");
        true
    }

    /// The running requests, in the order of their admission.
    pub fn running(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.running.iter().map(|running| running.lengths.id)
    }

    /// The number of running sequences.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// The number of sequences that wait for a slot or for pages.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The sequences and their pages.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Returns the sequences to their next owner, and drops what waits.
    pub fn into_sequences(self) -> Sequences {
        self.sequences
    }

    /// The pages that the running sequences may still take, if each grows to its greatest length.
    pub fn n_pages_promised(&self) -> usize {
        let promised = |running: &Running| {
            let has = self.sequences.slot_pages(running.slot).map_or(0, <[u32]>::len);
            self.n_pages_max(&running.lengths).saturating_sub(has)
        };
        self.running.iter().map(promised).sum()
    }

    /// Audits the lists: no more pages are promised than are free, every slot has one sequence or none, and none is too long.
    ///
    /// # Panics
    ///
    /// If one of these does not hold.
    pub fn check(&self) {
        self.sequences.check().expect("the lists of pages agree");
        assert!(self.n_pages_promised() <= self.sequences.free_pages(), "a page is promised twice");
        let mut slots: Vec<_> = self.running.iter().map(|running| running.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), self.running.len(), "two sequences share a slot");
        for slot in (0..self.sequences.batch_size()).filter(|slot| !slots.contains(slot)) {
            assert_eq!(self.sequences.cached_tokens(slot).unwrap_or(0), 0, "slot {slot} is nobody's");
        }
        for running in &self.running {
            let n_cached = self.n_cached(running);
            assert!(n_cached <= running.lengths.n_present, "{running:?} has {n_cached} tokens in the cache");
        }
        for lengths in self.running.iter().map(|running| &running.lengths).chain(&self.waiting) {
            assert!(lengths.n_present <= lengths.n_max, "{lengths:?}");
        }
    }

    /// Strictly in order: a sequence that is too large for now blocks those after it; otherwise it might wait for ever.
    fn admit(&mut self) {
        let mut n_free = self.sequences.free_pages() - self.n_pages_promised();
        while let Some(&lengths) = self.waiting.front() {
            let n_pages = self.n_pages_max(&lengths);
            let Some(slot) = self.free_slot().filter(|_| n_pages <= n_free) else { return };
            n_free -= n_pages;
            self.running.push(Running { lengths, slot, last_turn: self.n_turns });
            self.waiting.pop_front();
        }
    }

    fn free_slot(&self) -> Option<usize> {
        let is_free = |&slot: &usize| self.running.iter().all(|running| running.slot != slot);
        (0..self.sequences.batch_size()).find(is_free)
    }

    /// The pages that a sequence may come to need.
    fn n_pages_max(&self, lengths: &Lengths) -> usize {
        lengths.n_max.div_ceil(self.sequences.page_tokens())
    }

    fn n_cached(&self, running: &Running) -> usize {
        self.sequences.cached_tokens(running.slot).expect("it runs in one of the slots")
    }

    /// The rows that must run before the sequence's next token can be chosen; 0 until that one is appended.
    fn n_pending(&self, running: &Running) -> usize {
        running.lengths.n_present - self.n_cached(running)
    }
}
