//! Python's two ways to fill values into a text: `'%s' % x`, which the filter `format` uses too, and `'{}'.format(x)`.

use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Args, Value};

/// Fills values into the fields of a pattern: `%s`, `%r`, `%d`, `%i`, `%x`, `%f` and `%%`, with width and precision.
pub(crate) fn percent<'t>(pattern: &str, values: &[Value<'t>], budget: &mut Budget) -> Result<String, Error> {
    budget.bytes(pattern.len())?;
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = pattern;
    while let Some((text, field)) = rest.split_once('%') {
        out.push_str(text);
        let flags = field.len() - field.trim_start_matches(['-', '0', '+', ' ', '#']).len();
        let (width, after) = number(&field[flags..]);
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => number(after),
            None => (None, after),
        };
        let mut chars = after.chars();
        let kind = chars.next();
        rest = chars.as_str();
        if kind == Some('%') {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            return Err(Error::new("there are more fields than values in this format"));
        };
        let mut text = String::new();
        match kind {
            Some('s' | 'r') => {
                value.print(&mut text, kind == Some('r'), budget)?;
                if let Some((at, _)) = precision.and_then(|n| text.char_indices().nth(n)) {
                    text.truncate(at);
                }
            }
            Some('d' | 'i' | 'u') => match value {
                Value::Float(value) => text = (value.trunc() as i64).to_string(),
                value => text = value.as_int()?.to_string(),
            },
            Some('x') => match value.as_int()? {
                value if value < 0 => text = format!("-{:x}", value.unsigned_abs()),
                value => text = format!("{value:x}"),
            },
            Some('f') => {
                let value = value.as_number().ok_or_else(|| Error::new("%f needs a number"))?;
                let precision = precision.unwrap_or(6);
                // A float has up to 309 digits before its point.
                budget.bytes(precision.saturating_add(350))?;
                if precision > 1000 {
                    return Err(Error::new("%f: at most 1000 digits are accepted after the point"));
                }
                text = format!("{value:.precision$}");
            }
            _ => return Err(Error::new("this field of the format is not known; %s, %r, %d, %x and %f are")),
        }
        let spaces = width.unwrap_or(0).saturating_sub(text.chars().count());
        budget.bytes(spaces.saturating_add(text.len()))?;
        let flags = &field[..flags];
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', spaces));
        } else if flags.contains('0') && !matches!(kind, Some('s' | 'r')) {
            let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', spaces));
            out.push_str(digits);
        } else {
            out.extend(std::iter::repeat_n(' ', spaces));
            out.push_str(&text);
        }
    }
    out.push_str(rest);
    match values.next() {
        Some(_) => Err(Error::new("there are more values than fields in this format")),
        None => Ok(out),
    }
}

/// The decimal number at the start of a text.
fn number(text: &str) -> (Option<usize>, &str) {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    // Too many digits are too wide in any case.
    ((len > 0).then(|| digits.parse().unwrap_or(usize::MAX)), rest)
}

/// Fills arguments into `{}`, `{0}` and `{name}`; `{{` and `}}` are braces.
pub(crate) fn braces<'t>(pattern: &str, args: &Args<'t>, budget: &mut Budget) -> Result<String, Error> {
    budget.bytes(pattern.len())?;
    let mut out = String::new();
    let mut next = 0;
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        let field = rest.split_once('}').filter(|_| brace == "{");
        let Some((field, after)) = field else {
            return Err(Error::new("a brace of the format has no partner; {{ and }} write one"));
        };
        rest = after;
        let value = if field.is_empty() {
            next += 1;
            args.positional.get(next - 1)
        } else if let Ok(i) = field.parse::<usize>() {
            args.positional.get(i)
        } else {
            budget.bytes(args.named.len().saturating_mul(field.len()))?;
            args.named(field)
        };
        let Some(value) = value else {
            return Err(Error::new("a field of the format has no value; {}, {0} and {name} are known"));
        };
        value.print(&mut out, false, budget)?;
    }
    out.push_str(rest);
    Ok(out)
}
