//! Python's two ways to fill values into a text: `'%s' % x`, which the filter `format` uses too, and
//! `'{}'.format(x)`.

use crate::args::Args;
use crate::budget::{Budget, Buffer};
use crate::error::Error;
use crate::text::{Text, push_escaped};
use crate::value::{Kind, Value};

/// Fills values into the fields of a pattern: `%s`, `%r`, `%d`, `%i`, `%x`, `%o`, `%f`, `%e`, `%g`, `%c` and `%%`, with
/// width and precision, and `%(name)s` of a mapping. What markup is filled with is escaped.
pub(crate) fn percent<'t>(
    pattern: &Text<'t>,
    values: &[Value<'t>],
    mapping: Option<&Value<'t>>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    budget.scan(pattern.len())?;
    let mut out = Buffer::new(budget)?;
    let mut next = 0;
    let mut rest = &**pattern;
    while let Some((text, field)) = rest.split_once('%') {
        out.push_str(text, budget)?;
        let (name, field) = match field.strip_prefix('(').and_then(|field| field.split_once(')')) {
            Some((name, field)) => (Some(name), field),
            None => (None, field),
        };
        let n_flags = field.len() - field.trim_start_matches(['-', '0', '+', ' ', '#']).len();
        let (flags, after) = field.split_at(n_flags);
        let (width, after) = number(after);
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => (Some(number(after).0.unwrap_or(0)), number(after).1),
            None => (None, after),
        };
        let mut chars = after.chars();
        let kind = chars.next();
        rest = chars.as_str();
        if kind == Some('%') {
            out.push('%', budget)?;
            continue;
        }
        let value = match (name, mapping) {
            (Some(name), Some(mapping)) => mapping
                .entry(name, budget)?
                .ok_or_else(|| Error::new("the mapping has no entry of a field's name"))?,
            (Some(_), None) => return Err(Error::new("a field with a name needs a mapping after the %")),
            (None, _) => {
                next += 1;
                let value = values.get(next - 1).cloned();
                value.ok_or_else(|| Error::new("there are more fields than values in this format"))?
            }
        };
        let field = Field { kind, flags, precision };
        let mut text = Buffer::new(budget)?;
        field.write(&value, &mut text, budget)?;
        let mut escaped = Buffer::new(budget)?;
        let is_markup = matches!(&value, Value::Str(text) if text.is_markup());
        let text = if pattern.is_markup() && !is_markup {
            push_escaped(&mut escaped, text.as_str(), budget)?;
            escaped.as_str()
        } else {
            text.as_str()
        };
        let n = width.unwrap_or(0).saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(text, budget)?;
            out.push_n(" ", n, budget)?;
        } else if flags.contains('0') && !matches!(kind, Some('s' | 'r' | 'c')) {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+', ' '])));
            out.push_str(sign, budget)?;
            out.push_n("0", n, budget)?;
            out.push_str(digits, budget)?;
        } else {
            out.push_n(" ", n, budget)?;
            out.push_str(text, budget)?;
        }
    }
    out.push_str(rest, budget)?;
    // To Python a list is something like a mapping, which may have more entries than the pattern has fields.
    let is_like_mapping =
        mapping.is_some() || matches!(values, [Value::List(list)] if list.kind != Kind::Tuple);
    if next < values.len() && !is_like_mapping {
        return Err(Error::new("there are more values than fields in this format"));
    }
    Text::built(out, budget).map(|text| Value::Str(text.marked(pattern.is_markup())))
}

/// What stands between `%` and the next text, without the width.
struct Field<'s> {
    kind: Option<char>,
    flags: &'s str,
    precision: Option<usize>,
}

impl Field<'_> {
    fn write(&self, value: &Value<'_>, out: &mut Buffer, budget: &mut Budget) -> Result<(), Error> {
        let kind = self.kind.unwrap_or(' ');
        if let 's' | 'r' | 'a' = kind {
            let mut text = Buffer::new(budget)?;
            value.print(&mut text, kind != 's', budget)?;
            let cut = self.precision.and_then(|n| text.as_str().char_indices().nth(n));
            return out.push_str(cut.map_or(text.as_str(), |(at, _)| &text.as_str()[..at]), budget);
        }
        if kind == 'c' {
            return match value {
                Value::Str(text) if text.chars().count() == 1 => out.push_str(text, budget),
                value => match u32::try_from(value.as_int()?).ok().and_then(char::from_u32) {
                    Some(ch) => out.push(ch, budget),
                    None => Err(Error::new("%c needs a character or its number")),
                },
            };
        }
        let precision = self.precision.unwrap_or(6);
        let text = match kind {
            'd' | 'i' | 'u' => match value {
                Value::Float(value) => (value.trunc() as i128).to_string(),
                value => value.as_int()?.to_string(),
            },
            'x' | 'X' | 'o' => {
                let value = value.as_int()?;
                let digits = match kind {
                    'x' => format!("{:x}", value.unsigned_abs()),
                    'X' => format!("{:X}", value.unsigned_abs()),
                    _ => format!("{:o}", value.unsigned_abs()),
                };
                if value < 0 { format!("-{digits}") } else { digits }
            }
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' => {
                let value = value.as_number().ok_or_else(|| Error::new(format!("%{kind} needs a number")))?;
                if precision > 1000 {
                    return Err(Error::new("a format: at most 1000 digits are accepted after the point"));
                }
                let text = float(value, kind.to_ascii_lowercase(), precision);
                if kind.is_ascii_uppercase() { text.to_uppercase() } else { text }
            }
            _ => {
                return Err(Error::new("this field of the format is not known; %s, %r, %d, %x and %f are"));
            }
        };
        if !text.starts_with('-') {
            match self.flags {
                flags if flags.contains('+') => out.push('+', budget)?,
                flags if flags.contains(' ') => out.push(' ', budget)?,
                _ => {}
            }
        }
        out.push_str(&text, budget)
    }
}

/// A number by C's `%f`, `%e` or `%g`.
fn float(value: f64, kind: char, precision: usize) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan".into()
        } else if value > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let scientific = |precision: usize| {
        let text = format!("{value:.precision$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        (digits.to_owned(), exponent.parse::<i32>().unwrap_or(0))
    };
    let exponential = |digits: &str, exponent: i32| {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
    };
    let trimmed = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    match kind {
        'f' => format!("{value:.precision$}"),
        'e' => {
            let (digits, exponent) = scientific(precision);
            exponential(&digits, exponent)
        }
        _ => {
            let precision = precision.max(1);
            let (digits, exponent) = scientific(precision - 1);
            if exponent < -4 || exponent >= precision as i32 {
                return exponential(&trimmed(&digits), exponent);
            }
            let places = (precision as i32 - 1 - exponent).max(0) as usize;
            trimmed(&format!("{value:.places$}"))
        }
    }
}

/// The decimal number at the start of a text.
fn number(text: &str) -> (Option<usize>, &str) {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    // Too many digits are too wide in any case.
    ((len > 0).then(|| digits.parse().unwrap_or(usize::MAX)), rest)
}

/// Fills arguments into `{}`, `{0}` and `{name}`, with a specification such as `:>8` or `:.2f` after them; `{{` and
/// `}}` are braces. What markup is filled with is escaped.
pub(crate) fn braces<'t>(
    pattern: &Text<'t>,
    args: &Args<'t>,
    budget: &mut Budget,
) -> Result<Value<'t>, Error> {
    budget.scan(pattern.len())?;
    let mut out = Buffer::new(budget)?;
    let mut next = 0;
    let mut rest = &**pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at], budget)?;
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace, budget)?;
            rest = after;
            continue;
        }
        let field = rest.split_once('}').filter(|_| brace == "{");
        let Some((field, after)) = field else {
            return Err(Error::new("a brace of the format has no partner; {{ and }} write one"));
        };
        rest = after;
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = field.split_once('!').unwrap_or((field, "s"));
        let value = if name.is_empty() {
            next += 1;
            args.positional.get(next - 1)
        } else if let Ok(i) = name.parse::<usize>() {
            args.positional.get(i)
        } else {
            budget.search(args.named.len(), name.len())?;
            args.named(name)
        };
        let Some(value) = value else {
            return Err(Error::new("a field of the format has no value; {}, {0} and {name} are known"));
        };
        let is_quoted = match conversion {
            "s" => false,
            "r" => true,
            _ => return Err(Error::new("this conversion of the format is not known; !s and !r are")),
        };
        let is_escaped = pattern.is_markup() && !matches!(value, Value::Str(text) if text.is_markup());
        let mut text = Buffer::new(budget)?;
        if spec.is_empty() {
            value.print(&mut text, is_quoted, budget)?;
        } else {
            specified(value, spec, &mut text, budget)?;
        }
        if is_escaped {
            push_escaped(&mut out, text.as_str(), budget)?;
        } else {
            out.push_str(text.as_str(), budget)?;
        }
    }
    out.push_str(rest, budget)?;
    Text::built(out, budget).map(|text| Value::Str(text.marked(pattern.is_markup())))
}

/// A value by Python's `[[fill]align][sign][0][width][,][.precision][kind]`.
fn specified(value: &Value<'_>, spec: &str, out: &mut Buffer, budget: &mut Budget) -> Result<(), Error> {
    let unknown = || Error::new("this specification of the format is not known; :>8, :05d and :.2f are");
    let mut chars = spec.chars();
    let (mut fill, mut align, mut rest) = (' ', None, spec);
    match (chars.next(), chars.next()) {
        (Some(first), Some(second @ ('<' | '>' | '^'))) => {
            (fill, align, rest) = (first, Some(second), chars.as_str());
        }
        (Some(first @ ('<' | '>' | '^')), _) => (align, rest) = (Some(first), &spec[1..]),
        _ => {}
    }
    let sign = rest.chars().next().filter(|ch| matches!(ch, '+' | '-' | ' '));
    rest = &rest[usize::from(sign.is_some())..];
    let is_padded = rest.starts_with('0') && align.is_none();
    let (width, after) = number(rest);
    let (has_commas, after) = match after.strip_prefix(',') {
        Some(after) => (true, after),
        None => (false, after),
    };
    let (precision, after) = match after.strip_prefix('.') {
        Some(after) => number(after),
        None => (None, after),
    };
    let kind = match (after, value) {
        ("", Value::Str(_)) => "s",
        ("", Value::Int(_)) => "d",
        ("", Value::Float(_)) if precision.is_some() => "g",
        ("", _) => "",
        (kind @ ("s" | "d" | "x" | "X" | "o" | "f" | "F" | "e" | "E" | "g" | "G"), _) => kind,
        _ => return Err(unknown()),
    };
    let mut text = Buffer::new(budget)?;
    if kind.is_empty() {
        value.print(&mut text, false, budget)?;
    } else {
        let is_number = matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_));
        if is_number == (kind == "s") || (matches!(value, Value::Float(_)) && kind == "d") {
            return Err(unknown());
        }
        let flags = match sign {
            Some('+') => "+",
            Some(' ') => " ",
            _ => "",
        };
        Field { kind: kind.chars().next(), flags, precision }.write(value, &mut text, budget)?;
    }
    let text = if has_commas { with_commas(text.as_str()) } else { text.as_str().to_owned() };
    let n = width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = String::from(fill);
    let is_text = matches!(value, Value::Str(_));
    if is_padded && !is_text {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+', ' '])));
        out.push_str(sign, budget)?;
        out.push_n("0", n, budget)?;
        return out.push_str(digits, budget);
    }
    let left = match align.unwrap_or(if is_text { '<' } else { '>' }) {
        '<' => 0,
        '>' => n,
        _ => n / 2,
    };
    out.push_n(&fill, left, budget)?;
    out.push_str(&text, budget)?;
    out.push_n(&fill, n - left, budget)
}

/// A number with commas between its thousands.
fn with_commas(text: &str) -> String {
    let end = text.find(['.', 'e']).unwrap_or(text.len());
    let start = usize::from(text.starts_with(['-', '+', ' ']));
    let mut out = text[..start].to_owned();
    for (i, digit) in text[start..end].chars().enumerate() {
        if i > 0 && (end - start - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + &text[end..]
}
