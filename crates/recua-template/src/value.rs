//! The values of a template: those of Python that chat templates need.
//!
//! Lists and maps never change once made, and their depth is bounded, so neither comparing, printing nor dropping a
//! value recurses far. A namespace does change, so a cycle can run through one; the evaluator empties all of them
//! when a rendering ends. An iterator changes too: what has been taken from it is gone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::budget::{Budget, Buffer, Held, VALUE_BYTES};
use crate::error::Error;
use crate::text::Text;
use crate::tree::{For, Macro, Position};

/// How deep lists and maps may be nested.
const DEPTH_MAX: u32 = 64;

/// Keys with their values, in order.
pub(crate) type Entries<'t> = Vec<(Value<'t>, Value<'t>)>;

#[derive(Clone)]
pub(crate) enum Value<'t> {
    /// The value of a name that is not bound.
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text<'t>),
    List(Rc<List<'t>>),
    Iter(Rc<Iter<'t>>),
    Map(Rc<Map<'t>>),
    Namespace(Rc<Namespace<'t>>),
    Macro(&'t Macro),
    Caller(Caller<'t>),
    Function(Function),
    Method(Rc<Method<'t>>),
    Joiner(Rc<Joiner<'t>>),
    Loop(Rc<Loop<'t>>),
}

/// The functions that every template may call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    RaiseException,
    StrftimeNow,
    Namespace,
    Range,
    Dict,
    Joiner,
}

/// A list, or what else has its items in a row.
pub(crate) struct List<'t> {
    pub(crate) items: Vec<Value<'t>>,
    pub(crate) kind: Kind,
    depth: u32,
    _held: Held,
}

/// What a row of items is to Python.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    List,
    /// It prints with parentheses and equals no list.
    Tuple,
    Range {
        start: i128,
        stop: i128,
        step: i128,
    },
    /// What `keys`, `values` and `items` of a mapping give, by the name under which Python prints it.
    View(&'static str),
}

/// What a filter such as `map` gives: it is always true, has no length, and gives each of its items once.
pub(crate) struct Iter<'t> {
    list: Rc<List<'t>>,
    next: Cell<usize>,
    // What went wrong behind the last of the items; an error only for those who get so far.
    failure: Option<Error>,
}

pub(crate) struct Map<'t> {
    pub(crate) entries: Entries<'t>,
    depth: u32,
    _held: Held,
}

/// Variables that a template can set from anywhere.
pub(crate) struct Namespace<'t> {
    pub(crate) variables: RefCell<Vec<(Rc<str>, Value<'t>)>>,
    held: RefCell<Held>,
}

impl<'t> Namespace<'t> {
    pub(crate) fn new(budget: &mut Budget) -> Result<Namespace<'t>, Error> {
        Ok(Namespace { variables: RefCell::default(), held: RefCell::new(budget.values(4)?) })
    }

    pub(crate) fn set(&self, name: &str, value: Value<'t>, budget: &mut Budget) -> Result<(), Error> {
        value.check_storable()?;
        let mut variables = self.variables.borrow_mut();
        budget.search(variables.len(), name.len())?;
        match variables.iter_mut().find(|(known, _)| **known == *name) {
            Some(variable) => variable.1 = value,
            None => {
                self.held.borrow_mut().add(4 * VALUE_BYTES + name.len())?;
                variables.push((name.into(), value));
            }
        }
        Ok(())
    }
}

/// The block of `{% call %}`, and which variables it sees.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'t> {
    pub(crate) block: &'t Macro,
    /// The innermost frame of the place where the block stands, exclusive.
    pub(crate) n_frames: usize,
    /// That place's first frame.
    pub(crate) base: usize,
}

/// A method of a mapping that has not been called yet.
pub(crate) struct Method<'t> {
    pub(crate) object: Value<'t>,
    pub(crate) name: &'static str,
    pub(crate) _held: Held,
}

/// A separator that is empty the first time.
pub(crate) struct Joiner<'t> {
    pub(crate) separator: Text<'t>,
    pub(crate) is_used: Cell<bool>,
    pub(crate) _held: Held,
}

/// The variable `loop`.
pub(crate) struct Loop<'t> {
    pub(crate) items: Rc<List<'t>>,
    pub(crate) index: usize,
    /// From 1, counting the calls of a recursive loop.
    pub(crate) depth: usize,
    pub(crate) stmt: &'t For,
    /// The last arguments of `loop.changed`; shared by all rounds.
    pub(crate) last: Rc<RefCell<Option<Value<'t>>>>,
}

impl<'t> Value<'t> {
    pub(crate) fn str(text: &str, budget: &mut Budget) -> Result<Value<'t>, Error> {
        Text::new(text, budget).map(Value::Str)
    }

    /// A text that has been built.
    pub(crate) fn built(buffer: Buffer, budget: &mut Budget) -> Result<Value<'t>, Error> {
        Text::built(buffer, budget).map(Value::Str)
    }

    /// A length as a value.
    pub(crate) fn int(n: usize) -> Value<'t> {
        Value::Int(n as i128)
    }

    /// A list of values, and what [`Budget::values`] gave for them.
    pub(crate) fn list(items: Vec<Value<'t>>, held: Held) -> Result<Value<'t>, Error> {
        Value::row(Kind::List, items, held)
    }

    pub(crate) fn tuple(items: Vec<Value<'t>>, held: Held) -> Result<Value<'t>, Error> {
        Value::row(Kind::Tuple, items, held)
    }

    pub(crate) fn row(kind: Kind, items: Vec<Value<'t>>, held: Held) -> Result<Value<'t>, Error> {
        List::new(kind, items, held).map(|list| Value::List(Rc::new(list)))
    }

    /// An iterator over values, with what went wrong behind the last of them.
    pub(crate) fn iter(
        items: Vec<Value<'t>>,
        failure: Option<Error>,
        held: Held,
    ) -> Result<Value<'t>, Error> {
        let list = Rc::new(List::new(Kind::List, items, held)?);
        Ok(Value::Iter(Rc::new(Iter { list, next: Cell::new(0), failure })))
    }

    /// The same value; if it is an iterator that will fail, then with this place.
    pub(crate) fn failing_at(mut self, place: Position) -> Value<'t> {
        if let Value::Iter(iter) = &mut self
            && let Some(iter) = Rc::get_mut(iter)
        {
            iter.failure = iter.failure.take().map(|failure| failure.at(place));
        }
        self
    }

    /// A map of values, with what was held for twice as many; of equal keys the last one counts, in the place of the
    /// first.
    pub(crate) fn map(pairs: Entries<'t>, held: Held, budget: &mut Budget) -> Result<Value<'t>, Error> {
        let depth = depth_over(pairs.iter().flat_map(|(key, value)| [key, value]))?;
        let mut entries: Entries<'t> = Vec::with_capacity(pairs.len());
        let room = budget.values(pairs.len().saturating_mul(2))?;
        for (key, value) in pairs {
            budget.search(entries.len(), key.key_len()?)?;
            match entries.iter_mut().find(|(known, _)| known.is_key(&key)) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        drop(room);
        Ok(Value::Map(Rc::new(Map { entries, depth, _held: held })))
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined => "undefined",
            Value::None => "none",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Str(_) => "a string",
            Value::List(list) => match list.kind {
                Kind::List => "a list",
                Kind::Tuple => "a tuple",
                Kind::Range { .. } => "a range",
                Kind::View(_) => "a view of a mapping",
            },
            Value::Iter(_) => "an iterator",
            Value::Map(_) => "a mapping",
            Value::Namespace(_) => "a namespace",
            Value::Macro(_) | Value::Caller(_) => "a macro",
            Value::Function(_) | Value::Method(_) | Value::Joiner(_) => "a function",
            Value::Loop(_) => "a loop",
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Undefined | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            _ => true,
        }
    }

    pub(crate) fn as_str(&self) -> Result<&Text<'t>, Error> {
        match self {
            Value::Str(text) => Ok(text),
            other => Err(Error::new(format!("expected a string, found {}", other.kind()))),
        }
    }

    pub(crate) fn as_int(&self) -> Result<i128, Error> {
        match self {
            Value::Int(value) => Ok(*value),
            Value::Bool(value) => Ok((*value).into()),
            other => Err(Error::new(format!("expected an integer, found {}", other.kind()))),
        }
    }

    /// A number of things: negative ones are 0, and too large ones cannot be paid for.
    pub(crate) fn as_size(&self) -> Result<usize, Error> {
        self.as_int().map(|n| usize::try_from(n.max(0)).unwrap_or(usize::MAX))
    }

    pub(crate) fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Result<&Map<'t>, Error> {
        match self {
            Value::Map(map) => Ok(map),
            other => Err(Error::new(format!("expected a mapping, found {}", other.kind()))),
        }
    }

    /// The items that a loop over the value sees; from an iterator they are taken.
    pub(crate) fn items(&self, budget: &mut Budget) -> Result<Rc<List<'t>>, Error> {
        let (items, held) = match self {
            Value::List(list) => return Ok(Rc::clone(list)),
            Value::Iter(iter) => {
                let next = iter.next.replace(iter.list.items.len());
                if let Some(failure) = &iter.failure {
                    return Err(failure.clone());
                }
                if next == 0 {
                    return Ok(Rc::clone(&iter.list));
                }
                let held = budget.values(iter.list.items.len() - next)?;
                (iter.list.items[next..].to_vec(), held)
            }
            Value::Undefined => (Vec::new(), budget.values(0)?),
            Value::Map(map) => {
                let held = budget.values(map.entries.len())?;
                (map.entries.iter().map(|(key, _)| key.clone()).collect(), held)
            }
            Value::Str(text) => {
                budget.scan(text.len())?;
                let n = text.chars().count();
                let held = budget.values(n)?;
                let mut items = Vec::with_capacity(n);
                for ch in text.chars() {
                    items.push(Value::str(ch.encode_utf8(&mut [0; 4]), budget)?);
                }
                (items, held)
            }
            other => return Err(Error::new(format!("{} cannot be looped over", other.kind()))),
        };
        List::new(Kind::List, items, held).map(Rc::new)
    }

    /// Takes the first item off what a loop would see.
    pub(crate) fn first(&self, budget: &mut Budget) -> Result<Option<Value<'t>>, Error> {
        budget.step()?;
        match self {
            Value::Iter(iter) => {
                let next = iter.next.get();
                match (iter.list.items.get(next), &iter.failure) {
                    (Some(item), _) => {
                        iter.next.set(next + 1);
                        Ok(Some(item.clone()))
                    }
                    (None, Some(failure)) => Err(failure.clone()),
                    (None, None) => Ok(None),
                }
            }
            Value::Str(text) => {
                text.chars().next().map(|ch| Value::str(ch.encode_utf8(&mut [0; 4]), budget)).transpose()
            }
            value => Ok(value.items(budget)?.items.first().cloned()),
        }
    }

    pub(crate) fn len(&self, budget: &mut Budget) -> Result<usize, Error> {
        match self {
            Value::Undefined => Ok(0),
            Value::List(list) => Ok(list.items.len()),
            Value::Map(map) => Ok(map.entries.len()),
            Value::Str(text) => {
                budget.scan(text.len())?;
                Ok(text.chars().count())
            }
            Value::Iter(_) => {
                Err(Error::new("an iterator has no length; the filter list makes a list of it"))
            }
            other => Err(Error::new(format!("{} has no length", other.kind()))),
        }
    }

    /// The entry of a map or the variable of a namespace.
    pub(crate) fn entry(&self, key: &str, budget: &mut Budget) -> Result<Option<Value<'t>>, Error> {
        match self {
            Value::Map(map) => {
                budget.search(map.entries.len(), key.len())?;
                let is_key = |known: &Value<'t>| matches!(known, Value::Str(known) if **known == *key);
                Ok(map.entries.iter().find(|(known, _)| is_key(known)).map(|(_, value)| value.clone()))
            }
            Value::Namespace(namespace) => {
                let variables = namespace.variables.borrow();
                budget.search(variables.len(), key.len())?;
                Ok(variables.iter().find(|(known, _)| **known == *key).map(|(_, value)| value.clone()))
            }
            _ => Ok(None),
        }
    }

    /// The entry of a map under a key that need not be a string.
    pub(crate) fn entry_at(&self, key: &Value<'t>, budget: &mut Budget) -> Result<Option<Value<'t>>, Error> {
        match (self, key) {
            (_, Value::Str(key)) => self.entry(key, budget),
            (Value::Map(map), key) => {
                budget.search(map.entries.len(), key.key_len()?)?;
                Ok(map.entries.iter().find(|(known, _)| known.is_key(key)).map(|(_, value)| value.clone()))
            }
            _ => Ok(None),
        }
    }

    fn depth(&self) -> Result<u32, Error> {
        match self {
            Value::List(list) => Ok(list.depth),
            Value::Iter(iter) => Ok(iter.list.depth),
            Value::Map(map) => Ok(map.depth),
            Value::Method(method) => method.object.depth(),
            // A loop holds a list, and a block's variables end with it.
            Value::Loop(_) | Value::Caller(_) => {
                Err(Error::new(format!("{} cannot be stored in a value", self.kind())))
            }
            _ => Ok(0),
        }
    }

    /// Checks that the value may be a variable of a namespace.
    pub(crate) fn check_storable(&self) -> Result<(), Error> {
        self.depth().map(drop)
    }
}

impl<'t> List<'t> {
    pub(crate) fn new(kind: Kind, items: Vec<Value<'t>>, held: Held) -> Result<List<'t>, Error> {
        let depth = depth_over(items.iter())?;
        Ok(List { items, kind, depth, _held: held })
    }
}

impl Kind {
    /// Whether it can be indexed, cut and joined to its like.
    pub(crate) fn is_sequence(self) -> bool {
        !matches!(self, Kind::View(_))
    }
}

fn depth_over<'v, 't: 'v>(values: impl Iterator<Item = &'v Value<'t>>) -> Result<u32, Error> {
    let mut depth = 0;
    for value in values {
        depth = depth.max(value.depth()?);
    }
    if depth >= DEPTH_MAX { Err(Error::Limit("nesting")) } else { Ok(depth + 1) }
}
