//! The filter `tojson`, by the rules of Python's `json.dumps`, on whose output the models were trained.

use std::fmt::Write as _;
use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Error;
use crate::text::{is_private, push_float};
use crate::value::{Args, Value};

/// The parameters of `tojson`, in the order of transformers.
const PARAMETERS: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];

struct Style {
    // Whether characters beyond ASCII are written as escapes.
    is_ascii: bool,
    // The white space of one level, if each entry has a line of its own.
    indent: Option<Rc<str>>,
    // Between two entries, and between a key and its value.
    separators: [Rc<str>; 2],
    is_sorted: bool,
}

/// A value as JSON.
pub(crate) fn dump<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<String, Error> {
    if let Some((name, _)) = args.named.iter().find(|(name, _)| !PARAMETERS.contains(&&**name)) {
        let name: String = name.chars().take(60).collect();
        return Err(Error::new(format!("tojson takes no {name}; it takes {}", PARAMETERS.join(", "))));
    }
    let indent = match args.get(1, "indent") {
        None | Some(Value::None) => None,
        Some(Value::Str(indent)) => Some(Rc::clone(indent)),
        Some(n) => {
            let n = usize::try_from(n.as_int()?).unwrap_or(0);
            budget.bytes(n)?;
            Some(" ".repeat(n).into())
        }
    };
    let separators = match args.get(2, "separators") {
        None | Some(Value::None) => [if indent.is_some() { "," } else { ", " }.into(), ": ".into()],
        Some(separators) => match &separators.items(budget)?.items[..] {
            [item, key] => [Rc::clone(item.as_str()?), Rc::clone(key.as_str()?)],
            _ => return Err(Error::new("tojson: separators are a pair of strings")),
        },
    };
    let style = Style {
        is_ascii: args.flag(0, "ensure_ascii"),
        indent,
        separators,
        is_sorted: args.flag(3, "sort_keys"),
    };
    let mut out = String::new();
    style.write(&mut out, value, 0, budget)?;
    Ok(out)
}

impl Style {
    fn write(
        &self,
        out: &mut String,
        value: &Value<'_>,
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
            Value::Str(text) => self.write_str(out, text, budget)?,
            Value::List(list) if list.items.is_empty() => out.push_str("[]"),
            Value::List(list) => {
                out.push('[');
                for (i, item) in list.items.iter().enumerate() {
                    self.separate(out, i, level + 1, budget)?;
                    self.write(out, item, level + 1, budget)?;
                }
                self.new_line(out, level, budget)?;
                out.push(']');
            }
            Value::Map(map) if map.entries.is_empty() => out.push_str("{}"),
            Value::Map(map) => {
                let mut entries: Vec<_> = map.entries.iter().collect();
                budget.values(entries.len())?;
                if self.is_sorted {
                    sort(&mut entries, budget)?;
                }
                out.push('{');
                for (i, (key, value)) in entries.into_iter().enumerate() {
                    self.separate(out, i, level + 1, budget)?;
                    self.write_key(out, key, budget)?;
                    budget.bytes(self.separators[1].len())?;
                    out.push_str(&self.separators[1]);
                    self.write(out, value, level + 1, budget)?;
                }
                self.new_line(out, level, budget)?;
                out.push('}');
            }
            other => return Err(Error::new(format!("{} cannot be written as JSON", other.kind()))),
        }
        Ok(())
    }

    /// Keys are strings in JSON, whatever they are in the mapping.
    fn write_key(&self, out: &mut String, key: &Value<'_>, budget: &mut Budget) -> Result<(), Error> {
        if let Value::Str(text) = key {
            return self.write_str(out, text, budget);
        }
        out.push('"');
        self.write(out, key, 0, budget)?;
        out.push('"');
        Ok(())
    }

    /// The place of entry `i`: a separator before all but the first, and perhaps a line of its own.
    fn separate(&self, out: &mut String, i: usize, level: usize, budget: &mut Budget) -> Result<(), Error> {
        if i > 0 {
            budget.bytes(self.separators[0].len())?;
            out.push_str(&self.separators[0]);
        }
        self.new_line(out, level, budget)
    }

    fn new_line(&self, out: &mut String, level: usize, budget: &mut Budget) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            budget.bytes(indent.len().saturating_mul(level).saturating_add(1))?;
            out.push('\n');
            for _ in 0..level {
                out.push_str(indent);
            }
        }
        Ok(())
    }

    fn write_str(&self, out: &mut String, text: &str, budget: &mut Budget) -> Result<(), Error> {
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
                ch if ch < ' ' || (self.is_ascii && ch > '~' && !is_private(ch)) => {
                    for unit in ch.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                ch => out.push(ch),
            }
        }
        out.push('"');
        Ok(())
    }
}

/// Sorts entries by their keys, which must be strings.
fn sort(entries: &mut [&(Value<'_>, Value<'_>)], budget: &mut Budget) -> Result<(), Error> {
    let mut longest = 8;
    for (key, _) in entries.iter() {
        longest = longest.max(key.as_str()?.len());
    }
    // Sorting cannot stop half-way, so all comparisons are paid for first.
    let n = entries.len();
    budget.bytes(n.saturating_mul(n.max(2).ilog2() as usize + 1).saturating_mul(longest))?;
    entries.sort_by(|(a, _), (b, _)| match (a, b) {
        (Value::Str(a), Value::Str(b)) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    });
    Ok(())
}
