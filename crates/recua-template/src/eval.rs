//! Runs a template: variables and statements. `exprs` has the expressions and the calls.

mod exprs;

use std::cell::RefCell;
use std::rc::Rc;

use crate::budget::{Budget, Buffer, Held, VALUE_BYTES};
use crate::clock::LocalTime;
use crate::error::Error;
use crate::filters;
use crate::functions::FUNCTIONS;
use crate::tree::{Apply, Block, Call, Expr, For, Macro, Stmt, StmtKind, Target};
use crate::value::{Caller, Kind, List, Loop, Namespace, Value};

/// Runs a template and gives its output.
pub(crate) fn run<'t>(
    body: &'t [Stmt],
    variables: Vec<(&'t str, Value<'t>)>,
    now: LocalTime,
    mut budget: Budget,
) -> Result<String, Error> {
    let held = budget.values((variables.len() + FUNCTIONS.len()).saturating_mul(2))?;
    let mut globals = Frame { variables, places: 0, held };
    globals.variables.extend(FUNCTIONS.map(|(name, function)| (name, Value::Function(function))));
    let out = Buffer::new(&budget)?;
    let mut eval = Eval { budget, frames: vec![globals], base: 0, out, namespaces: Vec::new(), now };
    let result = eval.body(body);
    // A cycle through a namespace would never be freed; and with all of them still held here, none frees the next.
    eval.frames.clear();
    for namespace in &eval.namespaces {
        namespace.variables.borrow_mut().clear();
    }
    result.map(|_| eval.out.into_string())
}

/// How a statement ended.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// Variables by name.
struct Frame<'t> {
    variables: Vec<(&'t str, Value<'t>)>,
    // How many variables `held` is for: the frame of a loop is used again for each round.
    places: usize,
    held: Held,
}

struct Eval<'t> {
    budget: Budget,
    // Variables, innermost last; frame 0 is the template's own.
    frames: Vec<Frame<'t>>,
    // A macro sees its own frames, from here up, and frame 0.
    base: usize,
    // The output of the template so far, or of the block being captured.
    out: Buffer,
    // Every namespace there is.
    namespaces: Vec<Rc<Namespace<'t>>>,
    now: LocalTime,
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
            StmtKind::Text(text) => self.out.push_str(text, &mut self.budget)?,
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
            StmtKind::Scope(body) => return self.in_frame(|eval| eval.body(body)),
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
        let _held = self.budget.values(variables.len())?;
        let values: Vec<Value<'t>> =
            variables.iter().map(|(_, value)| self.expr(value)).collect::<Result<_, _>>()?;
        self.in_frame(|eval| {
            for ((target, _), value) in variables.iter().zip(values) {
                eval.assign(target, value)?;
            }
            eval.body(body)
        })
    }

    fn in_frame<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        // A level of its own: what makes a frame takes more of the stack than an expression.
        self.budget.enter()?;
        let held = self.budget.values(2)?;
        self.frames.push(Frame { variables: Vec::new(), places: 0, held });
        let result = work(self);
        self.frames.pop();
        self.budget.leave();
        result
    }

    /// Runs a block with variables of its own and gives what it writes, after some filters.
    fn capture(&mut self, body: &'t [Stmt], chain: &'t [Apply]) -> Result<Value<'t>, Error> {
        let value = self.captured(|eval| eval.in_frame(|eval| eval.body(body)).map(drop))?;
        self.filter_chain(chain, value)
    }

    /// Gives what some work writes.
    fn captured(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<Value<'t>, Error> {
        let inner = Buffer::new(&self.budget)?;
        let outer = std::mem::replace(&mut self.out, inner);
        let result = work(self);
        let written = std::mem::replace(&mut self.out, outer);
        result?;
        Value::built(written, &mut self.budget)
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
        filters::apply(&filter.name, value, &args, &mut self.budget)
            .map(|value| value.failing_at(filter.at))
            .map_err(|error| error.at(filter.at))
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
            return self.in_frame(|eval| eval.body(&stmt.otherwise)).map(drop);
        }
        let last = Rc::new(RefCell::new(None));
        // All rounds use one frame, so its memory is paid for once.
        self.in_frame(|eval| {
            for index in 0..items.items.len() {
                eval.budget.step()?;
                let this = Loop { items: Rc::clone(&items), index, depth, stmt, last: Rc::clone(&last) };
                if eval.round(this)? == Flow::Break {
                    break;
                }
            }
            Ok(())
        })
    }

    fn round(&mut self, this: Loop<'t>) -> Result<Flow, Error> {
        if let Some(frame) = self.frames.last_mut() {
            frame.variables.clear();
        }
        let (stmt, item) = (this.stmt, this.items.items[this.index].clone());
        self.bind("loop", Value::Loop(Rc::new(this)))?;
        self.assign(&stmt.target, item)?;
        self.body(&stmt.body)
    }

    /// The items for which the condition of a loop holds.
    fn filtered(&mut self, stmt: &'t For, filter: &'t Expr, items: &List<'t>) -> Result<Rc<List<'t>>, Error> {
        let held = self.budget.values(items.items.len())?;
        let mut kept = Vec::new();
        for item in &items.items {
            let keep = self.in_frame(|eval| {
                eval.assign(&stmt.target, item.clone())?;
                Ok(eval.expr(filter)?.is_true())
            })?;
            if keep {
                kept.push(item.clone());
            }
        }
        List::new(Kind::List, kept, held).map(Rc::new)
    }

    fn bind(&mut self, name: &'t str, value: Value<'t>) -> Result<(), Error> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        self.budget.search(frame.variables.len(), name.len())?;
        if let Some(variable) = frame.variables.iter_mut().find(|(known, _)| *known == name) {
            variable.1 = value;
            return Ok(());
        }
        if frame.variables.len() >= frame.places {
            // The vector doubles; and each place may keep a `loop` alive that is not counted otherwise.
            frame.held.add(6 * VALUE_BYTES)?;
            frame.places = frame.variables.len() + 1;
        }
        frame.variables.push((name, value));
        Ok(())
    }

    fn lookup(&mut self, name: &str) -> Result<Value<'t>, Error> {
        let local = self.frames[self.base..].iter().rev();
        let global = self.frames[..self.base].first();
        for frame in local.chain(global) {
            self.budget.search(frame.variables.len(), name.len())?;
            if let Some((_, value)) = frame.variables.iter().find(|(known, _)| *known == name) {
                return Ok(value.clone());
            }
        }
        Ok(Value::Undefined)
    }

    fn assign(&mut self, target: &'t Target, value: Value<'t>) -> Result<(), Error> {
        match target {
            Target::Name(name) => self.bind(name, value),
            Target::Attribute(object, name) => match self.lookup(object)? {
                Value::Namespace(namespace) => namespace.set(name, value, &mut self.budget),
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
