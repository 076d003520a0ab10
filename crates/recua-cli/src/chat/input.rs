//! Reads what the user says next: a line, or several that belong together. A terminal has line editing and a history.

use std::io::{BufRead, IsTerminal, Read, StdinLock};

use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::history::{self, History};
use crate::failure::{Failure, OrFail, Result};
use crate::output::{bytes, note};

/// The longest text, in bytes: far more than any context holds.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Stands before and behind a text of several lines.
const QUOTES: &str = "\"\"\"";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// For the model.
    Text(String),
    /// A line that begins with a slash.
    Command(String),
    /// A blank text or Ctrl-C: nothing to answer.
    Nothing,
    /// Ctrl-D, or the end of a file.
    End,
}

/// One line of the source.
enum Line {
    Read(String),
    Interrupted,
    End,
}

pub(super) enum Input {
    Terminal { editor: Box<DefaultEditor>, history: History },
    Piped(StdinLock<'static>),
}

impl Input {
    pub(super) fn open() -> Result<Self> {
        let stdin = std::io::stdin();
        if stdin.is_terminal() && std::io::stdout().is_terminal() {
            let config = Config::builder().max_history_size(history::ENTRIES_MAX).or_other()?.build();
            let mut editor = Box::new(DefaultEditor::with_config(config).or_other()?);
            let history = History::load(&mut editor);
            return Ok(Self::Terminal { editor, history });
        }
        Ok(Self::Piped(stdin.lock()))
    }

    pub(super) fn is_interactive(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    pub(super) fn next(&mut self) -> Result<Said> {
        let (said, typed) = read(|prompt| self.line(prompt))?;
        if let Self::Terminal { editor, history } = self
            && matches!(said, Said::Text(_) | Said::Command(_))
        {
            history.add(editor, &typed);
        }
        Ok(said)
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Self::Terminal { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Read(line)),
                Err(ReadlineError::Interrupted) => {
                    note!("(Ctrl-D or /bye leaves)");
                    Ok(Line::Interrupted)
                }
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(e) => Err(Failure::other(format!("cannot read the terminal: {e}"))),
            },
            Self::Piped(stdin) => piped_line(stdin),
        }
    }
}

/// A line of a pipe, of bounded length.
fn piped_line(stdin: &mut impl BufRead) -> Result<Line> {
    let mut line = Vec::new();
    let fail = |problem: &str| Failure::user(format!("cannot read standard input: {problem}"));
    // One byte more shows that there is more.
    let n = stdin
        .take(TEXT_BYTES_MAX as u64 + 1)
        .read_until(b'\n', &mut line)
        .map_err(|e| fail(&e.to_string()))?;
    if n == 0 {
        return Ok(Line::End);
    }
    check_length(line.len())?;
    let text = String::from_utf8(line).map_err(|_| fail("stream did not contain valid UTF-8"))?;
    Ok(Line::Read(text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn check_length(n_bytes: usize) -> Result {
    if n_bytes <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::user(format!("a text is longer than {}; give a shorter one", bytes(TEXT_BYTES_MAX as u64))))
}

/// Puts together what belongs together, and returns it with what was typed for it. `next` reads a line behind a prompt.
fn read(mut next: impl FnMut(&str) -> Result<Line>) -> Result<(Said, String)> {
    let mut typed = match next("> ")? {
        Line::Read(line) => line,
        Line::Interrupted => return Ok((Said::Nothing, String::new())),
        Line::End => return Ok((Said::End, String::new())),
    };
    let is_quoted = typed.trim_start().starts_with(QUOTES);
    while goes_on(&typed, is_quoted) {
        match next(". ")? {
            Line::Read(line) => {
                typed.push('\n');
                typed.push_str(&line);
                check_length(typed.len())?;
            }
            Line::Interrupted => return Ok((Said::Nothing, String::new())),
            // What has begun ends here.
            Line::End => break,
        }
    }
    let text = if is_quoted {
        let text = typed.trim();
        let text = text.strip_prefix(QUOTES).unwrap_or(text);
        text.strip_suffix(QUOTES).unwrap_or(text).trim().to_owned()
    } else {
        typed.replace("\\\n", "\n").trim().to_owned()
    };
    let said = match text {
        text if text.is_empty() => Said::Nothing,
        text if text.starts_with('/') && !is_quoted => Said::Command(text),
        text => Said::Text(text),
    };
    Ok((said, typed))
}

/// Whether the text that was typed so far needs another line.
fn goes_on(typed: &str, is_quoted: bool) -> bool {
    if !is_quoted {
        return typed.ends_with('\\');
    }
    let text = typed.trim();
    text.len() < 2 * QUOTES.len() || !text.ends_with(QUOTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything said by a pipe with this content.
    fn said(text: &str) -> Vec<Said> {
        let mut stdin = text.as_bytes();
        let mut all = Vec::new();
        loop {
            match read(|_| piped_line(&mut stdin)).unwrap().0 {
                Said::End => return all,
                said => all.push(said),
            }
        }
    }

    fn text(text: &str) -> Said {
        Said::Text(text.into())
    }

    #[test]
    fn lines_and_commands() {
        let all = said(" one \r\n\n/clear\ntwo");
        assert_eq!(all, [text("one"), Said::Nothing, Said::Command("/clear".into()), text("two")]);
    }

    #[test]
    fn several_lines_are_one_text() {
        assert_eq!(said("a\\\nb\\\nc\nd\n"), [text("a\nb\nc"), text("d")]);
        assert_eq!(said("\"\"\"a\n\n  b\n\"\"\"\nc\n"), [text("a\n\n  b"), text("c")]);
        assert_eq!(said("\"\"\"\n/clear\n\"\"\"\n"), [text("/clear")]);
        assert_eq!(said("\"\"\"a\"\"\"\n\"\"\"\"\"\"\nb\n"), [text("a"), Said::Nothing, text("b")]);
        // The end of the input ends a text too.
        assert_eq!(said("\"\"\"a\nb\n"), [text("a\nb")]);
    }

    #[test]
    fn texts_are_bounded() {
        let fails = |text: String| {
            let mut stdin = text.as_bytes();
            read(|_| piped_line(&mut stdin)).is_err()
        };
        assert!(fails("x".repeat(TEXT_BYTES_MAX + 1)));
        assert!(!fails("x".repeat(TEXT_BYTES_MAX - 1) + "\n"));
        assert!(fails("x\\\n".repeat(TEXT_BYTES_MAX / 2)));
    }
}
