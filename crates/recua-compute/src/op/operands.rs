//! What ops touch. [`Op::operands`] is the one place that says so. Everything that treats all ops alike folds over it: hazards, the checks
//! of devices and overlaps, what a recording keeps alive, the bytes moved, and the printed plan.

use super::{Op, PAGE_TOKENS, RowMap};
use crate::buffer::{Buffer, DeviceId};
use crate::kv::KvPool;
use crate::weight::Weight;
use std::fmt;

/// One operand of an op.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The name of its field.
    pub name: &'static str,
    /// What it is.
    pub resource: Resource<'a>,
    /// What the op does with it.
    pub access: Access,
    /// How much of it the op touches.
    pub extent: Extent,
}

/// What an operand is.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Resource<'a> {
    Buffer(&'a Buffer),
    Weight(&'a Weight),
    Pool(&'a KvPool),
}

/// What an op does with an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads it.
    Read,
    /// Reads each row before it writes the same row of its output, so it may be the output itself.
    InPlace,
    /// Reads it, and its values select what else is read or written. The limit is `None` if it depends on other values.
    Index(Option<Limit>),
    /// Writes it.
    Write,
    /// Reads and writes it.
    ReadWrite,
}

/// What the values of an index buffer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What a value refers to, as error messages call it.
    pub what: &'static str,
    /// The first value that is too large.
    pub below: usize,
}

/// How much of an operand an op touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    All,
    /// This many entries of its outermost dimension; of a pool, the keys and values of this many tokens.
    Rows(usize),
    /// For each of this many rows, the keys and values of all tokens that it attends to.
    Contexts(usize),
}

impl<'a> From<&'a Buffer> for Resource<'a> {
    fn from(buffer: &'a Buffer) -> Resource<'a> {
        Resource::Buffer(buffer)
    }
}

impl<'a> From<&'a Weight> for Resource<'a> {
    fn from(weight: &'a Weight) -> Resource<'a> {
        Resource::Weight(weight)
    }
}

impl<'a> From<&'a KvPool> for Resource<'a> {
    fn from(pool: &'a KvPool) -> Resource<'a> {
        Resource::Pool(pool)
    }
}

impl fmt::Debug for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Buffer(buffer) => buffer.fmt(f),
            Resource::Weight(weight) => weight.fmt(f),
            Resource::Pool(pool) => pool.fmt(f),
        }
    }
}

impl<'a> Operand<'a> {
    fn new(name: &'static str, resource: impl Into<Resource<'a>>, access: Access) -> Operand<'a> {
        Operand { name, resource: resource.into(), access, extent: Extent::All }
    }

    fn touching(self, extent: Extent) -> Operand<'a> {
        Operand { extent, ..self }
    }

    /// Whether the op reads it.
    pub fn is_read(&self) -> bool {
        self.access != Access::Write
    }

    /// Whether the op writes it.
    pub fn is_written(&self) -> bool {
        matches!(self.access, Access::Write | Access::ReadWrite)
    }

    /// The device it belongs to.
    pub fn device(&self) -> DeviceId {
        match self.resource {
            Resource::Buffer(buffer) => buffer.device(),
            Resource::Weight(weight) => weight.device(),
            Resource::Pool(pool) => pool.device(),
        }
    }

    /// The buffer itself, or the buffers that hold a pool. Empty for a weight, which no op writes.
    pub fn buffers(&self) -> &'a [Buffer] {
        match self.resource {
            Resource::Buffer(buffer) => std::slice::from_ref(buffer),
            Resource::Weight(_) => &[],
            Resource::Pool(pool) => pool.memory(),
        }
    }

    /// The bytes that are touched if each row attends to `n_tokens` tokens.
    fn n_bytes(&self, n_tokens: usize) -> usize {
        let (all, n_rows) = match self.resource {
            Resource::Buffer(buffer) => (buffer.n_bytes(), buffer.shape().first().copied().unwrap_or(1)),
            Resource::Weight(weight) => (weight.n_bytes(), weight.n()),
            Resource::Pool(pool) => {
                (pool.shape().n_bytes().unwrap_or(0), pool.shape().n_pages.saturating_mul(PAGE_TOKENS))
            }
        };
        let of_rows = |n: usize| n.saturating_mul(all / n_rows.max(1));
        match self.extent {
            Extent::All => all,
            Extent::Rows(n) => of_rows(n),
            Extent::Contexts(n) => of_rows(n.saturating_mul(n_tokens)),
        }
    }
}

fn read<'a>(name: &'static str, resource: impl Into<Resource<'a>>) -> Operand<'a> {
    Operand::new(name, resource, Access::Read)
}

fn in_place<'a>(name: &'static str, buffer: &'a Buffer) -> Operand<'a> {
    Operand::new(name, buffer, Access::InPlace)
}

fn index<'a>(name: &'static str, buffer: &'a Buffer, what: &'static str, below: usize) -> Operand<'a> {
    Operand::new(name, buffer, Access::Index(Some(Limit { what, below })))
}

fn write<'a>(name: &'static str, resource: impl Into<Resource<'a>>) -> Operand<'a> {
    Operand::new(name, resource, Access::Write)
}

fn row_map(rows: &RowMap) -> [Operand<'_>; 4] {
    let index = |name, buffer| Operand::new(name, buffer, Access::Index(None));
    [
        index("positions", &rows.positions),
        index("sequences", &rows.sequences),
        // How much of these two is read depends on the lengths of the sequences. It is little, and not counted.
        index("pages", &rows.pages).touching(Extent::Rows(0)),
        index("work", &rows.work).touching(Extent::Rows(0)),
    ]
}

impl Op {
    /// What the op reads and writes. `rope_store` writes only its rows' positions of the cache, and `copy_pages` only the pages in its
    /// list; which these are is unknown until they run, so [`Operand::buffers`] gives the whole pool.
    pub fn operands(&self) -> Vec<Operand<'_>> {
        match self {
            Op::Embed(o) => vec![
                read("table", &o.table).touching(Extent::Rows(o.tokens.n_elements())),
                index("tokens", &o.tokens, "token", o.table.n()),
                write("out", &o.out),
            ],
            Op::RmsNorm(o) => vec![in_place("x", &o.x), read("weight", &o.weight), write("out", &o.out)],
            Op::Matmul(o) => [read("x", &o.x), read("weight", &o.weight)]
                .into_iter()
                .chain(o.bias.as_ref().map(|bias| read("bias", bias)))
                .chain(o.add.as_ref().map(|add| in_place("add", add)))
                .chain([write("out", &o.out)])
                .collect(),
            Op::MatmulGlu(o) => vec![read("x", &o.x), read("gate_up", &o.gate_up), write("out", &o.out)],
            Op::RopeStore(o) => {
                let rows = Extent::Rows(o.q.n_rows());
                let norm = o.norm.iter();
                [Operand::new("q", &o.q, Access::ReadWrite), read("k", &o.k), read("v", &o.v)]
                    .into_iter()
                    .chain(norm.flat_map(|norm| [read("q norm", &norm.q), read("k norm", &norm.k)]))
                    .chain([read("table", &o.table).touching(rows)])
                    .chain(row_map(&o.rows))
                    .chain([write("cache", &o.cache).touching(rows)])
                    .collect()
            }
            Op::Attention(o) => [read("q", &o.q)]
                .into_iter()
                .chain(row_map(&o.rows))
                .chain([read("cache", &o.cache).touching(Extent::Contexts(o.q.n_rows()))])
                .chain([write("out", &o.out)])
                .collect(),
            Op::GatherRows(o) => vec![
                read("x", &o.x).touching(Extent::Rows(o.indexes.n_elements())),
                index("indexes", &o.indexes, "the row", o.x.n_rows()),
                write("out", &o.out),
            ],
            Op::Argmax(o) => vec![read("x", &o.x), write("out", &o.out)],
            Op::TopK(o) => vec![read("x", &o.x), write("out", &o.out)],
            Op::Copy(o) => vec![read("src", &o.src), write("dst", &o.dst)],
            Op::CopyPages(o) => {
                let pages = Extent::Rows(o.list.n_rows() * PAGE_TOKENS);
                vec![
                    read("from", &o.from).touching(pages),
                    write("to", &o.to).touching(pages),
                    Operand::new("list", &o.list, Access::Index(None)),
                ]
            }
        }
    }

    /// The bytes that the op must move if each row attends to `n_tokens` tokens, its own included: everything it reads and everything it
    /// writes, once each. `copy_pages` is counted as if no pair were inert.
    pub fn bytes_moved(&self, n_tokens: usize) -> u64 {
        let moved = |operand: &Operand<'_>| {
            let times = u64::from(operand.is_read()) + u64::from(operand.is_written());
            times * operand.n_bytes(n_tokens) as u64
        };
        self.operands().iter().map(moved).sum()
    }
}

/// The name, what is read and what is written, with types and shapes, and the settings that select a variant of the op.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operands = self.operands();
        let list = |uses: fn(&Operand<'_>) -> bool| {
            let used = operands.iter().filter(|operand| uses(operand));
            let texts = used.map(|operand| format!("{} {:?}", operand.name, operand.resource));
            texts.collect::<Vec<_>>().join(", ")
        };
        write!(f, "{:<11} {} -> {}", self.name(), list(|o| o.is_read()), list(|o| o.is_written()))?;
        match self {
            Op::MatmulGlu(o) => write!(f, " ({:?})", o.activation),
            Op::RopeStore(o) => write!(f, " ({:?})", o.style),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::buffer::DType;
    use crate::kv::{KvShape, KvType};
    use crate::op::*;
    use crate::plan::Record;
    use crate::weight::{Arrange, RawMatrix};
    use recua_gguf::GgmlType;

    #[test]
    fn an_op_moves_what_it_touches_and_no_more() {
        let device = crate::cpu::open(crate::cpu::Options { threads: Some(1), isa: None }).unwrap();
        let f32s = |shape: &[usize]| device.alloc(DType::F32, shape).unwrap();
        let u32s = |shape: &[usize]| device.alloc(DType::U32, shape).unwrap();
        let raw = RawMatrix::new(GgmlType::F32, 16, 8, &[0; 16 * 8 * 4]);
        let weight = device.upload_weight(&[raw], Arrange::Stacked).unwrap();
        let (x, y, three) = (f32s(&[2, 8]), f32s(&[2, 16]), u32s(&[3]));
        let shape = KvShape { n_pages: 9, n_kv_heads: 1, head_dim: 8, kv_type: KvType::F16 };
        let cache = device.alloc_kv(&shape).unwrap();
        let (positions, sequences) = (u32s(&[2]), u32s(&[2]));
        let rows = RowMap { positions, sequences, pages: u32s(&[1, 9]), work: u32s(&[4]) };
        let mut plan = device.plan();
        plan.embed(&weight, &three, &f32s(&[3, 8])).unwrap();
        plan.matmul(Matmul::new(&x, &weight, &y).with_bias(Some(&f32s(&[16]))).with_add(&y)).unwrap();
        plan.gather_rows(&y, &three, &f32s(&[3, 16])).unwrap();
        plan.rope_store(RopeStore {
            q: y.clone(),
            k: x.clone(),
            v: f32s(&[2, 8]),
            norm: None,
            table: f32s(&[288, 4, 2]),
            style: RopeStyle::Halves,
            rows: rows.clone(),
            cache: cache.clone(),
        })
        .unwrap();
        plan.attention(Attention { q: y, rows, cache: cache.clone(), scale: 1.0, out: f32s(&[2, 16]) })
            .unwrap();
        plan.copy_pages(&cache, &cache, &u32s(&[5, 2])).unwrap();
        let expected = [
            // Three indexes, and three rows read and written.
            ("embed", 3 * 4 + 2 * 3 * 8 * 4),
            ("matmul", 2 * 8 * 4 + weight.n_bytes() + 16 * 4 + 2 * 2 * 16 * 4),
            ("gather_rows", 3 * 4 + 2 * 3 * 16 * 4),
            // q twice; k, v and the table's rows once; position and sequence of each row; keys and values, stored as f16.
            ("rope_store", 2 * 2 * 16 * 4 + 2 * 2 * 8 * 4 + 2 * 8 * 4 + 2 * 2 * 4 + 2 * 2 * 8 * 2),
            ("attention", 2 * 2 * 16 * 4 + 2 * 2 * 4 + 2 * 100 * 2 * 8 * 2),
            ("copy_pages", 5 * 2 * 4 + 2 * 5 * 2 * 32 * 8 * 2),
        ];
        let found: Vec<_> = plan.ops().iter().map(|op| (op.name(), op.bytes_moved(100) as usize)).collect();
        assert_eq!(found, expected);
    }
}
