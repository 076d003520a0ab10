//! `matmul`, `matmul_glu` and `embed` on the CPU: activations are encoded once, then threads claim tiles of 16 weight rows, and a
//! tile is multiplied with all rows of the pass while it is in the cache. Each weight is read once, however many rows share the pass.

pub(crate) mod activations;
#[cfg(target_arch = "x86_64")]
mod dot;
pub(crate) mod float;
pub(crate) mod planes;
pub(crate) mod q256;
pub(crate) mod q32;
pub(crate) mod weight;

use super::isa::multiversion;
use super::math;
use super::memory::{Memory, slice, slice_mut};
use super::pool::Worker;
use crate::buffer::Buffer;
use crate::cpu::{Allocated, Isa};
use crate::error::{Error, Result};
use crate::op::{Activation, Embed, Matmul, MatmulGlu, Op};
use crate::weight::Weight;
use activations::{RECORD, RECORDS_BEHIND, Record, Record32, Record256};
use float::TILES_MAX;
use planes::TILE;
use weight::{Layout, Packed, Segment, records_per_row};

#[cfg(test)]
mod tests;

/// Memory that products need besides their buffers, sized for the largest op so far.
#[derive(Default)]
pub(crate) struct Workspace {
    records256: Option<Memory>,
    records32: Option<Memory>,
    threads: Vec<Option<Memory>>,
}

/// Where a thread unpacks weights and accumulates sums.
#[repr(C, align(64))]
struct Scratch {
    q256: q256::Scratch,
    q32: q32::Scratch,
    // Followed by the sums: `[2][tiles at once][rows][TILE]` f32.
}

/// What an op needs of the workspace.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Needs {
    records256: usize,
    records32: usize,
    rows: usize,
}

/// Fails for a weight that another kind of device made, even if it carries this device's identity.
fn needs(op: &Op) -> Result<Needs> {
    let (x, weight): (Option<&Buffer>, &Weight) = match op {
        Op::Matmul(op) => (Some(&op.x), &op.weight),
        Op::MatmulGlu(op) => (Some(&op.x), &op.gate_up),
        Op::Embed(op) => (None, &op.table),
        _ => return Ok(Needs::default()),
    };
    let Some(packed) = weight.storage_as::<Packed>() else {
        return Err(Error::WrongDevice { op: op.name(), what: "a weight" });
    };
    let Some(x) = x else { return Ok(Needs::default()) };
    let mut needs = Needs { rows: x.n_rows(), ..Needs::default() };
    let records = x.n_rows() * records_per_row(weight.k());
    for segment in &packed.segments {
        match segment.layout {
            Layout::Q256(_) => needs.records256 = records,
            Layout::Q32(_) => needs.records32 = records,
            Layout::Float(_) => {}
        }
    }
    Ok(needs)
}

impl Workspace {
    /// Makes room for `ops`. Allocates only when they need more than any op before.
    pub(crate) fn reserve<'a>(
        &mut self,
        ops: impl Iterator<Item = &'a Op>,
        n_threads: usize,
        allocated: &Allocated,
    ) -> Result<()> {
        let mut most = Needs::default();
        for op in ops {
            let needs = needs(op)?;
            most.records256 = most.records256.max(needs.records256);
            most.records32 = most.records32.max(needs.records32);
            most.rows = most.rows.max(needs.rows);
        }
        let grow = |memory: &mut Option<Memory>, n_bytes: usize| -> Result<()> {
            if n_bytes > memory.as_ref().map_or(0, Memory::len) {
                *memory = Some(allocated.memory(n_bytes, "workspace")?);
            }
            Ok(())
        };
        grow(&mut self.records256, (most.records256 + RECORDS_BEHIND) * size_of::<Record256>())?;
        grow(&mut self.records32, (most.records32 + RECORDS_BEHIND) * size_of::<Record32>())?;
        self.threads.resize_with(n_threads, || None);
        for memory in &mut self.threads {
            let sums = 2 * TILES_MAX.max(2 * most.rows) * TILE * size_of::<f32>();
            grow(memory, if most.rows == 0 { 0 } else { size_of::<Scratch>() + sums })?;
        }
        Ok(())
    }

    /// The records of kind `R`.
    fn records<R: Kind>(&self) -> *mut R {
        R::memory(self).map_or(std::ptr::null_mut(), |memory| memory.as_ptr().cast())
    }

    /// This thread's scratch, and its two areas of sums.
    ///
    /// # Safety
    /// Only thread `idx` calls this, once per op.
    #[allow(clippy::mut_from_ref, reason = "each thread has its own memory")]
    unsafe fn scratch(&self, idx: usize) -> (&mut Scratch, [&mut [[f32; TILE]]; 2]) {
        let memory = self.threads[idx].as_ref().expect("reserved before the op runs");
        let n_sums = (memory.len() - size_of::<Scratch>()) / (2 * TILE * size_of::<f32>());
        // SAFETY: zeroed memory is a valid `Scratch` and valid sums, it is long enough, aligned to a cache line, and this thread's own.
        unsafe {
            let start = memory.as_ptr();
            let sums = start.add(size_of::<Scratch>()).cast::<[f32; TILE]>();
            let first = std::slice::from_raw_parts_mut(sums, n_sums);
            let second = std::slice::from_raw_parts_mut(sums.add(n_sums), n_sums);
            (&mut *start.cast::<Scratch>(), [first, second])
        }
    }
}

/// Finds a kind of record in the workspace.
trait Kind: Record {
    fn memory(workspace: &Workspace) -> Option<&Memory>;
}

impl Kind for Record256 {
    fn memory(workspace: &Workspace) -> Option<&Memory> {
        workspace.records256.as_ref()
    }
}

impl Kind for Record32 {
    fn memory(workspace: &Workspace) -> Option<&Memory> {
        workspace.records32.as_ref()
    }
}

/// What the threads of an op share.
struct Pass<'a> {
    worker: &'a Worker<'a>,
    isa: Isa,
    workspace: &'a Workspace,
    x: &'a [f32],
    rows: usize,
    k: usize,
}

impl<'a> Pass<'a> {
    fn new(x: &'a Buffer, worker: &'a Worker<'a>, isa: Isa, workspace: &'a Workspace) -> Pass<'a> {
        // SAFETY: no output of the op overlaps `x` (`Op::check`), and the queue is held.
        let values = unsafe { slice::<f32>(x) };
        Pass { worker, isa, workspace, x: values, rows: x.n_rows(), k: x.n_cols() }
    }

    /// Encodes this thread's share of `x` in the ways that the segments need, and ends with a barrier.
    fn encode(&self, segments: &[Segment]) {
        if segments.iter().any(|segment| matches!(segment.layout, Layout::Q256(_))) {
            self.encode_as::<Record256>();
        }
        if segments.iter().any(|segment| matches!(segment.layout, Layout::Q32(_))) {
            self.encode_as::<Record32>();
        }
        self.worker.barrier();
    }

    fn encode_as<R: Kind>(&self) {
        let records = self.workspace.records::<R>();
        for i in self.worker.share(self.rows * records_per_row(self.k)) {
            let (block, row) = (i / self.rows, i % self.rows);
            let end = self.k.min((block + 1) * RECORD);
            let values = &self.x[row * self.k + block * RECORD..row * self.k + end];
            // SAFETY: the workspace was reserved for this many records; each is written by one thread before the barrier.
            R::encode(self.isa, values, unsafe { &mut *records.add(i) });
        }
    }

    /// All records, once they are encoded, and [`RECORDS_BEHIND`] more.
    fn records<R: Kind>(&self) -> &[R] {
        let n = self.rows * records_per_row(self.k) + RECORDS_BEHIND;
        // SAFETY: written by `encode`, which ended with a barrier; nothing writes them before the next op. Those after them are what an
        // earlier op left there, or zero.
        unsafe { std::slice::from_raw_parts(self.workspace.records::<R>(), n) }
    }

    /// The products of `n` tiles from `first` on with all rows: `sums[tile][row][lane]`.
    fn tiles(
        &self,
        segment: &Segment,
        first: usize,
        n: usize,
        sums: &mut [[f32; TILE]],
        scratch: &mut Scratch,
    ) {
        let sums = &mut sums[..n * self.rows];
        match segment.layout {
            Layout::Q256(f) => {
                let tiles = segment.tiles(first, n);
                (f.tiles)(self.isa, tiles, self.records(), self.rows, sums, &mut scratch.q256);
            }
            Layout::Q32(f) => {
                let records: &[Record32] = self.records();
                for (tile, sums) in (first..first + n).zip(sums.chunks_exact_mut(self.rows)) {
                    let tile = segment.tiles(tile, 1);
                    (f.tile)(self.isa, tile, self.k / 32, records, sums, &mut scratch.q32);
                }
            }
            Layout::Float(f) => (f.tiles)(self.isa, segment.tiles(first, n), self.x, self.k, sums),
        }
    }

    /// How many tiles are multiplied side by side.
    fn tiles_at_once(&self) -> usize {
        if self.rows == 1 { TILES_MAX } else { 2 }
    }
}

/// See [`Matmul`].
pub(crate) fn matmul(op: &Matmul, worker: &Worker<'_>, isa: Isa, workspace: &Workspace) -> Result<()> {
    let pass = Pass::new(&op.x, worker, isa, workspace);
    let segments = &Packed::of(&op.weight).segments;
    pass.encode(segments);
    // SAFETY: called once per op, by the thread itself.
    let (scratch, [sums, _]) = unsafe { workspace.scratch(worker.idx) };
    let step = pass.tiles_at_once();
    // The pieces of all segments are claimed as one list, so that the threads end together.
    let pieces = |segment: &Segment| segment.n_tiles.div_ceil(step);
    let total = segments.iter().map(pieces).sum();
    while let Some(claimed) = worker.claim_run(total) {
        let mut before = 0;
        for segment in segments {
            let own = before..before + pieces(segment);
            for piece in claimed.start.max(own.start)..claimed.end.min(own.end) {
                let first = (piece - own.start) * step;
                let n = step.min(segment.n_tiles - first);
                pass.tiles(segment, first, n, sums, scratch);
                write_tiles(op, segment, pass.rows, first, &sums[..n * pass.rows]);
            }
            before = own.end;
        }
    }
    Ok(())
}

/// Writes the products of a segment's tiles from `first_tile` on: `sums[tile][row][lane]`.
fn write_tiles(op: &Matmul, segment: &Segment, rows: usize, first_tile: usize, sums: &[[f32; TILE]]) {
    let n_cols = op.out.n_cols();
    // SAFETY: no output overlaps the bias (`Op::check`).
    let bias = op.bias.as_ref().map(|bias| unsafe { slice::<f32>(bias) });
    for (t, sums) in sums.chunks_exact(rows).enumerate() {
        let row_of_segment = (first_tile + t) * TILE;
        let len = TILE.min(segment.n - row_of_segment);
        let first = segment.first + row_of_segment;
        for (row, sums) in sums.iter().enumerate() {
            let mut values = *sums;
            if let Some(bias) = bias {
                for (value, bias) in values.iter_mut().zip(&bias[first..first + len]) {
                    *value += bias;
                }
            }
            let at = row * n_cols + first;
            if let Some(add) = &op.add {
                // SAFETY: these elements are read and written by this thread alone, even where `add` is `out`; the borrow ends here.
                let add = unsafe { slice_mut::<f32>(add, at, len) };
                for (value, add) in values.iter_mut().zip(add) {
                    *value += *add;
                }
            }
            // SAFETY: a tile's columns belong to the thread that claimed it, and outputs overlap no inputs.
            unsafe { slice_mut::<f32>(&op.out, at, len) }.copy_from_slice(&values[..len]);
        }
    }
}

/// See [`MatmulGlu`].
pub(crate) fn matmul_glu(op: &MatmulGlu, worker: &Worker<'_>, isa: Isa, workspace: &Workspace) -> Result<()> {
    let pass = Pass::new(&op.x, worker, isa, workspace);
    let [gate, up] = &Packed::of(&op.gate_up).segments[..] else {
        unreachable!("an interleaved weight has a segment for gate and one for up");
    };
    pass.encode(&Packed::of(&op.gate_up).segments);
    // SAFETY: called once per op, by the thread itself.
    let (scratch, [gates, ups]) = unsafe { workspace.scratch(worker.idx) };
    let step = pass.tiles_at_once();
    let total = gate.n_tiles.div_ceil(step);
    let n_cols = gate.n;
    while let Some(range) = worker.claim_run(total) {
        for piece in range {
            let first = piece * step;
            let n = step.min(gate.n_tiles - first);
            pass.tiles(gate, first, n, gates, scratch);
            pass.tiles(up, first, n, ups, scratch);
            match op.activation {
                Activation::Silu => silu_mul(isa, &mut gates[..n * pass.rows], &ups[..n * pass.rows]),
            }
            for (t, sums) in gates[..n * pass.rows].chunks_exact(pass.rows).enumerate() {
                let first = (first + t) * TILE;
                let len = TILE.min(n_cols - first);
                for (row, values) in sums.iter().enumerate() {
                    // SAFETY: a tile's columns belong to the thread that claimed it, and `out` does not overlap `x`.
                    unsafe { slice_mut::<f32>(&op.out, row * n_cols + first, len) }
                        .copy_from_slice(&values[..len]);
                }
            }
        }
    }
    Ok(())
}

multiversion! { fn silu_mul(isa, gates: &mut [[f32; TILE]], ups: &[[f32; TILE]]) = silu_mul_body }

#[inline(always)]
fn silu_mul_body(gates: &mut [[f32; TILE]], ups: &[[f32; TILE]]) {
    for (gates, ups) in gates.iter_mut().zip(ups) {
        for (gate, up) in gates.iter_mut().zip(ups) {
            *gate = math::silu(*gate) * up;
        }
    }
}

/// See [`Embed`]. The device has checked the tokens.
pub(crate) fn embed(op: &Embed, worker: &Worker<'_>) -> Result<()> {
    let packed = Packed::of(&op.table);
    // SAFETY: nothing writes the tokens while this op runs.
    let tokens = unsafe { slice::<u32>(&op.tokens) };
    let dim = op.table.k();
    for row in worker.share(tokens.len()) {
        // SAFETY: each row belongs to one thread, and no input overlaps `out` (`Op::check`).
        let out = unsafe { slice_mut::<f32>(&op.out, row * dim, dim) };
        packed.decode_row(tokens[row] as usize, out);
    }
    Ok(())
}
