// rms_norm: out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight.
// weight: [dim]; out, x: [n_rows, dim], each from its start on; IN_PLACE: x is out.
// One workgroup computes one row. Bound by memory: a row is read twice (the second time from a cache) and written once.
// The sum of squares has one tree: element i goes to thread i mod 256, which sums in order, and the threads are added by halves.
@group(0) @binding(0) var<storage, read> weight: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
#ifdef IN_PLACE
#else
@group(0) @binding(2) var<storage, read> x: array<f32>;
#endif

struct Args { n_rows: u32, dim: u32, x_start: u32, weight_start: u32, out_start: u32, eps: f32 }
var<immediate> args: Args;

var<workgroup> sums: array<f32, 256>;

fn load(i: u32) -> f32 {
#ifdef IN_PLACE
    return out[i];
#else
    return x[i];
#endif
}

@compute @workgroup_size(256)
fn rms_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= args.n_rows {
        return;
    }
    let first = args.x_start + row * args.dim;
    var sum = 0.0;
    for (var i = thread; i < args.dim; i += 256u) {
        let value = load(first + i);
        sum = fma(value, value, sum);
    }
    sums[thread] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    workgroupBarrier();
    let scale = 1.0 / sqrt(sums[0] / f32(args.dim) + args.eps);
    let out_first = args.out_start + row * args.dim;
    for (var i = thread; i < args.dim; i += 256u) {
        out[out_first + i] = load(first + i) * scale * weight[args.weight_start + i];
    }
}
