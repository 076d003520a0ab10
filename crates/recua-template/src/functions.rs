//! The functions that every template may call.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::budget::Budget;
use crate::clock;
use crate::error::Error;
use crate::value::{Args, Function, Joiner, Namespace, Value};

/// The names under which templates find the functions.
pub(crate) const FUNCTIONS: [(&str, Function); 6] = [
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
    ("namespace", Function::Namespace),
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("joiner", Function::Joiner),
];

/// Calls a function; `now` is in seconds since 1970.
pub(crate) fn call<'t>(
    function: Function,
    args: &Args<'t>,
    now: u64,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match function {
        Function::RaiseException => {
            let message = args.require(0, "message")?.to_text(budget)?;
            Err(Error::Raised(message.chars().take(1000).collect()))
        }
        Function::StrftimeNow => {
            let text = clock::format(now, args.require(0, "format")?.as_str()?, budget)?;
            Value::str(&text, budget)
        }
        Function::Dict => dict(args, budget),
        Function::Namespace => {
            let variables = dict(args, budget)?;
            let entries = &variables.as_map()?.entries;
            budget.values(entries.len())?;
            let named = entries.iter().map(|(key, value)| Ok((Rc::clone(key.as_str()?), value.clone())));
            let variables = RefCell::new(named.collect::<Result<_, Error>>()?);
            Ok(Value::Namespace(Rc::new(Namespace { variables })))
        }
        Function::Joiner => {
            let separator = match args.get(0, "sep") {
                Some(separator) => separator.to_text(budget)?,
                None => ", ".into(),
            };
            budget.values(1)?;
            Ok(Value::Joiner(Rc::new(Joiner { separator, is_used: Cell::new(false) })))
        }
        Function::Range => range(args, budget),
    }
}

/// A mapping of another one, or a list of pairs, and of named arguments.
fn dict<'t>(args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    budget.values(args.named.len())?;
    let mut entries = Vec::new();
    match args.positional.first() {
        None => {}
        Some(Value::Map(map)) => {
            budget.values(map.entries.len())?;
            entries.extend(map.entries.iter().cloned());
        }
        Some(pairs) => {
            let pairs = pairs.items(budget)?;
            budget.values(pairs.items.len())?;
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
    Value::map(entries, budget)
}

fn range<'t>(args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let first = args.require(0, "stop")?.as_int()?;
    let (start, stop) = match args.positional.get(1) {
        Some(stop) => (first, stop.as_int()?),
        None => (0, first),
    };
    let step = args.positional.get(2).map_or(Ok(1), Value::as_int)?;
    if step == 0 {
        return Err(Error::new("the step of range is 0; 1 counts up, -1 down"));
    }
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let n = u64::try_from(distance).unwrap_or(0).div_ceil(step.unsigned_abs());
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    budget.values(n)?;
    // The last one lies before `stop`, so none of them overflows.
    Value::list((0..n as i64).map(|i| Value::Int(start.wrapping_add(i.wrapping_mul(step)))).collect())
}
