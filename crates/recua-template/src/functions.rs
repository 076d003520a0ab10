//! The functions that every template may call.

use std::cell::Cell;
use std::rc::Rc;

use crate::args::{Args, Takes};
use crate::budget::{Budget, VALUE_BYTES};
use crate::clock::{self, LocalTime};
use crate::error::Error;
use crate::text::Text;
use crate::value::{Function, Joiner, Kind, Namespace, Value};

/// The most numbers of a range: as many as Jinja's sandbox allows.
const RANGE_MAX: u128 = 100_000;

/// The names under which templates find the functions.
pub(crate) const FUNCTIONS: [(&str, Function); 6] = [
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
    ("namespace", Function::Namespace),
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("joiner", Function::Joiner),
];

/// Calls a function.
pub(crate) fn call<'t>(
    function: Function,
    args: &Args<'t>,
    now: LocalTime,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let name = FUNCTIONS.iter().find(|(_, known)| *known == function).map_or("", |(name, _)| name);
    args.check(
        name,
        match function {
            Function::RaiseException => Takes::Only(&["message"]),
            Function::StrftimeNow => Takes::Only(&["format"]),
            Function::Joiner => Takes::Only(&["sep"]),
            Function::Range => Takes::Many,
            Function::Dict | Function::Namespace => Takes::Any,
        },
        budget,
    )?;
    match function {
        Function::RaiseException => {
            let message = args.require(0, "message")?.to_text(budget)?;
            Err(Error::Raised(message.chars().take(1000).collect()))
        }
        Function::StrftimeNow => {
            let text = clock::format(now, args.require(0, "format")?.as_str()?, budget)?;
            Value::built(text, budget)
        }
        Function::Dict => dict(args, budget),
        Function::Namespace => {
            let namespace = Namespace::new(budget)?;
            for (key, value) in &dict(args, budget)?.as_map()?.entries {
                namespace.set(key.as_str()?, value.clone(), budget)?;
            }
            Ok(Value::Namespace(Rc::new(namespace)))
        }
        Function::Joiner => {
            let separator = match args.get(0, "sep") {
                Some(separator) => separator.to_text(budget)?,
                None => Text::literal(", "),
            };
            let joiner = Joiner { separator, is_used: Cell::new(false), _held: budget.values(2)? };
            Ok(Value::Joiner(Rc::new(joiner)))
        }
        Function::Range => range(args, budget),
    }
}

/// A mapping of another one, or a list of pairs, and of named arguments.
fn dict<'t>(args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    if args.positional.len() > 1 {
        return Err(Error::new("a mapping is made of at most one other, and of arguments with names"));
    }
    let mut held = budget.values(args.named.len().saturating_mul(2))?;
    let mut entries = Vec::new();
    match args.positional.first() {
        None => {}
        Some(Value::Map(map)) => {
            held.add(map.entries.len().saturating_mul(2 * VALUE_BYTES))?;
            entries.extend(map.entries.iter().cloned());
        }
        Some(Value::Undefined) => return Err(Error::new("undefined cannot be made a mapping")),
        Some(pairs) => {
            let pairs = pairs.items(budget)?;
            held.add(pairs.items.len().saturating_mul(2 * VALUE_BYTES))?;
            for pair in &pairs.items {
                match &pair.items(budget)?.items[..] {
                    [key, value] => entries.push((key.clone(), value.clone())),
                    _ => return Err(Error::new("a mapping is made of another one, or of a list of pairs")),
                }
            }
        }
    }
    for (name, value) in &args.named {
        entries.push((Value::str(name, budget)?, value.clone()));
    }
    Value::map(entries, held, budget)
}

fn range<'t>(args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let (start, stop, step) = match &args.positional[..] {
        [stop] => (0, stop.as_int()?, 1),
        [start, stop] => (start.as_int()?, stop.as_int()?, 1),
        [start, stop, step] => (start.as_int()?, stop.as_int()?, step.as_int()?),
        _ => return Err(Error::new("range takes a stop, or start and stop, or start, stop and step")),
    };
    if step == 0 {
        return Err(Error::new("the step of range is 0; 1 counts up, -1 down"));
    }
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let n = u128::try_from(distance).unwrap_or(0).div_ceil(step.unsigned_abs());
    // What Jinja allows in its sandbox.
    if n > RANGE_MAX {
        return Err(Error::new(format!("a range of {n} numbers is too large; {RANGE_MAX} are accepted")));
    }
    let held = budget.values(n as usize)?;
    // The last one lies before `stop`, so none of them overflows.
    let items = (0..n as i128).map(|i| Value::Int(start.wrapping_add(i.wrapping_mul(step)))).collect();
    Value::row(Kind::Range { start, stop, step }, items, held)
}
