//! Runs a template: variables and statements. `exprs` has the expressions and the calls.

mod exprs;

use std::cell::RefCell;
use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Error;
use crate::filters;
use crate::functions::FUNCTIONS;
use crate::tree::{Apply, Block, Call, Expr, For, Macro, Stmt, StmtKind, Target};
use crate::value::{Caller, List, Loop, Namespace, Value};

/// Runs a template and gives its output. `now` is in seconds since 1970.
pub(crate) fn run<'t>(
    body: &'t [Stmt],
    mut variables: Frame<'t>,
    now: u64,
    budget: Budget,
) -> Result<String, Error> {
    variables.extend(FUNCTIONS.map(|(name, function)| (name, Value::Function(function))));
    let mut eval =
        Eval { budget, frames: vec![variables], base: 0, out: String::new(), namespaces: Vec::new(), now };
    let result = eval.body(body);
    // A cycle through a namespace would never be freed; and with all of them still held here, none frees the next.
    eval.frames.clear();
    for namespace in &eval.namespaces {
        namespace.variables.borrow_mut().clear();
    }
    result.map(|_| eval.out)
}

/// How a statement ended.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// Variables by name.
pub(crate) type Frame<'t> = Vec<(&'t str, Value<'t>)>;

struct Eval<'t> {
    budget: Budget,
    // Variables, innermost last; frame 0 is the template's own.
    frames: Vec<Frame<'t>>,
    // A macro sees its own frames, from here up, and frame 0.
    base: usize,
    // The output of the template so far, or of the block being captured.
    out: String,
    // Every namespace there is.
    namespaces: Vec<Rc<Namespace<'t>>>,
    now: u64,
}

impl<'t> Eval<'t> {
    fn body(&mut self, body: &'t [Stmt]) -> Result<Flow, Error> {
        self.budget.enter()?;
        for stmt in body {
            self.budget.step()?;
            let flow = self.stmt(stmt).map_err(|error| error.at(stmt.at))?;
            if flow != Flow::Next {
                self.budget.leave();
                return Ok(flow);
            }
        }
        self.budget.leave();
        Ok(Flow::Next)
    }

    fn stmt(&mut self, stmt: &'t Stmt) -> Result<Flow, Error> {
        match &stmt.kind {
            StmtKind::Text(text) => {
                self.budget.bytes(text.len())?;
                self.out.push_str(text);
            }
            StmtKind::Print(expr) => self.print(expr)?,
            StmtKind::If(branches, otherwise) => {
                let body = self.branch(branches)?.unwrap_or(otherwise);
                return self.body(body);
            }
            StmtKind::For(stmt) => self.for_loop(stmt)?,
            StmtKind::Set(target, value) => self.set(target, value)?,
            StmtKind::SetBlock(target, chain, body) => {
                let value = self.capture(body, chain)?;
                self.assign(target, value)?;
            }
            StmtKind::Filter(chain, body) => self.print_filtered(chain, body)?,
            StmtKind::With(variables, body) => return self.with(variables, body),
            StmtKind::Scope(body) => return self.in_frame(Vec::new(), |eval| eval.body(body)),
            StmtKind::Macro(decl) => self.bind(&decl.name, Value::Macro(decl))?,
            StmtKind::Call(call) => self.call_block(call)?,
            StmtKind::Do(expr) => self.expr(expr).map(drop)?,
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, expr: &'t Expr) -> Result<(), Error> {
        let value = self.expr(expr)?;
        value.print(&mut self.out, false, &mut self.budget).map_err(|error| error.at(expr.at))
    }

    /// The block of the first condition that holds.
    fn branch(&mut self, branches: &'t [(Expr, Block)]) -> Result<Option<&'t Block>, Error> {
        for (condition, body) in branches {
            if self.expr(condition)?.is_true() {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    fn set(&mut self, target: &'t Target, value: &'t Expr) -> Result<(), Error> {
        let value = self.expr(value)?;
        self.assign(target, value)
    }

    fn print_filtered(&mut self, chain: &'t [Apply], body: &'t [Stmt]) -> Result<(), Error> {
        let value = self.capture(body, chain)?;
        value.print(&mut self.out, false, &mut self.budget)
    }

    fn call_block(&mut self, call: &'t (Call, Macro)) -> Result<(), Error> {
        let caller = Caller { block: &call.1, n_frames: self.frames.len(), base: self.base };
        let written = self.call_with(&call.0, Some(caller))?;
        written.print(&mut self.out, false, &mut self.budget)
    }

    fn with(&mut self, variables: &'t [(Target, Expr)], body: &'t [Stmt]) -> Result<Flow, Error> {
        // All values come from outside: none sees the new variables.
        self.budget.values(variables.len())?;
        let values: Vec<Value<'t>> =
            variables.iter().map(|(_, value)| self.expr(value)).collect::<Result<_, _>>()?;
        self.in_frame(Vec::new(), |eval| {
            for ((target, _), value) in variables.iter().zip(values) {
                eval.assign(target, value)?;
            }
            eval.body(body)
        })
    }

    fn in_frame<T>(
        &mut self,
        frame: Frame<'t>,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // A level of its own: what makes a frame takes more of the stack than an expression.
        self.budget.enter()?;
        self.budget.values(1)?;
        self.frames.push(frame);
        let result = work(self);
        self.frames.pop();
        self.budget.leave();
        result
    }

    /// Runs a block with variables of its own and gives what it writes, after some filters.
    fn capture(&mut self, body: &'t [Stmt], chain: &'t [Apply]) -> Result<Value<'t>, Error> {
        let value = self.captured(|eval| eval.in_frame(Vec::new(), |eval| eval.body(body)).map(drop))?;
        self.filter_chain(chain, value)
    }

    /// Gives what some work writes.
    fn captured(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<Value<'t>, Error> {
        let outer = std::mem::take(&mut self.out);
        let result = work(self);
        let written = std::mem::replace(&mut self.out, outer);
        result?;
        Value::str(&written, &mut self.budget)
    }

    fn filter_chain(&mut self, chain: &'t [Apply], mut value: Value<'t>) -> Result<Value<'t>, Error> {
        for filter in chain {
            self.budget.step()?;
            value = self.filter(filter, &value)?;
        }
        Ok(value)
    }

    fn filter(&mut self, filter: &'t Apply, value: &Value<'t>) -> Result<Value<'t>, Error> {
        let args = self.args(&filter.args)?;
        filters::apply(&filter.name, value, &args, &mut self.budget).map_err(|error| error.at(filter.at))
    }

    fn for_loop(&mut self, stmt: &'t For) -> Result<(), Error> {
        let over = self.expr(&stmt.over)?;
        self.rounds(stmt, &over, 1).map_err(|error| error.at(stmt.over.at))
    }

    /// All rounds of a loop over the items of a value; `depth` counts the calls of a recursive one.
    fn rounds(&mut self, stmt: &'t For, over: &Value<'t>, depth: usize) -> Result<(), Error> {
        let items = over.items(&mut self.budget)?;
        let items = match &stmt.filter {
            Some(filter) => self.filtered(stmt, filter, &items)?,
            None => items,
        };
        if items.items.is_empty() {
            return self.in_frame(Vec::new(), |eval| eval.body(&stmt.otherwise)).map(drop);
        }
        let last = Rc::new(RefCell::new(None));
        for index in 0..items.items.len() {
            self.budget.step()?;
            self.budget.values(2)?;
            let this = Loop { items: Rc::clone(&items), index, depth, stmt, last: Rc::clone(&last) };
            let item = items.items[index].clone();
            let flow = self.in_frame(vec![("loop", Value::Loop(Rc::new(this)))], |eval| {
                eval.assign(&stmt.target, item)?;
                eval.body(&stmt.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// The items for which the condition of a loop holds.
    fn filtered(&mut self, stmt: &'t For, filter: &'t Expr, items: &List<'t>) -> Result<Rc<List<'t>>, Error> {
        self.budget.values(items.items.len())?;
        let mut kept = Vec::new();
        for item in &items.items {
            let keep = self.in_frame(Vec::new(), |eval| {
                eval.assign(&stmt.target, item.clone())?;
                Ok(eval.expr(filter)?.is_true())
            })?;
            if keep {
                kept.push(item.clone());
            }
        }
        Value::list(kept)?.items(&mut self.budget)
    }

    fn bind(&mut self, name: &'t str, value: Value<'t>) -> Result<(), Error> {
        self.budget.values(1)?;
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        self.budget.bytes(frame.len().saturating_mul(1 + name.len()))?;
        match frame.iter_mut().find(|(known, _)| *known == name) {
            Some(variable) => variable.1 = value,
            None => frame.push((name, value)),
        }
        Ok(())
    }

    fn lookup(&mut self, name: &str) -> Result<Value<'t>, Error> {
        let local = self.frames[self.base..].iter().rev();
        let global = self.frames[..self.base].first();
        for frame in local.chain(global) {
            self.budget.bytes(1 + frame.len())?;
            if let Some((_, value)) = frame.iter().find(|(known, _)| *known == name) {
                return Ok(value.clone());
            }
        }
        Ok(Value::Undefined)
    }

    fn assign(&mut self, target: &'t Target, value: Value<'t>) -> Result<(), Error> {
        match target {
            Target::Name(name) => self.bind(name, value),
            Target::Attribute(object, name) => match self.lookup(object)? {
                Value::Namespace(namespace) => {
                    value.check_storable()?;
                    self.budget.values(1)?;
                    let mut variables = namespace.variables.borrow_mut();
                    self.budget.bytes(variables.len().saturating_mul(1 + name.len()))?;
                    match variables.iter_mut().find(|(known, _)| **known == **name) {
                        Some(variable) => variable.1 = value,
                        None => {
                            self.budget.bytes(name.len())?;
                            variables.push(((&**name).into(), value));
                        }
                    }
                    Ok(())
                }
                other => {
                    Err(Error::new(format!("{} has no attributes to set; namespace() has", other.kind())))
                }
            },
            Target::Tuple(targets) => {
                let values = value.items(&mut self.budget)?;
                if values.items.len() != targets.len() {
                    return Err(Error::new(format!(
                        "{} values cannot be unpacked into {} names",
                        values.items.len(),
                        targets.len()
                    )));
                }
                for (target, value) in targets.iter().zip(&values.items) {
                    self.budget.enter()?;
                    self.assign(target, value.clone())?;
                    self.budget.leave();
                }
                Ok(())
            }
        }
    }
}
