//! The filter `tojson`, by the rules of Python's `json.dumps`, on whose output the models were trained.

use crate::args::Args;
use crate::budget::{Budget, Buffer};
use crate::error::Error;
use crate::text::{Text, is_private, push_float};
use crate::value::{Kind, Value};

/// The parameters of `tojson`, in the order of transformers.
pub(crate) const PARAMETERS: &[&str] = &["ensure_ascii", "indent", "separators", "sort_keys"];

struct Style<'t> {
    // Whether characters beyond ASCII are written as escapes.
    is_ascii: bool,
    // The white space of one level, if each entry has a line of its own.
    indent: Option<Text<'t>>,
    // Between two entries, and between a key and its value.
    separators: [Text<'t>; 2],
    is_sorted: bool,
}

/// A value as JSON.
pub(crate) fn dump<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let indent = match args.optional(1, "indent") {
        None => None,
        Some(Value::Str(indent)) => Some(indent.clone()),
        Some(n) => {
            let mut indent = Buffer::new(budget)?;
            indent.push_n(" ", n.as_size()?, budget)?;
            Some(Text::built(indent, budget)?)
        }
    };
    let separators = match args.optional(2, "separators") {
        None => [Text::literal(if indent.is_some() { "," } else { ", " }), Text::literal(": ")],
        Some(separators) => match &separators.items(budget)?.items[..] {
            [item, key] => [item.as_str()?.clone(), key.as_str()?.clone()],
            _ => return Err(Error::new("tojson: separators are a pair of strings")),
        },
    };
    let style = Style {
        is_ascii: args.flag(0, "ensure_ascii"),
        indent,
        separators,
        is_sorted: args.flag(3, "sort_keys"),
    };
    let mut out = Buffer::new(budget)?;
    style.write(&mut out, value, 0, budget)?;
    Value::built(out, budget)
}

impl Style<'_> {
    fn write(
        &self,
        out: &mut Buffer,
        value: &Value<'_>,
        level: usize,
        budget: &mut Budget,
    ) -> Result<(), Error> {
        budget.step()?;
        match value {
            Value::None => out.push_str("null", budget)?,
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }, budget)?,
            Value::Int(_) => value.print(out, false, budget)?,
            Value::Float(value) if value.is_nan() => out.push_str("NaN", budget)?,
            Value::Float(value) if value.is_infinite() => {
                out.push_str(if *value > 0.0 { "Infinity" } else { "-Infinity" }, budget)?;
            }
            Value::Float(value) => push_float(out, *value, budget)?,
            Value::Str(text) => self.write_str(out, text, budget)?,
            Value::List(list) if !matches!(list.kind, Kind::List | Kind::Tuple) => {
                return Err(unwritable(value));
            }
            Value::List(list) if list.items.is_empty() => out.push_str("[]", budget)?,
            Value::List(list) => {
                out.push('[', budget)?;
                for (i, item) in list.items.iter().enumerate() {
                    self.separate(out, i, level + 1, budget)?;
                    self.write(out, item, level + 1, budget)?;
                }
                self.new_line(out, level, budget)?;
                out.push(']', budget)?;
            }
            Value::Map(map) if map.entries.is_empty() => out.push_str("{}", budget)?,
            Value::Map(map) => {
                let mut entries: Vec<_> = map.entries.iter().collect();
                let _held = budget.values(entries.len())?;
                if self.is_sorted {
                    sort(&mut entries, budget)?;
                }
                out.push('{', budget)?;
                for (i, (key, value)) in entries.into_iter().enumerate() {
                    self.separate(out, i, level + 1, budget)?;
                    self.write_key(out, key, budget)?;
                    out.push_str(&self.separators[1], budget)?;
                    self.write(out, value, level + 1, budget)?;
                }
                self.new_line(out, level, budget)?;
                out.push('}', budget)?;
            }
            other => return Err(unwritable(other)),
        }
        Ok(())
    }

    /// Keys are strings in JSON, whatever they are in the mapping.
    fn write_key(&self, out: &mut Buffer, key: &Value<'_>, budget: &mut Budget) -> Result<(), Error> {
        if let Value::Str(text) = key {
            return self.write_str(out, text, budget);
        }
        if let Value::List(_) = key {
            return Err(Error::new("a tuple cannot be a key in JSON"));
        }
        out.push('"', budget)?;
        self.write(out, key, 0, budget)?;
        out.push('"', budget)
    }

    /// The place of entry `i`: a separator before all but the first, and perhaps a line of its own.
    fn separate(&self, out: &mut Buffer, i: usize, level: usize, budget: &mut Budget) -> Result<(), Error> {
        if i > 0 {
            out.push_str(&self.separators[0], budget)?;
        }
        self.new_line(out, level, budget)
    }

    fn new_line(&self, out: &mut Buffer, level: usize, budget: &mut Budget) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            out.push('\n', budget)?;
            out.push_n(indent, level, budget)?;
        }
        Ok(())
    }

    fn write_str(&self, out: &mut Buffer, text: &str, budget: &mut Budget) -> Result<(), Error> {
        out.push('"', budget)?;
        let is_plain = |ch: char| {
            !(ch < ' ' || matches!(ch, '"' | '\\') || (self.is_ascii && ch > '~' && !is_private(ch)))
        };
        let mut rest = text;
        while let Some(at) = rest.find(|ch| !is_plain(ch)) {
            out.push_str(&rest[..at], budget)?;
            let mut chars = rest[at..].chars();
            let Some(ch) = chars.next() else { break };
            rest = chars.as_str();
            match ch {
                '"' => out.push_str("\\\"", budget)?,
                '\\' => out.push_str("\\\\", budget)?,
                '\n' => out.push_str("\\n", budget)?,
                '\r' => out.push_str("\\r", budget)?,
                '\t' => out.push_str("\\t", budget)?,
                '\u{8}' => out.push_str("\\b", budget)?,
                '\u{C}' => out.push_str("\\f", budget)?,
                ch => {
                    for unit in ch.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"), budget)?;
                    }
                }
            }
        }
        out.push_str(rest, budget)?;
        out.push('"', budget)
    }
}

fn unwritable(value: &Value<'_>) -> Error {
    let advice =
        if let Value::List(_) | Value::Iter(_) = value { "; the filter list makes a list of it" } else { "" };
    Error::new(format!("{} cannot be written as JSON{advice}", value.kind()))
}

/// Sorts entries by their keys: strings, or numbers.
fn sort(entries: &mut [&(Value<'_>, Value<'_>)], budget: &mut Budget) -> Result<(), Error> {
    // Sorting cannot stop half-way, so n log n comparisons of the longest key are paid for first.
    let longest = entries.iter().map(|(key, _)| key.as_str().map_or(8, |key| key.len())).max().unwrap_or(0);
    let n = entries.len();
    budget.scan(n.saturating_mul(n.max(2).ilog2() as usize + 1).saturating_mul(longest.max(8)))?;
    if entries.iter().all(|(key, _)| matches!(key, Value::Str(_))) {
        entries.sort_by(|(a, _), (b, _)| a.as_str().map_or("", |a| a).cmp(b.as_str().map_or("", |b| b)));
    } else if entries.iter().all(|(key, _)| key.as_number().is_some()) {
        let number = |key: &Value<'_>| key.as_number().unwrap_or(0.0);
        entries.sort_by(|(a, _), (b, _)| number(a).total_cmp(&number(b)));
    } else {
        return Err(Error::new(
            "tojson: keys of several kinds have no order; sort_keys needs strings or numbers",
        ));
    }
    Ok(())
}
