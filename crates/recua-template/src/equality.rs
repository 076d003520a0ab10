//! When two values are equal, and when two keys of a mapping are the same.

use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Kind, Value};

impl<'t> Value<'t> {
    /// The bytes to compare of a key; an error if the value cannot be one.
    pub(crate) fn key_len(&self) -> Result<usize, Error> {
        match self {
            Value::Str(text) => Ok(text.len()),
            Value::List(list) if list.kind == Kind::Tuple => {
                let mut len = 8usize;
                for item in &list.items {
                    len = len.saturating_add(item.key_len()?);
                }
                Ok(len)
            }
            Value::List(_) | Value::Map(_) => {
                Err(Error::new(format!("{} cannot be a key of a mapping; a string can", self.kind())))
            }
            _ => Ok(16),
        }
    }

    /// Whether a mapping could have the value as a key.
    pub(crate) fn is_key_like(&self) -> bool {
        self.key_len().is_ok()
    }

    /// Whether two keys are the same one.
    pub(crate) fn is_key(&self, other: &Value<'t>) -> bool {
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::None, Value::None) | (Value::Undefined, Value::Undefined) => true,
            (Value::List(a), Value::List(b)) => {
                a.items.len() == b.items.len() && a.items.iter().zip(&b.items).all(|(a, b)| a.is_key(b))
            }
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
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
                    budget.scan(a.len())?;
                }
                a == b
            }
            (Value::List(a), Value::List(b)) => {
                if a.items.len() != b.items.len()
                    || std::mem::discriminant(&a.kind) != std::mem::discriminant(&b.kind)
                {
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
            (Value::Iter(a), Value::Iter(b)) => Rc::ptr_eq(a, b),
            (a, b) => match (a.as_number(), b.as_number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        })
    }
}
