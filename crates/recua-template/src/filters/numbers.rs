//! The filters that make or write numbers.

use crate::args::Args;
use crate::budget::Budget;
use crate::error::Error;
use crate::value::Value;

pub(super) fn int<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    let base = match u32::try_from(args.int(1, "base", 10)?) {
        Ok(base) if base == 0 || (2..=36).contains(&base) => base,
        _ => return Err(Error::new("int: the base is 0, or from 2 to 36")),
    };
    let number = match value {
        Value::Undefined => return Err(Error::new("undefined is no number")),
        Value::Str(text) => {
            budget.scan(text.len())?;
            match parse(text, base) {
                Some(value) => Some(value),
                None => text.trim().replace('_', "").parse().ok().and_then(whole),
            }
        }
        Value::Float(value) => whole(*value),
        value => value.as_int().ok(),
    };
    Ok(number.map_or_else(|| args.get(0, "default").cloned().unwrap_or(Value::Int(0)), Value::Int))
}

fn whole(value: f64) -> Option<i128> {
    // Beyond this, a conversion would stop at the largest integer.
    (value.abs() < 2f64.powi(127)).then_some(value as i128)
}

/// An integer as Python's `int` reads it.
fn parse(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefix = prefixes.into_iter().find(|(prefix, of)| {
        (base == *of || base == 0)
            && unsigned.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    });
    let (digits, base) = match prefix {
        Some((_, base)) => (unsigned[2..].strip_prefix('_').unwrap_or(&unsigned[2..]), base),
        None => (unsigned, if base == 0 { 10 } else { base }),
    };
    let is_clean = digits.starts_with(|ch: char| ch.is_ascii_alphanumeric())
        && digits.ends_with(|ch: char| ch.is_ascii_alphanumeric())
        && !digits.contains("__");
    let value = i128::from_str_radix(&digits.replace('_', ""), base).ok().filter(|_| is_clean)?;
    Some(if text.starts_with('-') { -value } else { value })
}

pub(super) fn float<'t>(value: &Value<'t>, args: &Args<'t>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    if let Value::Undefined = value {
        return Err(Error::new("undefined is no number"));
    }
    let number = number(value, budget)?;
    Ok(number.map_or_else(|| args.get(0, "default").cloned().unwrap_or(Value::Float(0.0)), Value::Float))
}

/// A number, or the number that a text is.
fn number(value: &Value<'_>, budget: &mut Budget) -> Result<Option<f64>, Error> {
    Ok(match value {
        Value::Str(text) => {
            budget.scan(text.len())?;
            text.trim().replace('_', "").parse().ok()
        }
        value => value.as_number(),
    })
}

pub(super) fn round<'t>(value: &Value<'t>, args: &Args<'t>) -> Result<Value<'t>, Error> {
    let precision = args.int(0, "precision", 0)?;
    let method = args.optional_str(1, "method")?.map_or("common", |method| &**method);
    let number =
        value.as_number().ok_or_else(|| Error::new(format!("{} cannot be rounded", value.kind())))?;
    let Some(precision) = usize::try_from(precision).ok().filter(|&precision| precision <= 300) else {
        return Err(Error::new("round: a precision from 0 to 300 is accepted"));
    };
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

/// A number of bytes as people read it.
pub(super) fn file_size<'t>(
    value: &Value<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    let bytes = number(value, budget)?.ok_or_else(|| Error::new("filesizeformat needs a number"))?;
    let (base, units) = if args.flag(0, "binary") {
        (1024f64, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000f64, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    let text = if bytes == 1.0 {
        "1 Byte".to_owned()
    } else if bytes < base {
        format!("{} Bytes", bytes as i128)
    } else {
        let exponent =
            (1..units.len() as i32).find(|&n| bytes < base.powi(n + 1)).unwrap_or(units.len() as i32);
        format!("{:.1} {}", bytes / base.powi(exponent), units[exponent as usize - 1])
    };
    Value::str(&text, budget)
}
