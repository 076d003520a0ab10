//! The expressions.
//!
//! Every recursion here is bounded by [`DEPTH_MAX`], and so is the depth of the tree, even where a loop builds it (`a + b + c …`).
//! So neither parsing, evaluating nor dropping a tree can overflow the stack.

use super::cursor::{Parser, too_deep};
use crate::budget::DEPTH_MAX;
use crate::error::Error;
use crate::lexer::Token;
use crate::tree::{Apply, Arg, BinaryOp, Call, CompareOp, Conditional, Expr, ExprKind, Position, Slice};

/// How tightly operators bind, loosest first. Unary ones bind tightest.
const OR: u8 = 0;
const AND: u8 = 1;
const NOT: u8 = 2;
const COMPARE: u8 = 3;
const SUM: u8 = 4;
const CONCAT: u8 = 5;
const PRODUCT: u8 = 6;
const POWER: u8 = 7;

#[derive(Clone, Copy)]
enum Operator {
    Or,
    And,
    Compare(CompareOp),
    Binary(BinaryOp, u8),
}

impl Operator {
    fn binding(self) -> u8 {
        match self {
            Operator::Or => OR,
            Operator::And => AND,
            Operator::Compare(_) => COMPARE,
            Operator::Binary(_, binding) => binding,
        }
    }
}

impl Parser<'_> {
    /// One expression, or several with commas between them: a tuple. `conditional` allows `a if b else c`.
    pub(super) fn tuple(&mut self, conditional: bool) -> Result<Expr, Error> {
        let at = self.at();
        let first = self.item(conditional)?;
        if *self.peek() != Token::Op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip(&Token::Op(",")) {
            if matches!(
                self.peek(),
                Token::ClosePrint | Token::CloseTag | Token::Op(")") | Token::Name("recursive")
            ) {
                break;
            }
            items.push(self.item(conditional)?);
        }
        node(at, below(&items), ExprKind::Tuple(items))
    }

    fn item(&mut self, conditional: bool) -> Result<Expr, Error> {
        if conditional { self.expression() } else { self.operators(OR) }
    }

    pub(super) fn expression(&mut self) -> Result<Expr, Error> {
        let at = self.at();
        let value = self.operators(OR)?;
        if !self.skip(&Token::Name("if")) {
            return Ok(value);
        }
        let test = self.operators(OR)?;
        let otherwise = if self.skip(&Token::Name("else")) {
            self.enter()?;
            let otherwise = self.expression()?;
            self.leave();
            Some(otherwise)
        } else {
            None
        };
        let depth = value.depth.max(test.depth).max(otherwise.as_ref().map_or(0, |expr| expr.depth));
        node(at, depth, ExprKind::If(Box::new(Conditional { test, value, otherwise })))
    }

    /// Operands with operators that bind at least as tightly as `min` between them.
    fn operators(&mut self, min: u8) -> Result<Expr, Error> {
        self.enter()?;
        let at = self.at();
        let mut left = if min <= NOT && self.skip(&Token::Name("not")) {
            let operand = self.operators(NOT)?;
            node(at, operand.depth, ExprKind::Not(Box::new(operand)))?
        } else {
            self.unary(true)?
        };
        while let Some((operator, n_tokens)) = self.operator().filter(|(op, _)| op.binding() >= min) {
            let at = self.at();
            if let Operator::Compare(_) = operator {
                left = self.comparison(left)?;
                continue;
            }
            self.next += n_tokens;
            let right = self.operators(operator.binding() + 1)?;
            let depth = left.depth.max(right.depth);
            let sides = Box::new([left, right]);
            left = node(
                at,
                depth,
                match operator {
                    Operator::Or => ExprKind::Or(sides),
                    Operator::And => ExprKind::And(sides),
                    Operator::Compare(_) => return Err(self.unexpected("an operator")),
                    Operator::Binary(op, _) => ExprKind::Binary(op, sides),
                },
            )?;
        }
        self.leave();
        Ok(left)
    }

    /// `a < b <= c`, from the first operator on.
    fn comparison(&mut self, first: Expr) -> Result<Expr, Error> {
        let at = self.at();
        let mut depth = first.depth;
        let mut rest = Vec::new();
        while let Some((Operator::Compare(op), n_tokens)) = self.operator() {
            self.next += n_tokens;
            let operand = self.operators(COMPARE + 1)?;
            depth = depth.max(operand.depth);
            rest.push((op, operand));
        }
        node(at, depth, ExprKind::Compare(Box::new((first, rest))))
    }

    /// The operator that comes next, and its number of tokens.
    fn operator(&self) -> Option<(Operator, usize)> {
        let operator = match self.peek() {
            Token::Name("or") => Operator::Or,
            Token::Name("and") => Operator::And,
            Token::Name("in") => Operator::Compare(CompareOp::In),
            Token::Name("not") if *self.peek_at(1) == Token::Name("in") => {
                return Some((Operator::Compare(CompareOp::NotIn), 2));
            }
            Token::Op(op) => match *op {
                "==" => Operator::Compare(CompareOp::Eq),
                "!=" => Operator::Compare(CompareOp::Ne),
                "<" => Operator::Compare(CompareOp::Lt),
                "<=" => Operator::Compare(CompareOp::Le),
                ">" => Operator::Compare(CompareOp::Gt),
                ">=" => Operator::Compare(CompareOp::Ge),
                "+" => Operator::Binary(BinaryOp::Add, SUM),
                "-" => Operator::Binary(BinaryOp::Sub, SUM),
                "~" => Operator::Binary(BinaryOp::Concat, CONCAT),
                "*" => Operator::Binary(BinaryOp::Mul, PRODUCT),
                "/" => Operator::Binary(BinaryOp::Div, PRODUCT),
                "//" => Operator::Binary(BinaryOp::FloorDiv, PRODUCT),
                "%" => Operator::Binary(BinaryOp::Rem, PRODUCT),
                "**" => Operator::Binary(BinaryOp::Pow, POWER),
                _ => return None,
            },
            _ => return None,
        };
        Some((operator, 1))
    }

    /// Signs, an operand, what is called on it, and, unless a sign stands before it, its filters and tests.
    fn unary(&mut self, filters: bool) -> Result<Expr, Error> {
        let at = self.at();
        let is_negative = *self.peek() == Token::Op("-");
        let operand = if is_negative || *self.peek() == Token::Op("+") {
            self.next += 1;
            self.enter()?;
            let operand = self.unary(false)?;
            self.leave();
            let depth = operand.depth;
            let operand = Box::new(operand);
            node(at, depth, if is_negative { ExprKind::Negate(operand) } else { ExprKind::Plus(operand) })?
        } else {
            self.primary()?
        };
        let operand = self.postfix(operand)?;
        if filters { self.filters_and_tests(operand) } else { Ok(operand) }
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        let at = self.at();
        if let Token::Op("(" | "[" | "{") = *self.peek() {
            return self.bracketed(at);
        }
        if matches!(self.peek(), Token::ClosePrint | Token::CloseTag | Token::OpenTag | Token::OpenPrint) {
            return Err(self.unexpected("an expression"));
        }
        let kind = match self.take() {
            Token::Name("true" | "True") => ExprKind::Bool(true),
            Token::Name("false" | "False") => ExprKind::Bool(false),
            Token::Name("none" | "None") => ExprKind::None,
            Token::Name(name) => {
                self.uses.varargs |= name == "varargs";
                self.uses.kwargs |= name == "kwargs";
                self.uses.caller |= name == "caller";
                ExprKind::Name(name.into())
            }
            Token::Int(value) => ExprKind::Int(value),
            Token::Float(value) => ExprKind::Float(value),
            Token::Str(mut text) => {
                while let Token::Str(_) = self.peek() {
                    if let Token::Str(more) = self.take() {
                        text.push_str(&more);
                    }
                }
                ExprKind::Str(text.into())
            }
            token => return Err(Error::new(format!("expected an expression, found {token}")).at(at)),
        };
        node(at, 0, kind)
    }

    /// Parentheses, a tuple, a list or a mapping. A level of its own, because each takes several calls.
    fn bracketed(&mut self, at: Position) -> Result<Expr, Error> {
        self.enter()?;
        let inner = match self.take() {
            Token::Op("(") if self.skip(&Token::Op(")")) => node(at, 0, ExprKind::Tuple(Vec::new()))?,
            Token::Op("(") => {
                let inner = self.tuple(true)?;
                self.expect(&Token::Op(")"))?;
                inner
            }
            Token::Op("[") => {
                let items = self.list()?;
                node(at, below(&items), ExprKind::List(items))?
            }
            _ => self.map(at)?,
        };
        self.leave();
        Ok(inner)
    }

    fn list(&mut self) -> Result<Vec<Expr>, Error> {
        let mut items = Vec::new();
        while !self.skip(&Token::Op("]")) {
            if !items.is_empty() {
                self.expect(&Token::Op(","))?;
                if self.skip(&Token::Op("]")) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn map(&mut self, at: Position) -> Result<Expr, Error> {
        let mut entries = Vec::new();
        let mut depth = 0;
        while !self.skip(&Token::Op("}")) {
            if !entries.is_empty() {
                self.expect(&Token::Op(","))?;
                if self.skip(&Token::Op("}")) {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect(&Token::Op(":"))?;
            let value = self.expression()?;
            depth = depth.max(key.depth).max(value.depth);
            entries.push((key, value));
        }
        node(at, depth, ExprKind::Map(entries))
    }

    /// Attributes, items, slices and calls.
    fn postfix(&mut self, mut value: Expr) -> Result<Expr, Error> {
        loop {
            let at = self.at();
            value = match self.peek() {
                Token::Op(".") => {
                    self.next += 1;
                    let depth = value.depth;
                    if let Token::Int(index) = *self.peek() {
                        let index = node(self.at(), 0, ExprKind::Int(index))?;
                        self.next += 1;
                        node(at, depth, ExprKind::Item(Box::new([value, index])))?
                    } else {
                        let name = self.name("the name of an attribute")?;
                        node(at, depth, ExprKind::Attribute(Box::new(value), name.into()))?
                    }
                }
                Token::Op("[") => {
                    self.next += 1;
                    self.enter()?;
                    let item = self.subscript(value, at)?;
                    self.leave();
                    self.expect(&Token::Op("]"))?;
                    item
                }
                Token::Op("(") => self.call(value)?,
                _ => return Ok(value),
            };
        }
    }

    /// The index or slice between brackets after a value.
    fn subscript(&mut self, value: Expr, at: Position) -> Result<Expr, Error> {
        let start = if *self.peek() == Token::Op(":") { None } else { Some(self.expression()?) };
        match start {
            Some(key) if *self.peek() != Token::Op(":") => {
                let depth = value.depth.max(key.depth);
                node(at, depth, ExprKind::Item(Box::new([value, key])))
            }
            start => {
                let mut bounds = [start, None, None];
                for bound in &mut bounds[1..] {
                    if self.skip(&Token::Op(":")) && !matches!(self.peek(), Token::Op("]" | ":")) {
                        *bound = Some(self.expression()?);
                    }
                }
                let depth = bounds.iter().flatten().map(|expr| expr.depth).fold(value.depth, u32::max);
                node(at, depth, ExprKind::Slice(Box::new(Slice { value, bounds })))
            }
        }
    }

    fn filters_and_tests(&mut self, mut value: Expr) -> Result<Expr, Error> {
        loop {
            let at = self.at();
            if self.skip(&Token::Op("|")) {
                let filter = self.apply("the name of a filter")?;
                let depth = value.depth.max(args_depth(&filter.args));
                value = node(at, depth, ExprKind::Filter(Box::new((value, filter))))?;
            } else if self.skip(&Token::Name("is")) {
                value = self.test(value, at)?;
            } else if *self.peek() == Token::Op("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    /// `not`, if it is there, and a test with its arguments. A single argument needs no parentheses.
    fn test(&mut self, value: Expr, at: Position) -> Result<Expr, Error> {
        let is_negated = self.skip(&Token::Name("not"));
        let mut test = self.apply("the name of a test")?;
        let begins_argument = match self.peek() {
            Token::Name(name) => {
                !matches!(*name, "else" | "or" | "and" | "if" | "in" | "is" | "not" | "recursive")
            }
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Op("(" | "[" | "{") => true,
            _ => false,
        };
        if begins_argument && test.args.is_empty() {
            let argument = self.primary()?;
            test.args.push(Arg::Positional(self.postfix(argument)?));
        }
        let depth = value.depth.max(args_depth(&test.args));
        let tested = node(at, depth, ExprKind::Test(Box::new((value, test))))?;
        if is_negated { node(at, tested.depth, ExprKind::Not(Box::new(tested))) } else { Ok(tested) }
    }

    /// A filter or a test, from its name.
    pub(super) fn apply(&mut self, wanted: &str) -> Result<Apply, Error> {
        let at = self.at();
        let mut name = self.name(wanted)?.to_owned();
        while self.skip(&Token::Op(".")) {
            name.push('.');
            name.push_str(self.name(wanted)?);
        }
        let args = if *self.peek() == Token::Op("(") { self.args()? } else { Vec::new() };
        Ok(Apply { name: name.into(), args, at })
    }

    fn call(&mut self, callee: Expr) -> Result<Expr, Error> {
        let at = callee.at;
        let args = self.args()?;
        let depth = callee.depth.max(args_depth(&args));
        node(at, depth, ExprKind::Call(Box::new(Call { callee, args })))
    }

    /// Arguments with the parentheses around them: first the positional ones, then those with names.
    fn args(&mut self) -> Result<Vec<Arg>, Error> {
        self.expect(&Token::Op("("))?;
        self.enter()?;
        let mut args: Vec<Arg> = Vec::new();
        while !self.skip(&Token::Op(")")) {
            if !args.is_empty() {
                self.expect(&Token::Op(","))?;
                if self.skip(&Token::Op(")")) {
                    break;
                }
            }
            let at = self.at();
            let arg = match (self.peek(), self.peek_at(1)) {
                (Token::Op("*"), _) => {
                    self.next += 1;
                    Arg::Spread(self.expression()?)
                }
                (Token::Op("**"), _) => {
                    self.next += 1;
                    Arg::SpreadNamed(self.expression()?)
                }
                (&Token::Name(name), Token::Op("=")) => {
                    self.next += 2;
                    Arg::Named(name.into(), self.expression()?)
                }
                _ => Arg::Positional(self.expression()?),
            };
            let is_late = match arg {
                Arg::Positional(_) => !matches!(args.last(), None | Some(Arg::Positional(_))),
                _ => matches!(args.last(), Some(Arg::SpreadNamed(_))),
            };
            if is_late {
                let message = "arguments by position come first, then those with names, then * and **";
                return Err(Error::new(message).at(at));
            }
            args.push(arg);
        }
        self.leave();
        Ok(args)
    }
}

/// A node of the tree above children of at most the given depth.
fn node(at: Position, below: u32, kind: ExprKind) -> Result<Expr, Error> {
    if below >= DEPTH_MAX { Err(too_deep(at)) } else { Ok(Expr { kind, at, depth: below + 1 }) }
}

fn below(items: &[Expr]) -> u32 {
    items.iter().map(|item| item.depth).max().unwrap_or(0)
}

fn args_depth(args: &[Arg]) -> u32 {
    args.iter()
        .map(|arg| match arg {
            Arg::Positional(expr) | Arg::Named(_, expr) | Arg::Spread(expr) | Arg::SpreadNamed(expr) => {
                expr.depth
            }
        })
        .max()
        .unwrap_or(0)
}
