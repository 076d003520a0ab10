//! The filter `tojson`, spaced as Python's `json.dumps` does it, which the models were trained on.

use std::fmt::Write as _;

use super::Error;
use super::budget::Budget;
use super::value::{Value, push_float};

/// Appends a value as JSON, over several lines if `indent` says how far.
pub(super) fn write(
    out: &mut String,
    value: &Value<'_>,
    indent: Option<usize>,
    level: usize,
    budget: &mut Budget,
) -> Result<(), Error> {
    budget.step()?;
    budget.bytes(32)?;
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(_) => value.print(out, false, budget)?,
        Value::Float(value) => push_float(out, *value, budget)?,
        Value::Str(text) => write_str(out, text, budget)?,
        Value::List(list) if list.items.is_empty() => out.push_str("[]"),
        Value::List(list) => {
            out.push('[');
            for (i, item) in list.items.iter().enumerate() {
                separate(out, i, indent, level + 1, budget)?;
                write(out, item, indent, level + 1, budget)?;
            }
            close(out, ']', indent, level, budget)?;
        }
        Value::Map(map) if map.entries.is_empty() => out.push_str("{}"),
        Value::Map(map) => {
            out.push('{');
            for (i, (key, value)) in map.entries.iter().enumerate() {
                separate(out, i, indent, level + 1, budget)?;
                write_str(out, key, budget)?;
                out.push_str(": ");
                write(out, value, indent, level + 1, budget)?;
            }
            close(out, '}', indent, level, budget)?;
        }
        other => return Err(Error::new(format!("{} cannot be written as JSON", other.kind()))),
    }
    Ok(())
}

fn separate(
    out: &mut String,
    i: usize,
    indent: Option<usize>,
    level: usize,
    budget: &mut Budget,
) -> Result<(), Error> {
    if i > 0 {
        out.push_str(if indent.is_some() { "," } else { ", " });
    }
    new_line(out, indent, level, budget)
}

fn close(
    out: &mut String,
    bracket: char,
    indent: Option<usize>,
    level: usize,
    budget: &mut Budget,
) -> Result<(), Error> {
    new_line(out, indent, level, budget)?;
    out.push(bracket);
    Ok(())
}

fn new_line(out: &mut String, indent: Option<usize>, level: usize, budget: &mut Budget) -> Result<(), Error> {
    if let Some(indent) = indent {
        let n = indent.saturating_mul(level);
        budget.bytes(n)?;
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', n));
    }
    Ok(())
}

fn write_str(out: &mut String, text: &str, budget: &mut Budget) -> Result<(), Error> {
    // A control character takes six bytes.
    budget.bytes(text.len().saturating_mul(6))?;
    out.push('"');
    for ch in text.chars() {
        match ch {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{C}' => out.push_str("\\f"),
            ch if ch < ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(ch));
            }
            ch => out.push(ch),
        }
    }
    out.push('"');
    Ok(())
}
