//! Python's string operations, and how Python prints strings and floats.

use std::fmt::Write as _;

use crate::budget::Budget;
use crate::error::Error;

/// White space as Python's `str.isspace` sees it: Unicode's, and the four separators of ASCII.
pub(crate) fn is_space(ch: char) -> bool {
    ch.is_whitespace() || matches!(ch, '\u{1C}'..='\u{1F}')
}

/// Characters of the two planes for private use. No filter rewrites them, so a caller may let them stand for others and
/// exchange them in the output.
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
    budget.bytes(text.len().saturating_mul(1 + chars.map_or(0, str::len)))?;
    let goes = |ch: char| chars.map_or_else(|| is_space(ch), |chars| chars.contains(ch));
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text })
}

/// `upper`, `lower`, `title` or `capitalize`.
pub(crate) fn change_case(text: &str, how: &str, budget: &mut Budget) -> Result<String, Error> {
    // One character can turn into three.
    budget.bytes(text.len().saturating_mul(6))?;
    Ok(match how {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
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
    count: i64,
    budget: &mut Budget,
) -> Result<String, Error> {
    budget.bytes(text.len() + old.len())?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let n = text.matches(old).take(count).count();
    budget.bytes(text.len().saturating_add(n.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, count))
}

/// `n` copies of a text.
pub(crate) fn repeat(text: &str, n: i64, budget: &mut Budget) -> Result<String, Error> {
    let n = usize::try_from(n).unwrap_or(0);
    budget.bytes(text.len().saturating_mul(n))?;
    Ok(text.repeat(n))
}

/// A text with as many spaces around it as bring it to a width, one more on the right if they cannot be halved. As in
/// Python, that one is on the left if the width is odd.
pub(crate) fn center(text: &str, width: i64, budget: &mut Budget) -> Result<String, Error> {
    budget.bytes(text.len())?;
    let width = usize::try_from(width).unwrap_or(0);
    let spaces = width.saturating_sub(text.chars().count());
    budget.bytes(text.len().saturating_add(spaces))?;
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
    budget.bytes(text.len().saturating_mul(3))?;
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

/// Appends a string with quotes around it, as Python's `repr` does. Of the characters that do not print, only those up
/// to U+00AD are escaped.
pub(crate) fn push_quoted(out: &mut String, text: &str, budget: &mut Budget) -> Result<(), Error> {
    // An escape takes four bytes.
    budget.bytes(text.len().saturating_mul(4))?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for ch in text.chars() {
        match ch {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            '\0'..='\u{1F}' | '\u{7F}'..='\u{A0}' | '\u{AD}' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(ch));
            }
            ch if ch == quote => out.extend(['\\', ch]),
            ch => out.push(ch),
        }
    }
    out.push(quote);
    Ok(())
}

/// Appends a float as Python prints it: the fewest digits that mean it, with an exponent below -4 and from 16 on.
pub(crate) fn push_float(out: &mut String, value: f64, budget: &mut Budget) -> Result<(), Error> {
    budget.bytes(32)?;
    if value.is_nan() {
        out.push_str("nan");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "inf" } else { "-inf" });
    } else {
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        match exponent.parse::<i32>() {
            // Writing to a string cannot fail.
            Ok(exponent) if !(-4..16).contains(&exponent) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                let _ = write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs());
            }
            _ => {
                let start = out.len();
                let _ = write!(out, "{value}");
                if !out[start..].contains('.') {
                    out.push_str(".0");
                }
            }
        }
    }
    Ok(())
}
