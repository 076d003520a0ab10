//! The syntax tree that the parser builds and the evaluator walks. It owns its text.

/// A place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// From 1.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
}

pub(crate) type Block = Vec<Stmt>;
pub(crate) type Name = Box<str>;

pub(crate) struct Stmt {
    pub(crate) kind: StmtKind,
    pub(crate) at: Position,
}

pub(crate) enum StmtKind {
    /// Text outside all tags.
    Text(Box<str>),
    /// `{{ … }}`
    Print(Expr),
    /// `if` and its `elif`s with their conditions, and the block of `else`.
    If(Vec<(Expr, Block)>, Block),
    For(Box<For>),
    Set(Target, Expr),
    /// `{% set x | trim %}…{% endset %}`
    SetBlock(Target, Vec<Apply>, Block),
    /// `{% filter upper %}…{% endfilter %}`
    Filter(Vec<Apply>, Block),
    With(Vec<(Target, Expr)>, Block),
    /// A block with variables of its own: `autoescape`, `generation`.
    Scope(Block),
    Macro(Box<Macro>),
    /// `{% call(a) f() %}…{% endcall %}`: the call, and the block as a macro.
    Call(Box<(Call, Macro)>),
    Do(Expr),
    Break,
    Continue,
}

pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) over: Expr,
    pub(crate) filter: Option<Expr>,
    pub(crate) is_recursive: bool,
    pub(crate) body: Block,
    pub(crate) otherwise: Block,
}

pub(crate) struct Macro {
    pub(crate) name: Name,
    /// Parameters, each with its default value if it has one.
    pub(crate) params: Vec<(Name, Option<Expr>)>,
    pub(crate) body: Block,
    /// Which of the special variables the body names.
    pub(crate) uses: Uses,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Uses {
    pub(crate) varargs: bool,
    pub(crate) kwargs: bool,
    pub(crate) caller: bool,
}

impl Uses {
    pub(crate) fn or(self, other: Uses) -> Uses {
        Uses {
            varargs: self.varargs || other.varargs,
            kwargs: self.kwargs || other.kwargs,
            caller: self.caller || other.caller,
        }
    }
}

/// The left side of an assignment.
pub(crate) enum Target {
    Name(Name),
    /// A variable of a namespace, `ns.x`.
    Attribute(Name, Name),
    Tuple(Vec<Target>),
}

pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) at: Position,
    /// The levels of the tree below and including this one, at most [`crate::budget::DEPTH_MAX`].
    pub(crate) depth: u32,
}

pub(crate) enum ExprKind {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Box<str>),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Plus(Box<Expr>),
    And(Box<[Expr; 2]>),
    Or(Box<[Expr; 2]>),
    Binary(BinaryOp, Box<[Expr; 2]>),
    /// The first operand, and each further one with the operator before it.
    Compare(Box<(Expr, Vec<(CompareOp, Expr)>)>),
    If(Box<Conditional>),
    Filter(Box<(Expr, Apply)>),
    /// `x is name(…)`
    Test(Box<(Expr, Apply)>),
    Attribute(Box<Expr>, Name),
    Item(Box<[Expr; 2]>),
    Slice(Box<Slice>),
    Call(Box<Call>),
}

/// `value if test else otherwise`
pub(crate) struct Conditional {
    pub(crate) test: Expr,
    pub(crate) value: Expr,
    pub(crate) otherwise: Option<Expr>,
}

/// `value[start:stop:step]`
pub(crate) struct Slice {
    pub(crate) value: Expr,
    pub(crate) bounds: [Option<Expr>; 3],
}

pub(crate) struct Call {
    pub(crate) callee: Expr,
    pub(crate) args: Vec<Arg>,
}

/// A filter or a test by its name, with arguments.
pub(crate) struct Apply {
    pub(crate) name: Name,
    pub(crate) args: Vec<Arg>,
    pub(crate) at: Position,
}

pub(crate) enum Arg {
    Positional(Expr),
    Named(Name, Expr),
    /// `*list`
    Spread(Expr),
    /// `**mapping`
    SpreadNamed(Expr),
}

/// Operators that evaluate both sides and compare nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
    Concat,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}
