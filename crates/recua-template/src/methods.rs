//! The methods of Python's strings, dictionaries and lists that templates call.

use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Error;
use crate::format::braces;
use crate::text::{center, change_case, lines, replace, strip, words};
use crate::value::{Args, Value};

pub(crate) fn call<'t>(
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
                        return Ok(Value::int(i));
                    }
                    n += 1;
                }
            }
            if name == "index" { Err(Error::new("the value is not in the list")) } else { Ok(Value::int(n)) }
        }
        Value::List(_) if matches!(name, "append" | "extend" | "insert" | "pop" | "remove") => {
            Err(Error::new("lists cannot be changed; {% set x = x + [y] %} makes a longer one"))
        }
        Value::Loop(this) if name == "cycle" => match args.positional.len() {
            0 => Err(Error::new("loop.cycle has nothing to choose from")),
            n => Ok(args.positional[this.index % n].clone()),
        },
        Value::Loop(this) if name == "changed" => {
            budget.values(args.positional.len())?;
            let values = Value::tuple(args.positional.clone())?;
            let last = this.last.borrow().clone();
            let is_same = match last {
                Some(last) => values.equals(&last, budget)?,
                None => false,
            };
            *this.last.borrow_mut() = Some(values);
            Ok(Value::Bool(!is_same))
        }
        other => Err(unknown(other.kind(), name)),
    }
}

fn unknown(kind: &str, name: &str) -> Error {
    // The name may be as long as the template.
    let name: String = name.chars().take(60).collect();
    Error::new(format!("{kind} has no method {name} that is known"))
}

fn of_map<'t>(map: &Value<'t>, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match name {
        "get" => {
            let found = map.entry_at(args.require(0, "key")?, budget)?;
            Ok(found.unwrap_or_else(|| args.get(1, "default").cloned().unwrap_or(Value::None)))
        }
        "items" => items(map, budget),
        "keys" => Ok(Value::List(map.items(budget)?)),
        "values" => {
            let map = map.as_map()?;
            budget.values(map.entries.len())?;
            Value::list(map.entries.iter().map(|(_, value)| value.clone()).collect())
        }
        // Nothing changes a mapping, so it is as good as a copy.
        "copy" => Ok(map.clone()),
        "update" | "pop" | "setdefault" => {
            Err(Error::new("mappings cannot be changed; dict(x, name=value) makes a larger one"))
        }
        _ => Err(unknown("a mapping", name)),
    }
}

/// The pairs of a map.
pub(crate) fn items<'t>(map: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let map = map.as_map()?;
    budget.values(map.entries.len().saturating_mul(4))?;
    let pairs = map.entries.iter().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
    Value::list(pairs.collect::<Result<_, _>>()?)
}

fn of_str<'t>(text: &str, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    budget.bytes(text.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let chars = args.optional_str(0, "chars")?.map(|chars| &**chars);
            Value::str(strip(text, chars, name != "rstrip", name != "lstrip", budget)?, budget)
        }
        "upper" | "lower" | "title" | "capitalize" => Value::str(&change_case(text, name, budget)?, budget),
        "center" => Value::str(&center(text, args.require(0, "width")?.as_int()?, budget)?, budget),
        "format" => Value::str(&braces(text, args, budget)?, budget),
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
            let (old, new) = (args.require(0, "old")?.as_str()?, args.require(1, "new")?.as_str()?);
            Value::str(&replace(text, old, new, args.int(2, "count", -1)?, budget)?, budget)
        }
        "split" | "rsplit" => {
            let separator = args.optional_str(0, "sep")?.map(Rc::clone);
            split(text, separator.as_deref(), args.int(1, "maxsplit", -1)?, name == "rsplit", budget)
        }
        "splitlines" => {
            // Each line has a place in a list of slices, too.
            budget.bytes(text.len().saturating_mul(16))?;
            let lines = lines(text, args.flag(0, "keepends"));
            Value::list(lines.into_iter().map(|line| Value::str(line, budget)).collect::<Result<_, _>>()?)
        }
        "join" => join(&args.require(0, "items")?.items(budget)?.items, text, budget),
        "find" | "rfind" | "index" | "count" => {
            let part = args.require(0, "part")?.as_str()?;
            budget.bytes(text.len() + part.len())?;
            let found = match name {
                "count" => return Ok(Value::int(text.matches(&**part).count())),
                "rfind" => text.rfind(&**part),
                _ => text.find(&**part),
            };
            match found {
                Some(at) => Ok(Value::int(text[..at].chars().count())),
                None if name == "index" => Err(Error::new("the text is not found")),
                None => Ok(Value::Int(-1)),
            }
        }
        "isdigit" | "isnumeric" => Ok(Value::Bool(every(text, char::is_numeric))),
        "isalpha" => Ok(Value::Bool(every(text, char::is_alphabetic))),
        "isalnum" => Ok(Value::Bool(every(text, char::is_alphanumeric))),
        "isspace" => Ok(Value::Bool(every(text, crate::text::is_space))),
        "isupper" => {
            Ok(Value::Bool(!text.chars().any(char::is_lowercase) && text.chars().any(char::is_uppercase)))
        }
        "islower" => {
            Ok(Value::Bool(!text.chars().any(char::is_uppercase) && text.chars().any(char::is_lowercase)))
        }
        _ => Err(unknown("a string", name)),
    }
}

fn every(text: &str, is: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(is)
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
        Some("") => {
            return Err(Error::new("split: the separator is empty; the filter list gives characters"));
        }
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
        None => {
            // Each word has a place in a list of slices, too.
            budget.bytes(text.len().saturating_mul(8))?;
            for part in words(text, n, from_right) {
                parts.push(Value::str(part, budget)?);
            }
        }
    }
    Value::list(parts)
}

/// The texts of values with a separator between them.
pub(crate) fn join<'t>(
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
