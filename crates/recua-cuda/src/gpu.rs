//! [`Gpu`]: an opened card and what it can do. It knows nothing of what is done with it.

use crate::context::Context;
use crate::driver::{Driver, driver, version_text};
use crate::report::Card;
use recua_compute::{DeviceId, DeviceInfo, Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An opened card.
pub(crate) struct Gpu {
    pub(crate) id: DeviceId,
    pub(crate) info: DeviceInfo,
    pub(crate) context: Arc<Context>,
    /// Compute capability.
    pub(crate) cc: (i32, i32),
    /// Streaming multiprocessors.
    pub(crate) n_sms: u32,
    /// Shared memory that a block may have, if it asks for it.
    pub(crate) shared_bytes_max: usize,
    /// Shared memory of a multiprocessor.
    pub(crate) shared_bytes_sm: usize,
    /// Memory of the card, whoever has it.
    pub(crate) memory_bytes: u64,
    /// Bytes of all memory that lives.
    pub(crate) allocated: Arc<AtomicU64>,
    /// Launches of kernels and graphs, and copies, so far.
    pub(crate) n_submissions: AtomicU64,
}

/// Rows of a pass that programs are recorded for: tiles of products are whole at most of them.
const ROW_BUCKETS: &[usize] = &[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];

impl Gpu {
    /// Opens the card of this index, as the driver counts those it shows.
    pub(crate) fn open(index: usize) -> Result<Gpu> {
        let not_found = |problem: String| Error::DeviceNotFound { device: format!("cuda:{index}"), problem };
        let driver = driver().map_err(not_found)?;
        let n = Card::count(driver).map_err(not_found)?;
        if index >= n {
            let cards = if n == 1 {
                "there is one card, number 0".into()
            } else {
                format!("there are {n} cards, from 0 on")
            };
            return Err(not_found(cards));
        }
        let card = Card::new(driver, index).map_err(not_found)?;
        if let Some(problem) = card.problem() {
            return Err(not_found(format!("{} {problem}", card.name)));
        }
        Gpu::new(driver, index, card)
    }

    fn new(driver: &'static Driver, index: usize, card: Card) -> Result<Gpu> {
        let context = Arc::new(Context::new(driver, index as i32, &card.name)?);
        let (major, minor) = card.cc;
        let detail = format!(
            "compute capability {major}.{minor}, {} multiprocessors, {} MiB of L2, driver with CUDA {}",
            card.n_sms,
            card.l2_bytes >> 20,
            version_text(driver.version)
        );
        let info = DeviceInfo {
            kind: format!("cuda:{index}"),
            name: card.name,
            detail,
            // What other programs have is not to be had.
            memory_bytes: Some(context.free_bytes()?),
            runs_in_submit: false,
            row_buckets: ROW_BUCKETS,
        };
        Ok(Gpu {
            id: DeviceId::unique(),
            info,
            context,
            cc: card.cc,
            n_sms: card.n_sms,
            shared_bytes_max: card.shared_bytes_max,
            shared_bytes_sm: card.shared_bytes_sm,
            memory_bytes: card.memory_bytes,
            allocated: Arc::default(),
            n_submissions: AtomicU64::new(0),
        })
    }

    /// Fails if the device is lost.
    pub(crate) fn check(&self) -> Result<()> {
        self.context.faults.check()
    }

    /// Whether the launch of a kernel may begin before the one before it is done.
    pub(crate) fn has_dependent_launch(&self) -> bool {
        self.cc >= (9, 0)
    }

    /// Counts a launch or a copy.
    pub(crate) fn count(&self) {
        self.n_submissions.fetch_add(1, Ordering::Relaxed);
    }

    /// There is no memory: how much was asked for, and how much there is.
    pub(crate) fn out_of_memory(&self, what: &str, requested_bytes: usize) -> Error {
        let free = match self.context.free_bytes() {
            Ok(n_bytes) => format!(" ({n_bytes} bytes are free)"),
            Err(_) => String::new(),
        };
        Error::OutOfMemory { device: self.info.name.clone(), what: format!("{what}{free}"), requested_bytes }
    }
}
