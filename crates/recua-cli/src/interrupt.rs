//! Ctrl-C and other requests to end: they end the program, except while a command is [`under_way`] with something that it can end by
//! itself. A command that writes a model leaves no half of it behind ([`remove_unfinished_outputs`]).

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

/// From now on, Ctrl-C, a closed terminal and a request to end also remove what is not complete yet. Then the program ends as it would have
/// ended anyway, so that a shell's loop over several files ends with it.
#[cfg(unix)]
pub(crate) fn remove_unfinished_outputs() -> Result {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = signal_hook::iterator::Signals::new(wanted).or_other()?;
    let wait = move || {
        for signal in signals.forever() {
            recua::gguf::discard_unfinished_outputs();
            // It returns only for signals that end nothing.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    };
    std::thread::Builder::new().spawn(wait).map(drop).or_other()
}

/// See above.
#[cfg(not(unix))]
pub(crate) fn remove_unfinished_outputs() -> Result {
    let end = || {
        recua::gguf::discard_unfinished_outputs();
        std::process::exit(1);
    };
    ctrlc::set_handler(end).or_other()
}

/// True if whoever started the program has it ignore this signal, as `nohup` does; then it must go on. Known on Linux only.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
