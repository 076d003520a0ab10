//! The cursor over the tokens, and what the parser keeps count of.

use crate::budget::DEPTH_MAX;
use crate::error::Error;
use crate::lexer::{Placed, Token};
use crate::tree::{Position, Uses};

pub(super) struct Parser<'s> {
    tokens: Vec<Placed<'s>>,
    pub(super) next: usize,
    depth: u32,
    /// Whether `break` has a loop to leave.
    pub(super) in_loop: bool,
    /// The special variables that have been named so far in this macro.
    pub(super) uses: Uses,
}

impl<'s> Parser<'s> {
    pub(super) fn new(tokens: Vec<Placed<'s>>) -> Parser<'s> {
        Parser { tokens, next: 0, depth: 0, in_loop: false, uses: Uses::default() }
    }

    pub(super) fn peek(&self) -> &Token<'s> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, n: usize) -> &Token<'s> {
        self.tokens.get(self.next + n).map_or(&Token::End, |(token, _)| token)
    }

    /// Where the next token stands.
    pub(super) fn at(&self) -> Position {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.next.min(last)).map_or(Position { line: 1, column: 1 }, |(_, at)| *at)
    }

    pub(super) fn take(&mut self) -> Token<'s> {
        let token = self.tokens.get_mut(self.next).map(|(token, _)| std::mem::replace(token, Token::End));
        self.next += 1;
        token.unwrap_or(Token::End)
    }

    pub(super) fn skip(&mut self, wanted: &Token<'_>) -> bool {
        let found = self.peek() == wanted;
        self.next += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, wanted: &Token<'_>) -> Result<(), Error> {
        if self.skip(wanted) { Ok(()) } else { Err(self.unexpected(&wanted.to_string())) }
    }

    pub(super) fn name(&mut self, wanted: &str) -> Result<&'s str, Error> {
        let Token::Name(name) = *self.peek() else {
            return Err(self.unexpected(wanted));
        };
        self.next += 1;
        Ok(name)
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Error {
        Error::new(format!("expected {wanted}, found {}", self.peek())).at(self.at())
    }

    pub(super) fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(too_deep(self.at())) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }
}

pub(super) fn too_deep(at: Position) -> Error {
    Error::new(format!("this is nested deeper than the {DEPTH_MAX} levels that are accepted")).at(at)
}
