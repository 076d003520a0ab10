//! Source text to tokens, as Jinja does it with the options that chat templates are written for: `trim_blocks` takes
//! the line feed after a tag, `lstrip_blocks` the white space before a tag that begins a line, and the source loses
//! its last line feed. `-` in a tag strips the text beside it, `+` keeps it.

use std::fmt;

use crate::error::Error;
use crate::text::is_space;
use crate::tree::Position;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'s> {
    /// Text outside all tags, never empty.
    Text(&'s str),
    /// `{{`
    OpenPrint,
    /// `}}`
    ClosePrint,
    /// `{%`
    OpenTag,
    /// `%}`
    CloseTag,
    Name(&'s str),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Text(_) => f.write_str("text"),
            Token::OpenPrint => f.write_str("{{"),
            Token::ClosePrint => f.write_str("}}"),
            Token::OpenTag => f.write_str("{%"),
            Token::CloseTag => f.write_str("%}"),
            // A name may be as long as the source.
            Token::Name(name) => name.chars().take(60).try_for_each(|ch| write!(f, "{ch}")),
            Token::Str(_) => f.write_str("a string"),
            Token::Int(value) => write!(f, "{value}"),
            Token::Float(value) => write!(f, "{value}"),
            Token::Op(op) => f.write_str(op),
            Token::End => f.write_str("the end of the template"),
        }
    }
}

pub(crate) type Placed<'s> = (Token<'s>, Position);

/// Longer operators first: the first one that matches is taken.
const OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}", ">", "<",
    "=", ".", ":", "|", ",",
];

/// The source as the lexer wants it: line ends are line feeds, and the last one is gone.
pub(crate) fn normalized(source: &str) -> String {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    source
}

/// All tokens of a normalised source; the last one is [`Token::End`].
pub(crate) fn lex(source: &str) -> Result<Vec<Placed<'_>>, Error> {
    let mut lexer = Lexer {
        source,
        at: 0,
        begins_line: true,
        tokens: Vec::new(),
        counted: 0,
        position: Position { line: 1, column: 1 },
    };
    while lexer.at < source.len() {
        lexer.text()?;
    }
    lexer.push(Token::End);
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    // The byte at which the next token begins.
    at: usize,
    // Whether the text from here on begins a line, for `lstrip_blocks`.
    begins_line: bool,
    tokens: Vec<Placed<'s>>,
    // The byte whose position is `position`; never beyond `at`.
    counted: usize,
    position: Position,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn position(&mut self) -> Position {
        for ch in self.source[self.counted..self.at].chars() {
            if ch == '\n' {
                self.position.line += 1;
                self.position.column = 1;
            } else {
                self.position.column += 1;
            }
        }
        self.counted = self.at;
        self.position
    }

    fn push(&mut self, token: Token<'s>) {
        let at = self.position();
        self.tokens.push((token, at));
    }

    fn error<T>(&mut self, message: impl Into<String>) -> Result<T, Error> {
        let at = self.position();
        Err(Error::new(message).at(at))
    }

    /// Text up to the next tag, and that tag.
    fn text(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let opening =
            |&(i, _): &(usize, &str)| matches!(rest.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#'));
        let Some((start, _)) = rest.match_indices('{').find(opening) else {
            self.push(Token::Text(rest));
            self.at = self.source.len();
            return Ok(());
        };
        let (text, tag) = rest.split_at(start);
        let open = &tag[..2];
        let sign = tag[2..].chars().next().filter(|ch| matches!(ch, '-' | '+'));
        self.push_text(text, sign, open != "{{");
        self.at += start;
        match open {
            "{#" => self.comment(2 + usize::from(sign.is_some())),
            "{{" => self.tag(Token::OpenPrint, sign.is_some()),
            _ => match raw_tag(tag, "raw") {
                Some(len) => self.raw(len),
                None => self.tag(Token::OpenTag, sign.is_some()),
            },
        }
    }

    /// Emits the text before a tag, without the white space that the tag strips.
    fn push_text(&mut self, text: &'s str, sign: Option<char>, is_block: bool) {
        let kept = match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if is_block => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let is_blank = text[line..].chars().all(is_space);
                if is_blank && (line > 0 || self.begins_line) { &text[..line] } else { text }
            }
            _ => text,
        };
        if !kept.is_empty() {
            self.push(Token::Text(kept));
        }
    }

    /// Consumes the end of a tag, with the sign before it and the white space it strips. Returns whether it was
    /// there.
    fn close(&mut self, end: &str) -> bool {
        let rest = self.rest();
        let after = if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(end)) {
            after.trim_start_matches(is_space)
        } else if end == "}}" {
            match rest.strip_prefix(end) {
                Some(after) => after,
                None => return false,
            }
        } else if let Some(after) = rest.strip_prefix('+').and_then(|rest| rest.strip_prefix(end)) {
            after
        } else if let Some(after) = rest.strip_prefix(end) {
            after.strip_prefix('\n').unwrap_or(after)
        } else {
            return false;
        };
        self.at += rest.len() - after.len();
        self.begins_line = self.source[..self.at].ends_with('\n');
        true
    }

    fn comment(&mut self, open_len: usize) -> Result<(), Error> {
        let body = &self.rest()[open_len..];
        let Some(end) = body.find("#}") else {
            return self.error("this comment has no end: #} is missing");
        };
        let has_sign = body[..end].ends_with(['-', '+']);
        self.at += open_len + end - usize::from(has_sign);
        self.close("#}");
        Ok(())
    }

    /// `{% raw %}` of the given length, the text after it as it stands, and `{% endraw %}`.
    fn raw(&mut self, len: usize) -> Result<(), Error> {
        let body = &self.rest()[len..];
        let ends = |&(i, _): &(usize, &str)| raw_tag(&body[i..], "endraw").is_some();
        let Some((end, _)) = body.match_indices("{%").find(ends) else {
            return self.error("{% raw %} has no end: {% endraw %} is missing");
        };
        self.at += len;
        self.begins_line = self.source[..self.at].ends_with('\n');
        let tag = &body[end..];
        let sign = tag[2..].chars().next().filter(|ch| matches!(ch, '-' | '+'));
        self.push_text(&body[..end], sign, true);
        let name = tag.find("endraw").unwrap_or(0) + "endraw".len();
        let space = tag[name..].len() - tag[name..].trim_start_matches(is_space).len();
        self.at += end + name + space;
        self.close("%}");
        Ok(())
    }

    /// The tokens of `{{ … }}` or `{% … %}`.
    fn tag(&mut self, open: Token<'s>, has_sign: bool) -> Result<(), Error> {
        let (end, close) = match open {
            Token::OpenPrint => ("}}", Token::ClosePrint),
            _ => ("%}", Token::CloseTag),
        };
        let opened = self.position();
        self.push(open);
        self.at += 2 + usize::from(has_sign);
        // The brackets that are open, by what closes them.
        let mut expected: Vec<&'static str> = Vec::new();
        loop {
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
            let close_at = self.position();
            if expected.is_empty() && self.close(end) {
                self.tokens.push((close, close_at));
                return Ok(());
            }
            let Some(ch) = self.rest().chars().next() else {
                return Err(Error::new(format!("this tag has no end: {end} is missing")).at(opened));
            };
            match ch {
                '0'..='9' => self.number()?,
                '\'' | '"' => self.string(ch)?,
                ch if ch == '_' || ch.is_alphabetic() => {
                    let rest = self.rest();
                    let len = rest.find(|ch: char| ch != '_' && !ch.is_alphanumeric()).unwrap_or(rest.len());
                    self.push(Token::Name(&rest[..len]));
                    self.at += len;
                }
                ch => {
                    let rest = self.rest();
                    let Some(op) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) else {
                        return self.error(format!("{ch:?} has no meaning in a tag; text belongs in quotes"));
                    };
                    match op {
                        "(" => expected.push(")"),
                        "[" => expected.push("]"),
                        "{" => expected.push("}"),
                        ")" | "]" | "}" => match expected.pop() {
                            Some(closer) if closer == op => {}
                            Some(closer) => {
                                return self.error(format!("found {op} where {closer} should be"));
                            }
                            None => return self.error(format!("nothing is open for this {op} to close")),
                        },
                        _ => {}
                    }
                    self.push(Token::Op(op));
                    self.at += op.len();
                }
            }
        }
    }

    fn number(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let lower = rest.as_bytes().get(1).map(u8::to_ascii_lowercase);
        let radix = match (rest.as_bytes()[0], lower) {
            (b'0', Some(b'x')) => 16,
            (b'0', Some(b'o')) => 8,
            (b'0', Some(b'b')) => 2,
            _ => 10,
        };
        if radix != 10 {
            let start = 2 + usize::from(rest[2..].starts_with('_'));
            let len = digits_len(&rest[start..], radix);
            if len > 0 {
                return self.integer(start, start + len, radix);
            }
        }
        let whole = digits_len(rest, 10);
        // In `messages.0.role` no number has a fraction.
        let after_dot = self.source[..self.at].ends_with('.');
        let mut end = whole;
        if !after_dot {
            if rest[end..].starts_with('.') {
                let fraction = digits_len(&rest[end + 1..], 10);
                end += if fraction > 0 { 1 + fraction } else { 0 };
            }
            if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
                let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                let digits = digits_len(unsigned, 10);
                end += if digits > 0 { 1 + exponent.len() - unsigned.len() + digits } else { 0 };
            }
        }
        if end == whole {
            return self.integer(0, whole, 10);
        }
        match rest[..end].replace('_', "").parse() {
            Ok(value) => self.push(Token::Float(value)),
            Err(_) => return self.error("this number cannot be read"),
        }
        self.at += end;
        Ok(())
    }

    fn integer(&mut self, start: usize, end: usize, radix: u32) -> Result<(), Error> {
        let digits = self.rest()[start..end].replace('_', "");
        if radix == 10 && digits.starts_with('0') && digits.contains(|ch| ch != '0') {
            return self.error("an integer does not begin with 0; octal ones begin with 0o");
        }
        match i128::from_str_radix(&digits, radix) {
            Ok(value) => self.push(Token::Int(value)),
            Err(_) => return self.error("this integer does not fit in 128 bits; a float has a point"),
        }
        self.at += end;
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), Error> {
        let body = &self.rest()[1..];
        let mut is_escaped = false;
        let ends = |ch: char| {
            let ends = ch == quote && !is_escaped;
            is_escaped = ch == '\\' && !is_escaped;
            ends
        };
        let Some(len) = body.find(ends) else {
            return self.error(format!("this string has no end: {quote} is missing"));
        };
        match unescape(&body[..len]) {
            Ok(text) => self.push(Token::Str(text)),
            Err(message) => return self.error(message),
        }
        self.at += len + 2;
        Ok(())
    }
}

/// The length of `{% raw %}` or `{% endraw %}` at the start of a text, including the white space that a `-` at its
/// end strips.
fn raw_tag(text: &str, name: &str) -> Option<usize> {
    let inner = text.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.trim_start_matches(is_space).strip_prefix(name)?.trim_start_matches(is_space);
    let after = match inner.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => match inner.strip_prefix("+%}") {
            Some(after) if name == "endraw" => after,
            _ => inner.strip_prefix("%}")?,
        },
    };
    Some(text.len() - after.len())
}

/// The length of the digits at the start of a text; a single `_` may stand between two of them.
fn digits_len(text: &str, radix: u32) -> usize {
    let bytes = text.as_bytes();
    let is_digit = |i: usize| bytes.get(i).is_some_and(|&byte| char::from(byte).is_digit(radix));
    let mut len = 0;
    while is_digit(len) || (len > 0 && bytes.get(len) == Some(&b'_') && is_digit(len + 1)) {
        len += 1;
    }
    len
}

/// Resolves the escapes of a string as Python's `unicode-escape` codec does.
fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let mut chars = rest[at + 1..].chars();
        let Some(ch) = chars.next() else { break };
        rest = chars.as_str();
        match ch {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(ch),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{C}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{B}'),
            '0'..='7' => {
                let digits =
                    &rest[..rest.bytes().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count()];
                let value =
                    digits.bytes().fold(u32::from(ch) - 48, |value, byte| value * 8 + u32::from(byte) - 48);
                out.extend(char::from_u32(value));
                rest = &rest[digits.len()..];
            }
            'x' => out.push(hex_char(ch, 2, &mut rest)?),
            'u' => out.push(hex_char(ch, 4, &mut rest)?),
            'U' => out.push(hex_char(ch, 8, &mut rest)?),
            'N' => {
                return Err("\\N with a character's name is not supported; \\u with its number is".to_owned());
            }
            // The codec sees bytes: before it runs, a character beyond ASCII has become an escape of its own, whose
            // backslash this one escapes.
            ch if !ch.is_ascii() => {
                let code = u32::from(ch);
                out.push_str(&match code {
                    0..=0xFF => format!("\\x{code:02x}"),
                    0x100..=0xFFFF => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
            ch => out.extend(['\\', ch]),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The character that hexadecimal digits name. Two halves of a surrogate pair, each `\u` and four digits, are one.
fn hex_char(kind: char, n: usize, rest: &mut &str) -> Result<char, String> {
    let wrong = || format!("\\{kind} needs {n} hexadecimal digits that name a character");
    let number = |text: &str| {
        let digits = text.get(..n).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let code = number(rest).ok_or_else(wrong)?;
    *rest = &rest[n..];
    // Both halves together name a character beyond U+FFFF.
    let low = rest.strip_prefix("\\u").filter(|_| n == 4).and_then(number);
    if let (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) = (code, low) {
        *rest = &rest[2 + n..];
        return char::from_u32(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)).ok_or_else(wrong);
    }
    char::from_u32(code).ok_or_else(wrong)
}
