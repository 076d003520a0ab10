//! What the user sees. Results go to stdout through [`stdout`], everything else to stderr through `note!`; neither
//! panics when the reader has closed the pipe.

use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};

use anstyle::{AnsiColor, Effects, Style};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::failure::Result;

/// A line on stderr. Unlike `eprintln!` it does not panic if stderr is closed.
macro_rules! note {
    ($($arg:tt)*) => { crate::output::write_note(&format!($($arg)*)) };
}
pub(crate) use note;

/// The words before a message, and their colours.
const LABELS: [(&str, Style); 2] = [
    ("error:", AnsiColor::Red.on_default().effects(Effects::BOLD)),
    ("note:", AnsiColor::Cyan.on_default().effects(Effects::BOLD)),
];

/// What [`note!`] does. Colours are only for a terminal, and NO_COLOR and CLICOLOR=0 switch them off.
pub(crate) fn write_note(text: &str) {
    let mut stderr = anstream::stderr();
    let label = LABELS.iter().find_map(|(label, style)| Some((label, style, text.strip_prefix(label)?)));
    // If writing to stderr fails, there is nowhere left to report it.
    let _ = match label {
        Some((label, style, rest)) => writeln!(stderr, "{style}{label}{style:#}{rest}"),
        None => writeln!(stderr, "{text}"),
    };
}

/// Standard output, buffered. Call `flush` before the end: an error in `drop` would be lost.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// Writes bytes to standard output and flushes it.
pub(crate) fn print(bytes: &[u8]) -> Result {
    let mut out = stdout();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Whether a terminal would act on this character instead of showing it: control characters, and those that reorder
/// or break the line around them.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Makes a text from a file or from the command line safe for a terminal: one line, and no character that a terminal
/// would act on.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if acts_on_terminal(c) => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// As [`printable`], cut after `chars_max` characters.
pub(crate) fn abbreviated(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}… ({} bytes)", printable(&text[..end]), text.len()),
        None => printable(text),
    }
}

/// Writes a JSON value on one line. All characters that a terminal would act on are escaped; JSON by itself requires
/// that only for some.
pub(crate) fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, TerminalSafe(CompactFormatter));
    value.serialize(&mut serializer).map_err(io::Error::from)?;
    writeln!(out)
}

struct TerminalSafe(CompactFormatter);

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| acts_on_terminal(*c)) {
            self.0.write_string_fragment(out, &rest[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_string_fragment(out, rest)
    }
}

/// A number of bytes as people read it: `417 B`, `1.50 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// `1 tensor`, `2 tensors`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\u{202e}d\ne\\"), "a\\u{1b}[2Jb\\u{9b}c\\u{202e}d\\ne\\");
        let mut out = Vec::new();
        write_json(&mut out, &"a\x1b\u{9b}\u{202e}\"é").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\"a\\u001b\\u009b\\u202e\\\"é\"\n");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "a\x1b\u{9b}\u{202e}\"é");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes(417), "417 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(3 << 29), "1.50 GiB");
        assert_eq!(bytes(u64::MAX), "16777216.00 TiB");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(abbreviated("äöü", 3), "äöü");
        assert_eq!(abbreviated("äöüß", 2), "äö… (8 bytes)");
    }
}
