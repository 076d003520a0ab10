//! Where prompts come from: arguments, lines of standard input, or for the demo a built-in list.

use std::io::IsTerminal;
use std::sync::mpsc;
use std::time::Duration;

use crate::args::RunArgs;
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::source;

/// The demo's own prompts, a sample of what its model was trained for.
const DEMO_PROMPTS: [&str; 8] = [
    "What is the sum of 214 and 37?",
    "Sort from smallest to largest: 41, 7, 88, 19",
    "Write the number 2851 in words.",
    "Spell the word \"llama\".",
    "Please reverse the word \"turkey\".",
    "Arrange in alphabetical order: wool, rope, bell, salt.",
    "At the age of 31, Leo moved to Lima. Give the name, age and city as JSON.",
    "Petra has the pencils. The marbles belong to Oliver. What does Petra have?",
];

/// How long the demo waits for the first byte on a standard input that is not a terminal. The process that started
/// the program may have left a pipe open that nobody will ever write to or close.
const DEMO_PATIENCE: Duration = Duration::from_secs(1);

/// The prompts of this run, at least one.
pub(super) fn prompts(args: &RunArgs) -> Result<Vec<String>> {
    if !args.prompts.is_empty() {
        return Ok(args.prompts.clone());
    }
    let is_demo = source::is_demo(&args.model);
    if !std::io::stdin().is_terminal() {
        let text = if is_demo { read_patiently()? } else { Some(source::read_stdin()?) };
        // A blank line is no prompt.
        let lines: Vec<String> = text
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect();
        if !lines.is_empty() {
            return Ok(lines);
        }
    }
    if is_demo {
        return Ok(DEMO_PROMPTS.map(str::to_owned).to_vec());
    }
    Err(Failure::user("no prompt; give prompts as arguments, or one a line on standard input"))
}

/// Reads standard input to its end, or returns `None` if nothing arrives within [`DEMO_PATIENCE`].
fn read_patiently() -> Result<Option<String>> {
    let (begun, first) = mpsc::channel();
    let (done, all) = mpsc::channel();
    let read = move || {
        // Blocks until there is a byte or the end of the input; the rest is then worth waiting for.
        let mut stdin = std::io::stdin().lock();
        let _ = std::io::BufRead::fill_buf(&mut stdin).map(|_| begun.send(()));
        drop(stdin);
        let _ = done.send(source::read_stdin());
    };
    std::thread::Builder::new()
        .spawn(read)
        .map_err(|e| Failure::other(format!("no thread can be started to read standard input: {e}")))?;
    match first.recv_timeout(DEMO_PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            note!("note: nothing on standard input; using the demo's own prompts");
            Ok(None)
        }
        _ => all.recv().map_or(Ok(None), |text| text.map(Some)),
    }
}
