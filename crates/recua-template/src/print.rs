//! How values print, as Python's `str` and `repr` do.

use crate::budget::{Budget, Buffer};
use crate::error::Error;
use crate::text::{Text, push_float, push_quoted};
use crate::value::{Kind, Value};

impl<'t> Value<'t> {
    /// The text the value prints as, like Python's `str`.
    pub(crate) fn to_text(&self, budget: &mut Budget) -> Result<Text<'t>, Error> {
        if let Value::Str(text) = self {
            return Ok(text.clone());
        }
        let mut out = Buffer::new(budget)?;
        self.print(&mut out, false, budget)?;
        Text::built(out, budget)
    }

    /// Appends the text that the value prints as; `quoted` like Python's `repr`.
    pub(crate) fn print(&self, out: &mut Buffer, quoted: bool, budget: &mut Budget) -> Result<(), Error> {
        budget.enter()?;
        match self {
            Value::Undefined => out.push_str(if quoted { "Undefined" } else { "" }, budget)?,
            Value::None => out.push_str("None", budget)?,
            Value::Bool(true) => out.push_str("True", budget)?,
            Value::Bool(false) => out.push_str("False", budget)?,
            Value::Int(value) => out.push_str(&value.to_string(), budget)?,
            Value::Float(value) => push_float(out, *value, budget)?,
            Value::Str(text) if quoted && text.is_markup() => {
                out.push_str("Markup(", budget)?;
                push_quoted(out, text, budget)?;
                out.push_str(")", budget)?;
            }
            Value::Str(text) if quoted => push_quoted(out, text, budget)?,
            Value::Str(text) => out.push_str(text, budget)?,
            Value::List(list) => print_row(list.kind, &list.items, out, budget)?,
            Value::Map(map) => {
                let pairs = map.entries.iter().map(|(key, value)| (key, value));
                print_pairs("{", pairs, "}", out, budget)?;
            }
            Value::Namespace(namespace) => {
                let variables = namespace.variables.borrow();
                let mut pairs = Vec::new();
                let _held = budget.values(variables.len().saturating_mul(2))?;
                for (name, value) in variables.iter() {
                    pairs.push((Value::str(name, budget)?, value));
                }
                let pairs = pairs.iter().map(|(name, value)| (name, *value));
                print_pairs("<Namespace {", pairs, "}>", out, budget)?;
            }
            Value::Iter(_) => {
                return Err(Error::new("an iterator cannot be printed; the filter list makes a list of it"));
            }
            other => return Err(Error::new(format!("{} cannot be printed", other.kind()))),
        }
        budget.leave();
        Ok(())
    }
}

fn print_row(kind: Kind, items: &[Value<'_>], out: &mut Buffer, budget: &mut Budget) -> Result<(), Error> {
    let (open, close) = match kind {
        Kind::List => ("[", "]"),
        Kind::Tuple if items.len() == 1 => ("(", ",)"),
        Kind::Tuple => ("(", ")"),
        Kind::Range { start, stop, step: 1 } => {
            return out.push_str(&format!("range({start}, {stop})"), budget);
        }
        Kind::Range { start, stop, step } => {
            return out.push_str(&format!("range({start}, {stop}, {step})"), budget);
        }
        Kind::View(name) => {
            out.push_str(name, budget)?;
            ("([", "])")
        }
    };
    out.push_str(open, budget)?;
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " }, budget)?;
        item.print(out, true, budget)?;
    }
    out.push_str(close, budget)
}

fn print_pairs<'v, 't: 'v, K: std::borrow::Borrow<Value<'t>>>(
    open: &str,
    pairs: impl Iterator<Item = (K, &'v Value<'t>)>,
    close: &str,
    out: &mut Buffer,
    budget: &mut Budget,
) -> Result<(), Error> {
    out.push_str(open, budget)?;
    for (i, (key, value)) in pairs.enumerate() {
        out.push_str(if i == 0 { "" } else { ", " }, budget)?;
        key.borrow().print(out, true, budget)?;
        out.push_str(": ", budget)?;
        value.print(out, true, budget)?;
    }
    out.push_str(close, budget)
}
