//! Where prompts come from: arguments, files, standard input, or for the demo a built-in list.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::args::{AnswerFormat, RunArgs};
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

/// How long to wait in silence for the first byte on a standard input that is not a terminal. The process that started the program may
/// have left a pipe open that nobody will ever write to or close.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file name that means standard input.
const STDIN: &str = "-";

/// Whether `run` has nothing to answer but somebody to talk to.
pub(super) fn is_conversation(args: &RunArgs) -> bool {
    let has_prompts = !(args.prompts.is_empty() && args.more_prompts.is_empty() && args.files.is_empty());
    let is_plain = !args.raw && args.format == AnswerFormat::Text && args.batch_size.is_none();
    let is_seen = io::stdin().is_terminal() && io::stdout().is_terminal();
    !has_prompts && is_plain && is_seen && !source::is_demo(&args.model)
}

/// The prompts of this run, at least one.
pub(super) fn prompts(args: &RunArgs) -> Result<Vec<String>> {
    let mut prompts = [&args.prompts[..], &args.more_prompts].concat();
    for file in &args.files {
        prompts.push(prompt_of(file)?);
    }
    let is_piped = !io::stdin().is_terminal();
    if !prompts.is_empty() {
        // Whoever has read all of it leaves nothing to append.
        if is_piped && !args.files.iter().any(|file| is_stdin(file)) {
            append(&mut prompts, &read_piped()?);
        }
        return Ok(prompts);
    }
    let is_demo = source::is_demo(&args.model);
    if is_piped {
        let text = if is_demo { read_for_demo()? } else { Some(source::read_stdin()?) };
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
    Err(Failure::user("no prompt; give prompts as arguments, with -f FILE, or one a line on standard input"))
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new(STDIN)
}

/// A whole file without the line feed at its end.
fn prompt_of(file: &Path) -> Result<String> {
    let text = if is_stdin(file) { source::read_stdin()? } else { source::read_text(file)? };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() {
        let name = if is_stdin(file) { "standard input".into() } else { file.display().to_string() };
        return Err(Failure::user(format!("{name}: is empty; a prompt needs text")));
    }
    Ok(text.to_owned())
}

/// Appends a text that was piped in to every prompt, unless it is blank.
fn append(prompts: &mut [String], text: &str) {
    if !text.trim().is_empty() {
        prompts
            .iter_mut()
            .for_each(|prompt| *prompt = format!("{prompt}\n\n{}", text.trim_end_matches(['\r', '\n'])));
    }
}

/// Everything on standard input, beside prompts. Says what it waits for if that takes long.
fn read_piped() -> Result<String> {
    let text = read_patiently(|| {
        note!(
            "note: waiting for text on standard input, which is appended to the prompt; without any, use < /dev/null"
        );
        true
    });
    Ok(text?.unwrap_or_default())
}

/// Prompts for the demo, which has its own if none arrive.
fn read_for_demo() -> Result<Option<String>> {
    read_patiently(|| {
        note!("note: nothing on standard input; using the demo's own prompts");
        false
    })
}

/// Reads standard input to its end. If nothing arrives within [`PATIENCE`], `goes_on` decides whether to wait further; if not, the result
/// is `None`.
fn read_patiently(goes_on: impl FnOnce() -> bool) -> Result<Option<String>> {
    let (begun, first) = mpsc::channel();
    let (done, all) = mpsc::channel();
    std::thread::spawn(move || {
        // Blocks until there is a byte or the end of the input; the rest is then worth waiting for.
        let mut stdin = io::stdin().lock();
        let _ = io::BufRead::fill_buf(&mut stdin).map(|_| begun.send(()));
        drop(stdin);
        let _ = done.send(source::read_stdin());
    });
    if first.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) && !goes_on() {
        return Ok(None);
    }
    all.recv().map_or(Ok(None), |text| text.map(Some))
}
