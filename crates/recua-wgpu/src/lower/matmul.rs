//! The products and `embed`: which kernels they take, over which pieces of weights and rows.
//!
//! Two families of kernels. `matmul.wgsl` (few rows) and `matmul_tile.wgsl` run on every adapter, in f32. `matmul_tensor.wgsl` (few rows),
//! `matmul_tensor_some.wgsl` and `matmul_tensor_many.wgsl` need cooperative matrices of 16 × 16 and multiply in f16 with sums in f32. An
//! adapter's features and a weight's type choose the family, never the number of rows, and in either family a row's sum over K has one
//! order for each (type, K): see the kernels. So a row's bits do not depend on its batch.

use crate::launch::Recorder;
use crate::memory::{Binding, Memory, u32_of};
use crate::pipelines::KernelKey;
use crate::weight::{Packed, Piece, TILE};
use recua_compute::{Activation, Buffer, Embed, Matmul, MatmulGlu, MatmulPart, Op, Result, Weight};
use std::sync::Arc;

#[cfg(test)]
pub(crate) mod tests;

/// Rows of x that a workgroup of `matmul.wgsl` multiplies with each weight it decodes, and the define that says so.
const ROW_BLOCKS: [(usize, &str); 4] = [(1, "ROWS_1"), (2, "ROWS_2"), (4, "ROWS_4"), (8, "ROWS_8")];

/// Rows of x of a workgroup of `matmul_tile.wgsl`, which takes any number of them, the define that says so, and its weight rows, half of
/// them of gate and half of up in a GLU.
const TILE_BLOCKS: [(usize, &str, usize); 3] =
    [(16, "X_ROWS_16", 64), (32, "X_ROWS_32", 64), (64, "X_ROWS_64", 128)];

/// Workgroups of the smaller kinds below which each takes but one of the ranges of K: fewer would not fill a large device.
const TILE_SPLIT_BELOW: usize = 256;

/// Rows of x up to which `matmul_tensor.wgsl` converts x itself, and the define that says so.
const X_F32_BLOCKS: [(usize, &str); 2] = [(1, "X_ROWS_1"), (4, "X_ROWS_4")];

/// Rows of x that `matmul_tensor.wgsl` takes at most.
const FEW_ROWS: usize = 16;

/// Tiles from which a workgroup of `matmul_tensor.wgsl` has two of them: enough are left to fill a large device.
const MANY_TILES: usize = 512;

/// Rows of x that a workgroup of `matmul_tensor_some.wgsl` takes, and the define that says so; and its weight rows, half of them of gate
/// and half of up in a GLU.
const SOME_ROWS: [(usize, &str); 2] = [(32, "X_ROWS_32"), (64, "X_ROWS_64")];
const SOME_N: usize = 256;

/// Tiles of weight rows below which each of its workgroups takes but one of the ranges of K: fewer would not fill a large device.
const SOME_SPLIT_BELOW: usize = 100;

/// The ranges of K.
const SPLITS: usize = 8;

/// Rows of x and weight rows that a workgroup of `matmul_sum.wgsl` takes.
const SUM_ROWS: usize = 4;
const SUM_N: usize = 256;

/// Rows of x and weight rows of a workgroup of `matmul_tensor_many.wgsl`, which takes any number of rows.
const MANY_ROWS: usize = 128;
const MANY_N: usize = 128;

/// Whether rows of x are whole vectors of four.
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
        for piece in &packed.pieces {
            let status = recorder.status();
            let (tokens, tokens_at) = Binding::read(gpu, &tokens)?;
            let (out, out_at) = Binding::write(gpu, &out)?;
            let table = Binding::all(&piece.memory, false);
            let size = |what, n| u32_of("embed", what, n);
            let [k, rows, n] = [size("a row", op.table.k())?, rows as u32, size("a table", op.table.n())?];
            // Each is at most k or n.
            let [units, first, count] = [packed.units, piece.first, piece.n].map(|n| n as u32);
            recorder.dispatch(
                &KernelKey::new("embed").define(packed.format),
                &[status, tokens, table, out],
                bytemuck::bytes_of(&[k, rows, units, n, first, count, tokens_at, out_at]),
                [(packed.parts as u32).div_ceil(64), rows, 1],
            )?;
        }
    }
    Ok(())
}

/// Rows of `columns` f32 that a binding holds.
fn rows_max(recorder: &Recorder<'_>, columns: usize) -> usize {
    // A view need not begin where a binding may.
    let bytes = recorder.gpu.limits.max_storage_buffer_binding_size.saturating_sub(4096);
    (usize::try_from(bytes).unwrap_or(usize::MAX) / (columns * 4)).max(1)
}

/// See [`Matmul`].
pub(crate) fn matmul(op: &Matmul, recorder: &mut Recorder<'_>) -> Result<()> {
    let groups = groups(op, recorder)?;
    each_rows(recorder, &op.x, op.parts.iter().map(|part| part.weight.n()), |recorder, first_row, x| {
        let of_rows =
            |buffer: &Buffer| buffer.view(first_row * buffer.n_cols(), &[x.n_rows(), buffer.n_cols()]);
        let mut is_converted = recorder.take_converted(x);
        for group in &groups {
            let outs = group.iter().map(|part| of_rows(&part.out)).collect::<Result<Vec<_>>>()?;
            let add = group[0].add.as_ref().map(of_rows).transpose()?;
            let packed = Packed::of(&group[0].weight)?;
            // A group of several has one piece each.
            for piece in 0..packed.pieces.len() {
                let mut call = Call::new(packed, x);
                for (part, out) in group.iter().zip(&outs) {
                    let piece = &Packed::of(&part.weight)?.pieces[piece];
                    call.parts.push(Part { piece, bias: part.bias.as_ref(), out });
                }
                call.add = add.as_ref();
                call.record(recorder, &mut is_converted)?;
            }
        }
        Ok(())
    })
}

/// The parts, those together that can share a dispatch: up to three of a type.
fn groups<'a>(op: &'a Matmul, recorder: &Recorder<'_>) -> Result<Vec<Vec<&'a MatmulPart>>> {
    let mut groups: Vec<Vec<&MatmulPart>> = Vec::new();
    for part in &op.parts {
        let mut joined = None;
        for (i, group) in groups.iter().enumerate() {
            let first = group[0];
            let is_alike = part.weight.ggml_type() == first.weight.ggml_type()
                && part.bias.is_some() == first.bias.is_some();
            if is_alike
                && group.len() < 3
                && is_simple(first)?
                && is_simple(part)?
                && bindings_fit(recorder, first, group.len() + 1)
            {
                joined = Some(i);
                break;
            }
        }
        match joined {
            Some(i) => groups[i].push(part),
            None => groups.push(vec![part]),
        }
    }
    Ok(groups)
}

/// Whether a part can share its dispatch: one binding holds its weight, and there is no residual.
fn is_simple(part: &MatmulPart) -> Result<bool> {
    Ok(part.add.is_none() && Packed::of(&part.weight)?.pieces.len() == 1)
}

fn bindings_fit(recorder: &Recorder<'_>, part: &MatmulPart, n_parts: usize) -> bool {
    let each = if part.bias.is_some() { 3 } else { 2 };
    n_parts * each < recorder.gpu.limits.max_storage_buffers_per_shader_stage as usize
}

/// Rows of x that can be bound at once: whole blocks, so that cutting costs nothing.
fn rows_at_once(recorder: &Recorder<'_>, x: &Buffer, columns: impl Iterator<Item = usize>) -> usize {
    let widest = columns.max().unwrap_or(1).max(x.n_cols());
    match rows_max(recorder, widest) {
        few @ 0..16 => few,
        many => many / 16 * 16,
    }
}

/// Calls `f(first row, x)` for runs of rows that can be bound at once.
fn each_rows<'a>(
    recorder: &mut Recorder<'a>,
    x: &Buffer,
    columns: impl Iterator<Item = usize>,
    mut f: impl FnMut(&mut Recorder<'a>, usize, &Buffer) -> Result<()>,
) -> Result<()> {
    let step = rows_at_once(recorder, x, columns);
    for first in (0..x.n_rows()).step_by(step) {
        let rows = step.min(x.n_rows() - first);
        f(recorder, first, &x.view(first * x.n_cols(), &[rows, x.n_cols()])?)?;
    }
    Ok(())
}

/// See [`MatmulGlu`].
pub(crate) fn matmul_glu(op: &MatmulGlu, recorder: &mut Recorder<'_>) -> Result<()> {
    let Activation::Silu = op.activation;
    let (gate, up) = (Packed::of(&op.gate)?, Packed::of(&op.up)?);
    each_rows(recorder, &op.x, std::iter::once(op.gate.n()), |recorder, first_row, x| {
        let out = op.out.view(first_row * op.out.n_cols(), &[x.n_rows(), op.out.n_cols()])?;
        let mut is_converted = recorder.take_converted(x);
        if gate.format == up.format {
            for (piece, up) in gate.pieces.iter().zip(&up.pieces) {
                let mut call = Call::new(gate, x);
                call.parts.push(Part { piece, bias: None, out: &out });
                call.up = Some(up);
                call.record(recorder, &mut is_converted)?;
            }
            return Ok(());
        }
        // Two formats do not meet in one kernel: `out` holds silu(gate) until up multiplies it.
        for (packed, mode) in [(gate, "SILU"), (up, "MULTIPLY")] {
            for piece in &packed.pieces {
                let mut call = Call::new(packed, x);
                call.parts.push(Part { piece, bias: None, out: &out });
                call.mode = Some(mode);
                call.record(recorder, &mut is_converted)?;
            }
        }
        Ok(())
    })
}

/// Whether products with a weight are made by cooperative matrices. Depends on no row count.
fn is_tensor(recorder: &Recorder<'_>, packed: &Packed) -> bool {
    recorder.gpu.has_matrices() && packed.format != "formats/f32"
}

/// The rows of x as cooperative matrices take them; see `matmul_activations.wgsl`.
pub(crate) struct Activations {
    pub(crate) memory: Arc<Memory>,
    /// Runs of 16 columns, the zero one included.
    pub(crate) runs: usize,
    /// Rows there is room for.
    rows: usize,
}

impl Activations {
    /// Of more rows than those kernels convert themselves.
    fn new(recorder: &Recorder<'_>, packed: &Packed, rows: usize) -> Result<Activations> {
        let blocks = [FEW_ROWS].into_iter().chain(SOME_ROWS.map(|(n, _)| n));
        let block = blocks.into_iter().find(|n| *n >= rows).unwrap_or(MANY_ROWS);
        let (runs, rows) = (packed.parts * 4 + 1, rows.next_multiple_of(block));
        let memory = recorder.workspace("activations", rows * runs * 16 * 2)?;
        Ok(Activations { memory, runs, rows })
    }
}

/// What `op` makes of `x` before it multiplies, if it reads `x` and makes anything. Who writes `x` may write that as well, and then
/// calls [`Recorder::set_converted`].
pub(crate) fn activations_of(
    op: Option<&Op>,
    x: &Buffer,
    recorder: &Recorder<'_>,
) -> Result<Option<Activations>> {
    let (op_x, weights): (_, Vec<&Weight>) = match op {
        Some(Op::Matmul(op)) => (&op.x, op.parts.iter().map(|part| &part.weight).collect()),
        Some(Op::MatmulGlu(op)) => (&op.x, vec![&op.gate, &op.up]),
        _ => return Ok(None),
    };
    let rows = x.n_rows();
    let are_few = X_F32_BLOCKS.iter().any(|(n, _)| *n >= rows);
    let columns = weights.iter().map(|weight| weight.n());
    if !op_x.is_same(x) || are_few || rows > rows_at_once(recorder, x, columns) {
        return Ok(None);
    }
    for weight in weights {
        let packed = Packed::of(weight)?;
        if is_tensor(recorder, packed) {
            return Activations::new(recorder, packed, rows).map(Some);
        }
    }
    Ok(None)
}

/// A weight, or a piece of one, and where its product goes.
struct Part<'a> {
    piece: &'a Piece,
    bias: Option<&'a Buffer>,
    out: &'a Buffer,
}

/// One dispatch of a product.
struct Call<'a> {
    packed: &'a Packed,
    x: &'a Buffer,
    /// One to three of the same format and K.
    parts: Vec<Part<'a>>,
    /// With a single part: the other weight of a GLU, the residual, what else happens to the product.
    up: Option<&'a Piece>,
    add: Option<&'a Buffer>,
    mode: Option<&'static str>,
}

/// The immediates, as `Args` in `matmul_bindings.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Args {
    k: u32,
    rows: u32,
    units: u32,
    x: u32,
    count: [u32; 3],
    first: u32,
    n: [u32; 3],
    group_b: u32,
    out: [u32; 3],
    group_c: u32,
    bias: [u32; 3],
    add: u32,
}

impl<'a> Call<'a> {
    fn new(packed: &'a Packed, x: &'a Buffer) -> Call<'a> {
        Call { packed, x, parts: Vec::new(), up: None, add: None, mode: None }
    }

    /// Appends the dispatch, and another one before it where x has to be converted and an earlier call has not done it.
    fn record(&self, recorder: &mut Recorder<'_>, is_converted: &mut bool) -> Result<()> {
        let (rows, k) = (self.x.n_rows(), self.x.n_cols());
        // The family depends on the weight alone; what follows, on the number of rows too, but every choice gives the same bits.
        if !is_tensor(recorder, self.packed) {
            return self.portable(recorder);
        }
        if let Some((_, define)) = X_F32_BLOCKS.into_iter().find(|(n, _)| *n >= rows) {
            let (x, x_at) = Binding::read(recorder.gpu, self.x)?;
            let (few, few_n) = self.few();
            let key = few.define(define).define_if(are_vectors(k, x_at), "X_VECTORS");
            return self.dispatch(recorder, &key, x, x_at, [few_n, 1]);
        }
        let Activations { memory: activations, runs, rows: rows_padded } =
            Activations::new(recorder, self.packed, rows)?;
        if !std::mem::replace(is_converted, true) {
            let (x, x_at) = Binding::read(recorder.gpu, self.x)?;
            recorder.dispatch(
                &KernelKey::new("matmul_activations"),
                &[x, Binding::all(&activations, true)],
                bytemuck::bytes_of(&[k as u32, rows as u32, runs as u32, x_at]),
                [(runs as u32 * 4).div_ceil(64), rows_padded as u32, 1],
            )?;
        }
        let x = Binding::all(&activations, false);
        if rows <= FEW_ROWS {
            let (few, few_n) = self.few();
            return self.dispatch(recorder, &few.define("X_HALF"), x, 0, [few_n, 1]);
        }
        let tuning = &recorder.gpu.tuning;
        // Emulated, a workgroup is narrower.
        let (many_n, many_enough) = (if tuning.emulated { MANY_N / 2 } else { MANY_N }, tuning.many_enough);
        // With GLU a workgroup has half of gate's rows and half of up's.
        let n_each = if self.up.is_some() { many_n / 2 } else { many_n };
        let n: usize = self.parts.iter().map(|part| part.piece.n).sum();
        let last = SOME_ROWS[SOME_ROWS.len() - 1];
        let worth_it = many_enough * MANY_ROWS * n_each;
        if rows > last.0 && rows * n >= worth_it {
            // As much as fewer rows will ever take, so that the largest pass allocates for all.
            self.some_sums(recorder, (worth_it.saturating_sub(1) / n).clamp(last.0, rows), last.0)?;
            let key = self.key("matmul_tensor_many").define("X_HALF");
            return self.dispatch(recorder, &key, x, 0, [n_each, rows.div_ceil(MANY_ROWS)]);
        }
        let (block, define) = SOME_ROWS.into_iter().find(|(n, _)| *n >= rows).unwrap_or(last);
        self.some(recorder, x, block, define)
    }

    /// Appends the dispatches of the kernels that run on every adapter.
    fn portable(&self, recorder: &mut Recorder<'_>) -> Result<()> {
        let (rows, k) = (self.x.n_rows(), self.x.n_cols());
        let (x, x_at) = Binding::read(recorder.gpu, self.x)?;
        let key = |file, define| self.key(file).define(define).define_if(are_vectors(k, x_at), "X_VECTORS");
        if let Some((block, define)) = ROW_BLOCKS.into_iter().find(|(n, _)| *n >= rows) {
            let key = key("matmul", define);
            return self.dispatch(recorder, &key, x, x_at, [TILE, rows.div_ceil(block)]);
        }
        let [small, middle, large] = TILE_BLOCKS;
        let n_each = |(_, _, n): (usize, &str, usize)| if self.up.is_some() { n / 2 } else { n };
        // A GLU is not split: silu comes behind its sums, and its weights have many rows.
        let split_rows = match self.up {
            Some(_) => 0,
            None => (TILE_SPLIT_BELOW - 1) / self.groups(n_each(middle)) * middle.0,
        };
        // As much as fewer rows will ever take, so that the largest pass allocates for all.
        let sums_rows = rows.next_multiple_of(middle.0).min(split_rows);
        let sums = if sums_rows > 0 { Some(self.sums(recorder, sums_rows)?) } else { None };
        let block = match rows {
            few if few <= small.0 => small,
            many if many > middle.0
                && self.groups(n_each(large)) * many.div_ceil(large.0)
                    >= recorder.gpu.tuning.tiles_enough =>
            {
                large
            }
            _ => middle,
        };
        let key = key("matmul_tile", block.1);
        match sums.filter(|_| rows <= split_rows && block.2 == middle.2) {
            Some(sums) => self.split(recorder, key, (x, x_at), sums, (block.0, block.1), SUM_N / block.2),
            None => self.dispatch(recorder, &key, x, x_at, [n_each(block), rows.div_ceil(block.0)]),
        }
    }

    /// Workgroups of `n_each` weight rows.
    fn groups(&self, n_each: usize) -> usize {
        self.parts.iter().map(|part| part.piece.n.div_ceil(n_each)).sum()
    }

    /// Where ranges of K that are workgroups of their own leave their sums of `rows` rows.
    fn sums(&self, recorder: &Recorder<'_>, rows: usize) -> Result<Arc<Memory>> {
        recorder.workspace("sums", rows * self.groups(SUM_N) * SPLITS * SUM_N * 4)
    }

    /// The same for `matmul_tensor_some.wgsl`, if they are.
    fn some_sums(&self, recorder: &Recorder<'_>, rows: usize, block: usize) -> Result<Option<Arc<Memory>>> {
        if self.up.is_some() || self.groups(SOME_N) >= SOME_SPLIT_BELOW {
            return Ok(None);
        }
        self.sums(recorder, rows.next_multiple_of(block)).map(Some)
    }

    /// Appends the dispatches of a kernel whose workgroups take one range of K, `block` rows of x and one of `shares` of [`SUM_N`]
    /// weight rows.
    fn split(
        &self,
        recorder: &mut Recorder<'_>,
        key: KernelKey,
        (x, x_at): (Binding<'_>, u32),
        sums: Arc<Memory>,
        (block, define): (usize, &'static str),
        shares: usize,
    ) -> Result<()> {
        let rows = self.x.n_rows();
        let (mut bindings, args, groups) = self.operands(recorder, x, x_at, SUM_N)?;
        // Where `out_a` is.
        bindings[2] = Binding::all(&sums, true);
        recorder.dispatch(
            &key.define("SPLIT"),
            &bindings,
            bytemuck::bytes_of(&args),
            [(groups * shares) as u32, SPLITS as u32, rows.div_ceil(block) as u32],
        )?;
        let (bindings, args, groups) = self.operands(recorder, Binding::all(&sums, false), 0, SUM_N)?;
        let key = self.key("matmul_sum").define(define);
        let row_groups = rows.div_ceil(SUM_ROWS) as u32;
        recorder.dispatch(&key, &bindings, bytemuck::bytes_of(&args), [groups as u32, row_groups, 1])
    }

    /// Appends the dispatches of `matmul_tensor_some.wgsl`, whose workgroups take `block` rows of x.
    fn some(
        &self,
        recorder: &mut Recorder<'_>,
        x: Binding<'_>,
        block: usize,
        define: &'static str,
    ) -> Result<()> {
        let key = self.key("matmul_tensor_some").define("X_HALF").define(define);
        let rows = self.x.n_rows();
        if let Some(sums) = self.some_sums(recorder, rows, block)? {
            return self.split(recorder, key, (x, 0), sums, (block, define), 1);
        }
        let n_each = if self.up.is_some() { SOME_N / 2 } else { SOME_N };
        let (bindings, args, groups) = self.operands(recorder, x, 0, n_each)?;
        let blocks = rows.div_ceil(block) as u32;
        recorder.dispatch(&key, &bindings, bytemuck::bytes_of(&args), [groups as u32, 1, blocks])
    }

    /// `matmul_tensor.wgsl`, and how many weight rows each of its workgroups has.
    fn few(&self) -> (KernelKey, usize) {
        let key = self.key("matmul_tensor");
        let tiles: usize = self.parts.iter().map(|part| part.piece.n.div_ceil(TILE)).sum();
        match self.up {
            Some(_) => (key.define("TILES_2"), TILE),
            None if tiles >= MANY_TILES => (key.define("TILES_2"), 2 * TILE),
            None => (key, TILE),
        }
    }

    /// Appends a dispatch of workgroups of `n_each` weight rows each, `blocks` times.
    fn dispatch(
        &self,
        recorder: &mut Recorder<'_>,
        key: &KernelKey,
        x: Binding<'_>,
        x_at: u32,
        [n_each, blocks]: [usize; 2],
    ) -> Result<()> {
        let (bindings, args, groups) = self.operands(recorder, x, x_at, n_each)?;
        recorder.dispatch(key, &bindings, bytemuck::bytes_of(&args), [groups as u32, blocks as u32, 1])
    }

    /// The bindings, the immediates, and how many workgroups of `n_each` weight rows each there are.
    fn operands<'b>(
        &'b self,
        recorder: &Recorder<'b>,
        x: Binding<'b>,
        x_at: u32,
        n_each: usize,
    ) -> Result<(Vec<Binding<'b>>, Args, usize)> {
        let gpu = recorder.gpu;
        let (rows, k) = (self.x.n_rows(), self.x.n_cols());
        let size = |what, n| u32_of("matmul", what, n);
        let mut args = Args {
            k: size("a row", k)?,
            rows: size("a number of rows", rows)?,
            units: size("a row", self.packed.units)?,
            x: x_at,
            ..Args::default()
        };
        let mut bindings = vec![x];
        let mut groups = 0;
        for (i, part) in self.parts.iter().enumerate() {
            match i {
                1 => args.group_b = groups as u32,
                2 => args.group_c = groups as u32,
                _ => {}
            }
            groups += part.piece.n.div_ceil(n_each);
            // A piece lies within the weight's rows, of which there are as many as columns of the output.
            args.n[i] = size("a number of weight rows", part.out.n_cols())?;
            (args.count[i], args.first) = (part.piece.n as u32, part.piece.first as u32);
            bindings.push(Binding::all(&part.piece.memory, false));
            let (out, out_at) = Binding::write(gpu, part.out)?;
            args.out[i] = out_at;
            bindings.push(out);
            if let Some(up) = self.up {
                bindings.push(Binding::all(&up.memory, false));
            }
            if let Some(bias) = part.bias {
                let (bias, bias_at) = Binding::read(gpu, bias)?;
                args.bias[i] = bias_at;
                bindings.push(bias);
            }
        }
        if let Some(add) = self.add {
            let (add, add_at) = Binding::read(gpu, add)?;
            args.add = add_at;
            bindings.push(add);
        }
        Ok((bindings, args, groups))
    }

    /// A kernel with the defines of its weights and of what happens to the product.
    fn key(&self, file: &'static str) -> KernelKey {
        let parts = ["PARTS_1", "PARTS_2", "PARTS_3"][self.parts.len() - 1];
        let mut key = KernelKey::new(file).define(self.packed.format).define(parts);
        // Every index is clamped to the sizes that were checked when the op was recorded.
        key.unchecked = true;
        if let Some(mode) = self.mode {
            key = key.define(mode);
        }
        key.define_if(self.up.is_some(), "GLU")
            .define_if(self.parts.iter().any(|part| part.bias.is_some()), "BIAS")
            .define_if(self.add.is_some(), "ADD")
    }
}
