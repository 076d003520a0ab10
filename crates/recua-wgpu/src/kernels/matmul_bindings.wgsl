// What the kernels of the products share: bindings, sizes, and which weight a workgroup reads.
//   alone:             0 x, 1 weight, 2 out, then bias (BIAS), add (ADD)
//   PARTS_2, PARTS_3:  behind x, each part has weight, out (, bias)
//   GLU:               0 x, 1 gate, 2 out, 3 up
// A weight is tiles of 32 rows; a workgroup has a tile, half of one or several that follow each other, of one part.
struct Args {
    k: u32,
    // Rows of x.
    rows: u32,
    // Units of a weight row.
    units: u32,
    // Where x begins, in elements.
    x: u32,
    // Rows of the parts, or of this piece of the weight.
    count: vec3<u32>,
    // The first row of this piece.
    first: u32,
    // Columns of out.
    n: vec3<u32>,
    // The first workgroup of the second and the third part.
    group_b: u32,
    // Where out begins, in elements.
    out: vec3<u32>,
    group_c: u32,
    // Where bias begins, in elements.
    bias: vec3<u32>,
    // Where add begins, in elements.
    add: u32,
}

var<immediate> args: Args;

#ifdef X_VECTORS
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
#else
#ifdef X_PACKED
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
#else
#ifdef X_HALF
@group(0) @binding(0) var<storage, read> x: array<vec4<f16>>;
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;
#endif
#endif
#endif
@group(0) @binding(1) var<storage, read> weight_a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out_a: array<f32>;
#ifdef GLU
@group(0) @binding(3) var<storage, read> weight_b: array<vec4<u32>>;
#endif
#ifdef PARTS_1
#ifdef BIAS
@group(0) @binding(3) var<storage, read> bias_a: array<f32>;
#ifdef ADD
@group(0) @binding(4) var<storage, read> add: array<f32>;
#endif
#else
#ifdef ADD
@group(0) @binding(3) var<storage, read> add: array<f32>;
#endif
#endif
#endif
#ifdef PARTS_3
#define PARTS_2_OR_3
#endif
#ifdef PARTS_2
#define PARTS_2_OR_3
#endif
#ifdef PARTS_2_OR_3
#ifdef BIAS
@group(0) @binding(3) var<storage, read> bias_a: array<f32>;
@group(0) @binding(4) var<storage, read> weight_b: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> out_b: array<f32>;
@group(0) @binding(6) var<storage, read> bias_b: array<f32>;
#else
@group(0) @binding(3) var<storage, read> weight_b: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out_b: array<f32>;
#endif
#endif
#ifdef PARTS_3
#ifdef BIAS
@group(0) @binding(7) var<storage, read> weight_c: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read_write> out_c: array<f32>;
@group(0) @binding(9) var<storage, read> bias_c: array<f32>;
#else
@group(0) @binding(5) var<storage, read> weight_c: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> out_c: array<f32>;
#endif
#endif

// The part that this workgroup works on; with GLU, whether it reads gate (0) or up (1).
var<private> weight_idx: u32;

// Chooses the part that a workgroup works on, and returns the workgroup's place in it.
fn choose_part(group: u32) -> u32 {
#ifdef PARTS_3
    if group >= args.group_c {
        weight_idx = 2u;
        return group - args.group_c;
    }
#endif
#ifdef PARTS_2_OR_3
    if group >= args.group_b {
        weight_idx = 1u;
        return group - args.group_b;
    }
#endif
    weight_idx = 0u;
    return group;
}

fn vector_at(i: u32) -> vec4<u32> {
#ifdef PARTS_3
    if weight_idx == 2u {
        return weight_c[i];
    }
#endif
#ifdef PARTS_2_OR_3
    if weight_idx == 1u {
        return weight_b[i];
    }
#endif
#ifdef GLU
    if weight_idx == 1u {
        return weight_b[i];
    }
#endif
    return weight_a[i];
}

fn word_at(i: u32) -> u32 {
#ifdef PARTS_3
    if weight_idx == 2u {
        return weight_c[i >> 2u][i & 3u];
    }
#endif
#ifdef PARTS_2_OR_3
    if weight_idx == 1u {
        return weight_b[i >> 2u][i & 3u];
    }
#endif
#ifdef GLU
    if weight_idx == 1u {
        return weight_b[i >> 2u][i & 3u];
    }
#endif
    return weight_a[i >> 2u][i & 3u];
}

fn silu(v: f32) -> f32 {
    return v / (1.0 + exp(-v));
}

// Writes the product of x row `row` and weight row `i` of this part; `i` may lie behind the last one.
fn write_out(row: u32, i: u32, product: f32) {
    var value = product;
#ifdef SILU
    value = silu(value);
#endif
#ifdef PARTS_3
    if weight_idx == 2u {
        if row < args.rows && i < args.count.z {
#ifdef BIAS
            value += bias_c[args.bias.z + i];
#endif
            out_c[args.out.z + row * args.n.z + i] = value;
        }
        return;
    }
#endif
#ifdef PARTS_2_OR_3
    if weight_idx == 1u {
        if row < args.rows && i < args.count.y {
#ifdef BIAS
            value += bias_b[args.bias.y + i];
#endif
            out_b[args.out.y + row * args.n.y + i] = value;
        }
        return;
    }
#endif
    if row < args.rows && i < args.count.x {
        let at = row * args.n.x + args.first + i;
#ifdef BIAS
        value += bias_a[args.bias.x + args.first + i];
#endif
#ifdef ADD
        value += add[args.add + at];
#endif
#ifdef MULTIPLY
        value = out_a[args.out.x + at] * value;
#endif
        out_a[args.out.x + at] = value;
    }
}
