//! The methods of Python's strings, dictionaries and lists that templates call.

use crate::args::{Args, Takes};
use crate::budget::{Budget, Buffer, Held, VALUE_BYTES};
use crate::error::Error;
use crate::format::braces;
use crate::text::{Text, center, change_case, lines, push_escaped, replace, strip, words};
use crate::value::{Kind, Value};

pub(crate) fn call<'t>(
    object: &Value<'t>,
    name: &str,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    match object {
        Value::Str(text) => of_str(text, name, args, budget),
        Value::Map(_) => of_map(object, name, args, budget),
        Value::List(list) if matches!(name, "count" | "index") && list.kind.is_sequence() => {
            args.check(name, Takes::Only(&["value"]), budget)?;
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
        Value::List(list) if list.kind == Kind::List && name == "copy" => {
            args.check(name, Takes::Only(&[]), budget)?;
            Ok(object.clone())
        }
        Value::List(_) if matches!(name, "append" | "extend" | "insert" | "pop" | "remove") => {
            Err(Error::new("lists cannot be changed; {% set x = x + [y] %} makes a longer one"))
        }
        Value::Loop(this) if name == "cycle" => {
            args.check("loop.cycle", Takes::Many, budget)?;
            match args.positional.len() {
                0 => Err(Error::new("loop.cycle has nothing to choose from")),
                n => Ok(args.positional[this.index % n].clone()),
            }
        }
        Value::Loop(this) if name == "changed" => {
            args.check("loop.changed", Takes::Many, budget)?;
            let held = budget.values(args.positional.len())?;
            let values = Value::tuple(args.positional.clone(), held)?;
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

/// The methods of mappings.
pub(crate) const OF_MAP: [&str; 5] = ["copy", "get", "items", "keys", "values"];

fn of_map<'t>(map: &Value<'t>, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let takes: &[&str] = if name == "get" { &["key", "default"] } else { &[] };
    if OF_MAP.contains(&name) {
        args.check(name, Takes::Only(takes), budget)?;
    }
    match name {
        "get" => {
            let found = map.entry_at(args.require(0, "key")?, budget)?;
            Ok(found.unwrap_or_else(|| args.get(1, "default").cloned().unwrap_or(Value::None)))
        }
        "items" => {
            let (pairs, held) = pairs(map, budget)?;
            Value::row(Kind::View("dict_items"), pairs, held)
        }
        "keys" | "values" => {
            let entries = &map.as_map()?.entries;
            let held = budget.values(entries.len())?;
            let sides = entries.iter().map(|(key, value)| if name == "keys" { key } else { value });
            let kind = if name == "keys" { "dict_keys" } else { "dict_values" };
            Value::row(Kind::View(kind), sides.cloned().collect(), held)
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
pub(crate) fn pairs<'t>(map: &Value<'t>, budget: &mut Budget) -> Result<(Vec<Value<'t>>, Held), Error> {
    let map = map.as_map()?;
    let held = budget.values(map.entries.len())?;
    let mut pairs = Vec::with_capacity(map.entries.len());
    for (key, value) in &map.entries {
        let held = budget.values(4)?;
        pairs.push(Value::tuple(vec![key.clone(), value.clone()], held)?);
    }
    Ok((pairs, held))
}

/// The methods of strings, with what they take.
const OF_STR: &[(&str, &[&str])] = &[
    ("capitalize", &[]),
    ("casefold", &[]),
    ("center", &["width", "fillchar"]),
    ("count", &["part"]),
    ("endswith", &["suffix"]),
    ("expandtabs", &["tabsize"]),
    ("find", &["part"]),
    ("index", &["part"]),
    ("isalnum", &[]),
    ("isalpha", &[]),
    ("isascii", &[]),
    ("isdecimal", &[]),
    ("isdigit", &[]),
    ("isidentifier", &[]),
    ("islower", &[]),
    ("isnumeric", &[]),
    ("isspace", &[]),
    ("isupper", &[]),
    ("join", &["items"]),
    ("ljust", &["width", "fillchar"]),
    ("lower", &[]),
    ("lstrip", &["chars"]),
    ("partition", &["sep"]),
    ("removeprefix", &["prefix"]),
    ("removesuffix", &["suffix"]),
    ("replace", &["old", "new", "count"]),
    ("rfind", &["part"]),
    ("rindex", &["part"]),
    ("rjust", &["width", "fillchar"]),
    ("rpartition", &["sep"]),
    ("rsplit", &["sep", "maxsplit"]),
    ("rstrip", &["chars"]),
    ("split", &["sep", "maxsplit"]),
    ("splitlines", &["keepends"]),
    ("startswith", &["prefix"]),
    ("strip", &["chars"]),
    ("swapcase", &[]),
    ("title", &[]),
    ("upper", &[]),
    ("zfill", &["width"]),
];

fn of_str<'t>(text: &Text<'t>, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    budget.scan(text.len())?;
    if name == "format" {
        return braces(text, args, budget);
    }
    let Some((_, takes)) = OF_STR.iter().find(|(known, _)| *known == name) else {
        return Err(unknown("a string", name));
    };
    args.check(name, Takes::Only(takes), budget)?;
    let first = takes.first().copied().unwrap_or_default();
    let is_markup = text.is_markup();
    let made = match name {
        "strip" | "lstrip" | "rstrip" => {
            let chars = args.optional_str(0, first)?.map(|chars| &**chars);
            Text::new(strip(text, chars, name != "rstrip", name != "lstrip", budget)?, budget)?
        }
        "upper" | "lower" | "title" | "capitalize" | "casefold" | "swapcase" => {
            Text::new(&change_case(text, name, budget)?, budget)?
        }
        "center" | "ljust" | "rjust" | "zfill" => padded(text, name, args, budget)?,
        "expandtabs" => expand_tabs(text, args.get(0, first).map_or(Ok(8), Value::as_size)?, budget)?,
        "removeprefix" | "removesuffix" => {
            let part = args.require(0, first)?.as_str()?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(&**part) } else { text.strip_suffix(&**part) };
            Text::new(rest.unwrap_or(text), budget)?
        }
        "replace" => {
            let (old, new) = (args.require(0, "old")?.as_str()?, args.require(1, "new")?.as_str()?);
            let new = beside(text, new, budget)?;
            Text::new(&replace(text, old, &new, args.int(2, "count", -1)?, budget)?, budget)?
        }
        "join" => return join_strings(text, args.require(0, first)?, budget),
        "partition" | "rpartition" => return partition(text, args, name == "rpartition", budget),
        "split" | "rsplit" => {
            let separator = args.optional_str(0, "sep")?.cloned();
            let count = args.int(1, "maxsplit", -1)?;
            return split(text, separator.as_deref(), count, name == "rsplit", budget);
        }
        "splitlines" => {
            // Each line has a place in a list of slices, too.
            budget.room(text.len().saturating_mul(16))?;
            return parts(text, lines(text, args.flag(0, "keepends")).into_iter(), budget);
        }
        _ => return ask(text, name, args, budget),
    };
    Ok(Value::Str(made.marked(is_markup)))
}

/// The methods of strings that give a boolean or a number.
fn ask<'t>(text: &str, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let every = |is: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    let has = |is: &dyn Fn(char) -> bool| text.chars().any(is);
    Ok(Value::Bool(match name {
        "startswith" | "endswith" => {
            let matches = |part: &Value<'t>, budget: &mut Budget| {
                let part = part.as_str()?;
                budget.scan(part.len())?;
                Ok::<_, Error>(if name == "startswith" {
                    text.starts_with(&**part)
                } else {
                    text.ends_with(&**part)
                })
            };
            match args.require(0, if name == "startswith" { "prefix" } else { "suffix" })? {
                Value::List(parts) if parts.kind == Kind::Tuple => {
                    let mut found = false;
                    for part in &parts.items {
                        found |= matches(part, budget)?;
                    }
                    found
                }
                part => matches(part, budget)?,
            }
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let part = args.require(0, "part")?.as_str()?;
            budget.scan(text.len() + part.len())?;
            let found = match name {
                "count" => return Ok(Value::int(text.matches(&**part).count())),
                "rfind" | "rindex" => text.rfind(&**part),
                _ => text.find(&**part),
            };
            return match found {
                Some(at) => Ok(Value::int(text[..at].chars().count())),
                None if name.ends_with("index") => Err(Error::new("the text is not found")),
                None => Ok(Value::Int(-1)),
            };
        }
        "isascii" => text.is_ascii(),
        "isdecimal" => every(&is_decimal),
        "isdigit" => {
            every(&|ch| is_decimal(ch) || matches!(ch, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉'))
        }
        "isnumeric" => every(&char::is_numeric),
        "isalpha" => every(&char::is_alphabetic),
        "isalnum" => every(&char::is_alphanumeric),
        "isspace" => every(&crate::text::is_space),
        "isupper" => !has(&char::is_lowercase) && has(&char::is_uppercase),
        "islower" => !has(&char::is_uppercase) && has(&char::is_lowercase),
        // isidentifier
        _ => every(&|ch| ch == '_' || ch.is_alphanumeric()) && !text.starts_with(|ch: char| ch.is_numeric()),
    }))
}

/// Whether a character is a digit of a positional system. Beyond ASCII, the first and the last of each row are known
/// where the row has ten.
fn is_decimal(ch: char) -> bool {
    const ZEROS: [u32; 21] = [
        0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6,
        0xE50, 0xED0, 0xF20, 0x1040, 0x17E0, 0x1810, 0xFF10,
    ];
    ZEROS.iter().any(|&zero| (zero..zero + 10).contains(&u32::from(ch)))
}

/// A text that joins another one: escaped if that is markup and this is not.
fn beside<'t>(text: &Text<'t>, other: &Text<'t>, budget: &mut Budget) -> Result<Text<'t>, Error> {
    if !text.is_markup() || other.is_markup() {
        return Ok(other.clone());
    }
    let mut out = Buffer::new(budget)?;
    push_escaped(&mut out, other, budget)?;
    Text::built(out, budget)
}

fn padded<'t>(text: &str, name: &str, args: &Args<'t>, budget: &mut Budget) -> Result<Text<'t>, Error> {
    let width = args.require(0, "width")?.as_int()?;
    let fill = args.optional_str(1, "fillchar")?.cloned().unwrap_or(Text::literal(" "));
    if fill.chars().count() != 1 {
        return Err(Error::new(format!("{name}: fillchar is one character")));
    }
    if name == "center" && *fill == *" " {
        return Text::new(&center(text, width, budget)?, budget);
    }
    let n = Value::Int(width).as_size()?.saturating_sub(text.chars().count());
    let mut out = Buffer::new(budget)?;
    let (before, after) = match name {
        "ljust" => (0, n),
        "center" => (
            n / 2 + (n & Value::Int(width).as_size()? & 1),
            n - n / 2 - (n & Value::Int(width).as_size()? & 1),
        ),
        _ => (n, 0),
    };
    let (sign, rest) = text.split_at(usize::from(name == "zfill" && text.starts_with(['+', '-'])));
    out.push_str(sign, budget)?;
    out.push_n(if name == "zfill" { "0" } else { &fill }, before, budget)?;
    out.push_str(rest, budget)?;
    out.push_n(&fill, after, budget)?;
    Text::built(out, budget)
}

fn expand_tabs<'t>(text: &str, size: usize, budget: &mut Budget) -> Result<Text<'t>, Error> {
    let mut out = Buffer::new(budget)?;
    let mut column = 0usize;
    for ch in text.chars() {
        match ch {
            '\t' => {
                let n = if size == 0 { 0 } else { size - column % size };
                out.push_n(" ", n, budget)?;
                column += n;
            }
            ch => {
                out.push(ch, budget)?;
                column = if matches!(ch, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Text::built(out, budget)
}

/// A list of parts of a text.
fn parts<'t, 'p>(
    text: &Text<'t>,
    parts: impl Iterator<Item = &'p str>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let mut held = budget.values(0)?;
    let mut list = Vec::new();
    for part in parts {
        held.add(VALUE_BYTES)?;
        list.push(Value::Str(Text::new(part, budget)?.marked(text.is_markup())));
    }
    Value::list(list, held)
}

fn partition<'t>(
    text: &Text<'t>,
    args: &Args<'t>,
    from_right: bool,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let separator = args.require(0, "sep")?.as_str()?;
    if separator.is_empty() {
        return Err(Error::new("partition: the separator is empty"));
    }
    let found = if from_right { text.rsplit_once(&**separator) } else { text.split_once(&**separator) };
    let three = match found {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    let held = budget.values(3)?;
    let mut items = Vec::with_capacity(3);
    for part in three {
        items.push(Value::Str(Text::new(part, budget)?.marked(text.is_markup())));
    }
    Value::tuple(items, held)
}

fn split<'t>(
    text: &Text<'t>,
    separator: Option<&str>,
    count: i128,
    from_right: bool,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let n = usize::try_from(count).map_or(usize::MAX, |count| count.saturating_add(1));
    match separator {
        Some("") => Err(Error::new("split: the separator is empty; the filter list gives characters")),
        Some(separator) if from_right => {
            budget.room(text.len().saturating_mul(16))?;
            let mut found: Vec<&str> = text.rsplitn(n, separator).collect();
            found.reverse();
            parts(text, found.into_iter(), budget)
        }
        Some(separator) => parts(text, text.splitn(n, separator), budget),
        None => {
            // Each word has a place in a list of slices, too.
            budget.room(text.len().saturating_mul(8))?;
            parts(text, words(text, n, from_right).into_iter(), budget)
        }
    }
}

/// Strings with a text between them, which joins nothing else.
fn join_strings<'t>(text: &Text<'t>, items: &Value<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let items = items.items(budget)?;
    let mut out = Buffer::new(budget)?;
    for (i, item) in items.items.iter().enumerate() {
        if i > 0 {
            out.push_str(text, budget)?;
        }
        let item = match item {
            Value::Str(item) => item.clone(),
            item if text.is_markup() => item.to_text(budget)?,
            item => {
                let kind = item.kind();
                return Err(Error::new(format!(
                    "join: item {i} is {kind}, not a string; the filter join takes any"
                )));
            }
        };
        out.push_str(&beside(text, &item, budget)?, budget)?;
    }
    Text::built(out, budget).map(|made| Value::Str(made.marked(text.is_markup())))
}

/// The texts of values with a separator between them.
pub(crate) fn join<'t>(
    items: &[Value<'t>],
    separator: &str,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let mut joined = Buffer::new(budget)?;
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            joined.push_str(separator, budget)?;
        }
        item.print(&mut joined, false, budget)?;
    }
    Value::built(joined, budget)
}
