//! Expressions and calls. One method each, so that what recurses most, `expr`, takes little of the stack.

use std::borrow::Cow;
use std::rc::Rc;

use super::Eval;
use crate::args::{Args, Takes};
use crate::budget::{Held, VALUE_BYTES};
use crate::error::Error;
use crate::text::Text;
use crate::tree::{Apply, Arg, BinaryOp, Call, CompareOp, Conditional, Expr, ExprKind, Macro, Slice};
use crate::value::{Caller, Value};
use crate::{functions, methods, ops, predicates};

impl<'t> Eval<'t> {
    pub(super) fn expr(&mut self, expr: &'t Expr) -> Result<Value<'t>, Error> {
        self.budget.enter()?;
        let value = self.expr_inner(expr).map_err(|error| error.at(expr.at))?;
        self.budget.leave();
        Ok(value)
    }

    fn expr_inner(&mut self, expr: &'t Expr) -> Result<Value<'t>, Error> {
        match &expr.kind {
            ExprKind::None => Ok(Value::None),
            ExprKind::Bool(value) => Ok(Value::Bool(*value)),
            ExprKind::Int(value) => Ok(Value::Int(*value)),
            ExprKind::Float(value) => Ok(Value::Float(*value)),
            ExprKind::Str(text) => Ok(Value::Str(Text::literal(text))),
            ExprKind::Name(name) => self.lookup(name),
            ExprKind::List(items) => self.exprs(items).and_then(|(items, held)| Value::list(items, held)),
            ExprKind::Tuple(items) => self.exprs(items).and_then(|(items, held)| Value::tuple(items, held)),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Not(operand) => Ok(Value::Bool(!self.expr(operand)?.is_true())),
            ExprKind::Negate(operand) => ops::negate(&self.expr(operand)?),
            ExprKind::Plus(operand) => ops::plus(&self.expr(operand)?),
            ExprKind::And(sides) => self.and_or(sides, false),
            ExprKind::Or(sides) => self.and_or(sides, true),
            ExprKind::Binary(op, sides) => self.binary(*op, sides),
            ExprKind::Compare(chain) => self.compare(&chain.0, &chain.1),
            ExprKind::If(cond) => self.conditional(cond),
            ExprKind::Filter(filter) => self.filtered_value(&filter.0, &filter.1),
            ExprKind::Test(test) => self.test(&test.0, &test.1),
            ExprKind::Attribute(value, name) => {
                let value = self.expr(value)?;
                ops::attribute(&value, name, &mut self.budget)
            }
            ExprKind::Item(sides) => self.item(sides),
            ExprKind::Slice(slice) => self.slice(slice),
            ExprKind::Call(call) => self.call_with(call, None),
        }
    }

    fn exprs(&mut self, exprs: &'t [Expr]) -> Result<(Vec<Value<'t>>, Held), Error> {
        let held = self.budget.values(exprs.len() + 2)?;
        Ok((exprs.iter().map(|expr| self.expr(expr)).collect::<Result<_, _>>()?, held))
    }

    fn map(&mut self, entries: &'t [(Expr, Expr)]) -> Result<Value<'t>, Error> {
        let held = self.budget.values(entries.len().saturating_mul(2) + 2)?;
        let mut pairs = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.expr(key)?;
            pairs.push((key, self.expr(value)?));
        }
        Value::map(pairs, held, &mut self.budget)
    }

    fn binary(&mut self, op: BinaryOp, sides: &'t [Expr; 2]) -> Result<Value<'t>, Error> {
        let left = self.expr(&sides[0])?;
        let right = self.expr(&sides[1])?;
        ops::binary(op, &left, &right, &mut self.budget)
    }

    fn conditional(&mut self, cond: &'t Conditional) -> Result<Value<'t>, Error> {
        if self.expr(&cond.test)?.is_true() {
            return self.expr(&cond.value);
        }
        cond.otherwise.as_ref().map_or(Ok(Value::Undefined), |expr| self.expr(expr))
    }

    fn filtered_value(&mut self, value: &'t Expr, filter: &'t Apply) -> Result<Value<'t>, Error> {
        let value = self.expr(value)?;
        self.filter(filter, &value)
    }

    fn test(&mut self, value: &'t Expr, test: &'t Apply) -> Result<Value<'t>, Error> {
        let value = self.expr(value)?;
        let args = self.args(&test.args)?;
        predicates::test(&test.name, &value, &args, &mut self.budget)
            .map(Value::Bool)
            .map_err(|error| error.at(test.at))
    }

    fn item(&mut self, sides: &'t [Expr; 2]) -> Result<Value<'t>, Error> {
        let value = self.expr(&sides[0])?;
        let key = self.expr(&sides[1])?;
        ops::item(&value, &key, &mut self.budget)
    }

    fn and_or(&mut self, sides: &'t [Expr; 2], decides: bool) -> Result<Value<'t>, Error> {
        let left = self.expr(&sides[0])?;
        if left.is_true() == decides { Ok(left) } else { self.expr(&sides[1]) }
    }

    fn compare(&mut self, first: &'t Expr, rest: &'t [(CompareOp, Expr)]) -> Result<Value<'t>, Error> {
        let mut left = self.expr(first)?;
        for (op, right) in rest {
            let right = self.expr(right)?;
            if !ops::compare(*op, &left, &right, &mut self.budget)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn slice(&mut self, slice: &'t Slice) -> Result<Value<'t>, Error> {
        let value = self.expr(&slice.value)?;
        let mut bounds = [None; 3];
        for (bound, expr) in bounds.iter_mut().zip(&slice.bounds) {
            if let Some(expr) = expr {
                *bound = match self.expr(expr)? {
                    Value::None => None,
                    value => Some(value.as_int()?),
                };
            }
        }
        ops::slice(&value, bounds, &mut self.budget)
    }

    pub(super) fn args(&mut self, args: &'t [Arg]) -> Result<Args<'t>, Error> {
        let held = self.budget.values(args.len().saturating_mul(2))?;
        let mut evaluated = Args { positional: Vec::new(), named: Vec::new(), held };
        for arg in args {
            match arg {
                Arg::Positional(expr) => evaluated.positional.push(self.expr(expr)?),
                Arg::Named(name, expr) => evaluated.named.push((Cow::Borrowed(name), self.expr(expr)?)),
                Arg::Spread(expr) => {
                    let items = self.expr(expr)?.items(&mut self.budget)?;
                    self.budget.scan(items.items.len() * VALUE_BYTES)?;
                    evaluated.held.add(items.items.len() * VALUE_BYTES)?;
                    evaluated.positional.extend(items.items.iter().cloned());
                }
                Arg::SpreadNamed(expr) => {
                    let map = self.expr(expr)?;
                    for (name, value) in &map.as_map()?.entries {
                        let name = name.as_str()?;
                        self.budget.scan(name.len() + VALUE_BYTES)?;
                        evaluated.held.add(name.len() + 2 * VALUE_BYTES)?;
                        evaluated.named.push((Cow::Owned(name.to_string()), value.clone()));
                    }
                }
            }
        }
        Ok(evaluated)
    }

    /// A call, with the block of `{% call %}` if it is one.
    pub(super) fn call_with(
        &mut self,
        call: &'t Call,
        caller: Option<Caller<'t>>,
    ) -> Result<Value<'t>, Error> {
        // `x.name(…)`, and `x['name'](…)`, which is the same to Jinja.
        let method = match &call.callee.kind {
            ExprKind::Attribute(object, name) => Some((&**object, name)),
            ExprKind::Item(sides) => match &sides[1].kind {
                ExprKind::Str(name) => Some((&sides[0], name)),
                _ => None,
            },
            _ => None,
        };
        if let Some((object, name)) = method {
            let object = self.expr(object)?;
            // A namespace or a mapping may hold something to call under this name.
            let own = match object {
                // The methods of a mapping come first.
                Value::Map(_) if methods::OF_MAP.contains(&&**name) => None,
                _ => object.entry(name, &mut self.budget)?,
            };
            let args = self.args(&call.args)?;
            return match own {
                Some(
                    callee @ (Value::Macro(_) | Value::Function(_) | Value::Method(_) | Value::Joiner(_)),
                ) => self.call_value(&callee, args, caller),
                _ => methods::call(&object, name, &args, &mut self.budget),
            };
        }
        let callee = self.expr(&call.callee)?;
        let args = self.args(&call.args)?;
        if let (Value::Undefined, ExprKind::Name(name)) = (&callee, &call.callee.kind) {
            let name: String = name.chars().take(60).collect();
            let known = functions::FUNCTIONS.map(|(name, _)| name).join(", ");
            return Err(Error::new(format!("the function {name} is not known; known are {known}")));
        }
        self.call_value(&callee, args, caller)
    }

    fn call_value(
        &mut self,
        callee: &Value<'t>,
        args: Args<'t>,
        caller: Option<Caller<'t>>,
    ) -> Result<Value<'t>, Error> {
        match callee {
            Value::Macro(decl) => self.call_macro(decl, args, caller),
            Value::Caller(block) => self.call_caller(*block, args),
            Value::Function(function) => {
                let value = functions::call(*function, &args, self.now, &mut self.budget)?;
                if let Value::Namespace(namespace) = &value {
                    // It stays in this list until the end.
                    self.namespaces.push(Rc::clone(namespace));
                }
                Ok(value)
            }
            Value::Method(method) => methods::call(&method.object, method.name, &args, &mut self.budget),
            Value::Joiner(joiner) => {
                args.check("joiner", Takes::Only(&[]), &mut self.budget)?;
                let text = if joiner.is_used.replace(true) { &*joiner.separator } else { "" };
                Value::str(text, &mut self.budget)
            }
            Value::Loop(this) if this.stmt.is_recursive => {
                args.check("loop", Takes::Only(&["iterable"]), &mut self.budget)?;
                let over = args.require(0, "iterable")?.clone();
                let (stmt, depth) = (this.stmt, this.depth + 1);
                self.captured(|eval| eval.rounds(stmt, &over, depth))
            }
            Value::Loop(_) => Err(Error::new("this loop is not recursive; {% for … recursive %} is")),
            other => Err(Error::new(format!("{} cannot be called", other.kind()))),
        }
    }

    fn call_macro(
        &mut self,
        decl: &'t Macro,
        args: Args<'t>,
        caller: Option<Caller<'t>>,
    ) -> Result<Value<'t>, Error> {
        let base = self.frames.len();
        self.captured(|eval| {
            let outer = std::mem::replace(&mut eval.base, base);
            let result = eval.in_frame(|eval| {
                eval.bind_params(decl, args)?;
                match caller {
                    Some(caller) if decl.uses.caller => eval.bind("caller", Value::Caller(caller))?,
                    Some(_) => {
                        return Err(Error::new(format!("the macro {} never calls caller()", decl.name)));
                    }
                    None => {}
                }
                eval.body(&decl.body)
            });
            eval.base = outer;
            result.map(drop)
        })
    }

    /// Runs the block of `{% call %}`, which sees the variables of the place where it stands.
    fn call_caller(&mut self, caller: Caller<'t>, args: Args<'t>) -> Result<Value<'t>, Error> {
        let n_frames = caller.n_frames.min(self.frames.len());
        let _held = self.budget.values((self.frames.len() - n_frames).saturating_mul(2))?;
        let hidden = self.frames.split_off(n_frames);
        let outer = std::mem::replace(&mut self.base, caller.base.min(n_frames));
        let written = self.captured(|eval| {
            let run = |eval: &mut Self| {
                eval.bind_params(caller.block, args)?;
                eval.body(&caller.block.body)
            };
            eval.in_frame(run).map(drop)
        });
        self.base = outer;
        self.frames.extend(hidden);
        written
    }

    /// Binds the parameters of a macro in the frame that has been made for it.
    fn bind_params(&mut self, decl: &'t Macro, args: Args<'t>) -> Result<(), Error> {
        let n = decl.params.len();
        if args.positional.len() > n && !decl.uses.varargs {
            return Err(Error::new(format!("the macro {} takes at most {n} arguments", decl.name)));
        }
        self.budget.scan(n.saturating_mul(1 + args.named.len()))?;
        for (i, (name, _)) in args.named.iter().enumerate() {
            let known = decl.params.iter().position(|(known, _)| **known == *name);
            let is_twice = known.is_some_and(|known| known < args.positional.len())
                || (i <= n && args.named[..i].iter().any(|(other, _)| other == name));
            if is_twice {
                let name: String = name.chars().take(60).collect();
                return Err(Error::new(format!(
                    "the macro {} is given the argument {name} twice",
                    decl.name
                )));
            }
        }
        for (i, (name, default)) in decl.params.iter().enumerate() {
            let value = match (args.get(i, name), default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => self.expr(default)?,
                (None, None) => Value::Undefined,
            };
            self.bind(name, value)?;
        }
        if decl.uses.varargs {
            let rest = args.positional.get(n..).unwrap_or_default().to_vec();
            let held = self.budget.values(rest.len())?;
            self.bind("varargs", Value::tuple(rest, held)?)?;
        }
        let mut rest = Vec::new();
        let held = self.budget.values(args.named.len().saturating_mul(2))?;
        for (name, value) in args.named {
            if decl.params.iter().any(|(known, _)| **known == name) {
                continue;
            }
            if !decl.uses.kwargs {
                let name: String = name.chars().take(60).collect();
                return Err(Error::new(format!("the macro {} takes no argument {name}", decl.name)));
            }
            rest.push((Value::str(&name, &mut self.budget)?, value));
        }
        if decl.uses.kwargs {
            let rest = Value::map(rest, held, &mut self.budget)?;
            self.bind("kwargs", rest)?;
        }
        Ok(())
    }
}
