//! Operators, attributes, items and slices.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::budget::{Budget, Buffer};
use crate::error::Error;
use crate::format::percent;
use crate::methods::OF_MAP;
use crate::text::{Text, push_escaped};
use crate::tree::{BinaryOp, CompareOp};
use crate::value::{Kind, Method, Value};

const OVERFLOW: &str = "the result is no 128-bit integer";

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
            let mut out = Buffer::new(budget)?;
            left.print(&mut out, false, budget)?;
            right.print(&mut out, false, budget)?;
            Value::built(out, budget)
        }
        (BinaryOp::Add, Value::Str(left), Value::Str(right)) => concat(left, right, budget),
        (BinaryOp::Add, Value::List(a), Value::List(b))
            if a.kind == b.kind && matches!(a.kind, Kind::List | Kind::Tuple) =>
        {
            let held = budget.values(a.items.len() + b.items.len())?;
            Value::row(a.kind, a.items.iter().chain(&b.items).cloned().collect(), held)
        }
        (BinaryOp::Mul, Value::Str(text), n @ (Value::Int(_) | Value::Bool(_)))
        | (BinaryOp::Mul, n @ (Value::Int(_) | Value::Bool(_)), Value::Str(text)) => {
            let mut out = Buffer::new(budget)?;
            out.push_n(text, n.as_size()?, budget)?;
            Text::built(out, budget).map(|made| Value::Str(made.marked(text.is_markup())))
        }
        (BinaryOp::Mul, Value::List(list), n @ (Value::Int(_) | Value::Bool(_)))
        | (BinaryOp::Mul, n @ (Value::Int(_) | Value::Bool(_)), Value::List(list))
            if matches!(list.kind, Kind::List | Kind::Tuple) =>
        {
            // Of nothing, any number of copies is nothing.
            let n = if list.items.is_empty() { 0 } else { n.as_size()? };
            let held = budget.values(list.items.len().saturating_mul(n))?;
            Value::row(list.kind, std::iter::repeat_n(&list.items, n).flatten().cloned().collect(), held)
        }
        (BinaryOp::Rem, Value::Str(pattern), args) => match args {
            Value::List(list) if list.kind == Kind::Tuple => percent(pattern, &list.items, None, budget),
            Value::Map(_) => percent(pattern, std::slice::from_ref(args), Some(args), budget),
            other => percent(pattern, std::slice::from_ref(other), None, budget),
        },
        _ => arithmetic(op, left, right),
    }
}

/// Two strings joined. If one of them is markup, the other one is escaped and the result is markup.
fn concat<'t>(left: &Text<'t>, right: &Text<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let is_markup = left.is_markup() || right.is_markup();
    let mut out = Buffer::new(budget)?;
    for text in [left, right] {
        if is_markup && !text.is_markup() {
            push_escaped(&mut out, text, budget)?;
        } else {
            out.push_str(text, budget)?;
        }
    }
    Text::built(out, budget).map(|text| Value::Str(text.marked(is_markup)))
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
                a.checked_div(b).map(|quotient| quotient - i128::from(a % b != 0 && (a < 0) != (b < 0)))
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

/// Less, equal or greater; neither if one is not a number. Lists are ordered by their first items that differ.
pub(crate) fn order<'t>(
    left: &Value<'t>,
    right: &Value<'t>,
    budget: &mut Budget,
) -> Result<Option<Ordering>, Error> {
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => {
            budget.scan(a.len().min(b.len()))?;
            Ok(Some((**a).cmp(&**b)))
        }
        (Value::List(a), Value::List(b))
            if a.kind == b.kind && matches!(a.kind, Kind::List | Kind::Tuple) =>
        {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !a.equals(b, budget)? {
                    return order(a, b, budget);
                }
            }
            Ok(Some(a.items.len().cmp(&b.items.len())))
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
            budget.scan(text.len() + needle.len())?;
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
        Value::Iter(_) => {
            while let Some(item) = container.first(budget)? {
                if item.equals(value, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(_) => Ok(container.entry_at(value, budget)?.is_some()),
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
        // A method comes before an entry of its name, so `schema.items` is not `schema['items']`.
        value => match method_of_map(value, name, budget)? {
            Some(method) => Ok(method),
            None => Ok(value.entry(name, budget)?.unwrap_or(Value::Undefined)),
        },
    }
}

/// The method of a mapping of that name, to be called or not. Those that would change it are not to be had.
fn method_of_map<'t>(value: &Value<'t>, name: &str, budget: &mut Budget) -> Result<Option<Value<'t>>, Error> {
    let Value::Map(_) = value else { return Ok(None) };
    match OF_MAP.into_iter().find(|known| *known == name) {
        Some(name) => {
            let held = budget.values(2)?;
            Ok(Some(Value::Method(Rc::new(Method { object: value.clone(), name, _held: held }))))
        }
        None if ["clear", "pop", "popitem", "setdefault", "update"].contains(&name) => {
            Ok(Some(Value::Undefined))
        }
        None => Ok(None),
    }
}

pub(crate) fn item<'t>(value: &Value<'t>, key: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match (value, key) {
        (Value::Undefined, _) => Err(Error::new(format!("{} has no items", value.kind()))),
        (Value::Map(_), key) if key.is_key_like() => match (value.entry_at(key, budget)?, key) {
            (Some(found), _) => Ok(found),
            (None, Value::Str(name)) => Ok(method_of_map(value, name, budget)?.unwrap_or(Value::Undefined)),
            (None, _) => Ok(Value::Undefined),
        },
        (Value::Map(_), _) => Ok(Value::Undefined),
        (_, Value::Str(name)) => attribute(value, name, budget),
        (Value::List(list), Value::Int(_) | Value::Bool(_)) if list.kind.is_sequence() => {
            let len = list.items.len();
            Ok(place(key.as_int()?, len).map_or(Value::Undefined, |place| list.items[place].clone()))
        }
        (Value::Str(text), Value::Int(_) | Value::Bool(_)) => {
            let len = value.len(budget)?;
            budget.scan(text.len())?;
            match place(key.as_int()?, len).and_then(|place| text.chars().nth(place)) {
                Some(ch) => {
                    let ch = Text::new(ch.encode_utf8(&mut [0; 4]), budget)?;
                    Ok(Value::Str(ch.marked(text.is_markup())))
                }
                None => Ok(Value::Undefined),
            }
        }
        _ => Ok(Value::Undefined),
    }
}

/// The index that Python means.
fn place(index: i128, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(len as i128)? } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

pub(crate) fn slice<'t>(
    value: &Value<'t>,
    bounds: [Option<i128>; 3],
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let step = bounds[2].unwrap_or(1);
    if step == 0 {
        return Err(Error::new("the step of a slice is 0"));
    }
    match value {
        Value::List(list) if list.kind.is_sequence() => {
            let len = list.items.len();
            let n = slice_indices(bounds, step, len).count();
            let held = budget.values(n)?;
            let items = slice_indices(bounds, step, len).map(|i| list.items[i].clone()).collect();
            Value::row(if list.kind == Kind::Tuple { Kind::Tuple } else { Kind::List }, items, held)
        }
        Value::Str(text) => {
            let len = value.len(budget)?;
            let sliced = if step == 1 {
                budget.scan(text.len())?;
                let (start, end) = slice_ends(bounds, step, len);
                let at = |n: i128| text.char_indices().nth(n as usize).map_or(text.len(), |(at, _)| at);
                Text::new(if start < end { &text[at(start)..at(end)] } else { "" }, budget)?
            } else {
                // The characters, and the slice.
                budget.room(text.len().saturating_mul(6))?;
                let chars: Vec<char> = text.chars().collect();
                let sliced: String = slice_indices(bounds, step, len).map(|i| chars[i]).collect();
                Text::new(&sliced, budget)?
            };
            Ok(Value::Str(sliced.marked(text.is_markup())))
        }
        Value::Undefined => Err(Error::new("undefined cannot be sliced")),
        // As with a key that is no key of it.
        _ => Ok(Value::Undefined),
    }
}

fn slice_indices(bounds: [Option<i128>; 3], step: i128, len: usize) -> impl Iterator<Item = usize> {
    let (start, end) = slice_ends(bounds, step, len);
    std::iter::successors(Some(start), move |at| at.checked_add(step))
        .take_while(move |&at| if step > 0 { at < end } else { at > end })
        .map(|at| at as usize)
}

/// The first index of a slice, and that before which it ends.
fn slice_ends(bounds: [Option<i128>; 3], step: i128, len: usize) -> (i128, i128) {
    let len = len as i128;
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |bound: i128| {
        let bound = if bound < 0 { bound.saturating_add(len) } else { bound };
        bound.clamp(lowest, highest)
    };
    let start = bounds[0].map_or(if step > 0 { lowest } else { highest }, clamp);
    (start, bounds[1].map_or(if step > 0 { highest } else { lowest }, clamp))
}
