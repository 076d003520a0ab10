//! The filters, which follow `|`: those of single values, and `map`, which applies another filter.

mod lists;
mod numbers;

use crate::args::{Args, Takes};
use crate::budget::{Budget, Buffer};
use crate::error::Error;
use crate::format::percent;
use crate::methods::pairs;
use crate::text::{Text, center, change_case, lines, push_escaped, replace, strip, url_encoded};
use crate::value::Value;
use crate::{json, ops};

/// Every filter there is, and what it takes beside the value.
pub(crate) const FILTERS: [(&str, Takes); 49] = [
    ("abs", Takes::Only(&[])),
    ("attr", Takes::Only(&["name"])),
    ("batch", Takes::Only(&["linecount", "fill_with"])),
    ("bool", Takes::Only(&[])),
    ("capitalize", Takes::Only(&[])),
    ("center", Takes::Only(&["width"])),
    ("count", Takes::Only(&[])),
    ("d", Takes::Only(&["default_value", "boolean"])),
    ("default", Takes::Only(&["default_value", "boolean"])),
    ("dictsort", Takes::Only(&["case_sensitive", "by", "reverse"])),
    ("e", Takes::Only(&[])),
    ("escape", Takes::Only(&[])),
    ("filesizeformat", Takes::Only(&["binary"])),
    ("first", Takes::Only(&[])),
    ("float", Takes::Only(&["default"])),
    ("forceescape", Takes::Only(&[])),
    ("format", Takes::Any),
    ("groupby", Takes::Only(&["attribute", "default", "case_sensitive"])),
    ("indent", Takes::Only(&["width", "first", "blank"])),
    ("int", Takes::Only(&["default", "base"])),
    ("items", Takes::Only(&[])),
    ("join", Takes::Only(&["d", "attribute"])),
    ("last", Takes::Only(&[])),
    ("length", Takes::Only(&[])),
    ("list", Takes::Only(&[])),
    ("lower", Takes::Only(&[])),
    ("map", Takes::Any),
    ("max", Takes::Only(&["case_sensitive", "attribute"])),
    ("min", Takes::Only(&["case_sensitive", "attribute"])),
    ("reject", Takes::Any),
    ("rejectattr", Takes::Any),
    ("replace", Takes::Only(&["old", "new", "count"])),
    ("reverse", Takes::Only(&[])),
    ("round", Takes::Only(&["precision", "method"])),
    ("safe", Takes::Only(&[])),
    ("select", Takes::Any),
    ("selectattr", Takes::Any),
    ("slice", Takes::Only(&["slices", "fill_with"])),
    ("sort", Takes::Only(&["reverse", "case_sensitive", "attribute"])),
    ("string", Takes::Only(&[])),
    ("sum", Takes::Only(&["attribute", "start"])),
    ("title", Takes::Only(&[])),
    ("tojson", Takes::Only(json::PARAMETERS)),
    ("trim", Takes::Only(&["chars"])),
    ("truncate", Takes::Only(&["length", "killwords", "end", "leeway"])),
    ("unique", Takes::Only(&["case_sensitive", "attribute"])),
    ("upper", Takes::Only(&[])),
    ("urlencode", Takes::Only(&[])),
    ("wordcount", Takes::Only(&[])),
];

pub(crate) fn apply<'t>(
    name: &str,
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let Some((_, takes)) = FILTERS.iter().find(|(known, _)| *known == name) else {
        let name: String = name.chars().take(60).collect();
        let known = FILTERS.map(|(name, _)| name).join(", ");
        return Err(Error::new(format!("the filter {name} is not known; known are {known}")));
    };
    args.check(name, *takes, budget)?;
    match name {
        "trim" => {
            let text = value.to_text(budget)?;
            let chars = args.optional_str(0, "chars")?.map(|chars| &**chars);
            let trimmed = Text::new(strip(&text, chars, true, true, budget)?, budget)?;
            Ok(Value::Str(trimmed.marked(text.is_markup())))
        }
        "upper" | "lower" | "capitalize" => {
            let text = value.to_text(budget)?;
            let changed = Text::new(&change_case(&text, name, budget)?, budget)?;
            Ok(Value::Str(changed.marked(text.is_markup())))
        }
        "title" => Value::str(&change_case(&value.to_text(budget)?, "titles", budget)?, budget),
        "string" => value.to_text(budget).map(Value::Str),
        "safe" => value.to_text(budget).map(|text| Value::Str(text.marked(true))),
        "e" | "escape" | "forceescape" => {
            let text = value.to_text(budget)?;
            if text.is_markup() && name != "forceescape" {
                return Ok(Value::Str(text));
            }
            let mut out = Buffer::new(budget)?;
            push_escaped(&mut out, &text, budget)?;
            Text::built(out, budget).map(|text| Value::Str(text.marked(true)))
        }
        "center" => {
            let text = value.to_text(budget)?;
            let centered = Text::new(&center(&text, args.int(0, "width", 80)?, budget)?, budget)?;
            Ok(Value::Str(centered.marked(text.is_markup())))
        }
        "format" => format(value, args, budget),
        "truncate" => truncate(&value.to_text(budget)?, args, budget),
        "urlencode" => Value::str(&url_encoded(&value.to_text(budget)?, budget)?, budget),
        "wordcount" => {
            let text = value.to_text(budget)?;
            budget.scan(text.len())?;
            let words = text.split(|ch: char| ch != '_' && !ch.is_alphanumeric());
            Ok(Value::int(words.filter(|word| !word.is_empty()).count()))
        }
        "length" | "count" => value.len(budget).map(Value::int),
        "int" => numbers::int(value, args, budget),
        "float" => numbers::float(value, args, budget),
        "round" => numbers::round(value, args),
        "filesizeformat" => numbers::file_size(value, args, budget),
        "bool" => Ok(Value::Bool(value.is_true())),
        "abs" => match value {
            Value::Float(value) => Ok(Value::Float(value.abs())),
            value if value.as_int()? < 0 => ops::negate(value),
            value => value.as_int().map(Value::Int),
        },
        "attr" => match (value, args.require(0, "name")?.as_str()?) {
            // It sees attributes only, and the entries of a mapping are none.
            (Value::Map(_) | Value::List(_), _) => Ok(Value::Undefined),
            (value, name) => ops::attribute(value, name, budget),
        },
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
            let count = args.optional(2, "count").map_or(Ok(-1), Value::as_int)?;
            Value::str(&replace(&text, &old, &new, count, budget)?, budget)
        }
        "indent" => indent(value.as_str()?, args, budget),
        "tojson" => json::dump(value, args, budget),
        "items" => {
            let (items, held) = match value {
                Value::Undefined => (Vec::new(), budget.values(0)?),
                Value::Map(_) => pairs(value, budget)?,
                other => {
                    let error = Error::new(format!("the filter items needs a mapping, not {}", other.kind()));
                    return lists::failing(Vec::new(), error, budget.values(0)?);
                }
            };
            Value::iter(items, None, held)
        }
        "map" => map(value, args, budget),
        name => lists::apply(name, value, args, budget),
    }
}

/// `'%s' % x`: with the arguments, or with a mapping of those that have names.
fn format<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let pattern = value.to_text(budget)?;
    if args.named.is_empty() {
        return percent(&pattern, &args.positional, None, budget);
    }
    if !args.positional.is_empty() {
        return Err(Error::new("format takes arguments by position or with names, not both"));
    }
    let held = budget.values(args.named.len().saturating_mul(2))?;
    let mut entries = Vec::with_capacity(args.named.len());
    for (name, value) in &args.named {
        entries.push((Value::str(name, budget)?, value.clone()));
    }
    let map = Value::map(entries, held, budget)?;
    percent(&pattern, &[], Some(&map), budget)
}

fn truncate<'t>(text: &Text<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let length = args.get(0, "length").map_or(Ok(255), Value::as_size)?;
    let end = match args.get(2, "end") {
        Some(end) => end.as_str()?.clone(),
        None => Text::literal("..."),
    };
    let leeway = args.optional(3, "leeway").map_or(Ok(5), Value::as_size)?;
    budget.scan(text.len() + end.len())?;
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(Error::new("truncate: the length is at least that of what the text ends with"));
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(Value::Str(text.clone()));
    }
    let at = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
    let kept = &text[..at];
    let kept =
        if args.flag(1, "killwords") { kept } else { kept.rsplit_once(' ').map_or(kept, |(kept, _)| kept) };
    let mut out = Buffer::new(budget)?;
    out.push_str(kept, budget)?;
    out.push_str(&end, budget)?;
    Text::built(out, budget).map(|made| Value::Str(made.marked(text.is_markup())))
}

fn indent<'t>(text: &Text<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let by = match args.get(0, "width") {
        Some(Value::Str(by)) => by.clone(),
        width => {
            let mut by = Buffer::new(budget)?;
            by.push_n(" ", width.map_or(Ok(4), Value::as_size)?, budget)?;
            Text::built(by, budget)?
        }
    };
    let (first, blank) = (args.flag(1, "first"), args.flag(2, "blank"));
    // Each line has a place in a list of slices, too.
    budget.room(text.len().saturating_add(1).saturating_mul(16))?;
    let mut lines = lines(text, false);
    // Jinja adds a line feed before it cuts, so what follows the last line end is a line, even if it is empty.
    if text.is_empty() || text.ends_with(['\n', '\u{B}', '\u{C}', '\u{85}', '\u{2028}', '\u{2029}']) {
        lines.push("");
    }
    let mut out = Buffer::new(budget)?;
    for (i, line) in lines.into_iter().enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" }, budget)?;
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&by, budget)?;
        }
        out.push_str(line, budget)?;
    }
    Text::built(out, budget).map(|made| Value::Str(made.marked(text.is_markup())))
}

fn map<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let list = match lists::chosen_from("map", value, budget) {
        Ok(Some(list)) => list,
        Ok(None) => return Value::iter(Vec::new(), None, budget.values(0)?),
        Err(error) => return lists::failing(Vec::new(), error, budget.values(0)?),
    };
    let held = budget.values(list.items.len())?;
    let mut mapped = Vec::with_capacity(list.items.len());
    let mut failure = None;
    if args.positional.is_empty() && args.named("attribute").is_some() {
        args.check("map", Takes::Only(&["attribute", "default"]), budget)?;
        let path = lists::path(args.require(0, "attribute")?, budget)?;
        for item in &list.items {
            match lists::pick(item, &path, args.optional(1, "default"), budget) {
                Ok(value) => mapped.push(value),
                Err(error) => return lists::failing(mapped, error, held),
            }
        }
        return Value::iter(mapped, None, held);
    }
    let filter = args.require(0, "filter")?.as_str()?.clone();
    let rest_held = budget.values(args.positional.len() + args.named.len())?;
    let rest = Args {
        positional: args.positional.get(1..).unwrap_or_default().to_vec(),
        named: args.named.clone(),
        held: rest_held,
    };
    // A filter that maps with a filter that maps ...
    budget.enter()?;
    for item in &list.items {
        match apply(&filter, item, &rest, budget) {
            Ok(value) => mapped.push(value),
            Err(error @ Error::Limit(_)) => return Err(error),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    budget.leave();
    Value::iter(mapped, failure, held)
}
