// rms_norm: out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight.
// weight: [dim]; out, x: [n_rows, dim], each from its start on; IN_PLACE: x is out; WIDE: rows and starts are whole vectors of four.
// ACTIVATIONS (with WIDE): also writes what matmul_activations.wgsl would compute from out.
// One workgroup computes one row. Bound by latency: a row of at most 4096 elements is read only once, all of it at the same time.
// The sum of squares is one fixed tree: a thread takes four neighbours, then the four that are 256 fours further on, and so on, and sums in
// order; then the threads are added by halves.
#ifdef ACTIVATIONS
enable f16;
#import half
#ifdef IN_PLACE
@group(0) @binding(2) var<storage, read_write> activations: array<vec4<f16>>;
#else
@group(0) @binding(3) var<storage, read_write> activations: array<vec4<f16>>;
#endif
#endif
#ifdef WIDE
@group(0) @binding(0) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;
#ifdef IN_PLACE
#else
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
#endif
#else
@group(0) @binding(0) var<storage, read> weight: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
#ifdef IN_PLACE
#else
@group(0) @binding(2) var<storage, read> x: array<f32>;
#endif
#endif

struct Args {
    n_rows: u32,
    dim: u32,
    x_start: u32,
    weight_start: u32,
    out_start: u32,
    eps: f32,
    // Runs of 16 columns of the activations, including those of zeros and of exponents.
    runs: u32,
}
var<immediate> args: Args;

const THREADS = 256u;

var<workgroup> sums: array<f32, THREADS>;
#ifdef ACTIVATIONS
var<workgroup> largest: atomic<u32>;
// The largest magnitude that this invocation has written.
var<private> own_largest: u32;
#endif

#ifdef IN_PLACE
#ifdef WIDE
fn load(i: u32) -> vec4<f32> {
#else
fn load(i: u32) -> f32 {
#endif
    return out[i];
}
#else
#ifdef WIDE
fn load(i: u32) -> vec4<f32> {
#else
fn load(i: u32) -> f32 {
#endif
    return x[i];
}
#endif

#ifdef WIDE
// Vector i, of four elements, of a row of x, and of the weight; starts are in vectors.
fn four_of(row: u32, i: u32) -> vec4<f32> {
    return load(args.x_start + row * (args.dim / 4u) + i);
}
fn weight_of(i: u32) -> vec4<f32> {
    return weight[args.weight_start + i];
}
fn store(row: u32, i: u32, value: vec4<f32>) {
    out[args.out_start + row * (args.dim / 4u) + i] = value;
#ifdef ACTIVATIONS
    own_largest = max(own_largest, largest_bits(value));
#endif
}
#ifdef ACTIVATIONS
fn store_activations(row: u32, i: u32, value: vec4<f16>) {
    activations[((row >> 4u) * args.runs + (i >> 2u)) * 64u + (row & 15u) * 4u + (i & 3u)] = value;
}
#endif
#else
// The same, with zeros after the end of the row.
fn four_of(row: u32, i: u32) -> vec4<f32> {
    var four = vec4<f32>(0.0);
    for (var j = 0u; j < 4u; j++) {
        if 4u * i + j < args.dim {
            four[j] = load(args.x_start + row * args.dim + 4u * i + j);
        }
    }
    return four;
}
fn weight_of(i: u32) -> vec4<f32> {
    var four = vec4<f32>(0.0);
    for (var j = 0u; j < 4u; j++) {
        if 4u * i + j < args.dim {
            four[j] = weight[args.weight_start + 4u * i + j];
        }
    }
    return four;
}
fn store(row: u32, i: u32, value: vec4<f32>) {
    for (var j = 0u; j < 4u; j++) {
        if 4u * i + j < args.dim {
            out[args.out_start + row * args.dim + 4u * i + j] = value[j];
        }
    }
}
#endif

// A vector after the end adds nothing to the sum.
fn four_or_none(row: u32, i: u32, fours: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), four_of(row, min(i, fours - 1u)), vec4<bool>(i < fours));
}

fn add_squares(sum: f32, four: vec4<f32>) -> f32 {
    let two = fma(four.y, four.y, fma(four.x, four.x, sum));
    return fma(four.w, four.w, fma(four.z, four.z, two));
}

@compute @workgroup_size(THREADS)
fn rms_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= args.n_rows {
        return;
    }
#ifdef ACTIVATIONS
    if thread == 0u {
        atomicStore(&largest, 0u);
    }
#endif
    let fours = (args.dim + 3u) / 4u;
    // Unrolled by hand: compilers do not unroll such loops, and each iteration would wait for its loads.
    let i_0 = thread;
    let i_1 = thread + THREADS;
    let i_2 = thread + 2u * THREADS;
    let i_3 = thread + 3u * THREADS;
    let x_0 = four_or_none(row, i_0, fours);
    let x_1 = four_or_none(row, i_1, fours);
    let x_2 = four_or_none(row, i_2, fours);
    let x_3 = four_or_none(row, i_3, fours);
    let weight_0 = weight_of(min(i_0, fours - 1u));
    let weight_1 = weight_of(min(i_1, fours - 1u));
    let weight_2 = weight_of(min(i_2, fours - 1u));
    let weight_3 = weight_of(min(i_3, fours - 1u));
    var sum = add_squares(add_squares(add_squares(add_squares(0.0, x_0), x_1), x_2), x_3);
    for (var i = thread + 4u * THREADS; i < fours; i += THREADS) {
        sum = add_squares(sum, four_of(row, i));
    }
    sums[thread] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    workgroupBarrier();
    let scale = 1.0 / sqrt(sums[0] / f32(args.dim) + args.eps);
    let y_0 = x_0 * scale * weight_0;
    let y_1 = x_1 * scale * weight_1;
    let y_2 = x_2 * scale * weight_2;
    let y_3 = x_3 * scale * weight_3;
    if i_0 < fours {
        store(row, i_0, y_0);
    }
    if i_1 < fours {
        store(row, i_1, y_1);
    }
    if i_2 < fours {
        store(row, i_2, y_2);
    }
    if i_3 < fours {
        store(row, i_3, y_3);
    }
    for (var i = thread + 4u * THREADS; i < fours; i += THREADS) {
        store(row, i, four_of(row, i) * scale * weight_of(i));
    }
#ifdef ACTIVATIONS
    atomicMax(&largest, own_largest);
    workgroupBarrier();
    let exponent = row_exponent(atomicLoad(&largest));
    let power_of_row = power(exponent);
    if i_0 < fours {
        store_activations(row, i_0, activation(y_0, power_of_row));
    }
    if i_1 < fours {
        store_activations(row, i_1, activation(y_1, power_of_row));
    }
    if i_2 < fours {
        store_activations(row, i_2, activation(y_2, power_of_row));
    }
    if i_3 < fours {
        store_activations(row, i_3, activation(y_3, power_of_row));
    }
    // An invocation reads what it has written itself.
    for (var i = thread + 4u * THREADS; i < fours; i += THREADS) {
        let value = out[args.out_start + row * (args.dim / 4u) + i];
        store_activations(row, i, activation(value, power_of_row));
    }
    let last = 4u * (args.runs - 1u);
    for (var i = fours + thread; i < last + 4u; i += THREADS) {
        store_activations(row, i, select(vec4<f16>(), exponent_four(exponent), i == last));
    }
#endif
}
