//! Plans of random ops over random views of a few buffers, many of which do not fit and many of which overlap. What [`Op::check`] lets
//! through must run, and it must do what its operands say:
//!
//! * a plan gives the bits of its ops run one by one, and those of its hazards' groups, shuffled;
//! * an op changes only what it says it writes, and what it writes depends only on what it says it reads;
//! * what is refused leaves the plan as it was.
//!
//! What numbers an op gives is tested in the other cases.

use super::data::{Matrix, upload_glu};
use crate::buffer::{Buffer, DType};
use crate::device::Device;
use crate::error::{Error, Result, argument};
use crate::hazards::Hazards;
use crate::kv::{KvPool, KvShape, KvType};
use crate::op::operands::{Operand, Resource};
use crate::op::*;
use crate::plan::{Plan, Record};
use crate::weight::Weight;
use crate::work::{RowRun, WorkList};
use recua_gguf::{GgmlType, Random};
use std::sync::Arc;

/// Columns of all matrices, and elements of a head.
const COLS: usize = 32;

/// Rows of all matrices; an op takes up to a third of them.
const ROWS: usize = 12;

/// Where rows stand: position and sequence. An op takes some neighbours of them.
const PLACES: [[u32; 2]; 6] = [[0, 0], [1, 0], [2, 0], [31, 1], [32, 1], [33, 1]];

/// How many plans were refused nothing, were refused something, and failed while they ran.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Ops that were recorded.
    pub recorded: usize,
    /// Ops that were refused.
    pub refused: usize,
    /// Plans that ran.
    pub ran: usize,
    /// Plans that failed because an op before had left an index that is out of range.
    pub failed: usize,
}

/// Runs `n_plans` plans drawn from `seed`.
///
/// # Errors
/// If one does not do what its operands say, or the device fails. The message has the plan.
pub fn check(device: &Device, seed: u64, n_plans: usize) -> Result<Tally> {
    let worlds = [World::new(device)?, World::new(device)?, World::new(device)?, World::new(device)?];
    let mut tally = Tally::default();
    for i in 0..n_plans {
        check_plan(device, &worlds, &mut Random::new(seed ^ (i as u64) << 32), &mut tally)?;
    }
    Ok(tally)
}

fn check_plan(device: &Device, worlds: &[World; 4], random: &mut Random, tally: &mut Tally) -> Result<()> {
    let [whole, stepped, alone, grouped] = worlds;
    let initial = whole.initial(random)?;
    // An op is a function of its seed, so that each world can have the same one.
    let mut seeds = Vec::new();
    let mut plan = device.plan();
    for _ in 0..random.below(10) + 1 {
        let seed = random.bits();
        let before = plan.to_string();
        match plan.push(whole.draw(seed)?) {
            Ok(()) => seeds.push(seed),
            Err(_) if plan.to_string() == before => tally.refused += 1,
            Err(e) => return Err(broken(&plan, format!("'{e}' changed it"))),
        }
    }
    tally.recorded += seeds.len();
    whole.set(&initial)?;
    let result = device.run(&plan).and_then(|submission| submission.wait());

    stepped.set(&initial)?;
    let mut state = initial.clone();
    for (i, &seed) in seeds.iter().enumerate() {
        let op = stepped.draw(seed)?;
        match (run_one(device, &op), &result) {
            (Ok(()), _) => {}
            // A plan fails if one of its ops does. Which one is found first is the device's affair.
            (Err(Error::IndexOutOfRange { .. }), Err(Error::IndexOutOfRange { .. })) => {
                tally.failed += 1;
                return Ok(());
            }
            (Err(e), found) => {
                return Err(broken(&plan, format!("alone, op {i} fails with '{e}', not {found:?}")));
            }
        }
        let after = stepped.state()?;
        if let Some(at) = stepped.changed_outside(&op, &state, &after) {
            return Err(broken(&plan, format!("op {i} writes {at}, which is no operand that it writes")));
        }
        // The same with garbage in all that it does not read.
        alone.set(&stepped.only_read(&op, &state))?;
        let op = alone.draw(seed)?;
        run_one(device, &op)?;
        if alone.written(&op, &alone.state()?) != alone.written(&op, &after) {
            return Err(broken(&plan, format!("what op {i} writes depends on more than what it reads")));
        }
        state = after;
    }
    result?;
    if whole.state()? != state {
        return Err(broken(&plan, "it gives other bits than its ops one by one"));
    }
    tally.ran += 1;

    grouped.set(&initial)?;
    let hazards = Hazards::of(plan.ops());
    let mut encoder = device.command_encoder()?;
    let mut order = Vec::new();
    for mut group in hazards.groups() {
        random.shuffle(&mut group);
        order.extend(group);
    }
    order.iter().try_for_each(|&i| encoder.push(grouped.draw(seeds[i])?))?;
    encoder.commit_and_wait()?;
    if grouped.state()? != state {
        return Err(broken(
            &plan,
            format!("it gives other bits in the order {order:?}, which its hazards allow"),
        ));
    }
    Ok(())
}

fn broken(plan: &Plan, problem: impl std::fmt::Display) -> Error {
    argument("random plan", format!("{problem}\n{plan}"))
}

fn run_one(device: &Device, op: &Op) -> Result<()> {
    super::run(device, |plan| plan.push(op.clone()))
}

/// The bytes of each of a world's buffers.
type State = Vec<Vec<u8>>;

/// What ops are drawn over. Every world has the same buffers with other memory.
struct World {
    device: Device,
    /// f32 `[ROWS, COLS]`
    matrices: Vec<Buffer>,
    /// f32 `[ROWS, 4 * COLS]`: q of two heads, k, v
    wide: Buffer,
    /// f32 `[2 * COLS]`
    vector: Buffer,
    /// u32 `[8 * ROWS]`, that ops write, too
    indexes: Vec<Buffer>,
    /// u32: positions and sequences of [`PLACES`], a page table, pairs of pages
    map: [Buffer; 4],
    /// Work lists of up to [`ROWS`] / 3 places from each on.
    work: Vec<Vec<Buffer>>,
    /// f32 `[64, COLS / 2, 2]`
    table: Buffer,
    pools: [KvPool; 2],
    weights: Vec<Weight>,
    gate_up: Weight,
    /// All the memory there is.
    memory: Vec<Buffer>,
}

impl World {
    fn new(device: &Device) -> Result<World> {
        let f32s = |shape: &[usize]| device.alloc(DType::F32, shape);
        let u32s = |values: &[u32], shape: &[usize]| device.upload(values, DType::U32, shape);
        let shape = KvShape { n_pages: 4, n_kv_heads: 1, head_dim: COLS, kv_type: KvType::F16 };
        let pools = [device.alloc_kv(&shape)?, device.alloc_kv(&shape)?];
        let n = PLACES.len();
        let [positions, sequences] = [0, 1].map(|column| PLACES.map(|place| place[column]));
        let map = [
            u32s(&positions, &[n])?,
            u32s(&sequences, &[n])?,
            u32s(&[2, 0, 1, 3], &[2, 2])?,
            u32s(&[0, 3, INERT, 1, 2, 1], &[3, 2])?,
        ];
        let tiling = device.tiling(&shape, 2);
        let mut work = Vec::new();
        for first in 0..n {
            let mut lists = Vec::new();
            for end in first + 1..n.min(first + ROWS / 3) + 1 {
                let runs = RowRun::of(&sequences[first..end], &positions[first..end]);
                let mut list = WorkList::new();
                let words = list.build(&tiling, end - first, runs)?;
                lists.push(u32s(words, &[words.len()])?);
            }
            work.push(lists);
        }
        let matrix = |ty, seed| Matrix::random(ty, COLS, COLS, seed);
        let weights = [(GgmlType::F32, 1), (GgmlType::Q8_0, 2)];
        let weights = weights.map(|(ty, seed)| matrix(ty, seed)?.upload(device));
        let mut world = World {
            device: device.clone(),
            matrices: (0..3).map(|_| f32s(&[ROWS, COLS])).collect::<Result<_>>()?,
            wide: f32s(&[ROWS, 4 * COLS])?,
            vector: f32s(&[2 * COLS])?,
            indexes: (0..2).map(|_| u32s(&[0; 8 * ROWS], &[8 * ROWS])).collect::<Result<_>>()?,
            map,
            work,
            table: f32s(&[64, COLS / 2, 2])?,
            pools,
            weights: weights.into_iter().collect::<Result<_>>()?,
            gate_up: upload_glu(device, &matrix(GgmlType::Q8_0, 3)?, &matrix(GgmlType::Q8_0, 4)?)?,
            memory: Vec::new(),
        };
        let World { matrices, wide, vector, indexes, map, work, table, pools, .. } = &world;
        let floats = matrices.iter().chain([wide, vector, table]);
        let integers = indexes.iter().chain(map).chain(work.iter().flatten());
        world.memory = floats.chain(integers).chain(pools.iter().flat_map(KvPool::memory)).cloned().collect();
        Ok(world)
    }

    /// Numbers to begin with: floats in [-1, 1), indexes of rows, and what the maps hold.
    fn initial(&self, random: &mut Random) -> Result<State> {
        let is_index = |buffer: &Buffer| self.indexes.iter().any(|index| index.is_same(buffer));
        let fill = |buffer: &Buffer| match buffer.dtype() {
            DType::F32 => Ok(bytemuck::cast_slice(&random.f32s(buffer.n_elements())).to_vec()),
            DType::U32 if is_index(buffer) => {
                Ok(bytemuck::cast_slice(&random.indexes(buffer.n_elements(), ROWS / 3)).to_vec())
            }
            DType::U32 => self.device.read_vec(buffer),
            // A cache: small halves.
            _ => Ok(vec![0x2c; buffer.n_bytes()]),
        };
        self.memory.iter().map(fill).collect()
    }

    fn state(&self) -> Result<State> {
        self.memory.iter().map(|buffer| self.device.read_vec(buffer)).collect()
    }

    fn set(&self, state: &State) -> Result<()> {
        self.memory.iter().zip(state).try_for_each(|(buffer, bytes)| self.device.write(buffer, bytes))
    }

    /// Which memory a view is of, and which bytes of it.
    fn bytes<'a>(&self, view: &'a Buffer) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + use<'a> {
        let is_its = |memory: &Buffer| Arc::ptr_eq(memory.storage(), view.storage());
        let i = self.memory.iter().position(is_its).expect("all memory is in the list");
        let size = view.dtype().size_of();
        (0..view.n_rows()).map(move |row| {
            let start = view.offset_bytes() + row * view.row_stride() * size;
            (i, start..start + view.n_cols() * size)
        })
    }

    /// A state with 0xff in all that an op does not read. Of a cache only parts are written, so it counts as read.
    fn only_read(&self, op: &Op, state: &State) -> State {
        let mut only: State = state.iter().map(|bytes| vec![0xff; bytes.len()]).collect();
        let operands = op.operands();
        let is_read =
            |operand: &&Operand<'_>| operand.is_read() || matches!(operand.resource, Resource::Pool(_));
        for view in operands.iter().filter(is_read).flat_map(Operand::buffers) {
            for (i, range) in self.bytes(view) {
                only[i][range.clone()].copy_from_slice(&state[i][range]);
            }
        }
        only
    }

    /// The bytes that an op says it writes.
    fn written<'a>(&self, op: &Op, state: &'a State) -> Vec<&'a [u8]> {
        let operands = op.operands();
        let views = operands.iter().filter(|operand| operand.is_written()).flat_map(Operand::buffers);
        views.flat_map(|view| self.bytes(view)).map(|(i, range)| &state[i][range]).collect()
    }

    /// A byte that has changed, though the op does not say that it writes it.
    fn changed_outside(&self, op: &Op, before: &State, after: &State) -> Option<String> {
        let mut expected = before.clone();
        let operands = op.operands();
        for view in operands.iter().filter(|operand| operand.is_written()).flat_map(Operand::buffers) {
            for (i, range) in self.bytes(view) {
                expected[i][range.clone()].copy_from_slice(&after[i][range]);
            }
        }
        let (i, _) = expected.iter().zip(after).enumerate().find(|(_, (a, b))| a != b)?;
        let byte = expected[i].iter().zip(&after[i]).position(|(a, b)| a != b)?;
        Some(format!("byte {byte} of {:?}", self.memory[i]))
    }

    /// The op of a seed: the same one in every world.
    fn draw(&self, seed: u64) -> Result<Op> {
        Draw { world: self, random: Random::new(seed) }.op()
    }
}

/// Draws an op.
struct Draw<'a> {
    world: &'a World,
    random: Random,
}

impl Draw<'_> {
    fn one_in(&mut self, n: usize) -> bool {
        self.random.below(n) == 0
    }

    fn any<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.random.below(list.len())].clone()
    }

    /// A view of `shape` somewhere in a buffer; sometimes of another shape.
    fn view(&mut self, buffer: &Buffer, shape: &[usize]) -> Result<Buffer> {
        let mut shape = shape.to_vec();
        if self.one_in(24) {
            shape[0] += 1;
        }
        let room = buffer.n_elements().saturating_sub(shape.iter().product());
        let first = self.random.below(room / 4 + 1) * 4;
        buffer.view(first, &shape)
    }

    /// f32 `[rows, COLS]`; sometimes columns of a wider matrix, or of another type.
    fn matrix(&mut self, rows: usize) -> Result<Buffer> {
        match self.random.below(40) {
            0 => self.columns(0, rows, 0, 1),
            1 => {
                let indexes = self.any(&self.world.indexes);
                self.view(&indexes, &[1, COLS])
            }
            _ => {
                let matrix = self.any(&self.world.matrices);
                self.view(&matrix, &[rows, COLS])
            }
        }
    }

    /// `n` times [`COLS`] columns of some rows.
    fn columns(&mut self, first_row: usize, rows: usize, column: usize, n: usize) -> Result<Buffer> {
        let wide = self.world.wide.row_range(first_row..first_row + rows)?;
        let slip = if self.one_in(16) { 1 } else { 0 };
        let column = if column + n + slip > 4 { column } else { column + slip };
        wide.columns(column * COLS..(column + n) * COLS)
    }

    fn index(&mut self, shape: &[usize]) -> Result<Buffer> {
        let indexes = self.any(&self.world.indexes);
        self.view(&indexes, shape)
    }

    fn row_map(&mut self, rows: usize) -> Result<RowMap> {
        let [positions, sequences, pages, _] = &self.world.map;
        let first = self.random.below(PLACES.len() - rows + 1);
        Ok(RowMap {
            positions: positions.view(first, &[rows])?,
            sequences: sequences.view(first, &[rows])?,
            pages: pages.clone(),
            work: self.world.work[first][rows - 1].clone(),
        })
    }

    fn op(mut self) -> Result<Op> {
        let world = self.world;
        let rows = self.random.below(ROWS / 3) + 1;
        let vector = |draw: &mut Self| draw.view(&world.vector, &[COLS]);
        Ok(match self.random.below(12) {
            0 => Op::Embed(Embed {
                table: self.any(&world.weights),
                tokens: self.index(&[rows])?,
                out: self.matrix(rows)?,
            }),
            1 => {
                let x = self.matrix(rows)?;
                let out = if self.one_in(2) { x.clone() } else { self.matrix(rows)? };
                Op::RmsNorm(RmsNorm { x, weight: vector(&mut self)?, out, eps: 1e-5 })
            }
            2 | 3 => {
                let (x, out) = (self.matrix(rows)?, self.matrix(rows)?);
                let mut op = Matmul::new(&x, &self.any(&world.weights), &out);
                if self.one_in(3) {
                    op = op.with_bias(Some(&vector(&mut self)?));
                }
                if self.one_in(2) {
                    op = op.with_add(&if self.one_in(3) { self.matrix(rows)? } else { out });
                }
                Op::Matmul(op)
            }
            4 => Op::MatmulGlu(MatmulGlu {
                x: self.matrix(rows)?,
                gate_up: world.gate_up.clone(),
                activation: Activation::Silu,
                out: self.matrix(rows)?,
            }),
            5 => {
                let row = self.random.below(ROWS - rows);
                Op::RopeStore(RopeStore {
                    q: self.columns(row, rows, 0, 2)?,
                    k: self.columns(row, rows, 2, 1)?,
                    v: self.columns(row, rows, 3, 1)?,
                    norm: None,
                    table: world.table.clone(),
                    style: RopeStyle::Halves,
                    rows: self.row_map(rows)?,
                    cache: self.any(&world.pools),
                })
            }
            6 => {
                let row = self.random.below(ROWS - rows);
                let matrix = self.any(&world.matrices);
                Op::Attention(Attention {
                    q: self.columns(row, rows, 0, 2)?,
                    rows: self.row_map(rows)?,
                    cache: self.any(&world.pools),
                    scale: 0.2,
                    out: self.view(&matrix, &[rows, 2 * COLS])?,
                })
            }
            7 => Op::GatherRows(GatherRows {
                x: self.matrix(ROWS / 3)?,
                indexes: self.index(&[rows])?,
                out: self.matrix(rows)?,
            }),
            8 => Op::Argmax(Argmax { x: self.matrix(rows)?, out: self.index(&[rows])? }),
            9 => {
                let k = self.random.below(4) + 1;
                Op::TopK(TopK { x: self.matrix(rows)?, out: self.index(&[rows, k, 2])? })
            }
            10 => {
                let all =
                    [&world.matrices[..], &world.indexes[..], std::slice::from_ref(&world.wide)].concat();
                let (src, dst) = (self.any(&all), self.any(&all));
                let n = rows * 8;
                Op::Copy(Copy { src: self.view(&src, &[n])?, dst: self.view(&dst, &[n])? })
            }
            _ => {
                let list = self.view(&world.map[3], &[2, 2])?;
                Op::CopyPages(CopyPages { from: self.any(&world.pools), to: self.any(&world.pools), list })
            }
        })
    }
}
