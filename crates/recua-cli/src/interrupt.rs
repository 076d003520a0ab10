//! What happens to a half-written model when the program is told to end.

use crate::failure::{OrFail, Result};

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
