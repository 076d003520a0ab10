//! The values of a template: Python's, as far as chat templates need them.
//!
//! Lists and maps never change once made, and a list may hold neither namespaces nor lists nested deeper than
//! [`DEPTH_MAX`]: so there are no cycles, and neither comparing, printing nor dropping a value recurses far.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use minijinja::machinery::ast;

use super::Error;
use super::budget::Budget;

const DEPTH_MAX: u32 = 64;

/// Names or keys with what they stand for, in order.
pub(super) type Entries<'t> = Vec<(Rc<str>, Value<'t>)>;

#[derive(Clone)]
pub(super) enum Value<'t> {
    /// What a name that is not bound stands for.
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    List(Rc<List<'t>>),
    Map(Rc<Map<'t>>),
    Namespace(Rc<RefCell<Entries<'t>>>),
    Macro(&'t ast::Macro<'t>),
    Function(Function),
    Loop(Rc<Loop<'t>>),
}

/// What every template may call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    RaiseException,
    StrftimeNow,
    Namespace,
    Range,
    Dict,
}

pub(super) struct List<'t> {
    pub(super) items: Vec<Value<'t>>,
    depth: u32,
}

pub(super) struct Map<'t> {
    pub(super) entries: Entries<'t>,
    depth: u32,
}

/// The variable `loop`.
pub(super) struct Loop<'t> {
    pub(super) items: Rc<List<'t>>,
    pub(super) index: usize,
    pub(super) depth: usize,
}

impl<'t> Value<'t> {
    pub(super) fn str(text: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
        budget.bytes(text.len())?;
        budget.values(1)?;
        Ok(Value::Str(text.into()))
    }

    /// A list of values already paid for.
    pub(super) fn list(items: Vec<Value<'t>>) -> Result<Value<'t>, Error> {
        let depth = depth_over(items.iter())?;
        Ok(Value::List(Rc::new(List { items, depth })))
    }

    /// A map of values already paid for; of equal keys the last one counts, in the place of the first.
    pub(super) fn map(pairs: Entries<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
        let depth = depth_over(pairs.iter().map(|(_, value)| value))?;
        let mut entries: Entries<'t> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            budget.bytes(search_bytes(entries.len(), &key))?;
            match entries.iter_mut().find(|(known, _)| *known == key) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        Ok(Value::Map(Rc::new(Map { entries, depth })))
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined => "undefined",
            Value::None => "none",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Namespace(_) => "a namespace",
            Value::Macro(_) => "a macro",
            Value::Function(_) => "a function",
            Value::Loop(_) => "a loop",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            Value::Namespace(_) | Value::Macro(_) | Value::Function(_) | Value::Loop(_) => true,
        }
    }

    pub(super) fn as_str(&self) -> Result<&Rc<str>, Error> {
        match self {
            Value::Str(text) => Ok(text),
            other => Err(Error::new(format!("expected a string, found {}", other.kind()))),
        }
    }

    pub(super) fn as_int(&self) -> Result<i64, Error> {
        match self {
            Value::Int(value) => Ok(*value),
            Value::Bool(value) => Ok((*value).into()),
            other => Err(Error::new(format!("expected an integer, found {}", other.kind()))),
        }
    }

    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// What a loop over the value sees.
    pub(super) fn items(&self, budget: &mut Budget) -> Result<Rc<List<'t>>, Error> {
        let items = match self {
            Value::List(list) => return Ok(Rc::clone(list)),
            Value::Undefined => Vec::new(),
            Value::Map(map) => {
                budget.values(map.entries.len())?;
                map.entries.iter().map(|(key, _)| Value::Str(Rc::clone(key))).collect()
            }
            Value::Str(text) => {
                budget.values(text.len())?;
                let mut buffer = [0; 4];
                text.chars().map(|ch| Value::Str((&*ch.encode_utf8(&mut buffer)).into())).collect()
            }
            other => return Err(Error::new(format!("{} cannot be looped over", other.kind()))),
        };
        Ok(Rc::new(List { items, depth: 1 }))
    }

    pub(super) fn len(&self, budget: &mut Budget) -> Result<usize, Error> {
        match self {
            Value::Undefined => Ok(0),
            Value::List(list) => Ok(list.items.len()),
            Value::Map(map) => Ok(map.entries.len()),
            Value::Str(text) => {
                budget.bytes(text.len())?;
                Ok(text.chars().count())
            }
            other => Err(Error::new(format!("{} has no length", other.kind()))),
        }
    }

    /// The entry of a map or the variable of a namespace.
    pub(super) fn entry(&self, key: &str, budget: &mut Budget) -> Result<Option<Value<'t>>, Error> {
        match self {
            Value::Map(map) => {
                budget.bytes(search_bytes(map.entries.len(), key))?;
                Ok(map.entries.iter().find(|(known, _)| **known == *key).map(|(_, value)| value.clone()))
            }
            Value::Namespace(variables) => {
                let variables = variables.borrow();
                budget.bytes(search_bytes(variables.len(), key))?;
                Ok(variables.iter().find(|(known, _)| **known == *key).map(|(_, value)| value.clone()))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn equals(&self, other: &Value<'t>, budget: &mut Budget) -> Result<bool, Error> {
        budget.step()?;
        Ok(match (self, other) {
            (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Str(a), Value::Str(b)) => {
                if a.len() == b.len() {
                    budget.bytes(a.len())?;
                }
                a == b
            }
            (Value::List(a), Value::List(b)) => {
                if a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(a), Value::Map(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    match other.entry(key, budget)? {
                        Some(theirs) if value.equals(&theirs, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (a, b) => match (a.as_number(), b.as_number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        })
    }

    /// The text the value prints as, like Python's `str`.
    pub(super) fn to_text(&self, budget: &mut Budget) -> Result<Rc<str>, Error> {
        if let Value::Str(text) = self {
            return Ok(Rc::clone(text));
        }
        let mut out = String::new();
        self.print(&mut out, false, budget)?;
        budget.bytes(out.len())?;
        Ok(out.into())
    }

    /// Appends what the value prints as; `quoted` like Python's `repr`.
    pub(super) fn print(&self, out: &mut String, quoted: bool, budget: &mut Budget) -> Result<(), Error> {
        budget.step()?;
        // Enough for any number and for the punctuation of a list.
        budget.bytes(32)?;
        match self {
            Value::Undefined => {}
            Value::None => out.push_str("None"),
            Value::Bool(true) => out.push_str("True"),
            Value::Bool(false) => out.push_str("False"),
            Value::Int(value) => push_display(out, value),
            Value::Float(value) => push_float(out, *value, budget)?,
            Value::Str(text) if quoted => {
                budget.bytes(text.len().saturating_mul(2))?;
                let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
                out.push(quote);
                for ch in text.chars() {
                    match ch {
                        '\n' => out.push_str("\\n"),
                        '\r' => out.push_str("\\r"),
                        '\t' => out.push_str("\\t"),
                        '\\' => out.push_str("\\\\"),
                        ch if ch == quote => out.extend(['\\', ch]),
                        ch => out.push(ch),
                    }
                }
                out.push(quote);
            }
            Value::Str(text) => {
                budget.bytes(text.len())?;
                out.push_str(text);
            }
            Value::List(list) => {
                out.push('[');
                for (i, item) in list.items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    item.print(out, true, budget)?;
                }
                out.push(']');
            }
            Value::Map(map) => {
                out.push('{');
                for (i, (key, value)) in map.entries.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    Value::Str(Rc::clone(key)).print(out, true, budget)?;
                    out.push_str(": ");
                    value.print(out, true, budget)?;
                }
                out.push('}');
            }
            other => return Err(Error::new(format!("{} cannot be printed", other.kind()))),
        }
        Ok(())
    }

    fn depth(&self) -> Result<u32, Error> {
        match self {
            Value::List(list) => Ok(list.depth),
            Value::Map(map) => Ok(map.depth),
            Value::Loop(_) | Value::Namespace(_) => {
                Err(Error::new(format!("{} cannot be stored in a value", self.kind())))
            }
            _ => Ok(0),
        }
    }

    /// Checks that the value may be a variable of a namespace.
    pub(super) fn check_storable(&self) -> Result<(), Error> {
        self.depth().map(drop)
    }
}

/// What it costs to compare a key with `n` others.
fn search_bytes(n: usize, key: &str) -> usize {
    n.saturating_mul(1 + key.len())
}

fn depth_over<'v, 't: 'v>(values: impl Iterator<Item = &'v Value<'t>>) -> Result<u32, Error> {
    let mut depth = 0;
    for value in values {
        depth = depth.max(value.depth()?);
    }
    if depth >= DEPTH_MAX { Err(Error::Limit("nesting")) } else { Ok(depth + 1) }
}

fn push_display(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

/// Appends a float as Python prints it.
pub(super) fn push_float(out: &mut String, value: f64, budget: &mut Budget) -> Result<(), Error> {
    // Rust writes exponents out: at most some 330 digits.
    budget.bytes(350)?;
    match value {
        value if value.is_nan() => out.push_str("nan"),
        value if value.is_infinite() => out.push_str(if value > 0.0 { "inf" } else { "-inf" }),
        value => {
            let start = out.len();
            push_display(out, value);
            if !out[start..].contains('.') {
                out.push_str(".0");
            }
        }
    }
    Ok(())
}
