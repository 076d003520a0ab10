//! Tokens to a tree: the statements. `expr` has the expressions, `cursor` the place in the tokens.

mod cursor;
mod expr;

use cursor::Parser;

use crate::budget::DEPTH_MAX;
use crate::error::Error;
use crate::lexer::{Placed, Token};
use crate::tree::{Apply, Block, Expr, ExprKind, For, Macro, Name, Position, Stmt, StmtKind, Target};

/// The tags that open a statement, for the error that lists them.
const TAGS: &str =
    "autoescape, break, call, continue, do, filter, for, generation, if, macro, raw, set, with";

/// Parses a whole template.
pub(crate) fn parse(tokens: Vec<Placed<'_>>) -> Result<Block, Error> {
    let mut parser = Parser::new(tokens);
    let start = parser.at();
    parser.block("", start, &[])
}

impl<'s> Parser<'s> {
    /// Statements up to a tag of one of the names `ends`, before which it stops. `opened` is the name of the tag that
    /// began the block, at `at`; the template's own block has none and ends with it.
    fn block(&mut self, opened: &str, at: Position, ends: &[&str]) -> Result<Block, Error> {
        self.enter()?;
        let mut body = Vec::new();
        loop {
            let at_stmt = self.at();
            let kind = match self.take() {
                Token::Text(text) => StmtKind::Text(text.into()),
                Token::OpenPrint => {
                    let expr = self.tuple(true)?;
                    self.expect(&Token::ClosePrint)?;
                    StmtKind::Print(expr)
                }
                Token::OpenTag => match *self.peek() {
                    Token::Name(name) if ends.contains(&name) => break,
                    _ => self.statement()?,
                },
                Token::End if ends.is_empty() => break,
                _ => {
                    let end = ends.last().unwrap_or(&"");
                    return Err(
                        Error::new(format!("{{% {opened} %}} has no end: {{% {end} %}} is missing")).at(at)
                    );
                }
            };
            body.push(Stmt { kind, at: at_stmt });
        }
        self.leave();
        Ok(body)
    }

    /// A block that only one tag can end, and that tag.
    fn block_to(&mut self, opened: &str, at: Position, end: &str) -> Result<Block, Error> {
        self.expect(&Token::CloseTag)?;
        let body = self.block(opened, at, &[end])?;
        self.take();
        self.expect(&Token::CloseTag)?;
        Ok(body)
    }

    /// A statement, from the name in its tag.
    fn statement(&mut self) -> Result<StmtKind, Error> {
        let at = self.at();
        let name = self.name("the name of a tag")?;
        match name {
            "if" => self.if_statement(at),
            "for" => self.for_statement(at),
            "set" => self.set(at),
            "with" => self.with(at),
            "macro" => {
                let name = self.name("the name of the macro")?.into();
                let params = self.params()?;
                let decl = self.macro_body(name, params, ["macro", "endmacro"], at)?;
                Ok(StmtKind::Macro(Box::new(decl)))
            }
            "call" => self.call_block(at),
            "filter" => {
                let filters = self.filters()?;
                Ok(StmtKind::Filter(filters, self.block_to(name, at, "endfilter")?))
            }
            // The output is text for a tokenizer, never HTML, so there is nothing to escape.
            "autoescape" => {
                let escapes = self.expression()?;
                if !matches!(escapes.kind, ExprKind::Bool(false) | ExprKind::None) {
                    let message = "{% autoescape %} is supported with false only; the filter escape escapes";
                    return Err(Error::new(message).at(at));
                }
                self.block_to(name, at, "endautoescape").map(StmtKind::Scope)
            }
            // With this, some templates mark what the assistant says, for training.
            "generation" => self.block_to(name, at, "endgeneration").map(StmtKind::Scope),
            "do" => {
                let expr = self.tuple(true)?;
                self.expect(&Token::CloseTag)?;
                Ok(StmtKind::Do(expr))
            }
            "break" | "continue" if !self.in_loop => {
                Err(Error::new(format!("{{% {name} %}} stands in no loop")).at(at))
            }
            "break" => self.expect(&Token::CloseTag).map(|()| StmtKind::Break),
            "continue" => self.expect(&Token::CloseTag).map(|()| StmtKind::Continue),
            "block" | "extends" | "from" | "import" | "include" => {
                let message =
                    format!("{{% {name} %}} is not supported: a chat template is one file without blocks");
                Err(Error::new(message).at(at))
            }
            name if name.starts_with("end") || matches!(name, "else" | "elif") => {
                Err(Error::new(format!("{{% {name} %}} belongs to no tag that is open here")).at(at))
            }
            name => {
                let name: String = name.chars().take(60).collect();
                Err(Error::new(format!("the tag {name} is not known; known are {TAGS}")).at(at))
            }
        }
    }

    fn if_statement(&mut self, at: Position) -> Result<StmtKind, Error> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            // A chain of branches is as good as nested ones to whoever wants to take all time.
            if branches.len() as u32 == DEPTH_MAX {
                return Err(self.unexpected(&format!("at most {DEPTH_MAX} branches")));
            }
            let condition = self.tuple(false)?;
            self.expect(&Token::CloseTag)?;
            let body = self.block("if", at, &["elif", "else", "endif"])?;
            branches.push((condition, body));
            match self.take() {
                Token::Name("elif") => {}
                Token::Name("else") => {
                    otherwise = self.block_to("else", at, "endif")?;
                    break;
                }
                _ => {
                    self.expect(&Token::CloseTag)?;
                    break;
                }
            }
        }
        Ok(StmtKind::If(branches, otherwise))
    }

    fn for_statement(&mut self, at: Position) -> Result<StmtKind, Error> {
        let target = self.target(false)?;
        self.expect(&Token::Name("in"))?;
        let over = self.tuple(false)?;
        let filter = if self.skip(&Token::Name("if")) { Some(self.expression()?) } else { None };
        let is_recursive = self.skip(&Token::Name("recursive"));
        self.expect(&Token::CloseTag)?;
        let outer = std::mem::replace(&mut self.in_loop, true);
        let body = self.block("for", at, &["else", "endfor"])?;
        self.in_loop = outer;
        let otherwise = if self.take() == Token::Name("else") {
            self.block_to("else", at, "endfor")?
        } else {
            self.expect(&Token::CloseTag)?;
            Vec::new()
        };
        Ok(StmtKind::For(Box::new(For { target, over, filter, is_recursive, body, otherwise })))
    }

    fn set(&mut self, at: Position) -> Result<StmtKind, Error> {
        let target = self.target(true)?;
        if self.skip(&Token::Op("=")) {
            let value = self.tuple(true)?;
            self.expect(&Token::CloseTag)?;
            return Ok(StmtKind::Set(target, value));
        }
        let filters = if self.skip(&Token::Op("|")) { self.filters()? } else { Vec::new() };
        Ok(StmtKind::SetBlock(target, filters, self.block_to("set", at, "endset")?))
    }

    fn with(&mut self, at: Position) -> Result<StmtKind, Error> {
        let mut variables = Vec::new();
        while *self.peek() != Token::CloseTag {
            if !variables.is_empty() {
                self.expect(&Token::Op(","))?;
            }
            let target = self.target_one(false)?;
            self.expect(&Token::Op("="))?;
            variables.push((target, self.expression()?));
        }
        Ok(StmtKind::With(variables, self.block_to("with", at, "endwith")?))
    }

    /// A macro from its parameters, or the block of a call, for which `tag` and `end` differ.
    fn macro_body(
        &mut self,
        name: Name,
        params: Vec<(Name, Option<Expr>)>,
        [tag, end]: [&str; 2],
        at: Position,
    ) -> Result<Macro, Error> {
        let in_loop = std::mem::replace(&mut self.in_loop, false);
        let outer = std::mem::take(&mut self.uses);
        let body = self.block_to(tag, at, end)?;
        self.in_loop = in_loop;
        let uses = self.uses;
        self.uses = outer.or(uses);
        Ok(Macro { name, params, body, uses })
    }

    fn call_block(&mut self, at: Position) -> Result<StmtKind, Error> {
        let params = if *self.peek() == Token::Op("(") { self.params()? } else { Vec::new() };
        let callee_at = self.at();
        let ExprKind::Call(call) = self.expression()?.kind else {
            return Err(Error::new("{% call %} needs the call of a macro, such as f()").at(callee_at));
        };
        let block = self.macro_body("caller".into(), params, ["call", "endcall"], at)?;
        Ok(StmtKind::Call(Box::new((*call, block))))
    }

    fn params(&mut self) -> Result<Vec<(Name, Option<Expr>)>, Error> {
        self.expect(&Token::Op("("))?;
        let mut params: Vec<(Name, Option<Expr>)> = Vec::new();
        while !self.skip(&Token::Op(")")) {
            if !params.is_empty() {
                self.expect(&Token::Op(","))?;
            }
            let at = self.at();
            let name = self.name("the name of a parameter")?.into();
            let default = if self.skip(&Token::Op("=")) { Some(self.expression()?) } else { None };
            if default.is_none() && params.last().is_some_and(|(_, default)| default.is_some()) {
                let message = "a parameter without a default value comes before those that have one";
                return Err(Error::new(message).at(at));
            }
            params.push((name, default));
        }
        Ok(params)
    }

    /// Filters one after the other, from the first one's name.
    fn filters(&mut self) -> Result<Vec<Apply>, Error> {
        let mut filters = vec![self.apply("the name of a filter")?];
        while self.skip(&Token::Op("|")) {
            filters.push(self.apply("the name of a filter")?);
        }
        Ok(filters)
    }

    /// One or several things to assign to.
    fn target(&mut self, attributes: bool) -> Result<Target, Error> {
        let first = self.target_one(attributes)?;
        if *self.peek() != Token::Op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.skip(&Token::Op(",")) {
            if matches!(self.peek(), Token::Name("in") | Token::Op(")" | "=") | Token::CloseTag) {
                break;
            }
            targets.push(self.target_one(attributes)?);
        }
        Ok(Target::Tuple(targets))
    }

    /// A name, an attribute of a namespace, or targets in parentheses.
    fn target_one(&mut self, attributes: bool) -> Result<Target, Error> {
        if self.skip(&Token::Op("(")) {
            self.enter()?;
            let target = self.target(attributes)?;
            self.leave();
            self.expect(&Token::Op(")"))?;
            return Ok(target);
        }
        let at = self.at();
        let name = self.name("a name to assign to")?;
        if matches!(name, "true" | "True" | "false" | "False" | "none" | "None") {
            return Err(Error::new(format!("{name} is a constant; another name can be assigned to")).at(at));
        }
        if attributes && self.skip(&Token::Op(".")) {
            return Ok(Target::Attribute(name.into(), self.name("the name of an attribute")?.into()));
        }
        Ok(Target::Name(name.into()))
    }
}
