//! The tests, which follow `is`.

use crate::budget::Budget;
use crate::error::Error;
use crate::ops;
use crate::tree::CompareOp;
use crate::value::Value;

pub(crate) fn test<'t>(
    name: &str,
    value: &Value<'t>,
    args: &[Value<'t>],
    budget: &mut Budget,
) -> Result<bool, Error> {
    let other = || args.first().ok_or_else(|| Error::new(format!("the test {name} lacks its argument")));
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
        "sequence" | "iterable" => matches!(value, Value::List(_) | Value::Str(_) | Value::Map(_)),
        "callable" => matches!(value, Value::Macro(_) | Value::Function(_)),
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
            let text = value.as_str()?;
            budget.bytes(text.len())?;
            let wrong = |ch: char| if name == "lower" { ch.is_uppercase() } else { ch.is_lowercase() };
            !text.chars().any(wrong)
        }
        "startingwith" | "endingwith" => {
            let (text, part) = (value.as_str()?, other()?.as_str()?);
            budget.bytes(part.len())?;
            if name == "startingwith" { text.starts_with(&**part) } else { text.ends_with(&**part) }
        }
        other => return Err(Error::new(format!("the test {other} is not known"))),
    })
}
