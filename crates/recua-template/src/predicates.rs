//! The tests, which follow `is`.

use crate::args::{Args, Takes};
use crate::budget::Budget;
use crate::error::Error;
use crate::tree::CompareOp;
use crate::value::{Kind, Value};
use crate::{filters, ops};

/// The tests that compare with something, and those that do not.
const WITH_OTHER: [&str; 20] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "le",
    "lessthan",
    "lt",
    "ne",
    "sameas",
    "startingwith",
];
const ALONE: [&str; 21] = [
    "boolean",
    "callable",
    "defined",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

pub(crate) fn test<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<bool, Error> {
    if WITH_OTHER.contains(&name) {
        args.check(name, Takes::Only(&["other"]), budget)?;
    } else if ALONE.contains(&name) {
        args.check(name, Takes::Only(&[]), budget)?;
    }
    let other = || args.require(0, "other");
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(CompareOp::Eq),
        "ne" | "!=" => Some(CompareOp::Ne),
        "lt" | "lessthan" | "<" => Some(CompareOp::Lt),
        "le" | "<=" => Some(CompareOp::Le),
        "gt" | "greaterthan" | ">" => Some(CompareOp::Gt),
        "ge" | ">=" => Some(CompareOp::Ge),
        "in" => Some(CompareOp::In),
        _ => None,
    };
    if let Some(op) = comparison {
        return ops::compare(op, value, other()?, budget);
    }
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined),
        "undefined" => matches!(value, Value::Undefined),
        "none" => matches!(value, Value::None),
        "string" => matches!(value, Value::Str(_)),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        // To Python a boolean is a number.
        "number" => value.as_number().is_some(),
        "mapping" => matches!(value, Value::Map(_)),
        "sequence" | "iterable" => match value {
            Value::List(list) => name == "iterable" || !matches!(list.kind, Kind::View(_)),
            Value::Iter(_) => name == "iterable",
            value => matches!(value, Value::Str(_) | Value::Map(_) | Value::Undefined),
        },
        "escaped" => matches!(value, Value::Str(text) if text.is_markup()),
        "filter" => {
            matches!(value, Value::Str(name) if filters::FILTERS.iter().any(|(known, _)| **known == **name))
        }
        "test" => {
            let Value::Str(name) = value else { return Ok(false) };
            WITH_OTHER.contains(&&**name) || ALONE.contains(&&**name)
        }
        "callable" => {
            matches!(
                value,
                Value::Macro(_) | Value::Caller(_) | Value::Function(_) | Value::Method(_) | Value::Joiner(_)
            )
        }
        "odd" => value.as_int()?.rem_euclid(2) == 1,
        "even" => value.as_int()?.rem_euclid(2) == 0,
        "divisibleby" => {
            let divisor = other()?.as_int()?;
            value.as_int()?.checked_rem(divisor).ok_or_else(|| Error::new("division by zero"))? == 0
        }
        "sameas" => {
            std::mem::discriminant(value) == std::mem::discriminant(other()?)
                && value.equals(other()?, budget)?
        }
        "lower" | "upper" => {
            let text = value.to_text(budget)?;
            budget.scan(text.len())?;
            let (lower, upper) = (text.chars().any(char::is_lowercase), text.chars().any(char::is_uppercase));
            lower != upper && lower == (name == "lower")
        }
        "startingwith" | "endingwith" => {
            let (text, part) = (value.as_str()?, other()?.as_str()?);
            budget.scan(part.len())?;
            if name == "startingwith" { text.starts_with(&**part) } else { text.ends_with(&**part) }
        }
        other => {
            let name: String = other.chars().take(60).collect();
            return Err(Error::new(format!(
                "the test {name} is not known; known are {}",
                [&ALONE[..], &WITH_OTHER[..]].concat().join(", ")
            )));
        }
    })
}
