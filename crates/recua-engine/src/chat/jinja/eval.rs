//! Statements and expressions.

use std::cell::RefCell;
use std::rc::Rc;

use minijinja::machinery::ast::{self, Expr, Stmt};

use super::budget::{Budget, VALUE_BYTES};
use super::value::{Entries, Function, Loop, Map, Value};
use super::{Error, Inputs, filters, functions, methods, ops, predicates};

/// Runs a template and gives its output.
pub(super) fn run(body: &[Stmt<'_>], inputs: &Inputs<'_>, mut budget: Budget) -> Result<String, Error> {
    let mut messages = Vec::with_capacity(inputs.messages.len());
    for message in inputs.messages {
        let role = Value::str(&message.role, &mut budget)?;
        let content = Value::str(&message.content, &mut budget)?;
        messages.push(Value::map(vec![("role".into(), role), ("content".into(), content)], &mut budget)?);
    }
    let globals = vec![
        ("messages", Value::list(messages)?),
        ("add_generation_prompt", Value::Bool(inputs.add_generation_prompt)),
        ("bos_token", Value::str(inputs.bos, &mut budget)?),
        ("eos_token", Value::str(inputs.eos, &mut budget)?),
        ("tools", Value::None),
        ("documents", Value::None),
        ("raise_exception", Value::Function(Function::RaiseException)),
        ("strftime_now", Value::Function(Function::StrftimeNow)),
        ("namespace", Value::Function(Function::Namespace)),
        ("range", Value::Function(Function::Range)),
        ("dict", Value::Function(Function::Dict)),
    ];
    let mut eval =
        Eval { budget, frames: vec![globals], base: 0, out: String::new(), n_loops: 0, now: inputs.now };
    eval.body(body)?;
    Ok(eval.out)
}

/// How a statement ended.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Frame<'t> = Vec<(&'t str, Value<'t>)>;

pub(super) struct Eval<'t> {
    pub(super) budget: Budget,
    // Variables, innermost last; frame 0 is the template's own.
    frames: Vec<Frame<'t>>,
    // A macro sees its own frames, from here up, and frame 0.
    base: usize,
    // What has been written: the template's output, or that of the block being captured.
    out: String,
    n_loops: usize,
    pub(super) now: u64,
}

/// The evaluated arguments of a call.
pub(super) struct Args<'t> {
    pub(super) positional: Vec<Value<'t>>,
    pub(super) named: Vec<(&'t str, Value<'t>)>,
}

impl<'t> Args<'t> {
    /// The argument at a place or of a name.
    pub(super) fn get(&self, i: usize, name: &str) -> Option<&Value<'t>> {
        self.positional.get(i).or_else(|| self.named.iter().find(|(known, _)| *known == name).map(|(_, v)| v))
    }

    pub(super) fn require(&self, i: usize, name: &str) -> Result<&Value<'t>, Error> {
        self.get(i, name).ok_or_else(|| Error::new(format!("the argument {name} is missing")))
    }
}

impl<'t> Eval<'t> {
    fn body(&mut self, body: &'t [Stmt<'t>]) -> Result<Flow, Error> {
        for stmt in body {
            self.budget.enter()?;
            let flow = self.stmt(stmt)?;
            self.budget.leave();
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn stmt(&mut self, stmt: &'t Stmt<'t>) -> Result<Flow, Error> {
        match stmt {
            Stmt::Template(template) => return self.body(&template.children),
            Stmt::EmitRaw(raw) => {
                self.budget.bytes(raw.raw.len())?;
                self.out.push_str(raw.raw);
            }
            Stmt::EmitExpr(emit) => {
                let value = self.expr(&emit.expr)?;
                value.print(&mut self.out, false, &mut self.budget).map_err(|error| error.at(emit.span()))?;
            }
            Stmt::IfCond(cond) => {
                let body = if self.expr(&cond.expr)?.is_true() { &cond.true_body } else { &cond.false_body };
                return self.body(body);
            }
            Stmt::ForLoop(stmt) => self.for_loop(stmt).map_err(|error| error.at(stmt.span()))?,
            Stmt::Set(set) => {
                let value = self.expr(&set.expr)?;
                self.assign(&set.target, value).map_err(|error| error.at(set.span()))?;
            }
            Stmt::SetBlock(set) => {
                let mut value = self.capture(&set.body)?;
                if let Some(filter) = &set.filter {
                    value = self.filter_chain(filter, value)?;
                }
                self.assign(&set.target, value).map_err(|error| error.at(set.span()))?;
            }
            Stmt::FilterBlock(block) => {
                let value = self.capture(&block.body)?;
                let value = self.filter_chain(&block.filter, value)?;
                value.print(&mut self.out, false, &mut self.budget)?;
            }
            Stmt::WithBlock(with) => {
                let mut frame = Vec::new();
                for (target, value) in &with.assignments {
                    let Expr::Var(var) = target else {
                        return Err(Error::new("with: only plain names are known").at(with.span()));
                    };
                    self.budget.values(1)?;
                    frame.push((var.id, self.expr(value)?));
                }
                return self.in_frame(frame, |eval| eval.body(&with.body));
            }
            // Output here is text for a tokenizer, never HTML.
            Stmt::AutoEscape(block) => return self.body(&block.body),
            Stmt::Macro(decl) => self.bind(decl.name, Value::Macro(decl))?,
            Stmt::Do(call) => {
                self.call(&call.call)?;
            }
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::CallBlock(block) => {
                return Err(Error::new("call blocks are not known").at(block.span()));
            }
            #[allow(unreachable_patterns, reason = "another crate may switch on features of minijinja")]
            _ => return Err(Error::new("this statement is not known; a chat template is one file")),
        }
        Ok(Flow::Next)
    }

    fn in_frame<T>(
        &mut self,
        frame: Frame<'t>,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.budget.values(1)?;
        self.frames.push(frame);
        let result = work(self);
        self.frames.pop();
        result
    }

    /// Runs a block and gives what it writes.
    fn capture(&mut self, body: &'t [Stmt<'t>]) -> Result<Value<'t>, Error> {
        let outer = std::mem::take(&mut self.out);
        let result = self.in_frame(Vec::new(), |eval| eval.body(body));
        let written = std::mem::replace(&mut self.out, outer);
        result?;
        Value::str(&written, &mut self.budget)
    }

    fn for_loop(&mut self, stmt: &'t ast::ForLoop<'t>) -> Result<(), Error> {
        if stmt.recursive {
            return Err(Error::new("recursive loops are not known"));
        }
        let mut items = self.expr(&stmt.iter)?.items(&mut self.budget)?;
        if let Some(filter) = &stmt.filter_expr {
            self.budget.values(items.items.len())?;
            let mut kept = Vec::new();
            for item in &items.items {
                let item = item.clone();
                let keep = self.in_frame(Vec::new(), |eval| {
                    eval.assign(&stmt.target, item.clone())?;
                    Ok(eval.expr(filter)?.is_true())
                })?;
                if keep {
                    kept.push(item);
                }
            }
            items = Value::list(kept)?.items(&mut self.budget)?;
        }
        if items.items.is_empty() {
            return self.in_frame(Vec::new(), |eval| eval.body(&stmt.else_body)).map(drop);
        }
        self.n_loops += 1;
        for index in 0..items.items.len() {
            self.budget.step()?;
            self.budget.values(2)?;
            let this = Value::Loop(Rc::new(Loop { items: Rc::clone(&items), index, depth: self.n_loops }));
            let item = items.items[index].clone();
            let flow = self.in_frame(vec![("loop", this)], |eval| {
                eval.assign(&stmt.target, item)?;
                eval.body(&stmt.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        self.n_loops -= 1;
        Ok(())
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

    fn assign(&mut self, target: &'t Expr<'t>, value: Value<'t>) -> Result<(), Error> {
        match target {
            Expr::Var(var) => self.bind(var.id, value),
            Expr::GetAttr(attr) => match self.expr(&attr.expr)? {
                Value::Namespace(variables) => {
                    value.check_storable()?;
                    self.budget.values(1)?;
                    let mut variables = variables.borrow_mut();
                    self.budget.bytes(variables.len().saturating_mul(1 + attr.name.len()))?;
                    match variables.iter_mut().find(|(known, _)| **known == *attr.name) {
                        Some(variable) => variable.1 = value,
                        None => {
                            self.budget.bytes(attr.name.len())?;
                            variables.push((attr.name.into(), value));
                        }
                    }
                    Ok(())
                }
                other => Err(Error::new(format!("{} has no attributes to set", other.kind()))),
            },
            Expr::List(_) | Expr::Tuple(_) => {
                let targets = match target {
                    Expr::List(list) => &list.items,
                    Expr::Tuple(tuple) => &tuple.items,
                    _ => return Ok(()),
                };
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
            other => Err(Error::new(format!("a {} cannot be assigned to", other.description()))),
        }
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

    pub(super) fn expr(&mut self, expr: &'t Expr<'t>) -> Result<Value<'t>, Error> {
        self.budget.enter()?;
        let value = self.expr_inner(expr).map_err(|error| error.at(expr.span()))?;
        self.budget.leave();
        Ok(value)
    }

    fn expr_inner(&mut self, expr: &'t Expr<'t>) -> Result<Value<'t>, Error> {
        match expr {
            Expr::Var(var) => self.lookup(var.id),
            Expr::Const(constant) => ops::constant(&constant.value, &mut self.budget),
            Expr::UnaryOp(unary) => {
                let value = self.expr(&unary.expr)?;
                match unary.op {
                    ast::UnaryOpKind::Not => Ok(Value::Bool(!value.is_true())),
                    ast::UnaryOpKind::Neg => ops::negate(&value),
                }
            }
            Expr::BinOp(binary) => self.binary(binary),
            Expr::Compare(compare) => {
                let mut left = self.expr(&compare.expr)?;
                for op in &compare.ops {
                    let right = self.expr(&op.expr)?;
                    if !ops::compare(op.op, &left, &right, &mut self.budget)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::IfExpr(cond) => {
                if self.expr(&cond.test_expr)?.is_true() {
                    self.expr(&cond.true_expr)
                } else {
                    cond.false_expr.as_ref().map_or(Ok(Value::Undefined), |expr| self.expr(expr))
                }
            }
            Expr::Filter(filter) => {
                let Some(input) = &filter.expr else {
                    return Err(Error::new(format!("the filter {} has nothing to filter", filter.name)));
                };
                let value = self.expr(input)?;
                self.filter(filter, value)
            }
            Expr::Test(test) => {
                let value = self.expr(&test.expr)?;
                let args = self.args(&test.args)?;
                predicates::test(test.name, &value, &args.positional, &mut self.budget).map(Value::Bool)
            }
            Expr::GetAttr(attr) => {
                let value = self.expr(&attr.expr)?;
                ops::attribute(&value, attr.name, &mut self.budget)
            }
            Expr::GetItem(item) => {
                let value = self.expr(&item.expr)?;
                let key = self.expr(&item.subscript_expr)?;
                ops::item(&value, &key, &mut self.budget)
            }
            Expr::Slice(slice) => {
                let value = self.expr(&slice.expr)?;
                let mut bounds = [None; 3];
                for (bound, expr) in bounds.iter_mut().zip([&slice.start, &slice.stop, &slice.step]) {
                    if let Some(expr) = expr {
                        *bound = match self.expr(expr)? {
                            Value::None => None,
                            value => Some(value.as_int()?),
                        };
                    }
                }
                ops::slice(&value, bounds, &mut self.budget)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(&list.items),
            Expr::Tuple(tuple) => self.list(&tuple.items),
            Expr::Map(map) => {
                self.budget.values(map.keys.len())?;
                let mut pairs = Vec::with_capacity(map.keys.len());
                for (key, value) in map.keys.iter().zip(&map.values) {
                    let key = Rc::clone(self.expr(key)?.as_str()?);
                    pairs.push((key, self.expr(value)?));
                }
                Value::map(pairs, &mut self.budget)
            }
        }
    }

    fn list(&mut self, exprs: &'t [Expr<'t>]) -> Result<Value<'t>, Error> {
        self.budget.values(exprs.len())?;
        let items = exprs.iter().map(|expr| self.expr(expr)).collect::<Result<_, _>>()?;
        Value::list(items)
    }

    fn binary(&mut self, binary: &'t ast::BinOp<'t>) -> Result<Value<'t>, Error> {
        let left = self.expr(&binary.left)?;
        match binary.op {
            ast::BinOpKind::ScAnd if !left.is_true() => Ok(left),
            ast::BinOpKind::ScOr if left.is_true() => Ok(left),
            ast::BinOpKind::ScAnd | ast::BinOpKind::ScOr => self.expr(&binary.right),
            op => {
                let right = self.expr(&binary.right)?;
                ops::binary(op, &left, &right, &mut self.budget)
            }
        }
    }

    fn filter_chain(&mut self, chain: &'t Expr<'t>, input: Value<'t>) -> Result<Value<'t>, Error> {
        let Expr::Filter(filter) = chain else {
            return Err(Error::new("expected a filter").at(chain.span()));
        };
        self.budget.enter()?;
        let value = match &filter.expr {
            Some(inner) => self.filter_chain(inner, input)?,
            None => input,
        };
        self.budget.leave();
        self.filter(filter, value).map_err(|error| error.at(filter.span()))
    }

    fn filter(&mut self, filter: &'t ast::Filter<'t>, value: Value<'t>) -> Result<Value<'t>, Error> {
        let args = self.args(&filter.args)?;
        filters::apply(filter.name, &value, &args, &mut self.budget)
    }

    fn args(&mut self, args: &'t [ast::CallArg<'t>]) -> Result<Args<'t>, Error> {
        self.budget.values(args.len())?;
        let mut evaluated = Args { positional: Vec::new(), named: Vec::new() };
        for arg in args {
            match arg {
                ast::CallArg::Pos(expr) => evaluated.positional.push(self.expr(expr)?),
                ast::CallArg::Kwarg(name, expr) => evaluated.named.push((name, self.expr(expr)?)),
                ast::CallArg::PosSplat(_) | ast::CallArg::KwargSplat(_) => {
                    return Err(Error::new("arguments with * and ** are not known"));
                }
            }
        }
        Ok(evaluated)
    }

    fn call(&mut self, call: &'t ast::Call<'t>) -> Result<Value<'t>, Error> {
        if let Expr::GetAttr(method) = &call.expr {
            let object = self.expr(&method.expr)?;
            // A namespace or a mapping may hold something to call under this name.
            let own = object.entry(method.name, &mut self.budget)?;
            let args = self.args(&call.args)?;
            return match own {
                Some(callee @ (Value::Macro(_) | Value::Function(_))) => self.call_value(&callee, &args),
                _ => methods::call(&object, method.name, &args, &mut self.budget),
            };
        }
        let callee = self.expr(&call.expr)?;
        let args = self.args(&call.args)?;
        if let (Value::Undefined, Expr::Var(var)) = (&callee, &call.expr) {
            return Err(Error::new(format!("the function {} is not known", var.id)));
        }
        self.call_value(&callee, &args)
    }

    fn call_value(&mut self, callee: &Value<'t>, args: &Args<'t>) -> Result<Value<'t>, Error> {
        match callee {
            Value::Macro(decl) => self.call_macro(decl, args),
            Value::Function(function) => functions::call(*function, args, self),
            other => Err(Error::new(format!("{} cannot be called", other.kind()))),
        }
    }

    fn call_macro(&mut self, decl: &'t ast::Macro<'t>, args: &Args<'t>) -> Result<Value<'t>, Error> {
        if args.positional.len() > decl.args.len() {
            return Err(Error::new(format!("the macro {} takes {} arguments", decl.name, decl.args.len())));
        }
        self.budget.bytes(decl.args.len().saturating_mul(VALUE_BYTES))?;
        let outer_base = std::mem::replace(&mut self.base, self.frames.len());
        let outer_out = std::mem::take(&mut self.out);
        let result = self.in_frame(Vec::new(), |eval| {
            let n_required = decl.args.len() - decl.defaults.len().min(decl.args.len());
            for (i, arg) in decl.args.iter().enumerate() {
                let Expr::Var(var) = arg else {
                    return Err(Error::new(format!(
                        "the macro {} has an argument without a name",
                        decl.name
                    )));
                };
                let value = match (args.get(i, var.id), i.checked_sub(n_required)) {
                    (Some(value), _) => value.clone(),
                    (None, Some(default)) => eval.expr(&decl.defaults[default])?,
                    (None, None) => Value::Undefined,
                };
                eval.bind(var.id, value)?;
            }
            eval.body(&decl.body)
        });
        self.base = outer_base;
        let written = std::mem::replace(&mut self.out, outer_out);
        result?;
        Value::str(&written, &mut self.budget)
    }
}

/// A namespace of variables already paid for.
pub(super) fn namespace<'t>(variables: Entries<'t>) -> Value<'t> {
    Value::Namespace(Rc::new(RefCell::new(variables)))
}

/// The entries of a map, for those who hand it on.
pub(super) fn entries<'v, 't>(value: &'v Value<'t>) -> Result<&'v Map<'t>, Error> {
    match value {
        Value::Map(map) => Ok(map),
        other => Err(Error::new(format!("expected a mapping, found {}", other.kind()))),
    }
}
