//! The products and `embed`: which kernels they take, over which pieces of weights and rows.
//!
//! Two families of kernels. `matmul.wgsl` runs on every adapter, in f32. `matmul_tensor.wgsl` needs cooperative matrices of 16 × 16 and
//! multiplies in f16 with sums in f32. An adapter's features and a weight's type choose the family, never the number of rows, and in
//! either family a row's sum over K has one order for each (type, K): see the kernels. So a row's bits do not depend on its batch.

use crate::memory::Binding;
use crate::pipelines::KernelKey;
use crate::record::Recorder;
use crate::weight::{Packed, Piece, TILE};
use recua_compute::{Activation, Buffer, Embed, Error, GgmlType, Matmul, MatmulGlu, MatmulPart, Result};

#[cfg(test)]
mod tests;

macro_rules! sources {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("kernels/", $name, ".wgsl")))),*] };
}

/// The WGSL files of this module, by name without the ending.
pub(crate) const SOURCES: &[(&str, &str)] = sources! {
    "embed" "matmul" "matmul_bindings" "matmul_decode"
    "formats/bf16" "formats/f16" "formats/f32" "formats/iq4_nl" "formats/iq4_xs" "formats/mxfp4"
    "formats/q2_k" "formats/q3_k" "formats/q4_0" "formats/q4_1" "formats/q4_k" "formats/q5_0" "formats/q5_1" "formats/q5_k"
    "formats/q6_k" "formats/q8_0"
};

/// The include of a type: the file's name, which is also its define, and its text.
pub(crate) fn format(ty: GgmlType) -> Option<(&'static str, &'static str)> {
    let is_its =
        |name: &str| name.strip_prefix("formats/").is_some_and(|name| name.eq_ignore_ascii_case(ty.name()));
    SOURCES.iter().copied().find(|(name, _)| is_its(name))
}

/// Rows of x that a workgroup multiplies with each weight it decodes, and the define that says so.
const ROW_BLOCKS: [(usize, &str); 5] =
    [(1, "ROWS_1"), (2, "ROWS_2"), (4, "ROWS_4"), (8, "ROWS_8"), (16, "ROWS_16")];

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
            let sizes =
                [op.table.k(), rows, packed.units, op.table.n(), piece.first, piece.n].map(|n| n as u32);
            let [k, rows, units, n, first, count] = sizes;
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
    let mut parts: Vec<&MatmulPart> = op.parts.iter().collect();
    while let Some(first) = parts.first().copied() {
        // Parts of the same type that can share a dispatch, up to three.
        let mut together = vec![first];
        if is_simple(first)? {
            for &part in &parts[1..] {
                let is_alike = part.weight.ggml_type() == first.weight.ggml_type()
                    && part.bias.is_some() == first.bias.is_some()
                    && is_simple(part)?;
                if is_alike && together.len() < 3 && bindings_fit(recorder, first, together.len() + 1) {
                    together.push(part);
                }
            }
        }
        parts.retain(|part| !together.iter().any(|done| std::ptr::eq(*part, *done)));
        each_rows(recorder, &op.x, together.iter().map(|part| part.weight.n()), |recorder, first_row, x| {
            let rows = x.n_rows();
            let of_rows =
                |buffer: &Buffer| buffer.view(first_row * buffer.n_cols(), &[rows, buffer.n_cols()]);
            let outs = together.iter().map(|part| of_rows(&part.out)).collect::<Result<Vec<_>>>()?;
            let add = first.add.as_ref().map(of_rows).transpose()?;
            if together.len() > 1 {
                let mut call = Call::new(Packed::of(&first.weight)?, x);
                for (part, out) in together.iter().zip(&outs) {
                    call.parts.push(Part {
                        piece: &Packed::of(&part.weight)?.pieces[0],
                        bias: part.bias.as_ref(),
                        out,
                    });
                }
                return call.record(recorder);
            }
            let packed = Packed::of(&first.weight)?;
            for piece in &packed.pieces {
                let mut call = Call::new(packed, x);
                call.parts.push(Part { piece, bias: first.bias.as_ref(), out: &outs[0] });
                call.add = add.as_ref();
                call.record(recorder)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Whether a part can share its dispatch: one binding holds its weight, and there is no residual.
fn is_simple(part: &MatmulPart) -> Result<bool> {
    Ok(part.add.is_none() && Packed::of(&part.weight)?.pieces.len() == 1)
}

fn bindings_fit(recorder: &Recorder<'_>, part: &MatmulPart, n_parts: usize) -> bool {
    let each = if part.bias.is_some() { 3 } else { 2 };
    1 + n_parts * each <= recorder.gpu.limits.max_storage_buffers_per_shader_stage as usize
}

/// Calls `f(first row, x)` for runs of rows that can be bound at once.
fn each_rows<'a>(
    recorder: &mut Recorder<'a>,
    x: &Buffer,
    columns: impl Iterator<Item = usize>,
    mut f: impl FnMut(&mut Recorder<'a>, usize, &Buffer) -> Result<()>,
) -> Result<()> {
    let widest = columns.max().unwrap_or(1).max(x.n_cols());
    // Whole blocks of rows, so that cutting costs nothing.
    let step = match rows_max(recorder, widest) {
        few @ 0..16 => few,
        many => many / 16 * 16,
    };
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
        if gate.format == up.format {
            for (piece, up) in gate.pieces.iter().zip(&up.pieces) {
                let mut call = Call::new(gate, x);
                call.parts.push(Part { piece, bias: None, out: &out });
                call.up = Some(up);
                call.record(recorder)?;
            }
            return Ok(());
        }
        // Two formats do not meet in one kernel: `out` holds silu(gate) until up multiplies it.
        for (packed, mode) in [(gate, "SILU"), (up, "MULTIPLY")] {
            for piece in &packed.pieces {
                let mut call = Call::new(packed, x);
                call.parts.push(Part { piece, bias: None, out: &out });
                call.mode = Some(mode);
                call.record(recorder)?;
            }
        }
        Ok(())
    })
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
    tile_b: u32,
    out: [u32; 3],
    tile_c: u32,
    bias: [u32; 3],
    add: u32,
}

impl<'a> Call<'a> {
    fn new(packed: &'a Packed, x: &'a Buffer) -> Call<'a> {
        Call { packed, x, parts: Vec::new(), up: None, add: None, mode: None }
    }

    fn record(&self, recorder: &mut Recorder<'_>) -> Result<()> {
        let gpu = recorder.gpu;
        let (x, x_at) = Binding::read(gpu, self.x)?;
        let (rows, k) = (self.x.n_rows(), self.x.n_cols());
        let mut args = Args {
            k: k as u32,
            rows: rows as u32,
            units: self.packed.units as u32,
            x: x_at,
            ..Args::default()
        };
        let mut bindings = vec![x];
        let mut tiles = 0;
        for (i, part) in self.parts.iter().enumerate() {
            match i {
                1 => args.tile_b = tiles,
                2 => args.tile_c = tiles,
                _ => {}
            }
            tiles += part.piece.n.div_ceil(TILE) as u32;
            (args.count[i], args.n[i]) = (part.piece.n as u32, part.out.n_cols() as u32);
            args.first = part.piece.first as u32;
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
        let (block, block_define) = ROW_BLOCKS.into_iter().find(|(n, _)| *n >= rows).unwrap_or(ROW_BLOCKS[4]);
        let groups_max = gpu.limits.max_compute_workgroups_per_dimension;
        if tiles > groups_max {
            let problem = format!("{tiles} tiles of {TILE} rows, at most {groups_max} in a dispatch");
            return Err(Error::Argument { op: "matmul", problem });
        }
        let key = self.key("matmul").define(block_define).define_if(k % 4 == 0 && x_at % 4 == 0, "X_VECTORS");
        recorder.dispatch(&key, &bindings, bytemuck::bytes_of(&args), [tiles, rows.div_ceil(block) as u32, 1])
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
