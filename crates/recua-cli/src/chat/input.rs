//! Reads the user's next line, with line editing if standard input is a terminal.

use std::io::{BufRead, IsTerminal};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::failure::{Failure, OrFail, Result};
use crate::output::note;

pub(super) enum Said {
    /// A line that is not blank.
    Line(String),
    /// A blank line or Ctrl-C: nothing to answer.
    Nothing,
    /// Ctrl-D, or the end of a file.
    End,
}

pub(super) enum Input {
    Terminal(Box<DefaultEditor>),
    Piped(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Input {
    pub(super) fn open() -> Result<Self> {
        let stdin = std::io::stdin();
        if stdin.is_terminal() && std::io::stdout().is_terminal() {
            return Ok(Self::Terminal(Box::new(DefaultEditor::new().or_other()?)));
        }
        Ok(Self::Piped(stdin.lock().lines()))
    }

    pub(super) fn is_interactive(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    pub(super) fn next(&mut self) -> Result<Said> {
        let line = match self {
            Self::Terminal(editor) => match editor.readline("> ") {
                Ok(line) => {
                    // A line that cannot be added to the history is still answered.
                    let _ = editor.add_history_entry(&line);
                    line
                }
                Err(ReadlineError::Interrupted) => {
                    note!("(Ctrl-D or /bye leaves)");
                    return Ok(Said::Nothing);
                }
                Err(ReadlineError::Eof) => return Ok(Said::End),
                Err(e) => return Err(Failure::other(format!("cannot read the terminal: {e}"))),
            },
            Self::Piped(lines) => match lines.next() {
                None => return Ok(Said::End),
                Some(Ok(line)) => line,
                Some(Err(e)) => return Err(Failure::user(format!("cannot read standard input: {e}"))),
            },
        };
        let line = line.trim();
        Ok(if line.is_empty() { Said::Nothing } else { Said::Line(line.to_owned()) })
    }
}
