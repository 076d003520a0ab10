//! The budget of one rendering: the work it may do, and the memory that may be live at any moment.
//!
//! Work is paid for *before* it is done and never paid back, so it bounds the time. Memory is counted while it lives:
//! whatever keeps bytes holds a [`Held`] for them, which gives them back when it is dropped. What is built is counted
//! before it is built, either piece by piece ([`Buffer`]) or by asking for room ([`Budget::room`]).

use std::cell::Cell;
use std::rc::Rc;

use crate::error::Error;

/// What one rendering may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps: one for each statement, expression and item, and one for every 64 bytes that are copied, compared or
    /// searched.
    pub steps: u64,
    /// Bytes that may be live at any moment, the output and the variables included.
    pub bytes: usize,
}

impl Limits {
    /// What [`crate::Template::render`] allows: four million steps and 32 MiB, and more for larger input: 4,000 steps
    /// for each mapping among the variables (a message, say), 32 steps and 64 bytes for each byte of the variables,
    /// and eight of both for each byte of the template.
    pub(crate) fn of(source_bytes: usize, input_bytes: usize, n_mappings: usize) -> Limits {
        let (source, input, mappings) = (source_bytes as u64, input_bytes as u64, n_mappings as u64);
        let steps = 4_000_000u64.saturating_add(mappings.saturating_mul(4000));
        Limits {
            steps: steps.saturating_add(input.saturating_mul(32)).saturating_add(source.saturating_mul(8)),
            bytes: (32usize << 20)
                .saturating_add(input_bytes.saturating_mul(64))
                .saturating_add(source_bytes.saturating_mul(8)),
        }
    }
}

/// A step's share of the work that is counted in bytes.
const STEP: u64 = 64;
/// The bytes of a value, a variable or an entry of a list, without its text.
pub(crate) const VALUE_BYTES: usize = 32;
/// How deep statements and expressions may be nested, in the source and while they run, macros included.
pub(crate) const DEPTH_MAX: u32 = 250;

/// The memory that is live.
#[derive(Debug)]
struct Ledger {
    live: Cell<usize>,
    max: usize,
}

/// Bytes that are live until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    ledger: Rc<Ledger>,
    bytes: usize,
}

impl Held {
    /// Counts further bytes.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), Error> {
        let live = self.ledger.live.get();
        let live = live.checked_add(bytes).filter(|&live| live <= self.ledger.max);
        self.ledger.live.set(live.ok_or(Error::Limit("memory"))?);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.live.set(self.ledger.live.get() - self.bytes);
    }
}

pub(crate) struct Budget {
    // In bytes' worth; a step is `STEP` of them.
    work: u64,
    ledger: Rc<Ledger>,
    depth: u32,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Budget {
        Budget {
            work: limits.steps.saturating_mul(STEP),
            ledger: Rc::new(Ledger { live: Cell::new(0), max: limits.bytes }),
            depth: 0,
        }
    }

    fn pay(&mut self, work: u64) -> Result<(), Error> {
        self.work = self.work.checked_sub(work).ok_or(Error::Limit("steps"))?;
        Ok(())
    }

    /// Pays for one step.
    pub(crate) fn step(&mut self) -> Result<(), Error> {
        self.pay(STEP)
    }

    /// Pays for bytes about to be read, compared or searched.
    pub(crate) fn scan(&mut self, n: usize) -> Result<(), Error> {
        self.pay(n as u64)
    }

    /// Pays for comparing a name of `len` bytes with up to `n` others.
    pub(crate) fn search(&mut self, n: usize, len: usize) -> Result<(), Error> {
        self.scan(n.saturating_mul(1 + len))
    }

    /// Pays for bytes about to be made that live for a moment, beside all that lives now.
    pub(crate) fn room(&mut self, n: usize) -> Result<(), Error> {
        self.scan(n)?;
        match self.ledger.live.get().checked_add(n) {
            Some(live) if live <= self.ledger.max => Ok(()),
            _ => Err(Error::Limit("memory")),
        }
    }

    /// Counts bytes that live until the result is dropped, without the work to make them.
    pub(crate) fn hold(&self, n: usize) -> Result<Held, Error> {
        let mut held = Held { ledger: Rc::clone(&self.ledger), bytes: 0 };
        held.add(n)?;
        Ok(held)
    }

    /// Pays for `n` values about to be made, and for a place that holds them.
    pub(crate) fn values(&mut self, n: usize) -> Result<Held, Error> {
        self.pay((n as u64).saturating_mul(STEP))?;
        self.hold(n.saturating_mul(VALUE_BYTES))
    }

    /// Goes one level deeper; [`Budget::leave`] comes back.
    pub(crate) fn enter(&mut self) -> Result<(), Error> {
        if self.depth >= DEPTH_MAX {
            return Err(Error::Limit("nesting"));
        }
        self.depth += 1;
        self.step()
    }

    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }
}

/// A text that grows, every byte of it counted.
pub(crate) struct Buffer {
    text: String,
    held: Held,
}

impl Buffer {
    pub(crate) fn new(budget: &Budget) -> Result<Buffer, Error> {
        Ok(Buffer { text: String::new(), held: budget.hold(0)? })
    }

    pub(crate) fn push_str(&mut self, text: &str, budget: &mut Budget) -> Result<(), Error> {
        budget.scan(text.len())?;
        self.held.add(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(crate) fn push(&mut self, ch: char, budget: &mut Budget) -> Result<(), Error> {
        self.push_str(ch.encode_utf8(&mut [0; 4]), budget)
    }

    /// Appends `n` copies of a text.
    pub(crate) fn push_n(&mut self, text: &str, n: usize, budget: &mut Budget) -> Result<(), Error> {
        // All at once, so that a large number is refused at once.
        budget.scan(text.len().saturating_mul(n))?;
        self.held.add(text.len().saturating_mul(n))?;
        (0..if text.is_empty() { 0 } else { n }).for_each(|_| self.text.push_str(text));
        Ok(())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }

    pub(crate) fn into_parts(self) -> (String, Held) {
        (self.text, self.held)
    }
}
