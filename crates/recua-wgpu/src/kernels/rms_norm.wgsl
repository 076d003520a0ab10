// rms_norm: out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight.
// weight: [dim]; out, x: [n_rows, dim], each from its start on; IN_PLACE: x is out; WIDE: rows and starts of whole vectors of four.
// One workgroup computes one row. Bound by latency: a row is read once, if it has no more than 4096 elements, and all at once.
// The sum of squares has one tree: four neighbours go to a thread, every 256th four to the same, which sums in order; then the threads
// are added by halves.
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

struct Args { n_rows: u32, dim: u32, x_start: u32, weight_start: u32, out_start: u32, eps: f32 }
var<immediate> args: Args;

const THREADS = 256u;
const KEPT = 4u; // fours that a thread keeps

var<workgroup> sums: array<f32, THREADS>;

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
// Four i of a row of x and of the weight; starts are in vectors.
fn four_of(row: u32, i: u32) -> vec4<f32> {
    return load(args.x_start + row * (args.dim / 4u) + i);
}
fn weight_of(i: u32) -> vec4<f32> {
    return weight[args.weight_start + i];
}
fn store(row: u32, i: u32, value: vec4<f32>) {
    out[args.out_start + row * (args.dim / 4u) + i] = value;
}
#else
// Zeros behind the row.
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
    let fours = (args.dim + 3u) / 4u;
    var kept: array<vec4<f32>, KEPT>;
    var weights: array<vec4<f32>, KEPT>;
    for (var j = 0u; j < KEPT; j++) {
        let i = thread + THREADS * j;
        kept[j] = vec4<f32>(0.0);
        if i < fours {
            kept[j] = four_of(row, i);
            weights[j] = weight_of(i);
        }
    }
    // A four that is not there adds nothing.
    var sum = 0.0;
    for (var j = 0u; j < KEPT; j++) {
        sum = add_squares(sum, kept[j]);
    }
    for (var i = thread + THREADS * KEPT; i < fours; i += THREADS) {
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
    for (var j = 0u; j < KEPT; j++) {
        let i = thread + THREADS * j;
        if i < fours {
            store(row, i, kept[j] * scale * weights[j]);
        }
    }
    for (var i = thread + THREADS * KEPT; i < fours; i += THREADS) {
        store(row, i, four_of(row, i) * scale * weight_of(i));
    }
}
