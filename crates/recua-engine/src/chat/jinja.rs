//! Runs the Jinja template of a file, which is a program that nobody vouches for.
//!
//! minijinja parses it; its syntax tree is evaluated here, not by minijinja's machine. That machine counts
//! instructions, but not what one of them allocates: forty doublings of a string, by `~`, `+`, `{% set %}` blocks,
//! `join` or `replace`, are a hundred instructions and a terabyte, and an allocation that fails aborts the process.
//! Charging for every way in which a value can grow would mean replacing every operator, filter, method and output
//! of that machine; a child process with limits is no choice for a library. So this evaluator knows only what chat
//! templates use, and each step and each byte is paid for from one [`Budget`] before it is made.
//! Whatever it does not know is an error that says so.
//!
//! The parser is bounded beforehand: the length of the source, of a tag, and the number of `elif` (it recurses once
//! for each). Parsing and evaluation recurse, within those bounds, on a stack of their own; a panic there would be an
//! error here.

mod budget;
mod clock;
mod eval;
mod filters;
mod functions;
mod json;
mod methods;
mod ops;
mod predicates;
mod value;

use std::collections::BTreeSet;

use minijinja::machinery::{Token, ast, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::Message;
use budget::Budget;

/// The longest template; the longest known has some 20 KiB.
pub(super) const SOURCE_BYTES_MAX: usize = 256 << 10;
/// The longest line.
const LINE_BYTES_MAX: usize = 65_000;
/// Tokens in one tag. The parser recurses at most once for each.
const TAG_TOKENS_MAX: usize = 2000;
/// Branches of `if` in a whole template.
const ELIFS_MAX: usize = 1000;
/// Reserved, not used, unless a template is nested as deeply as the limits allow.
const STACK_BYTES: usize = 32 << 20;

/// Why a template failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The template itself refused the messages.
    Raised(String),
    /// It would have cost too much.
    Limit(&'static str),
    /// It does what is wrong or unknown; with the line, once that is known.
    Failed { line: Option<u16>, message: String },
}

impl Error {
    fn new(message: impl Into<String>) -> Error {
        Error::Failed { line: None, message: message.into() }
    }

    /// Adds the line, unless a better one is there already.
    fn at(self, span: minijinja::machinery::Span) -> Error {
        match self {
            Error::Failed { line: None, message } => Error::Failed { line: Some(span.start_line), message },
            other => other,
        }
    }
}

/// What a template sees.
pub(super) struct Inputs<'a> {
    pub(super) messages: &'a [Message],
    pub(super) add_generation_prompt: bool,
    pub(super) bos: &'a str,
    pub(super) eos: &'a str,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// A template that the parser accepts.
pub(super) struct Template {
    source: String,
}

impl Template {
    pub(super) fn new(source: &str) -> Result<Template, Error> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(Error::new(format!(
                "the template has {} bytes; at most {SOURCE_BYTES_MAX} are accepted",
                source.len()
            )));
        }
        let source = without_generation_tags(source);
        // minijinja counts columns in 16 bits, and overflows them when it reports an error.
        if source.lines().any(|line| line.len() > LINE_BYTES_MAX) {
            return Err(Error::new(format!("the template has a line of more than {LINE_BYTES_MAX} bytes")));
        }
        on_own_stack(|| parse_bounded(&source).map(drop))?;
        Ok(Template { source })
    }

    /// The strings the template spells out.
    pub(super) fn literals(&self) -> Result<BTreeSet<String>, Error> {
        let mut literals = BTreeSet::new();
        for token in tokenize(&self.source, false, syntax()?) {
            match token.map_err(from_minijinja)?.0 {
                Token::Str(text) => literals.insert(text.to_owned()),
                Token::String(text) => literals.insert(text.into_string()),
                _ => false,
            };
        }
        Ok(literals)
    }

    pub(super) fn render(&self, inputs: &Inputs<'_>) -> Result<String, Error> {
        on_own_stack(|| {
            let tree = parse_bounded(&self.source)?;
            let ast::Stmt::Template(template) = &tree else {
                return Err(Error::new("the template is not one"));
            };
            let texts = inputs.messages.iter().map(|message| message.role.len() + message.content.len());
            let input_bytes = self.source.len() + texts.sum::<usize>();
            eval::run(&template.children, inputs, Budget::new(input_bytes, inputs.messages.len()))
        })
    }
}

fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| Error::new(format!("no thread to run the template on: {error}")))?
            .join()
            .unwrap_or_else(|_| Err(Error::new("the evaluation of the template failed; this is a bug")))
    })
}

fn syntax() -> Result<SyntaxConfig, Error> {
    // What the templates were written for.
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(from_minijinja)
}

fn parse_bounded(source: &str) -> Result<ast::Stmt<'_>, Error> {
    let syntax = syntax()?;
    let (mut in_tag, mut elifs) = (0, 0);
    for token in tokenize(source, false, syntax.clone()) {
        let (token, span) = token.map_err(from_minijinja)?;
        in_tag = match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => 0,
            _ => in_tag + 1,
        };
        elifs += usize::from(matches!(token, Token::Ident("elif")));
        if in_tag > TAG_TOKENS_MAX {
            return Err(Error::new(format!("a tag has more than {TAG_TOKENS_MAX} tokens")).at(span));
        }
        if elifs > ELIFS_MAX {
            return Err(Error::new(format!("there are more than {ELIFS_MAX} elif")).at(span));
        }
    }
    parse(source, "chat_template", syntax).map_err(from_minijinja)
}

fn from_minijinja(error: minijinja::Error) -> Error {
    Error::Failed {
        line: error.line().and_then(|line| line.try_into().ok()),
        message: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    }
}

/// Turns `{% generation %}`, with which some templates mark what the assistant says for training, into a tag that
/// does nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        let inner_start = 2 + usize::from(tag[2..].starts_with(['-', '+']));
        let after_space = tag[inner_start..].trim_start();
        let replaced = ["endgeneration", "generation"].into_iter().find(|name| {
            after_space
                .strip_prefix(name)
                .is_some_and(|rest| rest.trim_start().trim_start_matches(['-', '+']).starts_with("%}"))
        });
        let consumed = match replaced {
            Some(name) => {
                out.push_str(&tag[..inner_start]);
                out.push_str(if name == "generation" { " if true " } else { " endif " });
                tag.len() - after_space.len() + name.len()
            }
            None => {
                out.push_str("{%");
                2
            }
        };
        rest = &tag[consumed..];
    }
    out.push_str(rest);
    out
}
