//! The filters of lists, and of whatever a loop can go over.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Error;
use crate::methods::{items, join};
use crate::tree::BinaryOp;
use crate::value::{Args, List, Value};
use crate::{ops, predicates};

/// Applies a filter to a value of which `list` has the items.
pub(super) fn apply<'t>(
    name: &str,
    value: &Value<'t>,
    list: &Rc<List<'t>>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match name {
        "list" if list.is_tuple => {
            budget.values(list.items.len())?;
            Value::list(list.items.clone())
        }
        "list" => Ok(Value::List(Rc::clone(list))),
        "first" => Ok(list.items.first().cloned().unwrap_or(Value::Undefined)),
        "last" => Ok(list.items.last().cloned().unwrap_or(Value::Undefined)),
        "join" => {
            let separator = match args.get(0, "d") {
                Some(separator) => separator.to_text(budget)?,
                None => "".into(),
            };
            match args.get(1, "attribute") {
                Some(attribute) => {
                    let picked = pick_all(list, &path(attribute)?, budget)?;
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
        "sort" => sort(list, args, budget),
        "unique" => unique(list, args, budget),
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
        "sum" => {
            let mut sum = args.get(1, "start").cloned().unwrap_or(Value::Int(0));
            let items = match args.get(0, "attribute") {
                None | Some(Value::None) => {
                    budget.values(list.items.len())?;
                    list.items.clone()
                }
                Some(attribute) => pick_all(list, &path(attribute)?, budget)?,
            };
            for item in &items {
                budget.step()?;
                sum = ops::binary(BinaryOp::Add, &sum, item, budget)?;
            }
            Ok(sum)
        }
        "batch" => batch(list, args, budget),
        "groupby" => group_by(list, args, budget),
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, list, args, budget),
        other => Err(Error::new(format!("the filter {other} is not known for lists"))),
    }
}

/// The pairs of a mapping, by key or by value.
pub(super) fn dictsort<'t>(
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let pairs = items(value, budget)?.items(budget)?;
    let by_value = match args.optional_str(1, "by")? {
        None => false,
        Some(by) if **by == *"key" => false,
        Some(by) if **by == *"value" => true,
        Some(_) => return Err(Error::new("dictsort: by is \"key\" or \"value\"")),
    };
    let sides = value.as_map()?.entries.iter().map(|(key, value)| if by_value { value } else { key });
    budget.values(pairs.items.len())?;
    let keys = Value::list(sides.cloned().collect())?.items(budget)?;
    let order = sorted(&keys, args.flag(0, "case_sensitive"), args.flag(2, "reverse"), budget)?;
    Value::list(order.into_iter().map(|i| pairs.items[i].clone()).collect())
}

/// The names and indexes of a path such as `function.name`.
pub(super) fn path(attribute: &Value<'_>) -> Result<Rc<str>, Error> {
    match attribute {
        Value::Int(index) => Ok(index.to_string().into()),
        other => other.as_str().map(Rc::clone),
    }
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

pub(super) fn pick_all<'t>(
    list: &List<'t>,
    path: &str,
    budget: &mut Budget,
) -> Result<Vec<Value<'t>>, Error> {
    budget.values(list.items.len())?;
    list.items.iter().map(|item| pick(item, path, budget)).collect()
}

fn select<'t>(name: &str, list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let (path, mut rest) = match (name, &args.positional[..]) {
        ("selectattr" | "rejectattr", [attribute, rest @ ..]) => (Some(path(attribute)?), rest),
        ("selectattr" | "rejectattr", []) => {
            return Err(Error::new(format!("{name} needs the name of an attribute")));
        }
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
    let keys = keys_of(list, args.get(2, "attribute"), budget)?;
    let order = sorted(&keys, args.flag(1, "case_sensitive"), args.flag(0, "reverse"), budget)?;
    Value::list(order.into_iter().map(|i| list.items[i].clone()).collect())
}

/// The values to compare: the items, or an attribute of each.
fn keys_of<'t>(
    list: &List<'t>,
    attribute: Option<&Value<'t>>,
    budget: &mut Budget,
) -> Result<Rc<List<'t>>, Error> {
    let keys = match attribute {
        None | Some(Value::None) => {
            budget.values(list.items.len())?;
            list.items.clone()
        }
        Some(attribute) => pick_all(list, &path(attribute)?, budget)?,
    };
    Value::list(keys)?.items(budget)
}

/// The order of keys, equal ones as they stand. As in Jinja, the case of strings does not count unless told otherwise.
fn sorted(
    keys: &List<'_>,
    case_sensitive: bool,
    reverse: bool,
    budget: &mut Budget,
) -> Result<Vec<usize>, Error> {
    let n = keys.items.len();
    let mut longest = 8;
    for key in &keys.items {
        if let Value::Str(text) = key {
            longest = longest.max(text.len());
        }
    }
    // Sorting cannot stop half-way, so n log n comparisons of the longest key are paid for first.
    budget.bytes(n.saturating_mul(n.max(2).ilog2() as usize + 1).saturating_mul(longest))?;
    budget.values(n)?;
    let mut order: Vec<usize> = (0..n).collect();
    let by = |compare: &dyn Fn(usize, usize) -> Ordering, order: &mut Vec<usize>| {
        order.sort_by(|&a, &b| if reverse { compare(b, a) } else { compare(a, b) });
    };
    if let Some(texts) = keys.items.iter().map(|key| key.as_str().ok()).collect::<Option<Vec<_>>>() {
        budget.bytes(texts.iter().map(|text| text.len().saturating_mul(6)).sum())?;
        if case_sensitive {
            by(&|a, b| texts[a].cmp(texts[b]), &mut order);
        } else {
            let folded: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
            by(&|a, b| folded[a].cmp(&folded[b]), &mut order);
        }
    } else if let Some(numbers) = keys.items.iter().map(Value::as_number).collect::<Option<Vec<_>>>() {
        by(&|a, b| numbers[a].total_cmp(&numbers[b]), &mut order);
    } else {
        return Err(Error::new("only strings, or only numbers, have an order"));
    }
    Ok(order)
}

/// Each value once. As in Jinja, the case of strings does not count unless told otherwise.
fn unique<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let keys = keys_of(list, args.get(1, "attribute"), budget)?;
    let mut seen: Vec<Value<'t>> = Vec::new();
    let mut kept = Vec::new();
    for (item, key) in list.items.iter().zip(&keys.items) {
        let key = match key {
            Value::Str(text) if !args.flag(0, "case_sensitive") => {
                budget.bytes(text.len().saturating_mul(3))?;
                Value::str(&text.to_lowercase(), budget)?
            }
            other => other.clone(),
        };
        let mut is_known = false;
        for other in &seen {
            is_known |= key.equals(other, budget)?;
        }
        if !is_known {
            budget.values(2)?;
            kept.push(item.clone());
            seen.push(key);
        }
    }
    Value::list(kept)
}

/// Lists of `linecount` items; the last one is filled up if there is something to fill it with.
fn batch<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let n = usize::try_from(args.require(0, "linecount")?.as_int()?).unwrap_or(0);
    if n == 0 {
        return Err(Error::new("batch: the number of items of a line is at least 1"));
    }
    budget.values(list.items.len().saturating_mul(2))?;
    let mut lines = Vec::new();
    for line in list.items.chunks(n) {
        let mut line = line.to_vec();
        if let Some(fill) = args.get(1, "fill_with").filter(|fill| !matches!(fill, Value::None)) {
            budget.values(n - line.len())?;
            line.resize(n, fill.clone());
        }
        lines.push(Value::list(line)?);
    }
    Value::list(lines)
}

/// Pairs of a value and the items that have it as their attribute, in the order of the values.
fn group_by<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let keys = keys_of(list, Some(args.require(0, "attribute")?), budget)?;
    let order = sorted(&keys, true, false, budget)?;
    budget.values(list.items.len().saturating_mul(4))?;
    let mut groups: Vec<(Value<'t>, Vec<Value<'t>>)> = Vec::new();
    for i in order {
        let (key, item) = (&keys.items[i], list.items[i].clone());
        match groups.last_mut() {
            Some((last, items)) if last.equals(key, budget)? => items.push(item),
            _ => groups.push((key.clone(), vec![item])),
        }
    }
    let pairs = groups.into_iter().map(|(key, items)| Value::tuple(vec![key, Value::list(items)?]));
    Value::list(pairs.collect::<Result<_, _>>()?)
}
