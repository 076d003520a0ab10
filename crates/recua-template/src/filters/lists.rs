//! The filters of lists, and of whatever a loop can go over.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::args::Args;
use crate::budget::{Budget, Held};
use crate::error::Error;
use crate::methods::{join, pairs};
use crate::text::Text;
use crate::tree::BinaryOp;
use crate::value::{Kind, List, Value};
use crate::{ops, predicates};

pub(super) fn apply<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match name {
        "select" | "reject" | "selectattr" | "rejectattr" => return select(name, value, args, budget),
        "first" => return Ok(value.first(budget)?.unwrap_or(Value::Undefined)),
        "last" | "reverse" if matches!(value, Value::Iter(_)) => {
            return match name {
                "last" => Err(Error::new("an iterator has no last item; the filter list makes a list of it")),
                _ => ops::slice(&list_of(value, budget)?, [None, None, Some(-1)], budget),
            };
        }
        "reverse" if matches!(value, Value::Str(_)) => {
            return ops::slice(value, [None, None, Some(-1)], budget);
        }
        _ => {}
    }
    let list = match items_for(name, value, budget) {
        Err(error) if matches!(name, "unique" | "batch" | "slice") => {
            return failing(Vec::new(), error, budget.values(0)?);
        }
        list => list?,
    };
    match name {
        "list" => list_from(&list, budget),
        "last" => Ok(list.items.last().cloned().unwrap_or(Value::Undefined)),
        "join" => {
            let separator = match args.get(0, "d") {
                Some(separator) => separator.to_text(budget)?,
                None => Text::literal(""),
            };
            match args.optional(1, "attribute") {
                Some(attribute) => {
                    let (picked, _held) = pick_all(&list, &path(attribute, budget)?, None, budget)?;
                    join(&picked, &separator, budget)
                }
                None => join(&list.items, &separator, budget),
            }
        }
        "reverse" => {
            let held = budget.values(list.items.len())?;
            Value::iter(list.items.iter().rev().cloned().collect(), None, held)
        }
        "sort" => {
            let keys = sort_keys(
                &list,
                args.optional(2, "attribute"),
                true,
                args.flag(1, "case_sensitive"),
                budget,
            )?;
            let order = sorted(&keys, args.flag(0, "reverse"), budget)?;
            let held = budget.values(list.items.len())?;
            Value::list(order.into_iter().map(|i| list.items[i].clone()).collect(), held)
        }
        "dictsort" => dictsort(value, args, budget),
        "unique" => unique(&list, args, budget),
        "min" | "max" => {
            let keys = sort_keys(
                &list,
                args.optional(1, "attribute"),
                false,
                args.flag(0, "case_sensitive"),
                budget,
            )?;
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut best = 0;
            for i in 1..keys.items.len() {
                budget.step()?;
                if ops::order(&keys.items[i], &keys.items[best], budget)? == Some(wanted) {
                    best = i;
                }
            }
            Ok(list.items.get(best).cloned().unwrap_or(Value::Undefined))
        }
        "sum" => {
            let mut sum = args.get(1, "start").cloned().unwrap_or(Value::Int(0));
            let picked = match args.optional(0, "attribute") {
                None => None,
                Some(attribute) => Some(pick_all(&list, &path(attribute, budget)?, None, budget)?),
            };
            for item in picked.as_ref().map_or(&list.items, |(picked, _)| picked) {
                budget.step()?;
                sum = ops::binary(BinaryOp::Add, &sum, item, budget)?;
            }
            Ok(sum)
        }
        "batch" => batch(&list, args, budget),
        "slice" => slice(&list, args, budget),
        "groupby" => group_by(&list, args, budget),
        other => Err(Error::new(format!("the filter {other} is not known for lists"))),
    }
}

/// The items of a value for a filter of lists.
fn items_for<'t>(name: &str, value: &Value<'t>, budget: &mut Budget) -> Result<Rc<List<'t>>, Error> {
    value.items(budget).map_err(|error| match (error, value) {
        (error, Value::Iter(_)) => error,
        (error @ Error::Limit(_), _) => error,
        _ => Error::new(format!("the filter {name} needs a list, not {}", value.kind())),
    })
}

/// The items of a value for a filter that chooses. To such, whatever is false is as good as empty.
pub(super) fn chosen_from<'t>(
    name: &str,
    value: &Value<'t>,
    budget: &mut Budget,
) -> Result<Option<Rc<List<'t>>>, Error> {
    if value.is_true() { items_for(name, value, budget).map(Some) } else { Ok(None) }
}

/// An iterator that fails behind the items there are; at once if a limit was reached.
pub(super) fn failing<'t>(items: Vec<Value<'t>>, error: Error, held: Held) -> Result<Value<'t>, Error> {
    match error {
        Error::Limit(_) => Err(error),
        error => Value::iter(items, Some(error), held),
    }
}

/// A list of the items that a loop would see.
fn list_of<'t>(value: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    list_from(&value.items(budget)?, budget)
}

fn list_from<'t>(list: &Rc<List<'t>>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    if list.kind == Kind::List {
        // Nothing changes a list, so it is as good as a copy.
        return Ok(Value::List(Rc::clone(list)));
    }
    let held = budget.values(list.items.len())?;
    Value::list(list.items.clone(), held)
}

/// The pairs of a mapping, by key or by value.
fn dictsort<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let by_value = match args.optional_str(1, "by")? {
        None => false,
        Some(by) if **by == *"key" => false,
        Some(by) if **by == *"value" => true,
        Some(_) => return Err(Error::new("dictsort: by is \"key\" or \"value\"")),
    };
    let (pairs, held) = pairs(value, budget)?;
    let sides = value.as_map()?.entries.iter().map(|(key, value)| if by_value { value } else { key });
    let sides_held = budget.values(pairs.len())?;
    let sides = List::new(Kind::List, sides.cloned().collect(), sides_held)?;
    let keys = sort_keys(&sides, None, false, args.flag(0, "case_sensitive"), budget)?;
    let order = sorted(&keys, args.flag(2, "reverse"), budget)?;
    Value::list(order.into_iter().map(|i| pairs[i].clone()).collect(), held)
}

/// The names and indexes of a path such as `function.name`.
pub(super) fn path<'t>(attribute: &Value<'t>, budget: &mut Budget) -> Result<Text<'t>, Error> {
    match attribute {
        Value::Int(_) => attribute.to_text(budget),
        other => other.as_str().cloned(),
    }
}

/// The value at a path such as `function.name`; the default wherever there is none.
pub(super) fn pick<'t>(
    value: &Value<'t>,
    path: &str,
    default: Option<&Value<'t>>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let mut picked = value.clone();
    for name in path.split('.') {
        budget.step()?;
        let key = match name.parse::<u32>() {
            Ok(index) => Value::Int(index.into()),
            Err(_) => Value::str(name, budget)?,
        };
        picked = ops::item(&picked, &key, budget)?;
        if let (Value::Undefined, Some(default)) = (&picked, default) {
            picked = default.clone();
        }
    }
    Ok(picked)
}

fn pick_all<'t>(
    list: &List<'t>,
    path: &str,
    default: Option<&Value<'t>>,
    budget: &mut Budget,
) -> Result<(Vec<Value<'t>>, Held), Error> {
    let held = budget.values(list.items.len())?;
    let picked = list.items.iter().map(|item| pick(item, path, default, budget));
    Ok((picked.collect::<Result<_, _>>()?, held))
}

fn select<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let list = match chosen_from(name, value, budget) {
        Ok(Some(list)) => list,
        Ok(None) => return Value::iter(Vec::new(), None, budget.values(0)?),
        Err(error) => return failing(Vec::new(), error, budget.values(0)?),
    };
    let (path, mut rest) = match (name, &args.positional[..]) {
        ("selectattr" | "rejectattr", [attribute, rest @ ..]) => (Some(path(attribute, budget)?), rest),
        ("selectattr" | "rejectattr", []) => {
            return Err(Error::new(format!("{name} needs the name of an attribute")));
        }
        (_, rest) => (None, rest),
    };
    let test = match rest {
        [test, after @ ..] => {
            rest = after;
            Some(test.as_str()?.clone())
        }
        [] if args.named.is_empty() => None,
        [] => return Err(Error::new(format!("{name} needs the name of a test before arguments with names"))),
    };
    let rest_held = budget.values(rest.len() + args.named.len())?;
    let rest = Args { positional: rest.to_vec(), named: args.named.clone(), held: rest_held };
    let wanted = name.starts_with("select");
    let held = budget.values(list.items.len())?;
    let mut kept = Vec::new();
    for item in &list.items {
        budget.step()?;
        let holds = (|| {
            let value = match &path {
                Some(path) => pick(item, path, None, budget)?,
                None => item.clone(),
            };
            match &test {
                Some(test) => predicates::test(test, &value, &rest, budget),
                None => Ok(value.is_true()),
            }
        })();
        match holds {
            Ok(holds) if holds == wanted => kept.push(item.clone()),
            Ok(_) => {}
            Err(error) => return failing(kept, error, held),
        }
    }
    Value::iter(kept, None, held)
}

/// What decides about the order of items: they themselves, an attribute, or, for `several`, a list of attributes with
/// commas between them. As in Jinja, the case of strings does not count unless told otherwise.
fn sort_keys<'t>(
    list: &List<'t>,
    attribute: Option<&Value<'t>>,
    several: bool,
    case_sensitive: bool,
    budget: &mut Budget,
) -> Result<Rc<List<'t>>, Error> {
    let held = budget.values(list.items.len())?;
    let paths = attribute.map(|attribute| path(attribute, budget)).transpose()?;
    let mut keys = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let key = match &paths {
            None => folded(item.clone(), case_sensitive, budget)?,
            Some(paths) if !several => folded(pick(item, paths, None, budget)?, case_sensitive, budget)?,
            Some(paths) => {
                let n = paths.split(',').count();
                let held = budget.values(n)?;
                let mut parts = Vec::with_capacity(n);
                for path in paths.split(',') {
                    parts.push(folded(pick(item, path, None, budget)?, case_sensitive, budget)?);
                }
                Value::list(parts, held)?
            }
        };
        keys.push(key);
    }
    List::new(Kind::List, keys, held).map(Rc::new)
}

fn folded<'t>(key: Value<'t>, case_sensitive: bool, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match key {
        Value::Str(text) if !case_sensitive => {
            budget.room(text.len().saturating_mul(3))?;
            Value::str(&text.to_lowercase(), budget)
        }
        key => Ok(key),
    }
}

/// The places of keys in their order, equal ones as they stand. A merge sort, because a comparison may fail.
fn sorted(keys: &List<'_>, reverse: bool, budget: &mut Budget) -> Result<Vec<usize>, Error> {
    let n = keys.items.len();
    let _held = budget.values(n)?;
    let mut order: Vec<usize> = (0..n).collect();
    let mut merged = Vec::with_capacity(n);
    let mut width = 1;
    while width < n {
        merged.clear();
        for block in order.chunks(width * 2) {
            let (mut left, mut right) = block.split_at(width.min(block.len()));
            while let (Some(&a), Some(&b)) = (left.first(), right.first()) {
                budget.step()?;
                let (a_key, b_key) = (&keys.items[a], &keys.items[b]);
                let (low, high) = if reverse { (a_key, b_key) } else { (b_key, a_key) };
                if ops::order(low, high, budget)? == Some(Ordering::Less) {
                    merged.push(b);
                    right = &right[1..];
                } else {
                    merged.push(a);
                    left = &left[1..];
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        std::mem::swap(&mut order, &mut merged);
        width *= 2;
    }
    Ok(order)
}

/// Each value once.
fn unique<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let keys = sort_keys(list, args.optional(1, "attribute"), false, args.flag(0, "case_sensitive"), budget)?;
    let held = budget.values(list.items.len().saturating_mul(2))?;
    let mut seen: Vec<&Value<'t>> = Vec::new();
    let mut kept = Vec::new();
    for (item, key) in list.items.iter().zip(&keys.items) {
        let mut is_known = false;
        for other in &seen {
            is_known |= key.equals(other, budget)?;
        }
        if !is_known {
            kept.push(item.clone());
            seen.push(key);
        }
    }
    Value::iter(kept, None, held)
}

/// Lists of `linecount` items; the last one is filled up if there is something to fill it with.
fn batch<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let n = args.require(0, "linecount")?.as_size()?;
    if n == 0 {
        return Err(Error::new("batch: the number of items of a line is at least 1"));
    }
    let held = budget.values(list.items.len())?;
    let mut lines = Vec::new();
    for line in list.items.chunks(n) {
        let fill = args.optional(1, "fill_with");
        let len = if fill.is_some() { n } else { line.len() };
        let line_held = budget.values(len + 2)?;
        let mut line = line.to_vec();
        if let Some(fill) = fill {
            line.resize(n, fill.clone());
        }
        lines.push(Value::list(line, line_held)?);
    }
    Value::iter(lines, None, held)
}

/// So many lists, the first of which have one item more if they cannot be equally long.
fn slice<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let n = args.require(0, "slices")?.as_size()?;
    if n == 0 {
        return Err(Error::new("slice: the number of slices is at least 1"));
    }
    let held = budget.values(n)?;
    let (len, longer) = (list.items.len() / n, list.items.len() % n);
    let mut rest = &list.items[..];
    let mut slices = Vec::with_capacity(n);
    for i in 0..n {
        let (part, after) = rest.split_at(len + usize::from(i < longer));
        rest = after;
        let part_held = budget.values(part.len() + 3)?;
        let mut part = part.to_vec();
        if let Some(fill) = args.optional(1, "fill_with").filter(|_| i >= longer) {
            part.push(fill.clone());
        }
        slices.push(Value::list(part, part_held)?);
    }
    Value::iter(slices, None, held)
}

/// Pairs of a value and the items that have it as their attribute, in the order of the values.
fn group_by<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let path = path(args.require(0, "attribute")?, budget)?;
    let (own, own_held) = pick_all(list, &path, args.optional(1, "default"), budget)?;
    let own = List::new(Kind::List, own, own_held)?;
    let keys = sort_keys(&own, None, false, args.flag(2, "case_sensitive"), budget)?;
    let order = sorted(&keys, false, budget)?;
    let held = budget.values(list.items.len())?;
    let mut groups: Vec<(usize, Vec<Value<'t>>, Held)> = Vec::new();
    for i in order {
        let item = list.items[i].clone();
        match groups.last_mut() {
            Some((first, items, held)) if keys.items[*first].equals(&keys.items[i], budget)? => {
                held.add(crate::budget::VALUE_BYTES)?;
                items.push(item);
            }
            _ => groups.push((i, vec![item], budget.values(3)?)),
        }
    }
    let mut pairs = Vec::with_capacity(groups.len());
    for (first, items, items_held) in groups {
        let pair = vec![own.items[first].clone(), Value::list(items, items_held)?];
        let pair_held = budget.values(3)?;
        pairs.push(Value::tuple(pair, pair_held)?);
    }
    Value::list(pairs, held)
}
