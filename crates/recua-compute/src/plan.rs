//! A forward pass as data: [`Plan`], and [`Record`], the typed methods that a plan and a command encoder share.

use crate::buffer::{Buffer, DeviceId};
use crate::error::Result;
use crate::kv::KvPool;
use crate::op::*;
use crate::weight::Weight;
use std::fmt;

/// What ops are recorded into. Each method checks its arguments immediately; an error names the one that does not fit.
///
/// # Errors
/// Every method fails where [`Op::check`] does, and then records nothing. An encoder's methods also fail if the device cannot encode the
/// op.
#[allow(clippy::missing_errors_doc, reason = "said once for all methods")]
pub trait Record {
    /// Checks and appends one op.
    fn push(&mut self, op: Op) -> Result<()>;

    /// See [`Embed`].
    fn embed(&mut self, table: &Weight, tokens: &Buffer, out: &Buffer) -> Result<()> {
        self.push(Op::Embed(Embed { table: table.clone(), tokens: tokens.clone(), out: out.clone() }))
    }

    /// See [`RmsNorm`].
    fn rms_norm(&mut self, x: &Buffer, weight: &Buffer, out: &Buffer, eps: f32) -> Result<()> {
        self.push(Op::RmsNorm(RmsNorm { x: x.clone(), weight: weight.clone(), out: out.clone(), eps }))
    }

    /// See [`Matmul`].
    fn matmul(&mut self, op: Matmul) -> Result<()> {
        self.push(Op::Matmul(op))
    }

    /// See [`MatmulGlu`].
    fn matmul_glu(
        &mut self,
        x: &Buffer,
        gate_up: &Weight,
        activation: Activation,
        out: &Buffer,
    ) -> Result<()> {
        let (x, gate_up, out) = (x.clone(), gate_up.clone(), out.clone());
        self.push(Op::MatmulGlu(MatmulGlu { x, gate_up, activation, out }))
    }

    /// See [`RopeStore`].
    fn rope_store(&mut self, op: RopeStore) -> Result<()> {
        self.push(Op::RopeStore(op))
    }

    /// See [`Attention`].
    fn attention(&mut self, op: Attention) -> Result<()> {
        self.push(Op::Attention(op))
    }

    /// See [`GatherRows`].
    fn gather_rows(&mut self, x: &Buffer, indexes: &Buffer, out: &Buffer) -> Result<()> {
        self.push(Op::GatherRows(GatherRows { x: x.clone(), indexes: indexes.clone(), out: out.clone() }))
    }

    /// See [`Argmax`].
    fn argmax(&mut self, x: &Buffer, out: &Buffer) -> Result<()> {
        self.push(Op::Argmax(Argmax { x: x.clone(), out: out.clone() }))
    }

    /// See [`TopK`].
    fn top_k(&mut self, x: &Buffer, out: &Buffer) -> Result<()> {
        self.push(Op::TopK(TopK { x: x.clone(), out: out.clone() }))
    }

    /// See [`Copy`](crate::Copy).
    fn copy(&mut self, src: &Buffer, dst: &Buffer) -> Result<()> {
        self.push(Op::Copy(Copy { src: src.clone(), dst: dst.clone() }))
    }

    /// See [`CopyPages`].
    fn copy_pages(&mut self, from: &KvPool, to: &KvPool, list: &Buffer) -> Result<()> {
        self.push(Op::CopyPages(CopyPages { from: from.clone(), to: to.clone(), list: list.clone() }))
    }
}

/// A flat list of ops over buffers of one device. What changes from step to step (tokens, positions, page tables) lives in small
/// device buffers that the ops refer to, so a plan for a given shape is recorded once and run many times.
#[derive(Clone, Debug)]
pub struct Plan {
    device: DeviceId,
    ops: Vec<Op>,
}

impl Plan {
    /// An empty plan; usually made by [`crate::Device::plan`].
    pub fn new(device: DeviceId) -> Plan {
        Plan { device, ops: Vec::new() }
    }

    /// The device it was recorded for.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The ops in the order they run.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The ops `[start, end)` as a plan of their own, for encoding in parts, timing a single op or finding a faulty kernel.
    pub fn part(&self, start: usize, end: usize) -> Plan {
        let ops = self.ops.get(start..end.min(self.ops.len())).unwrap_or_default().to_vec();
        Plan { device: self.device, ops }
    }
}

impl Record for Plan {
    fn push(&mut self, op: Op) -> Result<()> {
        op.check(self.device)?;
        self.ops.push(op);
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, op) in self.ops.iter().enumerate() {
            writeln!(f, "{i:>4} {op}")?;
        }
        Ok(())
    }
}
