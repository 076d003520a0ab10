//! When an op is valid. What [`Op::check`] refuses when an op is recorded, kernels need not check.

use super::operands::{Access, Resource};
use super::{Op, RowMap, TOP_K_MAX};
use crate::buffer::{Buffer, DType, DeviceId};
use crate::error::{Error, Result, argument};
use crate::kv::{KvPool, KvShape};
use crate::weight::{Arrange, Weight};
use crate::work::HEADER_WORDS;

impl Op {
    /// Checks types, shapes, devices and overlaps, so that kernels need not. It cannot see the *values* of index buffers; a device checks
    /// those against the sizes when it runs.
    ///
    /// # Errors
    /// If an operand belongs to another device, has a type or shape that does not fit the others, or is not contiguous where it must be; or
    /// if an output overlaps an operand that it must not overlap. The message names the op and the operand.
    pub fn check(&self, device: DeviceId) -> Result<()> {
        self.check_as(self.name(), device)
    }

    /// [`Op::check`] on behalf of a method of another name, which errors then give.
    pub(crate) fn check_as(&self, op: &'static str, device: DeviceId) -> Result<()> {
        for operand in self.operands() {
            if operand.device() != device {
                return Err(Error::WrongDevice { op, what: operand.name });
            }
        }
        self.check_shapes(&Check { op })?;
        self.check_overlaps(op)
    }

    /// Fails if an output shares memory with another operand, unless that is the same buffer and is read in place. Pools are left out: whether
    /// `copy_pages` touches a page of one twice depends on its list.
    fn check_overlaps(&self, op: &'static str) -> Result<()> {
        let operands = self.operands();
        let buffers = || {
            operands.iter().enumerate().filter_map(|(i, operand)| match operand.resource {
                Resource::Buffer(buffer) => Some((i, operand, buffer)),
                _ => None,
            })
        };
        for (i, written, out) in buffers().filter(|(_, operand, _)| operand.is_written()) {
            for (j, other, buffer) in buffers() {
                let may_be_same = other.access == Access::InPlace && out.is_same(buffer);
                if i != j && !may_be_same && out.overlaps(buffer) {
                    return Err(argument(op, format!("{} overlaps {}", written.name, other.name)));
                }
            }
        }
        Ok(())
    }

    fn check_shapes(&self, c: &Check) -> Result<()> {
        match self {
            Op::Embed(o) => {
                c.weight("table", &o.table, Arrange::Stacked)?;
                c.shape("tokens", &o.tokens, DType::U32, &[o.out.n_rows()])?;
                c.shape("out", &o.out, DType::F32, &[o.tokens.n_elements(), o.table.k()])
            }
            Op::RmsNorm(o) => {
                c.matrix("x", &o.x)?;
                c.shape("weight", &o.weight, DType::F32, &[o.x.n_cols()])?;
                c.shape("out", &o.out, DType::F32, o.x.shape())
            }
            Op::Matmul(o) => {
                c.matrix("x", &o.x)?;
                c.product(&o.x, &o.weight, Arrange::Stacked, &o.out, o.weight.n())?;
                if let Some(bias) = &o.bias {
                    c.shape("bias", bias, DType::F32, &[o.weight.n()])?;
                }
                if let Some(add) = &o.add {
                    c.shape("add", add, DType::F32, o.out.shape())?;
                }
                Ok(())
            }
            Op::MatmulGlu(o) => {
                c.matrix("x", &o.x)?;
                c.product(&o.x, &o.gate_up, Arrange::Interleaved, &o.out, o.gate_up.n() / 2)
            }
            Op::RopeStore(o) => {
                let (rows, head_dim) = (o.q.n_rows(), c.cache(&o.cache)?);
                c.row_map(&o.rows, rows)?;
                c.columns("q", &o.q)?;
                c.heads("q", &o.q, head_dim)?;
                let kv_shape = [rows, o.cache.shape().n_kv_heads * head_dim];
                for (what, buffer) in [("k", &o.k), ("v", &o.v)] {
                    c.columns(what, buffer)?;
                    c.has_shape(what, buffer, &kv_shape)?;
                }
                c.dtype("table", &o.table, DType::F32)?;
                match *o.table.shape() {
                    [_, pairs, 2] if pairs <= head_dim / 2 && o.table.n_elements() > 0 => {}
                    _ => {
                        return Err(argument(
                            c.op,
                            format!("table {:?} is not [positions, 1 to {}, 2]", o.table, head_dim / 2),
                        ));
                    }
                }
                if let Some(norm) = &o.norm {
                    c.shape("q norm", &norm.q, DType::F32, &[head_dim])?;
                    c.shape("k norm", &norm.k, DType::F32, &[head_dim])?;
                }
                Ok(())
            }
            Op::Attention(o) => {
                let (rows, head_dim) = (o.q.n_rows(), c.cache(&o.cache)?);
                c.row_map(&o.rows, rows)?;
                c.columns("q", &o.q)?;
                let n_heads = c.heads("q", &o.q, head_dim)?;
                let n_kv_heads = o.cache.shape().n_kv_heads;
                if !n_heads.is_multiple_of(n_kv_heads) {
                    return Err(argument(
                        c.op,
                        format!("{n_heads} heads cannot share {n_kv_heads} KV heads"),
                    ));
                }
                c.shape("out", &o.out, DType::F32, o.q.shape())
            }
            Op::GatherRows(o) => {
                c.matrix("x", &o.x)?;
                c.shape("indexes", &o.indexes, DType::U32, &[o.out.n_rows()])?;
                c.shape("out", &o.out, DType::F32, &[o.indexes.n_elements(), o.x.n_cols()])
            }
            Op::Argmax(o) => {
                c.matrix("x", &o.x)?;
                c.shape("out", &o.out, DType::U32, &[o.x.n_rows()])
            }
            Op::TopK(o) => {
                c.matrix("x", &o.x)?;
                if !(1..=TOP_K_MAX).contains(&o.k()) {
                    let problem = format!("k is {}, 1 to {TOP_K_MAX} is possible", o.k());
                    return Err(argument(c.op, problem));
                }
                c.shape("out", &o.out, DType::U32, &[o.x.n_rows(), o.k(), 2])
            }
            Op::Copy(o) => {
                c.contiguous("src", &o.src)?;
                c.contiguous("dst", &o.dst)?;
                if o.src.n_bytes() == o.dst.n_bytes() {
                    return Ok(());
                }
                let problem = format!("src has {} bytes, dst {}", o.src.n_bytes(), o.dst.n_bytes());
                Err(argument(c.op, problem))
            }
            Op::CopyPages(o) => {
                c.cache(&o.from)?;
                c.cache(&o.to)?;
                let (from, to) = (o.from.shape(), o.to.shape());
                if *from != (KvShape { n_pages: from.n_pages, ..*to }) {
                    return Err(argument(c.op, format!("pages of {from} cannot be pages of {to}")));
                }
                c.dtype("list", &o.list, DType::U32)?;
                match *o.list.shape() {
                    [n, 2] if n > 0 => Ok(()),
                    _ => Err(argument(
                        c.op,
                        format!("list {:?} is not [pairs, 2] with at least one pair", o.list),
                    )),
                }
            }
        }
    }
}

/// Checks that several ops share.
struct Check {
    op: &'static str,
}

impl Check {
    fn has_type(&self, what: &'static str, buffer: &Buffer, expected: DType) -> Result<()> {
        if buffer.dtype() == expected {
            return Ok(());
        }
        Err(Error::WrongType { op: self.op, what, found: buffer.dtype(), expected })
    }

    fn has_shape(&self, what: &'static str, buffer: &Buffer, shape: &[usize]) -> Result<()> {
        if buffer.shape() == shape {
            return Ok(());
        }
        Err(argument(self.op, format!("{what} has shape {:?}, {shape:?} is needed", buffer.shape())))
    }

    fn contiguous(&self, what: &'static str, buffer: &Buffer) -> Result<()> {
        if buffer.is_contiguous() {
            return Ok(());
        }
        let problem = format!("{what} {buffer:?} are columns of a wider matrix, a contiguous one is needed");
        Err(argument(self.op, problem))
    }

    fn dtype(&self, what: &'static str, buffer: &Buffer, expected: DType) -> Result<()> {
        self.has_type(what, buffer, expected)?;
        self.contiguous(what, buffer)
    }

    fn shape(&self, what: &'static str, buffer: &Buffer, dtype: DType, shape: &[usize]) -> Result<()> {
        self.dtype(what, buffer, dtype)?;
        self.has_shape(what, buffer, shape)
    }

    fn matrix(&self, what: &'static str, buffer: &Buffer) -> Result<()> {
        self.columns(what, buffer)?;
        self.contiguous(what, buffer)
    }

    /// A matrix, or columns of one.
    fn columns(&self, what: &'static str, buffer: &Buffer) -> Result<()> {
        self.has_type(what, buffer, DType::F32)?;
        if buffer.shape().len() == 2 && buffer.n_elements() > 0 {
            return Ok(());
        }
        let problem =
            format!("{what} has shape {:?}, [rows, cols] of at least one each is needed", buffer.shape());
        Err(argument(self.op, problem))
    }

    fn weight(&self, what: &'static str, weight: &Weight, arrange: Arrange) -> Result<()> {
        if weight.arrange() == arrange {
            return Ok(());
        }
        let needed = match arrange {
            Arrange::Stacked => "a stacked one",
            Arrange::Interleaved => "one of a gate and an up matrix, interleaved,",
        };
        Err(argument(self.op, format!("{what} {weight:?}: {needed} is needed")))
    }

    fn product(&self, x: &Buffer, weight: &Weight, arrange: Arrange, out: &Buffer, n: usize) -> Result<()> {
        self.weight("weight", weight, arrange)?;
        if x.n_cols() != weight.k() {
            let problem = format!("x {x:?} has {} columns, the weight {weight:?} {}", x.n_cols(), weight.k());
            return Err(argument(self.op, problem));
        }
        self.shape("out", out, DType::F32, &[x.n_rows(), n])
    }

    fn cache(&self, cache: &KvPool) -> Result<usize> {
        cache.shape().check(self.op)?;
        Ok(cache.shape().head_dim)
    }

    fn heads(&self, what: &str, buffer: &Buffer, head_dim: usize) -> Result<usize> {
        if buffer.n_cols() != 0 && buffer.n_cols().is_multiple_of(head_dim) {
            return Ok(buffer.n_cols() / head_dim);
        }
        Err(argument(self.op, format!("{what} {buffer:?} does not hold heads of {head_dim}")))
    }

    fn row_map(&self, rows: &RowMap, n_rows: usize) -> Result<()> {
        self.shape("positions", &rows.positions, DType::U32, &[n_rows])?;
        self.shape("sequences", &rows.sequences, DType::U32, &[n_rows])?;
        self.dtype("pages", &rows.pages, DType::U32)?;
        self.dtype("work", &rows.work, DType::U32)?;
        if rows.work.shape().len() != 1 || rows.work.n_elements() < HEADER_WORDS {
            return Err(argument(self.op, format!("work {:?} has no room for a work list", rows.work)));
        }
        if rows.pages.shape().len() == 2 && rows.pages.n_elements() > 0 {
            return Ok(());
        }
        let problem = format!("pages {:?} is not [sequences, pages] of at least one each", rows.pages);
        Err(argument(self.op, problem))
    }
}
