//! The values of a template: those of Python that chat templates need.
//!
//! Lists and maps never change once made, and their depth is bounded, so neither comparing, printing nor dropping a
//! value recurses far. A namespace does change, so a cycle can run through one; the evaluator empties all of them when
//! a rendering ends.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Error;
use crate::text::{push_float, push_quoted};
use crate::tree::{For, Macro};

/// How deep lists and maps may be nested.
const DEPTH_MAX: u32 = 64;

/// Keys with their values, in order.
pub(crate) type Entries<'t> = Vec<(Value<'t>, Value<'t>)>;

#[derive(Clone)]
pub(crate) enum Value<'t> {
    /// The value of a name that is not bound.
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    List(Rc<List<'t>>),
    Map(Rc<Map<'t>>),
    Namespace(Rc<Namespace<'t>>),
    Macro(&'t Macro),
    Caller(Caller<'t>),
    Function(Function),
    Joiner(Rc<Joiner>),
    Loop(Rc<Loop<'t>>),
}

/// The functions that every template may call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    RaiseException,
    StrftimeNow,
    Namespace,
    Range,
    Dict,
    Joiner,
}

/// A list, or a tuple, which prints with parentheses and equals no list.
pub(crate) struct List<'t> {
    pub(crate) items: Vec<Value<'t>>,
    pub(crate) is_tuple: bool,
    depth: u32,
}

pub(crate) struct Map<'t> {
    pub(crate) entries: Entries<'t>,
    depth: u32,
}

/// Variables that a template can set from anywhere.
pub(crate) struct Namespace<'t> {
    pub(crate) variables: RefCell<Vec<(Rc<str>, Value<'t>)>>,
}

/// The block of `{% call %}`, and which variables it sees.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'t> {
    pub(crate) block: &'t Macro,
    /// The innermost frame of the place where the block stands, exclusive.
    pub(crate) n_frames: usize,
    /// That place's first frame.
    pub(crate) base: usize,
}

/// A separator that is empty the first time.
pub(crate) struct Joiner {
    pub(crate) separator: Rc<str>,
    pub(crate) is_used: Cell<bool>,
}

/// The variable `loop`.
pub(crate) struct Loop<'t> {
    pub(crate) items: Rc<List<'t>>,
    pub(crate) index: usize,
    /// From 1, counting the calls of a recursive loop.
    pub(crate) depth: usize,
    pub(crate) stmt: &'t For,
    /// The last arguments of `loop.changed`; shared by all rounds.
    pub(crate) last: Rc<RefCell<Option<Value<'t>>>>,
}

/// The evaluated arguments of a call.
pub(crate) struct Args<'t> {
    pub(crate) positional: Vec<Value<'t>>,
    pub(crate) named: Vec<(Cow<'t, str>, Value<'t>)>,
}

impl<'t> Args<'t> {
    /// The argument at a place or of a name.
    pub(crate) fn get(&self, i: usize, name: &str) -> Option<&Value<'t>> {
        self.positional.get(i).or_else(|| self.named(name))
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Value<'t>> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(crate) fn require(&self, i: usize, name: &str) -> Result<&Value<'t>, Error> {
        self.get(i, name).ok_or_else(|| Error::new(format!("the argument {name} is missing")))
    }

    /// Whether the argument is there and true.
    pub(crate) fn flag(&self, i: usize, name: &str) -> bool {
        self.get(i, name).is_some_and(Value::is_true)
    }

    /// The argument as an integer, or a default.
    pub(crate) fn int(&self, i: usize, name: &str, default: i64) -> Result<i64, Error> {
        self.get(i, name).map_or(Ok(default), Value::as_int)
    }

    /// The argument as a string, unless it is absent or `none`.
    pub(crate) fn optional_str(&self, i: usize, name: &str) -> Result<Option<&Rc<str>>, Error> {
        match self.get(i, name) {
            None | Some(Value::None) => Ok(None),
            Some(value) => value.as_str().map(Some),
        }
    }
}

impl<'t> Value<'t> {
    pub(crate) fn str(text: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
        budget.bytes(text.len())?;
        budget.values(1)?;
        Ok(Value::Str(text.into()))
    }

    /// A length as a value; no length comes near 2^63.
    pub(crate) fn int(n: usize) -> Value<'t> {
        Value::Int(n as i64)
    }

    /// A list of values already paid for.
    pub(crate) fn list(items: Vec<Value<'t>>) -> Result<Value<'t>, Error> {
        let depth = depth_over(items.iter())?;
        Ok(Value::List(Rc::new(List { items, is_tuple: false, depth })))
    }

    /// A tuple of values already paid for.
    pub(crate) fn tuple(items: Vec<Value<'t>>) -> Result<Value<'t>, Error> {
        let depth = depth_over(items.iter())?;
        Ok(Value::List(Rc::new(List { items, is_tuple: true, depth })))
    }

    /// A map of values already paid for; of equal keys the last one counts, in the place of the first.
    pub(crate) fn map(pairs: Entries<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
        let depth = depth_over(pairs.iter().map(|(_, value)| value))?;
        let mut entries: Entries<'t> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            budget.bytes(search_bytes(entries.len(), key.key_len()?))?;
            match entries.iter_mut().find(|(known, _)| known.is_key(&key)) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        Ok(Value::Map(Rc::new(Map { entries, depth })))
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined => "undefined",
            Value::None => "none",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Str(_) => "a string",
            Value::List(list) if list.is_tuple => "a tuple",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Namespace(_) => "a namespace",
            Value::Macro(_) | Value::Caller(_) => "a macro",
            Value::Function(_) | Value::Joiner(_) => "a function",
            Value::Loop(_) => "a loop",
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Undefined | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            _ => true,
        }
    }

    pub(crate) fn as_str(&self) -> Result<&Rc<str>, Error> {
        match self {
            Value::Str(text) => Ok(text),
            other => Err(Error::new(format!("expected a string, found {}", other.kind()))),
        }
    }

    pub(crate) fn as_int(&self) -> Result<i64, Error> {
        match self {
            Value::Int(value) => Ok(*value),
            Value::Bool(value) => Ok((*value).into()),
            other => Err(Error::new(format!("expected an integer, found {}", other.kind()))),
        }
    }

    pub(crate) fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Result<&Map<'t>, Error> {
        match self {
            Value::Map(map) => Ok(map),
            other => Err(Error::new(format!("expected a mapping, found {}", other.kind()))),
        }
    }

    /// The items that a loop over the value sees.
    pub(crate) fn items(&self, budget: &mut Budget) -> Result<Rc<List<'t>>, Error> {
        let items = match self {
            Value::List(list) => return Ok(Rc::clone(list)),
            Value::Undefined => Vec::new(),
            Value::Map(map) => {
                budget.values(map.entries.len())?;
                map.entries.iter().map(|(key, _)| key.clone()).collect()
            }
            Value::Str(text) => {
                budget.values(text.len())?;
                let mut buffer = [0; 4];
                text.chars().map(|ch| Value::Str((&*ch.encode_utf8(&mut buffer)).into())).collect()
            }
            other => return Err(Error::new(format!("{} cannot be looped over", other.kind()))),
        };
        Ok(Rc::new(List { items, is_tuple: false, depth: 1 }))
    }

    pub(crate) fn len(&self, budget: &mut Budget) -> Result<usize, Error> {
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
    pub(crate) fn entry(&self, key: &str, budget: &mut Budget) -> Result<Option<Value<'t>>, Error> {
        match self {
            Value::Map(map) => {
                budget.bytes(search_bytes(map.entries.len(), key.len()))?;
                let is_key = |known: &Value<'t>| matches!(known, Value::Str(known) if **known == *key);
                Ok(map.entries.iter().find(|(known, _)| is_key(known)).map(|(_, value)| value.clone()))
            }
            Value::Namespace(namespace) => {
                let variables = namespace.variables.borrow();
                budget.bytes(search_bytes(variables.len(), key.len()))?;
                Ok(variables.iter().find(|(known, _)| **known == *key).map(|(_, value)| value.clone()))
            }
            _ => Ok(None),
        }
    }

    /// The entry of a map under a key that need not be a string.
    pub(crate) fn entry_at(&self, key: &Value<'t>, budget: &mut Budget) -> Result<Option<Value<'t>>, Error> {
        match (self, key) {
            (_, Value::Str(key)) => self.entry(key, budget),
            (Value::Map(map), key) => {
                budget.bytes(search_bytes(map.entries.len(), key.key_len()?))?;
                Ok(map.entries.iter().find(|(known, _)| known.is_key(key)).map(|(_, value)| value.clone()))
            }
            _ => Ok(None),
        }
    }

    /// The bytes to compare of a key; an error if the value cannot be one.
    fn key_len(&self) -> Result<usize, Error> {
        match self {
            Value::Str(text) => Ok(text.len()),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => Ok(8),
            other => Err(Error::new(format!("{} cannot be a key of a mapping; a string can", other.kind()))),
        }
    }

    /// Whether two keys are the same one.
    fn is_key(&self, other: &Value<'t>) -> bool {
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::None, Value::None) => true,
            (a, b) => a.as_number().is_some_and(|a| b.as_number() == Some(a)),
        }
    }

    pub(crate) fn equals(&self, other: &Value<'t>, budget: &mut Budget) -> Result<bool, Error> {
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
                if a.items.len() != b.items.len() || a.is_tuple != b.is_tuple {
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
                    match other.entry_at(key, budget)? {
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
    pub(crate) fn to_text(&self, budget: &mut Budget) -> Result<Rc<str>, Error> {
        if let Value::Str(text) = self {
            return Ok(Rc::clone(text));
        }
        let mut out = String::new();
        self.print(&mut out, false, budget)?;
        budget.bytes(out.len())?;
        Ok(out.into())
    }

    /// Appends the text that the value prints as; `quoted` like Python's `repr`.
    pub(crate) fn print(&self, out: &mut String, quoted: bool, budget: &mut Budget) -> Result<(), Error> {
        budget.enter()?;
        // Enough for any integer and for the punctuation of a list.
        budget.bytes(32)?;
        match self {
            Value::Undefined if quoted => out.push_str("Undefined"),
            Value::Undefined => {}
            Value::None => out.push_str("None"),
            Value::Bool(true) => out.push_str("True"),
            Value::Bool(false) => out.push_str("False"),
            Value::Int(value) => out.push_str(&value.to_string()),
            Value::Float(value) => push_float(out, *value, budget)?,
            Value::Str(text) if quoted => push_quoted(out, text, budget)?,
            Value::Str(text) => {
                budget.bytes(text.len())?;
                out.push_str(text);
            }
            Value::List(list) => {
                out.push(if list.is_tuple { '(' } else { '[' });
                for (i, item) in list.items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    item.print(out, true, budget)?;
                }
                out.push_str(match (list.is_tuple, list.items.len()) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    (false, _) => "]",
                });
            }
            Value::Map(map) => {
                out.push('{');
                for (i, (key, value)) in map.entries.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    key.print(out, true, budget)?;
                    out.push_str(": ");
                    value.print(out, true, budget)?;
                }
                out.push('}');
            }
            Value::Namespace(namespace) => {
                out.push_str("<Namespace {");
                for (i, (name, value)) in namespace.variables.borrow().iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    push_quoted(out, name, budget)?;
                    out.push_str(": ");
                    value.print(out, true, budget)?;
                }
                out.push_str("}>");
            }
            other => return Err(Error::new(format!("{} cannot be printed", other.kind()))),
        }
        budget.leave();
        Ok(())
    }

    fn depth(&self) -> Result<u32, Error> {
        match self {
            Value::List(list) => Ok(list.depth),
            Value::Map(map) => Ok(map.depth),
            // A loop holds a list, and a block's variables end with it.
            Value::Loop(_) | Value::Caller(_) => {
                Err(Error::new(format!("{} cannot be stored in a value", self.kind())))
            }
            _ => Ok(0),
        }
    }

    /// Checks that the value may be a variable of a namespace.
    pub(crate) fn check_storable(&self) -> Result<(), Error> {
        self.depth().map(drop)
    }
}

/// The bytes to pay for comparing a key of `len` bytes with `n` others.
fn search_bytes(n: usize, len: usize) -> usize {
    n.saturating_mul(1 + len)
}

fn depth_over<'v, 't: 'v>(values: impl Iterator<Item = &'v Value<'t>>) -> Result<u32, Error> {
    let mut depth = 0;
    for value in values {
        depth = depth.max(value.depth()?);
    }
    if depth >= DEPTH_MAX { Err(Error::Limit("nesting")) } else { Ok(depth + 1) }
}
