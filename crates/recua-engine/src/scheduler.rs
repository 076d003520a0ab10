//! Who runs in the next step, with how many rows, and in which pages.
//!
//! Pure bookkeeping: it knows lengths, slots and pages, and no token, text or device. Every decision comes from integers, so a test
//! can write one down. It owns the [`Sequences`]: nobody else counts pages.
//!
//! *Admission* is first come, first served. A sequence starts when there is a slot, and pages for the longest it may
//! get: whoever runs never has to wait for memory that a neighbour took. *A step* has a budget of rows. Sequences that
//! lack one row go first, so a neighbour's long prompt never holds up a next token; what is left goes to those that
//! lack more, in the order of their admission, and a prompt that does not fit is cut. Nothing says prompt or
//! generation: a sequence has rows to go, or waits for the token that its last row gives. Whether anybody has seen that token does not
//! matter here.
//!
//! A future prefix cache opens a slot with shared pages; a future preemption truncates it to nothing.

use std::collections::VecDeque;

use crate::cache::{Changes, Sequences};
use crate::request::RequestId;

/// A sequence, by its lengths: `n_present <= n_max`, always.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    id: RequestId,
    // [0, n_present) are known or under way, [n_present, n_max) are not.
    n_present: usize,
    n_max: usize,
}

/// A sequence that has a slot. How many of its tokens went through the model, or are on their way, the [`Sequences`] know.
#[derive(Clone, Copy, Debug)]
struct Running {
    lengths: Lengths,
    slot: usize,
    // When it last had its turn, or was admitted.
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
    /// Who runs.
    pub sequences: Vec<Scheduled>,
    /// What the device must be told before they do.
    pub changes: Changes,
}

/// Shares out slots, pages and rows.
#[derive(Debug)]
pub struct Scheduler {
    sequences: Sequences,
    // Pages that sequences can have; the others are held by somebody else.
    n_pages: usize,
    step_rows_max: usize,
    waiting: VecDeque<Lengths>,
    // In the order of admission.
    running: Vec<Running>,
    n_turns: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do, of steps of at most `step_rows_max` rows. Sequences share them: below the number of slots
    /// they take turns, and the larger it is, the longer a step with a prompt in it holds up the others. What `sequences` has in
    /// its slots is forgotten.
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

    /// The most tokens that one sequence could ever have pages for.
    pub fn sequence_tokens_max(&self) -> usize {
        self.n_pages.saturating_mul(self.sequences.page_tokens()).min(self.sequences.max_seq_len())
    }

    /// Queues a sequence of `n_present` known tokens that may grow to `n_max`.
    ///
    /// # Panics
    ///
    /// If it has no tokens, no room for one more, or could never have the pages: it would block the queue for ever.
    pub fn add(&mut self, id: RequestId, n_present: usize, n_max: usize) {
        assert!(n_max <= self.sequence_tokens_max(), "{n_max} tokens never fit into {:?}", self.sequences);
        assert!(0 < n_present && n_present < n_max, "a sequence has tokens, and room for one more");
        self.waiting.push_back(Lengths { id, n_present, n_max });
    }

    /// Admits who can be admitted, shares out the rows of the next step, and takes the pages they need. The rows count as run from
    /// now on: whoever completes with them waits for [`append`](Self::append) before it has rows again. If the step fails, who ran
    /// must be [removed](Self::remove).
    pub fn schedule(&mut self) -> Schedule {
        self.admit();
        let mut schedule = Schedule::default();
        let mut budget = self.step_rows_max;
        // Index and rows to go of each who has any.
        let pending = self.running.iter().map(|running| self.n_pending(running)).enumerate();
        let pending = pending.filter(|(_, n_pending)| *n_pending > 0);
        let (mut short, long): (Vec<_>, Vec<_>) = pending.partition(|(_, n_pending)| *n_pending == 1);
        // If the budget is too small for all, whoever waited longest goes first.
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

    /// Notes that a sequence has one more token, known or under way. Returns whether it may get yet another.
    pub fn append(&mut self, id: RequestId) -> bool {
        let running = self.running.iter_mut().find(|running| running.lengths.id == id);
        // A sequence that is gone was cancelled in between.
        let Some(Running { lengths, .. }) = running else { return false };
        assert!(lengths.n_present < lengths.n_max, "a sequence outgrew its pages");
        lengths.n_present += 1;
        lengths.n_present < lengths.n_max
    }

    /// Forgets a sequence, wherever it is, and frees what it had. Returns whether it ran.
    ///
    /// Its pages may be another's in the very next step, even while rows of its own are under way: a device runs its launches in
    /// order, so the other's rows are written after these were.
    pub fn remove(&mut self, id: RequestId) -> bool {
        let Some(idx) = self.running.iter().position(|running| running.lengths.id == id) else {
            self.waiting.retain(|lengths| lengths.id != id);
            return false;
        };
        let running = self.running.remove(idx);
        self.sequences.clear_batch(running.slot).expect("it ran in one of the slots");
        true
    }

    /// The requests that run, in the order of their admission.
    pub fn running(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.running.iter().map(|running| running.lengths.id)
    }

    /// How many sequences run.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// How many sequences wait for a slot or for pages.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The sequences and their pages.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Gives the sequences to whoever owns them next; what waits is forgotten.
    pub fn into_sequences(self) -> Sequences {
        self.sequences
    }

    /// The pages that those who run have yet to take, if each gets as long as it may.
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
    /// If not.
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

    /// Strictly in order: whoever is too large for now keeps those after it waiting, or it might wait for ever.
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

    /// The pages a sequence may come to need.
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
