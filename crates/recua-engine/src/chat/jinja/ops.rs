//! Operators, attributes, items and slices.

use std::cmp::Ordering;

use minijinja::machinery::ast::{BinOpKind, CompareOpKind};
use minijinja::value::ValueKind;

use super::Error;
use super::budget::Budget;
use super::value::Value;

/// A literal of the template.
pub(super) fn constant<'t>(value: &minijinja::Value, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match value.kind() {
        ValueKind::None => Ok(Value::None),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::String => Value::str(value.as_str().unwrap_or_default(), budget),
        ValueKind::Number if value.is_integer() => {
            value.as_i64().map(Value::Int).ok_or_else(|| Error::new(OVERFLOW))
        }
        ValueKind::Number => {
            f64::try_from(value.clone()).map(Value::Float).map_err(|_| Error::new("not a number"))
        }
        other => Err(Error::new(format!("a literal {other} is not known"))),
    }
}

const OVERFLOW: &str = "the result is no 64-bit integer";

pub(super) fn negate<'t>(value: &Value<'t>) -> Result<Value<'t>, Error> {
    match value {
        Value::Float(value) => Ok(Value::Float(-value)),
        value => value.as_int()?.checked_neg().map(Value::Int).ok_or_else(|| Error::new(OVERFLOW)),
    }
}

/// Any operator but `and` and `or`, which do not evaluate both sides.
pub(super) fn binary<'t>(
    op: BinOpKind,
    left: &Value<'t>,
    right: &Value<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let comparison = match op {
        BinOpKind::Eq => CompareOpKind::Eq,
        BinOpKind::Ne => CompareOpKind::Ne,
        BinOpKind::Lt => CompareOpKind::Lt,
        BinOpKind::Lte => CompareOpKind::Lte,
        BinOpKind::Gt => CompareOpKind::Gt,
        BinOpKind::Gte => CompareOpKind::Gte,
        BinOpKind::In => CompareOpKind::In,
        BinOpKind::Concat => {
            let (left, right) = (left.to_text(budget)?, right.to_text(budget)?);
            return concat(&left, &right, budget);
        }
        BinOpKind::Add => return add(left, right, budget),
        _ => return arithmetic(op, left, right),
    };
    compare(comparison, left, right, budget).map(Value::Bool)
}

fn concat<'t>(left: &str, right: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
    // The joined text, and the shared copy made of it.
    budget.bytes((left.len() + right.len()).saturating_mul(2))?;
    budget.values(1)?;
    Ok(Value::Str([left, right].concat().into()))
}

fn add<'t>(left: &Value<'t>, right: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match (left, right) {
        (Value::Str(left), Value::Str(right)) => concat(left, right, budget),
        (Value::List(left), Value::List(right)) => {
            budget.values(left.items.len() + right.items.len())?;
            Value::list(left.items.iter().chain(&right.items).cloned().collect())
        }
        _ => arithmetic(BinOpKind::Add, left, right),
    }
}

fn arithmetic<'t>(op: BinOpKind, left: &Value<'t>, right: &Value<'t>) -> Result<Value<'t>, Error> {
    let wrong = || Error::new(format!("{} and {} do not go together here", left.kind(), right.kind()));
    if let (Ok(a), Ok(b)) = (left.as_int(), right.as_int()) {
        if b == 0 && matches!(op, BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem) {
            return Err(Error::new("division by zero"));
        }
        let result = match op {
            BinOpKind::Add => a.checked_add(b),
            BinOpKind::Sub => a.checked_sub(b),
            BinOpKind::Mul => a.checked_mul(b),
            BinOpKind::Div => return Ok(Value::Float(a as f64 / b as f64)),
            // Python rounds down and gives the remainder the divisor's sign.
            BinOpKind::FloorDiv => {
                a.checked_div(b).map(|quotient| quotient - i64::from(a % b != 0 && (a < 0) != (b < 0)))
            }
            BinOpKind::Rem => {
                a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
            }
            BinOpKind::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            _ => return Err(wrong()),
        };
        return result.map(Value::Int).ok_or_else(|| Error::new(OVERFLOW));
    }
    let (Some(a), Some(b)) = (left.as_number(), right.as_number()) else {
        return Err(wrong());
    };
    Ok(Value::Float(match op {
        BinOpKind::Add => a + b,
        BinOpKind::Sub => a - b,
        BinOpKind::Mul => a * b,
        BinOpKind::Div => a / b,
        BinOpKind::FloorDiv => (a / b).floor(),
        BinOpKind::Rem => a - b * (a / b).floor(),
        BinOpKind::Pow => a.powf(b),
        _ => return Err(wrong()),
    }))
}

pub(super) fn compare<'t>(
    op: CompareOpKind,
    left: &Value<'t>,
    right: &Value<'t>,
    budget: &mut Budget,
) -> Result<bool, Error> {
    Ok(match op {
        CompareOpKind::Eq => left.equals(right, budget)?,
        CompareOpKind::Ne => !left.equals(right, budget)?,
        CompareOpKind::In => contains(right, left, budget)?,
        CompareOpKind::NotIn => !contains(right, left, budget)?,
        CompareOpKind::Lt => order(left, right, budget)? == Some(Ordering::Less),
        CompareOpKind::Gt => order(left, right, budget)? == Some(Ordering::Greater),
        CompareOpKind::Lte => matches!(order(left, right, budget)?, Some(Ordering::Less | Ordering::Equal)),
        CompareOpKind::Gte => {
            matches!(order(left, right, budget)?, Some(Ordering::Greater | Ordering::Equal))
        }
    })
}

/// Less, equal or greater; neither if one is not a number.
pub(super) fn order<'t>(
    left: &Value<'t>,
    right: &Value<'t>,
    budget: &mut Budget,
) -> Result<Option<Ordering>, Error> {
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => {
            budget.bytes(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        _ => match (left.as_number(), right.as_number()) {
            (Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
            _ => Err(Error::new(format!("{} and {} have no order", left.kind(), right.kind()))),
        },
    }
}

pub(super) fn contains<'t>(
    container: &Value<'t>,
    value: &Value<'t>,
    budget: &mut Budget,
) -> Result<bool, Error> {
    match container {
        Value::Undefined => Ok(false),
        Value::Str(text) => {
            let needle = value.as_str()?;
            budget.bytes(text.len() + needle.len())?;
            Ok(text.contains(&**needle))
        }
        Value::List(list) => {
            for item in &list.items {
                if item.equals(value, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(_) | Value::Namespace(_) => match value {
            Value::Str(key) => Ok(container.entry(key, budget)?.is_some()),
            _ => Ok(false),
        },
        other => Err(Error::new(format!("{} contains nothing", other.kind()))),
    }
}

pub(super) fn attribute<'t>(value: &Value<'t>, name: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match value {
        // Only one step into the unknown is forgiven: `message.tool.name` needs a `message.tool`.
        Value::Undefined => Err(Error::new(format!("{} has no attribute {name}", value.kind()))),
        Value::Loop(this) => {
            let (index, len) = (this.index, this.items.items.len());
            Ok(match name {
                "index" => int(index + 1),
                "index0" => int(index),
                "revindex" => int(len - index),
                "revindex0" => int(len - index - 1),
                "first" => Value::Bool(index == 0),
                "last" => Value::Bool(index + 1 == len),
                "length" => int(len),
                "depth" => int(this.depth),
                "depth0" => int(this.depth - 1),
                "previtem" => match index.checked_sub(1) {
                    Some(previous) => this.items.items[previous].clone(),
                    None => Value::Undefined,
                },
                "nextitem" => this.items.items.get(index + 1).cloned().unwrap_or(Value::Undefined),
                other => return Err(Error::new(format!("loop.{other} is not known"))),
            })
        }
        value => Ok(value.entry(name, budget)?.unwrap_or(Value::Undefined)),
    }
}

/// A length as a value; no length comes near 2^63.
pub(super) fn int<'t>(n: usize) -> Value<'t> {
    Value::Int(n as i64)
}

pub(super) fn item<'t>(value: &Value<'t>, key: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match (value, key) {
        (Value::Undefined, _) => Err(Error::new(format!("{} has no items", value.kind()))),
        (_, Value::Str(name)) => attribute(value, name, budget),
        (Value::List(list), key) => {
            let len = list.items.len();
            Ok(place(key.as_int()?, len).map_or(Value::Undefined, |place| list.items[place].clone()))
        }
        (Value::Str(text), key) => {
            let len = value.len(budget)?;
            budget.bytes(text.len())?;
            match place(key.as_int()?, len).and_then(|place| text.chars().nth(place)) {
                Some(ch) => Value::str(ch.encode_utf8(&mut [0; 4]), budget),
                None => Ok(Value::Undefined),
            }
        }
        _ => Ok(Value::Undefined),
    }
}

/// The index that Python means.
fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

pub(super) fn slice<'t>(
    value: &Value<'t>,
    bounds: [Option<i64>; 3],
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let step = bounds[2].unwrap_or(1);
    if step == 0 {
        return Err(Error::new("the step of a slice is 0"));
    }
    let len = value.len(budget)?;
    let indices = slice_indices(bounds[0], bounds[1], step, len);
    match value {
        Value::Undefined => Ok(Value::Undefined),
        Value::List(list) => {
            budget.values(len)?;
            Value::list(indices.map(|i| list.items[i].clone()).collect())
        }
        Value::Str(text) => {
            // The characters, the slice and its shared copy.
            budget.bytes(text.len().saturating_mul(6))?;
            let chars: Vec<char> = text.chars().collect();
            let sliced: String = indices.map(|i| chars[i]).collect();
            budget.values(1)?;
            Ok(Value::Str(sliced.into()))
        }
        other => Err(Error::new(format!("{} cannot be sliced", other.kind()))),
    }
}

fn slice_indices(
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
    len: usize,
) -> impl Iterator<Item = usize> {
    let len = len as i64;
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |bound: i64| {
        let bound = if bound < 0 { bound.saturating_add(len) } else { bound };
        bound.clamp(lowest, highest)
    };
    let start = start.map_or(if step > 0 { lowest } else { highest }, clamp);
    let stop = stop.map_or(if step > 0 { highest } else { lowest }, clamp);
    std::iter::successors(Some(start), move |at| at.checked_add(step))
        .take_while(move |&at| if step > 0 { at < stop } else { at > stop })
        .map(|at| at as usize)
}
