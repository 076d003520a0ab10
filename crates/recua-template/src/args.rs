//! The arguments of calls, filters and tests.

use std::borrow::Cow;

use crate::budget::{Budget, Held};
use crate::error::Error;
use crate::text::Text;
use crate::value::Value;

/// The evaluated arguments of a call.
pub(crate) struct Args<'t> {
    pub(crate) positional: Vec<Value<'t>>,
    pub(crate) named: Vec<(Cow<'t, str>, Value<'t>)>,
    pub(crate) held: Held,
}

/// What a function, filter, method or test takes.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// At most these, by position or by name.
    Only(&'static [&'static str]),
    /// Any number by position, and none by name.
    Many,
    /// Any.
    Any,
}

impl<'t> Args<'t> {
    /// Checks that there is nothing but what is known; an argument that nobody reads is a mistake.
    pub(crate) fn check(&self, of: &str, takes: Takes, budget: &mut Budget) -> Result<(), Error> {
        let known = match takes {
            Takes::Any => return Ok(()),
            Takes::Many if self.named.is_empty() => return Ok(()),
            Takes::Many => &[][..],
            Takes::Only(known) => known,
        };
        budget.scan(self.named.len().saturating_mul(known.len()))?;
        for (i, (name, _)) in self.named.iter().enumerate() {
            let place = known.iter().position(|known| **known == **name);
            let is_twice = place.is_some_and(|place| place < self.positional.len())
                || (i < known.len() && self.named[..i].iter().any(|(other, _)| other == name));
            if place.is_none() || is_twice {
                let name: String = name.chars().take(60).collect();
                return Err(match (is_twice, known) {
                    (true, _) => Error::new(format!("{of} is given the argument {name} twice")),
                    (_, []) => Error::new(format!("{of} takes no argument with a name, such as {name}")),
                    _ => Error::new(format!("{of} takes no {name}; it takes {}", known.join(", "))),
                });
            }
        }
        match known.len() {
            _ if matches!(takes, Takes::Many) || self.positional.len() <= known.len() => Ok(()),
            0 => Err(Error::new(format!("{of} takes no argument"))),
            n => Err(Error::new(format!("{of} takes at most {n} arguments: {}", known.join(", ")))),
        }
    }

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
    pub(crate) fn int(&self, i: usize, name: &str, default: i128) -> Result<i128, Error> {
        self.get(i, name).map_or(Ok(default), Value::as_int)
    }

    /// The argument, unless it is absent or `none`.
    pub(crate) fn optional(&self, i: usize, name: &str) -> Option<&Value<'t>> {
        self.get(i, name).filter(|value| !matches!(value, Value::None))
    }

    /// The argument as a string, unless it is absent or `none`.
    pub(crate) fn optional_str(&self, i: usize, name: &str) -> Result<Option<&Text<'t>>, Error> {
        self.optional(i, name).map(Value::as_str).transpose()
    }
}
