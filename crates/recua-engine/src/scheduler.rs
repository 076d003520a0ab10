//! Who runs in the next step, and with how many rows.
//!
//! Pure bookkeeping: it knows lengths, slots and page counts, and no token, text or device. Every decision comes from
//! integers, so a test can write one down.
//!
//! *Admission* is first come, first served. A sequence starts when there is a slot, and pages for the longest it may
//! get: whoever runs never has to wait for memory that a neighbour took. *A step* has a budget of rows. Sequences that
//! lack one row go first, so a neighbour's long prompt never holds up a next token; what is left goes to those that
//! lack more, in the order of their admission, and a prompt that does not fit is cut. Nothing says prompt or
//! generation: a sequence has rows to go, one or more.
//!
//! A future prefix cache lets a sequence begin with `n_cached > 0`; a future preemption sets it back to 0.

use std::collections::VecDeque;

use crate::request::RequestId;

/// What the scheduler shares out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How many sequences can run at once.
    pub n_slots: usize,
    /// The pages of the KV cache.
    pub n_pages: usize,
    /// The tokens a page holds.
    pub page_tokens: usize,
    /// The most rows of a step. Sequences share it: below `n_slots` they take turns, and the larger it is, the longer
    /// a step with a prompt in it holds up the others.
    pub step_rows_max: usize,
}

/// A sequence, by its lengths: `n_cached <= n_present <= n_max`, always.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    id: RequestId,
    // [0, n_cached) went through the model, [n_cached, n_present) is known and has yet to,
    // [n_present, n_max) is not known.
    n_cached: usize,
    n_present: usize,
    n_max: usize,
}

impl Sequence {
    fn new(id: RequestId, n_present: usize, n_max: usize) -> Sequence {
        assert!(0 < n_present && n_present < n_max, "a sequence has tokens, and room for one more");
        Sequence { id, n_cached: 0, n_present, n_max }
    }

    /// The rows that must run before the sequence's next token is known.
    fn n_pending(&self) -> usize {
        self.n_present - self.n_cached
    }
}

#[derive(Clone, Copy, Debug)]
struct Running {
    sequence: Sequence,
    slot: usize,
    // When it last had its turn, or was admitted.
    last_turn: u64,
}

/// The rows `[start, start + n_new)` of a sequence, in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
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

/// Shares out slots, pages and rows.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    waiting: VecDeque<Sequence>,
    // In the order of admission.
    running: Vec<Running>,
    n_pages_free: usize,
    n_turns: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do.
    ///
    /// # Panics
    ///
    /// If a number of the configuration is 0.
    pub fn new(config: SchedulerConfig) -> Scheduler {
        let SchedulerConfig { n_slots, n_pages, page_tokens, step_rows_max } = config;
        assert!(
            n_slots > 0 && n_pages > 0 && page_tokens > 0 && step_rows_max > 0,
            "nothing to share: {config:?}"
        );
        Scheduler { config, waiting: VecDeque::new(), running: Vec::new(), n_pages_free: n_pages, n_turns: 0 }
    }

    /// The most tokens that one sequence could ever have pages for.
    pub fn sequence_tokens_max(&self) -> usize {
        self.config.n_pages.saturating_mul(self.config.page_tokens)
    }

    /// Queues a sequence of `n_present` known tokens that may grow to `n_max`.
    ///
    /// # Panics
    ///
    /// If it has no tokens, no room for one more, or could never have the pages: it would block the queue for ever.
    pub fn add(&mut self, id: RequestId, n_present: usize, n_max: usize) {
        assert!(n_max <= self.sequence_tokens_max(), "{n_max} tokens never fit into {:?}", self.config);
        self.waiting.push_back(Sequence::new(id, n_present, n_max));
    }

    /// Admits who can be admitted, and shares out the rows of the next step. Nothing counts as run before
    /// [`Scheduler::commit`].
    pub fn schedule(&mut self) -> Vec<Share> {
        self.admit();
        let mut budget = self.config.step_rows_max;
        let mut shares = Vec::with_capacity(self.running.len());
        let (mut short, long): (Vec<&Running>, Vec<&Running>) =
            self.running.iter().partition(|running| running.sequence.n_pending() == 1);
        // If the budget is too small for all, whoever waited longest goes first.
        short.sort_by_key(|running| running.last_turn);
        for running in short.into_iter().chain(long) {
            let n_pending = running.sequence.n_pending();
            let n_new = n_pending.min(budget);
            if n_new == 0 {
                break;
            }
            budget -= n_new;
            shares.push(Share {
                id: running.sequence.id,
                slot: running.slot,
                start: running.sequence.n_cached,
                n_new,
                completes: n_new == n_pending,
            });
        }
        shares
    }

    /// Notes that a step's rows went through the model.
    pub fn commit(&mut self, shares: &[Share]) {
        for share in shares {
            self.n_turns += 1;
            let turn = self.n_turns;
            // A sequence that is gone was cancelled in between.
            if let Some(running) = self.find(share.id) {
                running.sequence.n_cached += share.n_new;
                running.last_turn = turn;
                assert!(
                    running.sequence.n_cached <= running.sequence.n_present,
                    "rows that nobody asked for"
                );
            }
        }
    }

    /// Notes that a sequence has one more token. Returns whether it may get yet another.
    pub fn append(&mut self, id: RequestId) -> bool {
        let Some(running) = self.find(id) else { return false };
        let sequence = &mut running.sequence;
        assert!(sequence.n_present < sequence.n_max, "a sequence outgrew its pages");
        sequence.n_present += 1;
        sequence.n_present < sequence.n_max
    }

    /// Forgets a sequence, wherever it is, and frees what it had. Returns the slot it ran in, if it did.
    pub fn remove(&mut self, id: RequestId) -> Option<usize> {
        let Some(idx) = self.running.iter().position(|running| running.sequence.id == id) else {
            self.waiting.retain(|sequence| sequence.id != id);
            return None;
        };
        let running = self.running.remove(idx);
        self.n_pages_free += self.n_pages(&running.sequence);
        Some(running.slot)
    }

    /// The requests that run, in the order of their admission.
    pub fn running(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.running.iter().map(|running| running.sequence.id)
    }

    /// How many sequences run.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// How many sequences wait for a slot or for pages.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many pages are promised to nobody.
    pub fn n_pages_free(&self) -> usize {
        self.n_pages_free
    }

    /// Audits the books: every page is free or promised, every slot has one sequence, and no sequence is too long.
    ///
    /// # Panics
    ///
    /// If not.
    pub fn check(&self) {
        let n_promised: usize = self.running.iter().map(|running| self.n_pages(&running.sequence)).sum();
        assert_eq!(n_promised + self.n_pages_free, self.config.n_pages, "pages got lost");
        let mut slots: Vec<_> = self.running.iter().map(|running| running.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), self.running.len(), "two sequences share a slot");
        assert!(slots.iter().all(|&slot| slot < self.config.n_slots), "there is no such slot");
        for sequence in self.running.iter().map(|running| &running.sequence).chain(&self.waiting) {
            assert!(sequence.n_cached <= sequence.n_present && sequence.n_present <= sequence.n_max);
        }
    }

    /// Strictly in order: whoever is too large for now keeps those behind it waiting, or it might wait for ever.
    fn admit(&mut self) {
        while let Some(&sequence) = self.waiting.front() {
            let n_pages = self.n_pages(&sequence);
            let Some(slot) = self.free_slot().filter(|_| n_pages <= self.n_pages_free) else { return };
            self.n_pages_free -= n_pages;
            self.running.push(Running { sequence, slot, last_turn: self.n_turns });
            self.waiting.pop_front();
        }
    }

    fn free_slot(&self) -> Option<usize> {
        (0..self.config.n_slots).find(|&slot| self.running.iter().all(|running| running.slot != slot))
    }

    /// The pages a sequence may come to need.
    fn n_pages(&self, sequence: &Sequence) -> usize {
        sequence.n_max.div_ceil(self.config.page_tokens)
    }

    fn find(&mut self, id: RequestId) -> Option<&mut Running> {
        self.running.iter_mut().find(|running| running.sequence.id == id)
    }
}
