//! The filters behind `|`.

use std::cmp::Ordering;
use std::rc::Rc;

use super::budget::Budget;
use super::eval::{Args, entries};
use super::methods::{change_case, items, join, replace, strip};
use super::value::{List, Value};
use super::{Error, json, ops, predicates};

pub(super) fn apply<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match name {
        "trim" => {
            let text = value.to_text(budget)?;
            let chars = match args.get(0, "chars") {
                None | Some(Value::None) => None,
                Some(chars) => Some(Rc::clone(chars.as_str()?)),
            };
            Value::str(strip(&text, chars.as_deref(), true, true, budget)?, budget)
        }
        "upper" | "lower" | "title" | "capitalize" => {
            let text = value.to_text(budget)?;
            change_case(&text, name, budget)
        }
        "string" | "safe" => value.to_text(budget).map(Value::Str),
        "e" | "escape" => escape(&value.to_text(budget)?, budget),
        "length" | "count" => value.len(budget).map(ops::int),
        "int" | "float" => number(name, value, args, budget),
        "bool" => Ok(Value::Bool(value.is_true())),
        "abs" => match value {
            Value::Float(value) => Ok(Value::Float(value.abs())),
            value if value.as_int()? < 0 => ops::negate(value),
            value => Ok(value.clone()),
        },
        "default" | "d" => {
            let falsy_too = args.get(1, "boolean").is_some_and(Value::is_true);
            let missing = matches!(value, Value::Undefined) || (falsy_too && !value.is_true());
            if !missing {
                return Ok(value.clone());
            }
            args.get(0, "default_value").map_or_else(|| Value::str("", budget), |value| Ok(value.clone()))
        }
        "replace" => {
            let text = value.to_text(budget)?;
            let (old, new) = (args.require(0, "old")?, args.require(1, "new")?);
            let count = args.get(2, "count").map_or(Ok(-1), Value::as_int)?;
            replace(&text, &old.to_text(budget)?, &new.to_text(budget)?, count, budget)
        }
        "indent" => indent(&value.to_text(budget)?, args, budget),
        "tojson" => {
            let indent = match args.get(0, "indent") {
                None | Some(Value::None) => None,
                Some(indent) => usize::try_from(indent.as_int()?).ok(),
            };
            let mut out = String::new();
            json::write(&mut out, value, indent, 0, budget)?;
            Value::str(&out, budget)
        }
        "items" => items(value, budget),
        "dictsort" => {
            let Value::List(pairs) = items(value, budget)? else { return Ok(Value::None) };
            let mut sorted =
                entries(value)?.entries.iter().map(|(key, _)| key).zip(&pairs.items).collect::<Vec<_>>();
            pay_for_sorting(&pairs, budget)?;
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            budget.values(sorted.len())?;
            Value::list(sorted.into_iter().map(|(_, pair)| pair.clone()).collect())
        }
        _ => of_items(name, value, args, budget),
    }
}

/// The filters of lists, and of what a loop can go over.
fn of_items<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let list = value
        .items(budget)
        .map_err(|_| Error::new(format!("the filter {name} is not known for {}", value.kind())))?;
    match name {
        "list" => Ok(Value::List(list)),
        "first" => Ok(list.items.first().cloned().unwrap_or(Value::Undefined)),
        "last" => Ok(list.items.last().cloned().unwrap_or(Value::Undefined)),
        "join" => {
            let separator = match args.get(0, "d") {
                Some(separator) => separator.to_text(budget)?,
                None => "".into(),
            };
            match args.get(1, "attribute") {
                Some(path) => {
                    let path = Rc::clone(path.as_str()?);
                    let picked = pick_all(&list, &path, budget)?;
                    join(&picked, &separator, budget)
                }
                None => join(&list.items, &separator, budget),
            }
        }
        "reverse" => {
            budget.values(list.items.len())?;
            let reversed = Value::list(list.items.iter().rev().cloned().collect())?;
            match value {
                Value::Str(_) => join(&reversed.items(budget)?.items, "", budget),
                _ => Ok(reversed),
            }
        }
        "sort" => sort(&list, args, budget),
        "unique" => {
            let mut kept: Vec<Value<'t>> = Vec::new();
            for item in &list.items {
                let mut known = false;
                for other in &kept {
                    known |= item.equals(other, budget)?;
                }
                if !known {
                    budget.values(1)?;
                    kept.push(item.clone());
                }
            }
            Value::list(kept)
        }
        "min" | "max" => {
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut best: Option<&Value<'t>> = None;
            for item in &list.items {
                budget.step()?;
                if match best {
                    Some(best) => ops::order(item, best, budget)? == Some(wanted),
                    None => true,
                } {
                    best = Some(item);
                }
            }
            Ok(best.cloned().unwrap_or(Value::Undefined))
        }
        "map" => map(&list, args, budget),
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, &list, args, budget),
        other => Err(Error::new(format!("the filter {other} is not known"))),
    }
}

fn escape<'t>(text: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
    budget.bytes(text.len().saturating_mul(5))?;
    let mut escaped = String::new();
    for ch in text.chars() {
        match ch {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            ch => escaped.push(ch),
        }
    }
    Value::str(&escaped, budget)
}

fn number<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let parsed = match value {
        Value::Str(text) => {
            budget.bytes(text.len())?;
            let text = text.trim();
            match text.parse::<i64>() {
                Ok(value) if name == "int" => Some(Value::Int(value)),
                _ => text.parse::<f64>().ok().map(Value::Float),
            }
        }
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => Some(value.clone()),
        _ => None,
    };
    Ok(match (name, parsed) {
        ("int", Some(Value::Float(value))) => Value::Int(value as i64),
        ("int", Some(value)) => Value::Int(value.as_int()?),
        (_, Some(value)) => Value::Float(value.as_number().unwrap_or(0.0)),
        ("int", None) => args.get(0, "default").cloned().unwrap_or(Value::Int(0)),
        (_, None) => args.get(0, "default").cloned().unwrap_or(Value::Float(0.0)),
    })
}

fn indent<'t>(text: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let by = match args.get(0, "width") {
        Some(Value::Str(by)) => Rc::clone(by),
        width => {
            let width = width.map_or(Ok(4), Value::as_int)?;
            let width = usize::try_from(width).unwrap_or(0);
            budget.bytes(width)?;
            " ".repeat(width).into()
        }
    };
    let first = args.get(1, "first").is_some_and(Value::is_true);
    let blank = args.get(2, "blank").is_some_and(Value::is_true);
    let mut indented = String::new();
    for (i, line) in text.split('\n').enumerate() {
        budget.bytes(1 + by.len() + line.len())?;
        if i > 0 {
            indented.push('\n');
        }
        if (i > 0 || first) && (blank || !line.is_empty()) {
            indented.push_str(&by);
        }
        indented.push_str(line);
    }
    Value::str(&indented, budget)
}

/// The value at a path such as `function.name`.
fn pick<'t>(value: &Value<'t>, path: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let mut picked = value.clone();
    for name in path.split('.') {
        budget.step()?;
        picked = match name.parse::<i64>() {
            Ok(index) => ops::item(&picked, &Value::Int(index), budget)?,
            Err(_) => ops::attribute(&picked, name, budget)?,
        };
    }
    Ok(picked)
}

fn pick_all<'t>(list: &List<'t>, path: &str, budget: &mut Budget) -> Result<Vec<Value<'t>>, Error> {
    budget.values(list.items.len())?;
    list.items.iter().map(|item| pick(item, path, budget)).collect()
}

fn map<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    if let Some((_, path)) = args.named.iter().find(|(name, _)| *name == "attribute") {
        let path = Rc::clone(path.as_str()?);
        let mut picked = pick_all(list, &path, budget)?;
        if let Some((_, default)) = args.named.iter().find(|(name, _)| *name == "default") {
            for value in &mut picked {
                if matches!(value, Value::Undefined) {
                    *value = default.clone();
                }
            }
        }
        return Value::list(picked);
    }
    let filter = Rc::clone(args.require(0, "filter")?.as_str()?);
    budget.values(args.positional.len().saturating_add(list.items.len()))?;
    let rest =
        Args { positional: args.positional.get(1..).unwrap_or_default().to_vec(), named: args.named.clone() };
    // A filter that maps with a filter that maps ...
    budget.enter()?;
    let mapped =
        list.items.iter().map(|item| apply(&filter, item, &rest, budget)).collect::<Result<_, _>>()?;
    budget.leave();
    Value::list(mapped)
}

fn select<'t>(name: &str, list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let (path, mut rest) = match (name, &args.positional[..]) {
        ("selectattr" | "rejectattr", [path, rest @ ..]) => (Some(Rc::clone(path.as_str()?)), rest),
        ("selectattr" | "rejectattr", []) => return Err(Error::new(format!("{name}: which attribute?"))),
        (_, rest) => (None, rest),
    };
    let test = match rest {
        [test, after @ ..] => {
            rest = after;
            Some(Rc::clone(test.as_str()?))
        }
        [] => None,
    };
    let wanted = name.starts_with("select");
    let mut kept = Vec::new();
    for item in &list.items {
        budget.values(1)?;
        let value = match &path {
            Some(path) => pick(item, path, budget)?,
            None => item.clone(),
        };
        let holds = match &test {
            Some(test) => predicates::test(test, &value, rest, budget)?,
            None => value.is_true(),
        };
        if holds == wanted {
            kept.push(item.clone());
        }
    }
    Value::list(kept)
}

fn sort<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let keys = match args.get(2, "attribute") {
        Some(path) => {
            let path = Rc::clone(path.as_str()?);
            pick_all(list, &path, budget)?
        }
        None => {
            budget.values(list.items.len())?;
            list.items.clone()
        }
    };
    let keys = Value::list(keys)?.items(budget)?;
    pay_for_sorting(&keys, budget)?;
    let mut order: Vec<usize> = (0..list.items.len()).collect();
    // Python ignores the case of strings here, unless told otherwise.
    if let Some(texts) = keys.items.iter().map(|key| key.as_str().ok()).collect::<Option<Vec<_>>>() {
        budget.bytes(texts.iter().map(|text| text.len().saturating_mul(6)).sum())?;
        let folded: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
        let exact = args.get(1, "case_sensitive").is_some_and(Value::is_true);
        order.sort_by(|&a, &b| if exact { texts[a].cmp(texts[b]) } else { folded[a].cmp(&folded[b]) });
    } else if let Some(numbers) = keys.items.iter().map(Value::as_number).collect::<Option<Vec<_>>>() {
        order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    } else {
        return Err(Error::new("sort: only strings, or only numbers, have an order"));
    }
    if args.get(0, "reverse").is_some_and(Value::is_true) {
        order.reverse();
    }
    budget.values(order.len())?;
    Value::list(order.into_iter().map(|i| list.items[i].clone()).collect())
}

/// Pays for n log n comparisons of the longest entry: sorting cannot stop half-way.
fn pay_for_sorting(list: &List<'_>, budget: &mut Budget) -> Result<(), Error> {
    let n = list.items.len();
    let longest =
        list.items.iter().map(|item| if let Value::Str(text) = item { text.len() } else { 8 }).max();
    let comparisons = n.saturating_mul(n.max(2).ilog2() as usize + 1);
    budget.bytes(comparisons.saturating_mul(longest.unwrap_or(0)))
}
