//! Python's string operations, and how Python prints strings and floats.

use std::fmt::Write as _;
use std::ops::Deref;
use std::rc::Rc;

use crate::budget::{Budget, Buffer, Held};
use crate::error::Error;

/// A string of a template. Each may be markup, to which Jinja adds other strings only after escaping them.
#[derive(Clone)]
pub(crate) struct Text<'t> {
    repr: Repr<'t>,
}

#[derive(Clone)]
enum Repr<'t> {
    /// Of the template's source; it costs nothing to take.
    Literal(&'t str, bool),
    Made(Rc<Made>, bool),
    /// At most four bytes: a character, say.
    Short([u8; 4], u8, bool),
}

struct Made {
    text: Box<str>,
    _held: Held,
}

/// What an allocation costs beside its bytes.
const ALLOCATION_BYTES: usize = 48;

impl<'t> Text<'t> {
    pub(crate) fn literal(text: &'t str) -> Text<'t> {
        Text { repr: Repr::Literal(text, false) }
    }

    /// A copy of a text.
    pub(crate) fn new(text: &str, budget: &mut Budget) -> Result<Text<'t>, Error> {
        budget.step()?;
        if text.len() <= 4 {
            let mut bytes = [0; 4];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            return Ok(Text { repr: Repr::Short(bytes, text.len() as u8, false) });
        }
        budget.scan(text.len())?;
        let held = budget.hold(text.len() + ALLOCATION_BYTES)?;
        Ok(Text { repr: Repr::Made(Rc::new(Made { text: text.into(), _held: held }), false) })
    }

    /// A text that has been built and counted.
    pub(crate) fn built(buffer: Buffer, budget: &mut Budget) -> Result<Text<'t>, Error> {
        if buffer.as_str().len() <= 4 {
            return Text::new(buffer.as_str(), budget);
        }
        // Shrinking may copy it once more.
        budget.room(buffer.as_str().len())?;
        let (text, mut held) = buffer.into_parts();
        held.add(ALLOCATION_BYTES)?;
        Ok(Text { repr: Repr::Made(Rc::new(Made { text: text.into(), _held: held }), false) })
    }

    /// The same text, as markup or not.
    pub(crate) fn marked(self, is_markup: bool) -> Text<'t> {
        let repr = match self.repr {
            Repr::Literal(text, _) => Repr::Literal(text, is_markup),
            Repr::Made(text, _) => Repr::Made(text, is_markup),
            Repr::Short(bytes, len, _) => Repr::Short(bytes, len, is_markup),
        };
        Text { repr }
    }

    pub(crate) fn is_markup(&self) -> bool {
        match self.repr {
            Repr::Literal(_, is_markup) | Repr::Made(_, is_markup) | Repr::Short(.., is_markup) => is_markup,
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.repr {
            Repr::Literal(text, _) => text,
            Repr::Made(made, _) => &made.text,
            // It was made of a whole text.
            Repr::Short(bytes, len, _) => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default()
            }
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Text<'_>) -> bool {
        **self == **other
    }
}

/// White space as Python's `str.isspace` sees it: Unicode's, and the four separators of ASCII.
pub(crate) fn is_space(ch: char) -> bool {
    ch.is_whitespace() || matches!(ch, '\u{1C}'..='\u{1F}')
}

/// Characters of the two planes for private use. No filter rewrites them, so a caller may let them stand for others
/// and exchange them in the output.
pub(crate) fn is_private(ch: char) -> bool {
    ch >= '\u{F0000}'
}

/// Takes characters off the ends: the given ones, or white space.
pub(crate) fn strip<'a>(
    text: &'a str,
    chars: Option<&str>,
    left: bool,
    right: bool,
    budget: &mut Budget,
) -> Result<&'a str, Error> {
    // Each character of the text may have to be compared with each of those.
    budget.scan(text.len().saturating_mul(1 + chars.map_or(0, str::len)))?;
    let goes = |ch: char| chars.map_or_else(|| is_space(ch), |chars| chars.contains(ch));
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text })
}

/// `upper`, `lower`, `casefold`, `swapcase`, `title`, `capitalize`, or `titles` for the filter `title`.
pub(crate) fn change_case(text: &str, how: &str, budget: &mut Budget) -> Result<String, Error> {
    // One character can turn into three.
    budget.room(text.len().saturating_mul(3))?;
    Ok(match how {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        // Python folds a little more than case.
        "casefold" => text.to_lowercase().replace('ß', "ss"),
        "swapcase" => {
            let mut changed = String::new();
            for ch in text.chars() {
                if ch.is_uppercase() {
                    changed.extend(ch.to_lowercase())
                } else {
                    changed.extend(ch.to_uppercase())
                }
            }
            changed
        }
        // The filter of Jinja, to which words begin behind these.
        "titles" => {
            let mut changed = String::new();
            let mut upper = true;
            for ch in text.chars() {
                if upper {
                    changed.extend(ch.to_uppercase())
                } else {
                    changed.extend(ch.to_lowercase())
                }
                upper = is_space(ch) || matches!(ch, '-' | '(' | '{' | '[' | '<');
            }
            changed
        }
        _ => {
            let mut changed = String::new();
            let mut upper = true;
            for ch in text.chars() {
                if upper {
                    changed.extend(ch.to_uppercase());
                } else {
                    changed.extend(ch.to_lowercase());
                }
                upper = how == "title" && !ch.is_alphabetic();
            }
            changed
        }
    })
}

/// Replaces the first `count` occurrences, or all if it is negative.
pub(crate) fn replace(
    text: &str,
    old: &str,
    new: &str,
    count: i128,
    budget: &mut Budget,
) -> Result<String, Error> {
    budget.scan(text.len() + old.len())?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let n = text.matches(old).take(count).count();
    budget.room(text.len().saturating_add(n.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, count))
}

/// A text with as many spaces around it as bring it to a width, one more on the right if they cannot be halved. As in
/// Python, that one is on the left if the width is odd.
pub(crate) fn center(text: &str, width: i128, budget: &mut Budget) -> Result<String, Error> {
    budget.scan(text.len())?;
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let spaces = width.saturating_sub(text.chars().count());
    budget.room(text.len().saturating_add(spaces))?;
    let left = spaces / 2 + (spaces & width & 1);
    Ok([&" ".repeat(left), text, &" ".repeat(spaces - left)].concat())
}

/// The lines of a text by Python's `splitlines`, which knows more line ends than one.
pub(crate) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end =
        |ch: char| matches!(ch, '\n'..='\r' | '\u{1C}'..='\u{1E}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.find(is_end).unwrap_or(rest.len());
        let mut chars = rest[line..].chars();
        if chars.next() == Some('\r') {
            let after = chars.as_str();
            chars = after.strip_prefix('\n').unwrap_or(after).chars();
        }
        let end = rest.len() - chars.as_str().len();
        lines.push(&rest[..if keep_ends { end } else { line }]);
        rest = &rest[end..];
    }
    lines
}

/// The words of a text, at most `n` of them; the last one is then all that is left.
pub(crate) fn words(text: &str, n: usize, from_right: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest =
        if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() {
        let split = if words.len() + 1 >= n {
            None
        } else if from_right {
            rest.rsplit_once(is_space).map(|(before, word)| (word, before.trim_end_matches(is_space)))
        } else {
            rest.split_once(is_space).map(|(word, after)| (word, after.trim_start_matches(is_space)))
        };
        let (word, left) = split.unwrap_or((rest, ""));
        words.push(word);
        rest = left;
    }
    if from_right {
        words.reverse();
    }
    words
}

/// A text as part of an address, percent-encoded.
pub(crate) fn url_encoded(text: &str, budget: &mut Budget) -> Result<String, Error> {
    budget.room(text.len().saturating_mul(3))?;
    let mut out = String::new();
    for ch in text.chars() {
        if ch.is_ascii_alphanumeric() || "_.-~/".contains(ch) || is_private(ch) {
            out.push(ch);
            continue;
        }
        for byte in ch.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Ok(out)
}

/// Appends a string with quotes around it, as Python's `repr` does.
pub(crate) fn push_quoted(out: &mut Buffer, text: &str, budget: &mut Budget) -> Result<(), Error> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote, budget)?;
    let mut rest = text;
    while let Some(at) = rest.find(|ch| ch == quote || ch == '\\' || !is_printable(ch)) {
        out.push_str(&rest[..at], budget)?;
        let mut chars = rest[at..].chars();
        let Some(ch) = chars.next() else { break };
        rest = chars.as_str();
        let code = u32::from(ch);
        out.push_str(
            &match ch {
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                ch if is_printable(ch) => format!("\\{ch}"),
                _ if code < 0x100 => format!("\\x{code:02x}"),
                _ if code < 0x1_0000 => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            },
            budget,
        )?;
    }
    out.push_str(rest, budget)?;
    out.push(quote, budget)
}

/// Whether Python's `repr` shows a character as it is: not control and format characters, separators other than the
/// space, and the places for private use. Places that Unicode has left empty, which Python escapes too, are shown.
fn is_printable(ch: char) -> bool {
    match ch {
        ' '..='~' => true,
        // By these, callers of this crate let other characters stand in for the own ones of a text.
        ch if is_private(ch) => true,
        ch if ch.is_control() || ch.is_whitespace() => false,
        '\u{AD}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{8E2}' | '\u{180E}' => {
            false
        }
        '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' => false,
        '\u{E000}'..='\u{F8FF}' | '\u{FFF0}'..='\u{FFFB}' | '\u{E0001}'..='\u{E007F}' => false,
        _ => true,
    }
}

/// Appends a float as Python prints it: the fewest digits that mean it, with an exponent below -4 and from 16 on.
pub(crate) fn push_float(out: &mut Buffer, value: f64, budget: &mut Budget) -> Result<(), Error> {
    let text = if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() {
        (if value > 0.0 { "inf" } else { "-inf" }).to_owned()
    } else {
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        match exponent.parse::<i32>() {
            Ok(exponent) if !(-4..16).contains(&exponent) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
            }
            _ => {
                let text = value.to_string();
                if text.contains('.') { text } else { text + ".0" }
            }
        }
    };
    out.push_str(&text, budget)
}

/// Appends a text with the characters that mean something in HTML replaced.
pub(crate) fn push_escaped(out: &mut Buffer, text: &str, budget: &mut Budget) -> Result<(), Error> {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        out.push_str(&rest[..at], budget)?;
        let name = match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&#34;",
            _ => "&#39;",
        };
        out.push_str(name, budget)?;
        rest = &rest[at + 1..];
    }
    out.push_str(rest, budget)
}
