// Shared by the kernels of the products: bindings, arguments (`MatmulArgs` in args.rs), and the writing of results.
// 0 x, 1 weight, 2 out, 3 bias, 4 add; if there is no bias or residual, something else is bound and not read.
// A weight consists of tiles of 32 rows. In a GLU, a tile has 16 rows of gate, then the 16 matching rows of up, and so 16 outputs.
// Everything that differs between the products of a step is an argument, so that they share one kernel, whose instructions stay in the
// caches.
#import args/matmul

var<immediate> args: Args;

#ifdef X_VECTORS
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
#else
#ifdef X_PACKED
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;
#endif
#endif
@group(0) @binding(1) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> add: array<f32>;

// Bits of `args.flags`.
const GLU: u32 = 1u;
const BIAS: u32 = 2u;
const ADD: u32 = 4u;
// The residual is the content of `out`.
const ADD_OUT: u32 = 8u;

fn has(flag: u32) -> bool {
    return (args.flags & flag) != 0u;
}

fn vector_at(i: u32) -> vec4<u32> {
    return weight[i];
}

fn word_at(i: u32) -> u32 {
    return weight[i >> 2u][i & 3u];
}

fn silu(v: f32) -> f32 {
    return v / (1.0 + exp(-v));
}

// Writes output `i` of this piece of the weight for row `row` of x; both may lie after the last one.
fn write_out(row: u32, i: u32, product: f32) {
    if row < args.rows && i < args.count {
        let column = args.first + i;
        let place = row * args.n + column;
        var value = product;
        if has(BIAS) {
            value += bias[args.bias + column];
        }
        if has(ADD) {
            value += add[args.add + place];
        }
        if has(ADD_OUT) {
            value += out[args.out + place];
        }
        out[args.out + place] = value;
    }
}

// Writes the products of row `row` of x with the weight rows `i` and `i + 16` of a tile.
fn write_two(row: u32, tile: u32, i: u32, first: f32, second: f32) {
    if has(GLU) {
        write_out(row, tile * 16u + i, silu(first) * second);
    } else {
        write_out(row, tile * 32u + i, first);
        write_out(row, tile * 32u + i + 16u, second);
    }
}
