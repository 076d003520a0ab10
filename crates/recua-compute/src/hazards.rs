//! Which ops must wait for which: read-after-write, write-after-read and write-after-write hazards, found from the bytes that ops touch.
//!
//! Devices order a plan's ops by themselves. This module *reports* the dependencies, so that you can see where a pass must run in sequence,
//! group ops that may run in parallel, or place barriers by hand.

use crate::buffer::Buffer;
use crate::op::Op;
use crate::op::operands::Operand;
use std::fmt;
use std::ops::Range;

/// The buffers that an op reads. Weights are not among them: nothing writes those.
pub fn reads(op: &Op) -> Vec<&Buffer> {
    op.operands().iter().filter(|operand| operand.is_read()).flat_map(Operand::buffers).collect()
}

/// The buffers that an op writes.
pub fn writes(op: &Op) -> Vec<&Buffer> {
    op.operands().iter().filter(|operand| operand.is_written()).flat_map(Operand::buffers).collect()
}

/// Why an op must wait for an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HazardKind {
    /// It reads what the earlier one wrote.
    ReadAfterWrite,
    /// It overwrites what the earlier one read.
    WriteAfterRead,
    /// It overwrites what the earlier one wrote.
    WriteAfterWrite,
}

/// Two ops that touch the same bytes, at least one of them writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// The index of the op that comes first.
    pub earlier: usize,
    /// The index of the op that must wait.
    pub later: usize,
    /// Why.
    pub kind: HazardKind,
    /// The range of the shared bytes, counted from the start of the allocation. If one view is columns of a matrix, the range also covers
    /// what lies between its rows, which is not shared.
    pub bytes: Range<usize>,
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            HazardKind::ReadAfterWrite => "reads after the write of",
            HazardKind::WriteAfterRead => "writes after the read of",
            HazardKind::WriteAfterWrite => "writes after the write of",
        };
        let Hazard { earlier, later, bytes, .. } = self;
        write!(f, "{later} {kind} {earlier}: bytes [{}, {})", bytes.start, bytes.end)
    }
}

/// The hazards of a list of ops or dispatches.
#[derive(Clone, Debug, Default)]
pub struct Hazards {
    list: Vec<Hazard>,
    /// The group of each entry.
    groups: Vec<usize>,
    seen: Vec<Access>,
}

/// What an entry touches.
#[derive(Clone, Debug)]
struct Access {
    entry: usize,
    buffer: Buffer,
    is_write: bool,
}

impl Hazards {
    /// No entries yet.
    pub fn new() -> Hazards {
        Hazards::default()
    }

    /// The hazards of a plan's ops.
    pub fn of(ops: &[Op]) -> Hazards {
        let mut hazards = Hazards::new();
        for op in ops {
            hazards.add(&reads(op), &writes(op));
        }
        hazards
    }

    /// Appends an entry (an op, or a dispatch of a hand-written kernel) and returns its index. A buffer that is both read and written belongs
    /// in both lists.
    pub fn add(&mut self, reads: &[&Buffer], writes: &[&Buffer]) -> usize {
        let entry = self.groups.len();
        let access = |is_write| move |buffer: &&Buffer| Access { entry, buffer: (*buffer).clone(), is_write };
        let new: Vec<Access> =
            reads.iter().map(access(false)).chain(writes.iter().map(access(true))).collect();
        let mut group = 0;
        for old in &self.seen {
            for new in &new {
                let kind = match (old.is_write, new.is_write) {
                    (true, false) => HazardKind::ReadAfterWrite,
                    (false, true) => HazardKind::WriteAfterRead,
                    (true, true) => HazardKind::WriteAfterWrite,
                    (false, false) => continue,
                };
                if let Some(bytes) = shared(&old.buffer, &new.buffer) {
                    group = group.max(self.groups[old.entry] + 1);
                    self.list.push(Hazard { earlier: old.entry, later: entry, kind, bytes });
                }
            }
        }
        self.groups.push(group);
        self.seen.extend(new);
        entry
    }

    /// Every pair of entries that must stay in order, sorted by the later one.
    pub fn list(&self) -> &[Hazard] {
        &self.list
    }

    /// The entries in groups. Entries of one group may run at the same time; each group must run after the one before it. An entry is in the
    /// earliest group possible.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); self.groups.iter().max().map_or(0, |last| last + 1)];
        for (entry, &group) in self.groups.iter().enumerate() {
            groups[group].push(entry);
        }
        groups
    }
}

/// The range of the bytes that two views share.
fn shared(a: &Buffer, b: &Buffer) -> Option<Range<usize>> {
    let start = a.offset_bytes().max(b.offset_bytes());
    let end = (a.offset_bytes() + a.span_bytes()).min(b.offset_bytes() + b.span_bytes());
    (a.overlaps(b) && start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::HazardKind::{ReadAfterWrite, WriteAfterRead, WriteAfterWrite};
    use super::*;
    use crate::buffer::DType;
    use crate::device::Device;
    use crate::kv::{KvShape, KvType};
    use crate::op::*;
    use crate::plan::Record;

    fn device() -> Device {
        crate::cpu::open(crate::cpu::Options { threads: Some(1), isa: None }).unwrap()
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        let device = device();
        let [a, b, c] = std::array::from_fn(|_| device.alloc(DType::F32, &[4, 8]).unwrap());
        let weight = device.alloc(DType::F32, &[8]).unwrap();
        let mut plan = device.plan();
        plan.rms_norm(&a, &weight, &b, 1e-5).unwrap();
        plan.rms_norm(&b, &weight, &c, 1e-5).unwrap();
        plan.copy(&c, &a).unwrap();
        plan.copy(&a, &b).unwrap();
        let hazards = Hazards::of(plan.ops());
        let list: Vec<_> = hazards.list().iter().map(|h| (h.earlier, h.later, h.kind)).collect();
        let expected = [
            (0, 1, ReadAfterWrite),
            (0, 2, WriteAfterRead),
            (1, 2, ReadAfterWrite),
            (0, 3, WriteAfterWrite),
            (1, 3, WriteAfterRead),
            (2, 3, ReadAfterWrite),
        ];
        assert_eq!(list, expected);
        assert!(hazards.list().iter().all(|hazard| hazard.bytes == (0..128)));
        assert_eq!(hazards.groups(), [[0], [1], [2], [3]]);
        assert_eq!(hazards.list()[0].to_string(), "1 reads after the write of 0: bytes [0, 128)");
    }

    #[test]
    fn only_the_same_bytes_of_the_same_allocation_count() {
        let device = device();
        let all = device.alloc(DType::F32, &[10]).unwrap();
        let other = device.alloc(DType::F32, &[10]).unwrap();
        let view = |first, n| all.view(first, &[n]).unwrap();
        let mut hazards = Hazards::new();
        hazards.add(&[], &[&view(0, 4)]);
        hazards.add(&[], &[&view(4, 6)]);
        hazards.add(&[&other], &[]);
        hazards.add(&[&view(3, 2)], &[]);
        hazards.add(&[&all], &[]);
        let list: Vec<_> = hazards.list().iter().map(|h| (h.earlier, h.later, h.bytes.clone())).collect();
        assert_eq!(list, [(0, 3, 12..16), (1, 3, 16..20), (0, 4, 0..16), (1, 4, 16..40)]);
        assert_eq!(hazards.groups(), [vec![0, 1, 2], vec![3, 4]], "readers do not disturb each other");
    }

    #[test]
    fn columns_beside_each_other_are_apart() {
        let device = device();
        let all = device.alloc(DType::F32, &[5, 12]).unwrap();
        let columns = |range| all.columns(range).unwrap();
        let (q, k, v) = (columns(0..6), columns(6..9), columns(9..12));
        for (a, b) in [(&q, &k), (&k, &v), (&q, &v), (&k, &q)] {
            assert!(!a.overlaps(b));
        }
        assert!(q.overlaps(&columns(5..7)) && columns(5..7).overlaps(&k) && q.overlaps(&all));
        // Rows of others, of another stride, and single rows.
        let lower = all.row_range(2..5).unwrap();
        assert!(!lower.columns(0..3).unwrap().overlaps(&all.rows(2).unwrap().columns(0..3).unwrap()));
        assert!(lower.columns(0..3).unwrap().overlaps(&q));
        let pairs = all.view(6, &[9, 6]).unwrap();
        assert!(!pairs.row_range(0..1).unwrap().overlaps(&q) && pairs.row_range(1..2).unwrap().overlaps(&q));
        assert!(
            pairs.columns(0..2).unwrap().overlaps(&k)
                && !pairs.columns(3..4).unwrap().overlaps(&columns(0..3))
        );
        assert!(pairs.columns(3..4).unwrap().overlaps(&columns(3..4)));
        let mut hazards = Hazards::new();
        hazards.add(&[], &[&q]);
        hazards.add(&[], &[&k]);
        hazards.add(&[&v], &[]);
        hazards.add(&[&all], &[]);
        let list: Vec<_> = hazards.list().iter().map(|h| (h.earlier, h.later, h.bytes.clone())).collect();
        assert_eq!(list, [(0, 3, 0..216), (1, 3, 24..228)]);
        assert_eq!(hazards.groups(), [vec![0, 1, 2], vec![3]]);
    }

    #[test]
    fn every_op_names_what_it_touches() {
        let device = device();
        let matrix = || device.alloc(DType::F32, &[2, 8]).unwrap();
        let u32s = |shape: &[usize]| device.alloc(DType::U32, shape).unwrap();
        let (q, k, v, out) = (matrix(), matrix(), matrix(), matrix());
        let bias = device.alloc(DType::F32, &[8]).unwrap();
        let rows =
            RowMap { positions: u32s(&[2]), sequences: u32s(&[2]), pages: u32s(&[1, 1]), work: u32s(&[4]) };
        let shape = KvShape { n_pages: 1, n_kv_heads: 1, head_dim: 8, kv_type: KvType::F16 };
        let cache = device.alloc_kv(&shape).unwrap();
        let mut plan = device.plan();
        let raw = || crate::RawMatrix::new(recua_gguf::GgmlType::F32, 8, 8, &[0; 8 * 8 * 4]);
        let weight = device.upload_weight(&[raw()], crate::Arrange::Stacked).unwrap();
        let gate_up = device.upload_weight(&[raw(), raw()], crate::Arrange::Interleaved).unwrap();
        plan.embed(&weight, &rows.positions, &q).unwrap();
        plan.matmul(Matmul::new(&q, &weight, &out).with_bias(Some(&bias)).with_add(&v)).unwrap();
        plan.matmul_glu(&q, &gate_up, Activation::Silu, &out).unwrap();
        plan.rope_store(RopeStore {
            q: q.clone(),
            k,
            v,
            norm: None,
            table: device.alloc(DType::F32, &[32, 4, 2]).unwrap(),
            style: RopeStyle::Halves,
            rows: rows.clone(),
            cache: cache.clone(),
        })
        .unwrap();
        plan.attention(Attention { q: q.clone(), rows: rows.clone(), cache, scale: 1.0, out: out.clone() })
            .unwrap();
        plan.gather_rows(&out, &rows.positions, &q).unwrap();
        plan.argmax(&q, &rows.sequences).unwrap();
        let counts: Vec<_> =
            plan.ops().iter().map(|op| (op.name(), reads(op).len(), writes(op).len())).collect();
        let expected = [
            ("embed", 1, 1),
            ("matmul", 3, 1),
            ("matmul_glu", 1, 1),
            ("rope_store", 8, 3),
            ("attention", 7, 1),
            ("gather_rows", 2, 1),
            ("argmax", 1, 1),
        ];
        assert_eq!(counts, expected);
        // Attention waits for the rotation and the cache; the argmax overwrites the row map.
        let kinds = |earlier, later| -> Vec<HazardKind> {
            let hazards = Hazards::of(plan.ops());
            let of = hazards.list().iter().filter(|h| (h.earlier, h.later) == (earlier, later));
            of.map(|h| h.kind).collect()
        };
        assert_eq!(kinds(3, 4), [ReadAfterWrite; 3]);
        assert!(kinds(4, 6).contains(&WriteAfterRead));
        assert!(kinds(1, 2).contains(&WriteAfterWrite));
    }
}
