//! Ctrl-C: ends the program, except while a command is [`under_way`] with something that it can end by itself.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{OrFail, Result};

/// Whether somebody looks at [`ASKED`].
static UNDER_WAY: AtomicBool = AtomicBool::new(false);
/// Set by Ctrl-C.
static ASKED: AtomicBool = AtomicBool::new(false);

/// The exit code by which shells report a program that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// Handles Ctrl-C from now on. A command calls it once.
pub(crate) fn handle() -> Result {
    ctrlc::set_handler(|| {
        // The second one does not wait for a step that takes long.
        if !UNDER_WAY.load(Ordering::SeqCst) || ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
    })
    .or_other()
}

/// While this lives, the first Ctrl-C does nothing but make [`UnderWay::is_to_end`] true.
pub(crate) struct UnderWay(());

/// Begins something that can be ended.
pub(crate) fn under_way() -> UnderWay {
    ASKED.store(false, Ordering::SeqCst);
    UNDER_WAY.store(true, Ordering::SeqCst);
    UnderWay(())
}

impl UnderWay {
    /// Whether Ctrl-C was pressed.
    pub(crate) fn is_to_end(&self) -> bool {
        ASKED.load(Ordering::SeqCst)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.store(false, Ordering::SeqCst);
    }
}
