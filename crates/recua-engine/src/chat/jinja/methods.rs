//! The methods of Python's strings and dictionaries that templates call, some of which are filters too.

use std::rc::Rc;

use super::budget::Budget;
use super::eval::{Args, entries};
use super::value::Value;
use super::{Error, ops};

pub(super) fn call<'t>(
    object: &Value<'t>,
    name: &str,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match object {
        Value::Str(text) => of_str(text, name, args, budget),
        Value::Map(_) => of_map(object, name, args, budget),
        Value::List(list) if name == "count" || name == "index" => {
            let wanted = args.require(0, "value")?;
            let mut n = 0;
            for (i, item) in list.items.iter().enumerate() {
                if item.equals(wanted, budget)? {
                    if name == "index" {
                        return Ok(ops::int(i));
                    }
                    n += 1;
                }
            }
            if name == "index" { Err(Error::new("the value is not in the list")) } else { Ok(ops::int(n)) }
        }
        Value::Loop(this) if name == "cycle" => match args.positional.len() {
            0 => Err(Error::new("loop.cycle has nothing to choose from")),
            n => Ok(args.positional[this.index % n].clone()),
        },
        other => Err(Error::new(format!("{} has no method {name} that is known", other.kind()))),
    }
}

fn of_map<'t>(map: &Value<'t>, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match name {
        "get" => {
            let found = map.entry(args.require(0, "key")?.as_str()?, budget)?;
            Ok(found.unwrap_or_else(|| args.get(1, "default").cloned().unwrap_or(Value::None)))
        }
        "items" => items(map, budget),
        "keys" => Ok(Value::List(map.items(budget)?)),
        "values" => {
            let map = entries(map)?;
            budget.values(map.entries.len())?;
            Value::list(map.entries.iter().map(|(_, value)| value.clone()).collect())
        }
        _ => Err(Error::new(format!("a mapping has no method {name} that is known"))),
    }
}

/// The pairs of a map, as lists of two.
pub(super) fn items<'t>(map: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let map = entries(map)?;
    budget.values(map.entries.len().saturating_mul(4))?;
    let pairs = map.entries.iter();
    Value::list(
        pairs
            .map(|(key, value)| Value::list(vec![Value::Str(Rc::clone(key)), value.clone()]))
            .collect::<Result<_, _>>()?,
    )
}

fn of_str<'t>(text: &str, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    budget.bytes(text.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let chars = match args.get(0, "chars") {
                None | Some(Value::None) => None,
                Some(chars) => Some(Rc::clone(chars.as_str()?)),
            };
            let stripped = strip(text, chars.as_deref(), name != "rstrip", name != "lstrip", budget)?;
            Value::str(stripped, budget)
        }
        "upper" | "lower" | "title" | "capitalize" => change_case(text, name, budget),
        "startswith" | "endswith" => {
            let matches = |part: &Value<'t>, budget: &mut Budget| {
                let part = part.as_str()?;
                budget.bytes(part.len())?;
                Ok(if name == "startswith" { text.starts_with(&**part) } else { text.ends_with(&**part) })
            };
            let found = match args.require(0, "prefix")? {
                Value::List(parts) => {
                    let mut found = false;
                    for part in &parts.items {
                        found |= matches(part, budget)?;
                    }
                    found
                }
                part => matches(part, budget)?,
            };
            Ok(Value::Bool(found))
        }
        "removeprefix" | "removesuffix" => {
            let part = args.require(0, "part")?.as_str()?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(&**part) } else { text.strip_suffix(&**part) };
            Value::str(rest.unwrap_or(text), budget)
        }
        "replace" => {
            let count = args.get(2, "count").map_or(Ok(-1), Value::as_int)?;
            replace(text, args.require(0, "old")?.as_str()?, args.require(1, "new")?.as_str()?, count, budget)
        }
        "split" | "rsplit" => {
            let separator = match args.get(0, "sep") {
                None | Some(Value::None) => None,
                Some(separator) => Some(Rc::clone(separator.as_str()?)),
            };
            let count = args.get(1, "maxsplit").map_or(Ok(-1), Value::as_int)?;
            split(text, separator.as_deref(), count, name == "rsplit", budget)
        }
        "splitlines" => {
            let lines = text.lines().map(|line| Value::str(line, budget)).collect::<Result<_, _>>()?;
            Value::list(lines)
        }
        "join" => join(&args.require(0, "items")?.items(budget)?.items, text, budget),
        "find" | "rfind" | "index" | "count" => {
            let part = args.require(0, "part")?.as_str()?;
            budget.bytes(text.len() + part.len())?;
            let found = match name {
                "count" => return Ok(ops::int(text.matches(&**part).count())),
                "rfind" => text.rfind(&**part),
                _ => text.find(&**part),
            };
            match found {
                Some(at) => Ok(ops::int(text[..at].chars().count())),
                None if name == "index" => Err(Error::new("the text is not found")),
                None => Ok(Value::Int(-1)),
            }
        }
        "isdigit" | "isnumeric" => Ok(Value::Bool(every(text, char::is_numeric))),
        "isalpha" => Ok(Value::Bool(every(text, char::is_alphabetic))),
        "isalnum" => Ok(Value::Bool(every(text, char::is_alphanumeric))),
        "isspace" => Ok(Value::Bool(every(text, char::is_whitespace))),
        "isupper" => {
            Ok(Value::Bool(!text.chars().any(char::is_lowercase) && text.chars().any(char::is_uppercase)))
        }
        "islower" => {
            Ok(Value::Bool(!text.chars().any(char::is_uppercase) && text.chars().any(char::is_lowercase)))
        }
        _ => Err(Error::new(format!("a string has no method {name} that is known"))),
    }
}

fn every(text: &str, is: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(is)
}

/// Takes characters off the ends: the given ones, or white space.
pub(super) fn strip<'a>(
    text: &'a str,
    chars: Option<&str>,
    left: bool,
    right: bool,
    budget: &mut Budget,
) -> Result<&'a str, Error> {
    // Each character of the text may have to be compared with each of those.
    budget.bytes(text.len().saturating_mul(1 + chars.map_or(0, str::len)))?;
    let goes = |ch: char| chars.map_or_else(|| ch.is_whitespace(), |chars| chars.contains(ch));
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text })
}

pub(super) fn change_case<'t>(text: &str, how: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
    // One character can turn into three.
    budget.bytes(text.len().saturating_mul(6))?;
    let changed = match how {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        _ => {
            let mut changed = String::new();
            let mut upper = true;
            for ch in text.chars() {
                if upper {
                    changed.extend(ch.to_uppercase())
                } else {
                    changed.extend(ch.to_lowercase())
                }
                upper = how == "title" && !ch.is_alphabetic();
            }
            changed
        }
    };
    Value::str(&changed, budget)
}

/// Replaces the first `count` occurrences, or all if it is negative.
pub(super) fn replace<'t>(
    text: &str,
    old: &str,
    new: &str,
    count: i64,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    budget.bytes(text.len() + old.len())?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let n = text.matches(old).take(count).count();
    budget.bytes(text.len().saturating_add(n.saturating_mul(new.len())))?;
    Value::str(&text.replacen(old, new, count), budget)
}

fn split<'t>(
    text: &str,
    separator: Option<&str>,
    count: i64,
    from_right: bool,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let n = usize::try_from(count).map_or(usize::MAX, |count| count.saturating_add(1));
    let mut parts = Vec::new();
    match separator {
        Some("") => return Err(Error::new("split: the separator is empty")),
        Some(separator) => {
            budget.bytes(separator.len())?;
            let found: &mut dyn Iterator<Item = &str> =
                if from_right { &mut text.rsplitn(n, separator) } else { &mut text.splitn(n, separator) };
            for part in found {
                parts.push(Value::str(part, budget)?);
            }
            if from_right {
                parts.reverse();
            }
        }
        None if n < usize::MAX => return Err(Error::new("split: a limit needs a separator")),
        None => {
            for part in text.split_whitespace() {
                parts.push(Value::str(part, budget)?);
            }
        }
    }
    Value::list(parts)
}

pub(super) fn join<'t>(
    items: &[Value<'t>],
    separator: &str,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let mut joined = String::new();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            budget.bytes(1 + separator.len())?;
            joined.push_str(separator);
        }
        item.print(&mut joined, false, budget)?;
    }
    Value::str(&joined, budget)
}
