//! The budget of one rendering. Every step of the evaluation, and every byte it copies, builds or searches, is paid for
//! *before* it happens, and nothing is ever paid back. So the bytes paid bound the memory that can be live at any
//! time, and both together bound the time.

use crate::error::Error;

/// Steps that any template may take.
const STEPS_BASE: u64 = 1_000_000;
/// Further steps for each mapping among the variables: a message, say.
const STEPS_PER_MAPPING: u64 = 2_000;
/// Bytes that any template may handle.
const BYTES_BASE: u64 = 16 << 20;
/// Further bytes for each byte of the template and the variables.
const BYTES_PER_INPUT_BYTE: u64 = 32;
/// The price of a value, a variable or an entry of a list, without its text.
pub(crate) const VALUE_BYTES: usize = 64;
/// How deep statements and expressions may be nested, in the source and while they run, macros included.
pub(crate) const DEPTH_MAX: u32 = 250;

pub(crate) struct Budget {
    steps: u64,
    bytes: u64,
    depth: u32,
}

impl Budget {
    /// For a template and variables of so many bytes, with so many mappings among them.
    pub(crate) fn new(input_bytes: usize, n_mappings: usize) -> Budget {
        Budget {
            steps: STEPS_BASE.saturating_add(STEPS_PER_MAPPING.saturating_mul(n_mappings as u64)),
            bytes: BYTES_BASE.saturating_add(BYTES_PER_INPUT_BYTE.saturating_mul(input_bytes as u64)),
            depth: 0,
        }
    }

    /// Pays for one step.
    pub(crate) fn step(&mut self) -> Result<(), Error> {
        self.steps = self.steps.checked_sub(1).ok_or(Error::Limit("steps"))?;
        Ok(())
    }

    /// Pays for bytes about to be handled.
    pub(crate) fn bytes(&mut self, n: usize) -> Result<(), Error> {
        self.bytes = self.bytes.checked_sub(n as u64).ok_or(Error::Limit("memory"))?;
        Ok(())
    }

    /// Pays for `n` values, the steps to make them included.
    pub(crate) fn values(&mut self, n: usize) -> Result<(), Error> {
        self.bytes(n.saturating_mul(VALUE_BYTES))?;
        self.steps = self.steps.checked_sub(n as u64).ok_or(Error::Limit("steps"))?;
        Ok(())
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
