//! Renders the Jinja template of a model file, which is a program that nobody vouches for.
//!
//! A chat template turns messages into the prompt that a model was trained on, and it comes with the model: from
//! anybody. Jinja has no bounds: forty doublings of a string are forty short lines and a terabyte, and an allocation
//! that fails aborts the process. Counting instructions does not help, because one instruction may allocate any amount.
//! So this crate has an evaluator of its own, for the part of Jinja that chat templates use. Every step and every byte is
//! paid for from one budget *before* it is made, whatever is nested is bounded, and what is not known is an error that
//! says where and what would work. It needs no thread, no clock, no file, and no crate but `std`.
//!
//! Output is byte for byte that of the Jinja environment of Hugging Face's transformers: `trim_blocks`,
//! `lstrip_blocks`, `break` and `continue`, `{% generation %}`, `tojson` as Python's `json.dumps`, `raise_exception`,
//! `strftime_now`. Values print as Python's do. There are no blocks, no includes, no custom filters.
//!
//! ```
//! use std::time::SystemTime;
//!
//! use recua_template::{Input, Template};
//!
//! let template = Template::parse("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}")?;
//! let message = Input::Map(vec![("role", Input::Str("user")), ("content", Input::Str(" Hi "))]);
//! let prompt = template.render(&[("messages", Input::List(vec![message]))], SystemTime::now())?;
//! assert_eq!(prompt, "<user>Hi\n");
//!
//! let error = Template::parse("{% for m in messages %}").err();
//! assert_eq!(error.map(|e| e.to_string()).as_deref(), Some("line 1, column 4: {% for %} has no end: {% endfor %} is missing"));
//! # Ok::<(), recua_template::Error>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod budget;
mod clock;
mod error;
mod eval;
mod filters;
mod format;
mod functions;
mod json;
mod lexer;
mod methods;
mod ops;
mod parser;
mod predicates;
mod text;
mod tree;
mod value;

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use budget::Budget;
use value::Value;

pub use error::Error;

/// The longest template that is accepted, in bytes; the longest known has some 20 KiB.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;

/// A value for a variable of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<'a> {
    /// `none`
    None,
    /// `true` or `false`
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Str(&'a str),
    /// A list.
    List(Vec<Input<'a>>),
    /// A mapping, in the order in which a loop goes over it.
    Map(Vec<(&'a str, Input<'a>)>),
}

/// A template, parsed.
pub struct Template {
    body: tree::Block,
    source_bytes: usize,
    literals: BTreeSet<String>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it is longer than [`SOURCE_BYTES_MAX`], nested deeper than 250 levels, wrong, or uses a
    /// tag that is not supported.
    pub fn parse(source: &str) -> Result<Template, Error> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(Error::new(format!(
                "the template has {} bytes; at most {SOURCE_BYTES_MAX} are accepted",
                source.len()
            )));
        }
        let source = lexer::normalized(source);
        let tokens = lexer::lex(&source)?;
        let strings = tokens.iter().filter_map(|(token, _)| match token {
            lexer::Token::Str(text) => Some(text.clone()),
            _ => None,
        });
        let literals = strings.collect();
        Ok(Template { body: parser::parse(tokens)?, source_bytes: source.len(), literals })
    }

    /// The strings that the template spells out, each once.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.literals.iter().map(String::as_str)
    }

    /// Renders the template with variables by name. `strftime_now` writes `now`, in UTC.
    ///
    /// It may take a million steps, with 2,000 more for each mapping among the variables, and handle 16 MiB, with 32 bytes
    /// more for each byte of the template and of the variables.
    ///
    /// # Errors
    ///
    /// [`Error::Raised`] if the template refuses its variables, [`Error::Limit`] if it wants more than it may have,
    /// [`Error::Failed`] if it does what is wrong or unknown.
    pub fn render(&self, variables: &[(&str, Input<'_>)], now: SystemTime) -> Result<String, Error> {
        let mut sizes = Sizes { bytes: self.source_bytes, n_mappings: 0 };
        for (_, input) in variables {
            sizes.add(input, 0)?;
        }
        let mut budget = Budget::new(sizes.bytes, sizes.n_mappings);
        let mut frame = Vec::with_capacity(variables.len());
        for (name, input) in variables {
            frame.push((*name, value_of(input, &mut budget)?));
        }
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        eval::run(&self.body, frame, now, budget)
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("source_bytes", &self.source_bytes).finish_non_exhaustive()
    }
}

/// The sizes that decide the budget of a rendering.
struct Sizes {
    bytes: usize,
    n_mappings: usize,
}

impl Sizes {
    fn add(&mut self, input: &Input<'_>, depth: u32) -> Result<(), Error> {
        if depth == budget::DEPTH_MAX {
            return Err(Error::Limit("nesting"));
        }
        match input {
            Input::Str(text) => self.bytes = self.bytes.saturating_add(text.len()),
            Input::List(items) => items.iter().try_for_each(|item| self.add(item, depth + 1))?,
            Input::Map(entries) => {
                self.n_mappings += 1;
                entries.iter().try_for_each(|(_, value)| self.add(value, depth + 1))?;
            }
            Input::None | Input::Bool(_) | Input::Int(_) | Input::Float(_) => {}
        }
        Ok(())
    }
}

fn value_of<'t>(input: &Input<'_>, budget: &mut Budget) -> Result<Value<'t>, Error> {
    match input {
        Input::None => Ok(Value::None),
        Input::Bool(value) => Ok(Value::Bool(*value)),
        Input::Int(value) => Ok(Value::Int(*value)),
        Input::Float(value) => Ok(Value::Float(*value)),
        Input::Str(text) => Value::str(text, budget),
        Input::List(items) => {
            budget.values(items.len())?;
            Value::list(items.iter().map(|item| value_of(item, budget)).collect::<Result<_, _>>()?)
        }
        Input::Map(entries) => {
            budget.values(entries.len())?;
            let pairs =
                entries.iter().map(|(key, value)| Ok((Value::str(key, budget)?, value_of(value, budget)?)));
            let pairs = pairs.collect::<Result<_, Error>>()?;
            Value::map(pairs, budget)
        }
    }
}
