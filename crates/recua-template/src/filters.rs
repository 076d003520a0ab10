//! The filters, which follow `|`: those of single values, and `map`, which applies another filter.

mod lists;

use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Error;
use crate::format::percent;
use crate::methods::items;
use crate::text::{center, change_case, replace, strip, url_encoded};
use crate::value::{Args, List, Value};
use crate::{json, ops};

/// Every filter there is.
pub(crate) const FILTERS: [&str; 44] = [
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "urlencode",
];

pub(crate) fn apply<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match name {
        "trim" => {
            let text = value.to_text(budget)?;
            let chars = args.optional_str(0, "chars")?.map(|chars| &**chars);
            Value::str(strip(&text, chars, true, true, budget)?, budget)
        }
        "upper" | "lower" | "title" | "capitalize" => {
            let text = value.to_text(budget)?;
            Value::str(&change_case(&text, name, budget)?, budget)
        }
        "string" | "safe" => value.to_text(budget).map(Value::Str),
        "e" | "escape" => escape(&value.to_text(budget)?, budget),
        "center" => {
            let text = value.to_text(budget)?;
            Value::str(&center(&text, args.int(0, "width", 80)?, budget)?, budget)
        }
        "format" => {
            let text = percent(&value.to_text(budget)?, &args.positional, budget)?;
            Value::str(&text, budget)
        }
        "urlencode" => Value::str(&url_encoded(&value.to_text(budget)?, budget)?, budget),
        "length" | "count" => value.len(budget).map(Value::int),
        "int" | "float" => number(name, value, args, budget),
        "round" => round(value, args, budget),
        "bool" => Ok(Value::Bool(value.is_true())),
        "abs" => match value {
            Value::Float(value) => Ok(Value::Float(value.abs())),
            value if value.as_int()? < 0 => ops::negate(value),
            value => Ok(value.clone()),
        },
        "attr" => ops::attribute(value, args.require(0, "name")?.as_str()?, budget),
        "default" | "d" => {
            let missing = matches!(value, Value::Undefined) || (args.flag(1, "boolean") && !value.is_true());
            if !missing {
                return Ok(value.clone());
            }
            args.get(0, "default_value").map_or_else(|| Value::str("", budget), |value| Ok(value.clone()))
        }
        "replace" => {
            let text = value.to_text(budget)?;
            let old = args.require(0, "old")?.to_text(budget)?;
            let new = args.require(1, "new")?.to_text(budget)?;
            Value::str(&replace(&text, &old, &new, args.int(2, "count", -1)?, budget)?, budget)
        }
        "indent" => indent(&value.to_text(budget)?, args, budget),
        "tojson" => {
            let text = json::dump(value, args, budget)?;
            Value::str(&text, budget)
        }
        "items" if matches!(value, Value::Undefined) => Value::list(Vec::new()),
        "items" => items(value, budget),
        "dictsort" => lists::dictsort(value, args, budget),
        "map" => {
            let list = list_for(name, value, budget)?;
            map(&list, args, budget)
        }
        name if FILTERS.contains(&name) => {
            let list = list_for(name, value, budget)?;
            lists::apply(name, value, &list, args, budget)
        }
        name => {
            let name: String = name.chars().take(60).collect();
            Err(Error::new(format!("the filter {name} is not known; known are {}", FILTERS.join(", "))))
        }
    }
}

/// The items of a value for a filter of lists. To those that choose, `none` is as good as empty, as in Jinja.
fn list_for<'t>(name: &str, value: &Value<'t>, budget: &mut Budget) -> Result<Rc<List<'t>>, Error> {
    match (name, value) {
        ("map" | "select" | "reject" | "selectattr" | "rejectattr", Value::None) => {
            Value::Undefined.items(budget)
        }
        _ => value.items(budget).map_err(|error| match error {
            Error::Limit(_) => error,
            _ => Error::new(format!("the filter {name} needs a list, not {}", value.kind())),
        }),
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

fn round<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let precision = args.int(0, "precision", 0)?;
    let method = args.optional_str(1, "method")?.map_or("common", |method| &**method);
    let number =
        value.as_number().ok_or_else(|| Error::new(format!("{} cannot be rounded", value.kind())))?;
    let Some(precision) = usize::try_from(precision).ok().filter(|&precision| precision <= 300) else {
        return Err(Error::new("round: a precision from 0 to 300 is accepted"));
    };
    // A float has up to 309 digits before its point.
    budget.bytes(precision + 350)?;
    let factor = 10f64.powi(precision as i32);
    Ok(match (method, value) {
        ("common", Value::Float(_)) => {
            Value::Float(format!("{number:.precision$}").parse().unwrap_or(number))
        }
        ("common", _) => Value::Int(value.as_int()?),
        ("ceil", _) => Value::Float((number * factor).ceil() / factor),
        ("floor", _) => Value::Float((number * factor).floor() / factor),
        _ => return Err(Error::new("round: the methods are common, ceil and floor")),
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
    let (first, blank) = (args.flag(1, "first"), args.flag(2, "blank"));
    let mut indented = String::new();
    for (i, line) in text.split('\n').enumerate() {
        budget.bytes(1 + by.len() + line.len())?;
        if i > 0 {
            indented.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            indented.push_str(&by);
        }
        indented.push_str(line);
    }
    Value::str(&indented, budget)
}

fn map<'t>(list: &List<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    if let Some(path) = args.named("attribute") {
        let path = lists::path(path)?;
        let mut picked = lists::pick_all(list, &path, budget)?;
        if let Some(default) = args.named("default") {
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
