//! Renders the Jinja template of a model file, which is a program that nobody vouches for.
//!
//! A chat template turns messages into the prompt that a model was trained on, and it comes with the model: from
//! anybody. Jinja has no bounds: forty doublings of a string are forty short lines and a terabyte, and an allocation
//! that fails aborts the process. Counting instructions does not help, because one instruction may allocate any
//! amount. So this crate has an evaluator of its own, for the part of Jinja that chat templates use. All work is paid
//! for from a budget *before* it is done, all memory that is live is counted, whatever is nested is bounded, and what is
//! not known is an error that says where and what would work: no argument is ever ignored. It needs no thread, no clock,
//! no file, and no crate but `std`.
//!
//! Output is byte for byte that of the Jinja environment of Hugging Face's transformers: `trim_blocks`,
//! `lstrip_blocks`, `break` and `continue`, `{% generation %}`, `tojson` as Python's `json.dumps`, `raise_exception`,
//! `strftime_now`. Values print as Python's do; what `safe` and `escape` give is markup, `map` and its like give
//! iterators. Blocks, includes, automatic escaping and filters of the caller's own are not supported, and neither are
//! methods that change a list or a mapping, which transformers refuses too. Known differences: integers have 128 bits,
//! and what exceeds them is an error; a slice of a range is a list.
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

mod args;
mod budget;
mod clock;
mod equality;
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
mod print;
mod text;
mod tree;
mod value;

use std::collections::BTreeSet;

use budget::{Budget, VALUE_BYTES};
use value::Value;

pub use budget::Limits;
pub use clock::LocalTime;
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
    Int(i128),
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

    /// Renders the template with variables by name. `now` is what `strftime_now` writes; a
    /// [`SystemTime`](std::time::SystemTime) stands for the time of UTC.
    ///
    /// It may take four million steps and hold 32 MiB at any moment; more for larger input: 4,000 steps for each mapping
    /// among the variables, 32 steps and 64 bytes for each byte of the variables, and eight of both for each byte of the
    /// template. [`Template::render_within`] sets other limits.
    ///
    /// # Errors
    ///
    /// [`Error::Raised`] if the template refuses its variables, [`Error::Limit`] if it wants more than it may have,
    /// [`Error::Failed`] if it does what is wrong or unknown.
    pub fn render(
        &self,
        variables: &[(&str, Input<'_>)],
        now: impl Into<LocalTime>,
    ) -> Result<String, Error> {
        let mut sizes = Sizes { bytes: 0, n_mappings: 0 };
        for (_, input) in variables {
            sizes.add(input, 0)?;
        }
        let limits = Limits::of(self.source_bytes, sizes.bytes, sizes.n_mappings);
        self.render_within(limits, variables, now)
    }

    /// Renders the template within limits of the caller's.
    ///
    /// # Errors
    ///
    /// As [`Template::render`].
    pub fn render_within(
        &self,
        limits: Limits,
        variables: &[(&str, Input<'_>)],
        now: impl Into<LocalTime>,
    ) -> Result<String, Error> {
        let mut budget = Budget::new(limits);
        let mut globals = Vec::with_capacity(variables.len());
        for (name, input) in variables {
            globals.push((*name, value_of(input, 0, &mut budget)?));
        }
        eval::run(&self.body, globals, now.into(), budget)
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

fn value_of<'t>(input: &Input<'_>, depth: u32, budget: &mut Budget) -> Result<Value<'t>, Error> {
    if depth == budget::DEPTH_MAX {
        return Err(Error::Limit("nesting"));
    }
    match input {
        Input::None => Ok(Value::None),
        Input::Bool(value) => Ok(Value::Bool(*value)),
        Input::Int(value) => Ok(Value::Int(*value)),
        Input::Float(value) => Ok(Value::Float(*value)),
        Input::Str(text) => Value::str(text, budget),
        Input::List(items) => {
            let held = budget.values(items.len() + 2)?;
            let items = items.iter().map(|item| value_of(item, depth + 1, budget));
            Value::list(items.collect::<Result<_, _>>()?, held)
        }
        Input::Map(entries) => {
            let mut held = budget.values(entries.len().saturating_mul(2))?;
            held.add(2 * VALUE_BYTES)?;
            let pairs = entries
                .iter()
                .map(|(key, value)| Ok((Value::str(key, budget)?, value_of(value, depth + 1, budget)?)));
            let pairs = pairs.collect::<Result<_, Error>>()?;
            Value::map(pairs, held, budget)
        }
    }
}
