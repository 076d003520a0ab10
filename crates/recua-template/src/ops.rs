//! Operators, attributes, items and slices.

use std::cmp::Ordering;

use crate::budget::Budget;
use crate::error::Error;
use crate::format::percent;
use crate::text::repeat;
use crate::tree::{BinaryOp, CompareOp};
use crate::value::Value;

const OVERFLOW: &str = "the result is no 64-bit integer";

pub(crate) fn negate<'t>(value: &Value<'t>) -> Result<Value<'t>, Error> {
    match value {
        Value::Float(value) => Ok(Value::Float(-value)),
        value => value.as_int()?.checked_neg().map(Value::Int).ok_or_else(|| Error::new(OVERFLOW)),
    }
}

pub(crate) fn plus<'t>(value: &Value<'t>) -> Result<Value<'t>, Error> {
    match value {
        Value::Float(value) => Ok(Value::Float(*value)),
        value => value.as_int().map(Value::Int),
    }
}

/// An operator on the values of both sides.
pub(crate) fn binary<'t>(
    op: BinaryOp,
    left: &Value<'t>,
    right: &Value<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match (op, left, right) {
        (BinaryOp::Concat, ..) => {
            let (left, right) = (left.to_text(budget)?, right.to_text(budget)?);
            concat(&left, &right, budget)
        }
        (BinaryOp::Add, Value::Str(left), Value::Str(right)) => concat(left, right, budget),
        (BinaryOp::Add, Value::List(a), Value::List(b)) if a.is_tuple == b.is_tuple => {
            budget.values(a.items.len() + b.items.len())?;
            let items = a.items.iter().chain(&b.items).cloned().collect();
            if a.is_tuple { Value::tuple(items) } else { Value::list(items) }
        }
        (BinaryOp::Mul, Value::Str(text), Value::Int(n))
        | (BinaryOp::Mul, Value::Int(n), Value::Str(text)) => {
            let repeated = repeat(text, *n, budget)?;
            Value::str(&repeated, budget)
        }
        (BinaryOp::Mul, Value::List(list), Value::Int(n))
        | (BinaryOp::Mul, Value::Int(n), Value::List(list)) => {
            // Of nothing, any number of copies is nothing.
            let n = if list.items.is_empty() { 0 } else { usize::try_from(*n).unwrap_or(0) };
            budget.values(list.items.len().saturating_mul(n))?;
            let items = std::iter::repeat_n(&list.items, n).flatten().cloned().collect();
            if list.is_tuple { Value::tuple(items) } else { Value::list(items) }
        }
        (BinaryOp::Rem, Value::Str(pattern), args) => {
            let text = match args {
                Value::List(list) if list.is_tuple => percent(pattern, &list.items, budget)?,
                other => percent(pattern, std::slice::from_ref(other), budget)?,
            };
            Value::str(&text, budget)
        }
        _ => arithmetic(op, left, right),
    }
}

fn concat<'t>(left: &str, right: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
    // The joined text, and the shared copy made of it.
    budget.bytes((left.len() + right.len()).saturating_mul(2))?;
    budget.values(1)?;
    Ok(Value::Str([left, right].concat().into()))
}

fn arithmetic<'t>(op: BinaryOp, left: &Value<'t>, right: &Value<'t>) -> Result<Value<'t>, Error> {
    let wrong = || {
        let advice = if op == BinaryOp::Add { "; ~ joins any two as text" } else { "" };
        Error::new(format!("{} and {} do not go together here{advice}", left.kind(), right.kind()))
    };
    if let (Ok(a), Ok(b)) = (left.as_int(), right.as_int()) {
        if b == 0 && matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Rem) {
            return Err(Error::new("division by zero"));
        }
        let result = match op {
            BinaryOp::Add => a.checked_add(b),
            BinaryOp::Sub => a.checked_sub(b),
            BinaryOp::Mul => a.checked_mul(b),
            BinaryOp::Div => return Ok(Value::Float(a as f64 / b as f64)),
            // Python rounds down and gives the remainder the divisor's sign.
            BinaryOp::FloorDiv => {
                a.checked_div(b).map(|quotient| quotient - i64::from(a % b != 0 && (a < 0) != (b < 0)))
            }
            BinaryOp::Rem => {
                a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
            }
            BinaryOp::Pow if b < 0 && a == 0 => return Err(Error::new("division by zero")),
            BinaryOp::Pow if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
            BinaryOp::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            _ => return Err(wrong()),
        };
        return result.map(Value::Int).ok_or_else(|| Error::new(OVERFLOW));
    }
    let (Some(a), Some(b)) = (left.as_number(), right.as_number()) else {
        return Err(wrong());
    };
    if b == 0.0 && matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Rem) {
        return Err(Error::new("division by zero"));
    }
    Ok(Value::Float(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::FloorDiv => (a / b).floor(),
        BinaryOp::Rem => a - b * (a / b).floor(),
        BinaryOp::Pow => a.powf(b),
        _ => return Err(wrong()),
    }))
}

pub(crate) fn compare<'t>(
    op: CompareOp,
    left: &Value<'t>,
    right: &Value<'t>,
    budget: &mut Budget,
) -> Result<bool, Error> {
    Ok(match op {
        CompareOp::Eq => left.equals(right, budget)?,
        CompareOp::Ne => !left.equals(right, budget)?,
        CompareOp::In => contains(right, left, budget)?,
        CompareOp::NotIn => !contains(right, left, budget)?,
        CompareOp::Lt => order(left, right, budget)? == Some(Ordering::Less),
        CompareOp::Gt => order(left, right, budget)? == Some(Ordering::Greater),
        CompareOp::Le => matches!(order(left, right, budget)?, Some(Ordering::Less | Ordering::Equal)),
        CompareOp::Ge => {
            matches!(order(left, right, budget)?, Some(Ordering::Greater | Ordering::Equal))
        }
    })
}

/// Less, equal or greater; neither if one is not a number.
pub(crate) fn order<'t>(
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

pub(crate) fn contains<'t>(
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
        Value::Map(_) | Value::Namespace(_) => Ok(container.entry_at(value, budget)?.is_some()),
        other => Err(Error::new(format!("{} cannot contain anything", other.kind()))),
    }
}

pub(crate) fn attribute<'t>(value: &Value<'t>, name: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match value {
        // As in Jinja, only one step into the unknown is forgiven: `message.tool.name` needs a `message.tool`.
        Value::Undefined => Err(Error::new(format!("{} has no attribute {name}", value.kind()))),
        Value::Loop(this) => {
            let (index, len) = (this.index, this.items.items.len());
            Ok(match name {
                "index" => Value::int(index + 1),
                "index0" => Value::int(index),
                "revindex" => Value::int(len - index),
                "revindex0" => Value::int(len - index - 1),
                "first" => Value::Bool(index == 0),
                "last" => Value::Bool(index + 1 == len),
                "length" => Value::int(len),
                "depth" => Value::int(this.depth),
                "depth0" => Value::int(this.depth - 1),
                "previtem" => match index.checked_sub(1) {
                    Some(previous) => this.items.items[previous].clone(),
                    None => Value::Undefined,
                },
                "nextitem" => this.items.items.get(index + 1).cloned().unwrap_or(Value::Undefined),
                _ => Value::Undefined,
            })
        }
        Value::Macro(decl) if name == "name" => Value::str(&decl.name, budget),
        value => Ok(value.entry(name, budget)?.unwrap_or(Value::Undefined)),
    }
}

pub(crate) fn item<'t>(value: &Value<'t>, key: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match (value, key) {
        (Value::Undefined, _) => Err(Error::new(format!("{} has no items", value.kind()))),
        (Value::Map(_), key) => Ok(value.entry_at(key, budget)?.unwrap_or(Value::Undefined)),
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

pub(crate) fn slice<'t>(
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
            let items = indices.map(|i| list.items[i].clone()).collect();
            if list.is_tuple { Value::tuple(items) } else { Value::list(items) }
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
