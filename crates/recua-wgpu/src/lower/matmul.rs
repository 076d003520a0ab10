//! The products and `embed`: which kernels they use, over which pieces of weights and rows.
//!
//! There are two families of kernels. `matmul_vec.wgsl` (few rows) and `matmul_tile.wgsl` run on every adapter, in f32.
//! `matmul_coop_16.wgsl` (up to 16 rows), `matmul_coop_64.wgsl` and `matmul_coop_128.wgsl` need cooperative matrices of 16 × 16 and
//! multiply f16 with f32 sums. The adapter's features and the weight's type choose the family, never the number of rows, and in each family
//! the order of a row's sum over K depends only on (type, K): see the kernels. So a row's bits do not depend on its batch.
//!
//! All products of a step with one format and number of rows use one kernel: bias, residual and GLU are arguments. A different kernel would
//! first have to load its instructions into the caches, which took longer than testing a flag.

use crate::args::MatmulArgs;
use crate::gpu::Gpu;
use crate::launch::Recorder;
use crate::memory::{Binding, Memory, u32_of};
use crate::pipelines::KernelKey;
use crate::weight::{Packed, Piece, Segment, TILE};
use recua_compute::{Activation, Buffer, Embed, Matmul, MatmulGlu, Op, Result, Weight};
use std::ops::Range;
use std::sync::Arc;

#[cfg(test)]
pub(crate) mod tests;

/// Bits of [`MatmulArgs::flags`], as in `matmul_bindings.wgsl`.
const GLU: u32 = 1;
const BIAS: u32 = 2;
const ADD: u32 = 4;
const ADD_OUT: u32 = 8;

/// Rows of x per workgroup of `matmul_vec.wgsl`, which decodes each weight once for all of them, and the define that selects it.
const ROW_BLOCKS: [(usize, &str); 4] = [(1, "ROWS_1"), (2, "ROWS_2"), (4, "ROWS_4"), (8, "ROWS_8")];

/// Rows of x per workgroup of `matmul_tile.wgsl`, which takes any number of rows, the define that selects it, and its weight rows.
const TILE_BLOCKS: [(usize, &str, usize); 3] =
    [(16, "X_ROWS_16", 64), (32, "X_ROWS_32", 64), (64, "X_ROWS_64", 128)];

/// If the smaller tiles give fewer workgroups than this, each takes only one range of K: otherwise they would not fill a large device.
const TILE_SPLIT_BELOW: usize = 256;

/// The largest numbers of rows for which `matmul_coop_16.wgsl` converts x itself, and the define for each.
const X_F32_BLOCKS: [(usize, &str); 2] = [(1, "X_ROWS_1"), (4, "X_ROWS_4")];

/// The most rows of x for `matmul_coop_16.wgsl`.
const FEW_ROWS: usize = 16;

/// Rows of x per workgroup of `matmul_coop_64.wgsl`, and the define that selects it; and its weight rows.
const SOME_ROWS: [(usize, &str); 2] = [(32, "X_ROWS_32"), (64, "X_ROWS_64")];
const SOME_N: usize = 256;

/// If there are fewer tiles of weight rows than this, each workgroup takes only one range of K: otherwise they would not fill a large
/// device.
const SOME_SPLIT_BELOW: usize = 100;

/// The number of ranges of K.
const SPLITS: usize = 8;

/// Rows of x and weight rows per workgroup of `matmul_sum.wgsl`.
const SUM_ROWS: usize = 4;
const SUM_N: usize = 256;

/// Rows of x and weight rows per workgroup of `matmul_coop_128.wgsl`, which takes any number of rows.
const MANY_ROWS: usize = 128;
const MANY_N: usize = 128;

/// Whether rows of x consist of whole vectors of four.
fn are_vectors(k: usize, x_at: u32) -> bool {
    k.is_multiple_of(4) && x_at.is_multiple_of(4)
}

/// See [`Embed`].
pub(crate) fn embed(op: &Embed, recorder: &mut Recorder<'_>) -> Result<()> {
    let gpu = recorder.gpu;
    let packed = Packed::of(&op.table)?;
    let rows_max =
        (gpu.limits.max_compute_workgroups_per_dimension as usize).min(rows_max(recorder, op.table.k()));
    let rows = op.tokens.n_elements();
    for first_row in (0..rows).step_by(rows_max) {
        let rows = rows_max.min(rows - first_row);
        let tokens = op.tokens.view(first_row, &[rows])?;
        let out = op.out.view(first_row * op.table.k(), &[rows, op.table.k()])?;
        for (segment, piece) in
            packed.segments.iter().flat_map(|s| s.pieces.iter().map(move |piece| (s, piece)))
        {
            let status = recorder.status();
            let (tokens, tokens_at) = Binding::read(gpu, &tokens)?;
            let (out, out_at) = Binding::write(gpu, &out)?;
            // A missing operand is not read, so anything may be bound for it.
            let chosen = op.chosen.as_ref().map(|chosen| Binding::read(gpu, chosen)).transpose()?;
            let (chosen, chosen_at) = chosen.unwrap_or((tokens, 0));
            let n_chosen = op.chosen.as_ref().map_or(0, Buffer::n_elements);
            let table = Binding::all(&piece.memory, false);
            let size = |what, n| u32_of("embed", what, n);
            let [k, rows, n] = [size("a row", op.table.k())?, rows as u32, size("a table", op.table.n())?];
            // Each of these is at most k or n.
            let [units, first, count] = [segment.units, piece.first, piece.n].map(|n| n as u32);
            let n_chosen = size("chosen tokens", n_chosen)?;
            let args = [k, rows, units, n, first, count, tokens_at, out_at, chosen_at, n_chosen];
            recorder.dispatch(
                &KernelKey::new("embed").define(segment.format),
                &[status, tokens, table, out, chosen],
                bytemuck::bytes_of(&args),
                [(segment.parts as u32).div_ceil(64), rows, 1],
            )?;
        }
    }
    Ok(())
}

/// The number of rows of `columns` f32 that one binding can hold.
fn rows_max(recorder: &Recorder<'_>, columns: usize) -> usize {
    // Leave some room, because a view need not begin where a binding may.
    let bytes = recorder.gpu.limits.max_storage_buffer_binding_size.saturating_sub(4096);
    (usize::try_from(bytes).unwrap_or(usize::MAX) / (columns * 4)).max(1)
}

/// See [`Matmul`].
pub(crate) fn matmul(op: &Matmul, recorder: &mut Recorder<'_>) -> Result<()> {
    let (gpu, packed) = (recorder.gpu, Packed::of(&op.weight)?);
    let bias = op.bias.as_ref().map(|bias| Binding::read(gpu, bias)).transpose()?;
    each_rows(recorder, &op.x, op.out.n_cols(), |recorder, rows, x| {
        let is_in_place = op.add.as_ref().is_some_and(|add| add.is_same(&op.out));
        let (out, add) = (op.out.row_range(rows.clone())?, op.add.as_ref().filter(|_| !is_in_place));
        let add = add.map(|add| add.row_range(rows)).transpose()?;
        let end = End {
            out: Binding::write(gpu, &out)?,
            n: out.n_cols(),
            bias,
            add: add.as_ref().map(|add| Binding::read(gpu, add)).transpose()?,
            flags: if is_in_place { ADD_OUT } else { 0 },
        };
        let mut is_converted = recorder.take_converted(x);
        packed.segments.iter().try_for_each(|segment| product(recorder, segment, x, &end, &mut is_converted))
    })
}

/// See [`MatmulGlu`].
pub(crate) fn matmul_glu(op: &MatmulGlu, recorder: &mut Recorder<'_>) -> Result<()> {
    let Activation::Silu = op.activation;
    let (gpu, packed) = (recorder.gpu, Packed::of(&op.gate_up)?);
    let n = op.out.n_cols();
    each_rows(recorder, &op.x, n, |recorder, rows, x| {
        let mut is_converted = recorder.take_converted(x);
        let out = op.out.row_range(rows.clone())?;
        let out = Binding::write(gpu, &out)?;
        let end = |out, flags| End { out, n, bias: None, add: None, flags };
        let [gate, up] = &packed.segments[..] else {
            let end = end(out, GLU);
            return packed
                .segments
                .iter()
                .try_for_each(|both| product(recorder, both, x, &end, &mut is_converted));
        };
        // A kernel has one format only: gate and up are two products.
        let ups = recorder.workspace("products with up", rows.len() * n * 4)?;
        product(recorder, gate, x, &end(out, 0), &mut is_converted)?;
        product(recorder, up, x, &end((Binding::all(&ups, true), 0), 0), &mut is_converted)?;
        let n = u32_of("matmul_glu", "an output", rows.len() * n)?;
        recorder.dispatch(
            &KernelKey::new("matmul_glu"),
            &[out.0, Binding::all(&ups, false)],
            bytemuck::bytes_of(&[n, out.1]),
            super::rows::grid(gpu, u64::from(n.div_ceil(256))),
        )
    })
}

/// Rows of x that can be bound at once: whole blocks, so that cutting costs nothing.
fn rows_at_once(recorder: &Recorder<'_>, x: &Buffer, n_outputs: usize) -> usize {
    match rows_max(recorder, n_outputs.max(x.n_cols())) {
        few @ 0..16 => few,
        many => many / 16 * 16,
    }
}

/// Calls `f(rows, x)` for each range of rows that can be bound at once.
fn each_rows<'a>(
    recorder: &mut Recorder<'a>,
    x: &Buffer,
    n_outputs: usize,
    mut f: impl FnMut(&mut Recorder<'a>, Range<usize>, &Buffer) -> Result<()>,
) -> Result<()> {
    let step = rows_at_once(recorder, x, n_outputs);
    for first in (0..x.n_rows()).step_by(step) {
        let rows = first..x.n_rows().min(first + step);
        f(recorder, rows.clone(), &x.row_range(rows)?)?;
    }
    Ok(())
}

/// Whether cooperative matrices compute the products with a segment. Does not depend on the number of rows.
fn is_tensor(recorder: &Recorder<'_>, segment: &Segment) -> bool {
    recorder.gpu.has_matrices() && segment.format != "formats/f32"
}

/// The f16 copy of the rows of x that the kernels for cooperative matrices read; see `matmul_activations.wgsl`.
pub(crate) struct Activations {
    pub(crate) memory: Arc<Memory>,
    /// Runs of 16 columns, including those of zeros and of exponents at the end.
    pub(crate) runs: usize,
    /// The number of rows it has room for.
    rows: usize,
}

impl Activations {
    /// For row counts above those that the kernels convert themselves.
    fn new(recorder: &Recorder<'_>, segment: &Segment, rows: usize) -> Result<Activations> {
        let blocks = [FEW_ROWS].into_iter().chain(SOME_ROWS.map(|(n, _)| n));
        let block = blocks.into_iter().find(|n| *n >= rows).unwrap_or(MANY_ROWS);
        let (runs, rows) = (segment.parts * 4 + 2, rows.next_multiple_of(block));
        let memory = recorder.workspace("activations", rows * runs * 16 * 2)?;
        Ok(Activations { memory, runs, rows })
    }
}

/// The f16 copy of `x` that the product `op` will need, or `None`. Whoever writes `x` may write this copy too, and then calls
/// [`Recorder::set_converted`].
pub(crate) fn activations_of(
    op: Option<&Op>,
    x: &Buffer,
    recorder: &Recorder<'_>,
) -> Result<Option<Activations>> {
    let (op_x, weight, n_outputs): (_, &Weight, _) = match op {
        Some(Op::Matmul(op)) => (&op.x, &op.weight, op.out.n_cols()),
        Some(Op::MatmulGlu(op)) => (&op.x, &op.gate_up, op.out.n_cols()),
        _ => return Ok(None),
    };
    let rows = x.n_rows();
    let are_few = X_F32_BLOCKS.iter().any(|(n, _)| *n >= rows);
    if !op_x.is_same(x) || are_few || rows > rows_at_once(recorder, x, n_outputs) {
        return Ok(None);
    }
    let segment = Packed::of(weight)?.segments.iter().find(|segment| is_tensor(recorder, segment));
    segment.map(|segment| Activations::new(recorder, segment, rows)).transpose()
}

/// Where a product is written and what is added to it, each with its start in its binding.
struct End<'a> {
    out: (Binding<'a>, u32),
    /// Columns of out.
    n: usize,
    bias: Option<(Binding<'a>, u32)>,
    add: Option<(Binding<'a>, u32)>,
    /// `GLU`, `ADD_OUT`
    flags: u32,
}

/// Appends the product of `x` and a segment.
fn product(
    recorder: &mut Recorder<'_>,
    segment: &Segment,
    x: &Buffer,
    end: &End<'_>,
    is_converted: &mut bool,
) -> Result<()> {
    segment.pieces.iter().try_for_each(|piece| Call { segment, piece, x, end }.record(recorder, is_converted))
}

/// Rows of x as a kernel reads them.
#[derive(Clone, Copy)]
struct Rows<'a> {
    binding: Binding<'a>,
    /// Where they begin in it.
    at: u32,
    /// [`Activations::runs`], or 0 where they are f32.
    runs: u32,
}

impl<'a> Rows<'a> {
    /// As they are.
    fn plain(gpu: &Gpu, x: &'a Buffer) -> Result<Rows<'a>> {
        let (binding, at) = Binding::read(gpu, x)?;
        Ok(Rows { binding, at, runs: 0 })
    }
}

/// One product with a piece of a weight.
struct Call<'a> {
    segment: &'a Segment,
    piece: &'a Piece,
    x: &'a Buffer,
    end: &'a End<'a>,
}

impl Call<'_> {
    /// Appends the dispatch. If x must be converted and an earlier call has not done so, appends that dispatch first.
    fn record(&self, recorder: &mut Recorder<'_>, is_converted: &mut bool) -> Result<()> {
        let (rows, k) = (self.x.n_rows(), self.x.n_cols());
        // The family depends on the weight alone. The choice below also depends on the number of rows, but every kernel there gives the
        // same bits.
        if !is_tensor(recorder, self.segment) {
            return self.portable(recorder);
        }
        if let Some((_, define)) = X_F32_BLOCKS.into_iter().find(|(n, _)| *n >= rows) {
            let x = Rows::plain(recorder.gpu, self.x)?;
            let key = self.key("matmul_coop_16").define(define);
            let key = key.define_if(are_vectors(k, x.at), "X_VECTORS");
            return self.few(recorder, &key, x);
        }
        let Activations { memory: activations, runs, rows: rows_padded } =
            Activations::new(recorder, self.segment, rows)?;
        if !std::mem::replace(is_converted, true) {
            let x = Rows::plain(recorder.gpu, self.x)?;
            let args = [k as u32, rows as u32, rows_padded as u32, runs as u32, x.at];
            recorder.dispatch(
                &KernelKey::new("matmul_activations").define_if(are_vectors(k, x.at), "X_VECTORS"),
                &[x.binding, Binding::all(&activations, true)],
                bytemuck::bytes_of(&args),
                super::rows::grid(recorder.gpu, rows_padded as u64),
            )?;
        }
        let x = Rows { binding: Binding::all(&activations, false), at: 0, runs: runs as u32 };
        if rows <= FEW_ROWS {
            let key = self.key("matmul_coop_16").define("X_HALF");
            return self.few(recorder, &key, x);
        }
        let tuning = &recorder.gpu.tuning;
        // An emulated workgroup is narrower.
        let (many_n, many_enough) = (if tuning.emulated { MANY_N / 2 } else { MANY_N }, tuning.many_enough);
        let n = self.n_rows();
        let last = SOME_ROWS[SOME_ROWS.len() - 1];
        let worth_it = many_enough * MANY_ROWS * many_n;
        if rows > last.0 && rows * n >= worth_it {
            // Reserve the maximum over all row counts, so that preparing the largest pass covers every smaller one.
            self.some_sums(recorder, (worth_it.saturating_sub(1) / n).clamp(last.0, rows), last.0)?;
            let key = self.key("matmul_coop_128");
            return self.dispatch(recorder, &key, x, [many_n, rows.div_ceil(MANY_ROWS)]);
        }
        let (block, define) = SOME_ROWS.into_iter().find(|(n, _)| *n >= rows).unwrap_or(last);
        self.some(recorder, x, block, define)
    }

    /// Appends the dispatches of the kernels that run on every adapter.
    fn portable(&self, recorder: &mut Recorder<'_>) -> Result<()> {
        let (rows, k) = (self.x.n_rows(), self.x.n_cols());
        let x = Rows::plain(recorder.gpu, self.x)?;
        let key = |file, define| self.key(file).define(define).define_if(are_vectors(k, x.at), "X_VECTORS");
        if let Some((block, define)) = ROW_BLOCKS.into_iter().find(|(n, _)| *n >= rows) {
            let key = key("matmul_vec", define);
            return self.dispatch(recorder, &key, x, [TILE, rows.div_ceil(block)]);
        }
        let [small, middle, large] = TILE_BLOCKS;
        // A GLU is not split: silu needs the complete sums, and its weights have many rows.
        let split_rows = match self.is_glu() {
            true => 0,
            false => (TILE_SPLIT_BELOW - 1) / self.groups(middle.2) * middle.0,
        };
        // Reserve the maximum over all row counts, so that preparing the largest pass covers every smaller one.
        let sums_rows = rows.next_multiple_of(middle.0).min(split_rows);
        let sums = if sums_rows > 0 { Some(self.sums(recorder, sums_rows)?) } else { None };
        let block = match rows {
            few if few <= small.0 => small,
            many if many > middle.0
                && self.groups(large.2) * many.div_ceil(large.0) >= recorder.gpu.tuning.tiles_enough =>
            {
                large
            }
            _ => middle,
        };
        let key = key("matmul_tile", block.1);
        match sums.filter(|_| rows <= split_rows && block.2 == middle.2) {
            Some(sums) => self.split(recorder, key, x, sums, (block.0, block.1), SUM_N / block.2),
            None => self.dispatch(recorder, &key, x, [block.2, rows.div_ceil(block.0)]),
        }
    }

    fn is_glu(&self) -> bool {
        self.end.flags & GLU != 0
    }

    /// The number of weight rows; in a GLU, of gate and up together.
    fn n_rows(&self) -> usize {
        if self.is_glu() { 2 * self.piece.n } else { self.piece.n }
    }

    /// The number of workgroups of `n_each` weight rows.
    fn groups(&self, n_each: usize) -> usize {
        self.piece.tiles.div_ceil(n_each / TILE)
    }

    /// Memory for the sums of `rows` rows when each range of K has workgroups of its own.
    fn sums(&self, recorder: &Recorder<'_>, rows: usize) -> Result<Arc<Memory>> {
        recorder.workspace("sums", rows * self.groups(SUM_N) * SPLITS * SUM_N * 4)
    }

    /// The same for `matmul_coop_64.wgsl`; `None` if it is not split.
    fn some_sums(&self, recorder: &Recorder<'_>, rows: usize, block: usize) -> Result<Option<Arc<Memory>>> {
        if self.is_glu() || self.groups(SOME_N) >= SOME_SPLIT_BELOW {
            return Ok(None);
        }
        self.sums(recorder, rows.next_multiple_of(block)).map(Some)
    }

    /// Appends the dispatches of a kernel whose workgroups take one range of K, `block` rows of x and one of `shares` shares of [`SUM_N`]
    /// weight rows.
    fn split(
        &self,
        recorder: &mut Recorder<'_>,
        key: KernelKey,
        x: Rows<'_>,
        sums: Arc<Memory>,
        (block, define): (usize, &'static str),
        shares: usize,
    ) -> Result<()> {
        let rows = self.x.n_rows();
        let groups = self.groups(SUM_N);
        let (mut bindings, args) = self.operands(x)?;
        // Bias and residual are added after the sum.
        let weight = bindings[1];
        bindings[2..].copy_from_slice(&[Binding::all(&sums, true), weight, weight]);
        recorder.dispatch(
            &key.define("SPLIT"),
            &bindings,
            bytemuck::bytes_of(&args),
            [(groups * shares) as u32, SPLITS as u32, rows.div_ceil(block) as u32],
        )?;
        let (mut bindings, args) = self.operands(Rows { binding: Binding::all(&sums, false), at: 0, ..x })?;
        if x.runs > 0 {
            bindings[1] = x.binding;
        }
        let key = KernelKey::new("matmul_sum").define(define).unchecked();
        let row_groups = rows.div_ceil(SUM_ROWS) as u32;
        recorder.dispatch(&key, &bindings, bytemuck::bytes_of(&args), [groups as u32, row_groups, 1])
    }

    /// Appends the dispatches of `matmul_coop_64.wgsl` with `block` rows of x per workgroup.
    fn some(
        &self,
        recorder: &mut Recorder<'_>,
        x: Rows<'_>,
        block: usize,
        define: &'static str,
    ) -> Result<()> {
        let key = self.key("matmul_coop_64").define(define);
        let rows = self.x.n_rows();
        if let Some(sums) = self.some_sums(recorder, rows, block)? {
            return self.split(recorder, key, x, sums, (block, define), 1);
        }
        let (bindings, args) = self.operands(x)?;
        let groups = [self.groups(SOME_N) as u32, 1, rows.div_ceil(block) as u32];
        recorder.dispatch(&key, &bindings, bytemuck::bytes_of(&args), groups)
    }

    /// Appends the dispatch of `matmul_coop_16.wgsl`.
    fn few(&self, recorder: &mut Recorder<'_>, key: &KernelKey, x: Rows<'_>) -> Result<()> {
        let tiles = self.piece.tiles.div_ceil(recorder.gpu.tuning.few_workgroups);
        let (bindings, args) = self.operands(x)?;
        let args = MatmulArgs { tiles: tiles as u32, ..args };
        let groups = [self.piece.tiles.div_ceil(tiles) as u32, 1, 1];
        recorder.dispatch(key, &bindings, bytemuck::bytes_of(&args), groups)
    }

    /// Appends a dispatch of workgroups of `n_each` weight rows each, `blocks` times.
    fn dispatch(
        &self,
        recorder: &mut Recorder<'_>,
        key: &KernelKey,
        x: Rows<'_>,
        [n_each, blocks]: [usize; 2],
    ) -> Result<()> {
        let (bindings, args) = self.operands(x)?;
        let groups = [self.groups(n_each) as u32, blocks as u32, 1];
        recorder.dispatch(key, &bindings, bytemuck::bytes_of(&args), groups)
    }

    /// The bindings and the arguments.
    fn operands<'b>(&'b self, x: Rows<'b>) -> Result<(Vec<Binding<'b>>, MatmulArgs)> {
        let size = |what, n| u32_of("matmul", what, n);
        let End { out, n, bias, add, flags } = *self.end;
        let weight = Binding::all(&self.piece.memory, false);
        let flag = |has: bool, flag| if has { flag } else { 0 };
        let args = MatmulArgs {
            k: size("a row", self.x.n_cols())?,
            rows: size("a number of rows", self.x.n_rows())?,
            units: size("a row", self.segment.units)?,
            // A piece has no more rows than its weight, and the weight has as many rows as the output has columns.
            last_tile: self.piece.tiles as u32 - 1,
            count: self.piece.n as u32,
            first: self.piece.first as u32,
            n: size("a number of weight rows", n)?,
            flags: flags | flag(bias.is_some(), BIAS) | flag(add.is_some(), ADD),
            tiles: 1,
            runs: x.runs,
            x: x.at,
            out: out.1,
            bias: bias.map_or(0, |(_, at)| at),
            add: add.map_or(0, |(_, at)| at),
        };
        // A missing operand is not read, so anything may be bound for it.
        let [bias, add] = [bias, add].map(|operand| operand.map_or(weight, |(binding, _)| binding));
        Ok((vec![x.binding, weight, out.0, bias, add], args))
    }

    /// A kernel of the weight's format.
    fn key(&self, file: &'static str) -> KernelKey {
        // The kernels clamp every index to the sizes that were checked when the op was recorded.
        KernelKey::new(file).define(self.segment.format).unchecked()
    }
}
