// The rows of x as the B operand of matmul_coop_*.wgsl: in f16, each row times its own power of two (exponent.wgsl), in the order 0 2 1 3
// within every four.
// Bindings: 0 x, 1 out as [tile of 16 rows][run of 16 columns, two more than x has][row][16]: zero after the last row and column; the last
// run has the exponents.
// A workgroup converts a row.
// Bound by latency: x is small next to the weights. Runs if more than a few rows share a pass, so that the many workgroups that read them
// need not convert each row; the values are those that these kernels would compute themselves.
enable f16;

struct Args {
    k: u32,
    rows: u32,
    // Rows of out.
    rows_padded: u32,
    // Runs of 16 columns, including those of zeros and of exponents.
    runs: u32,
    x: u32,
}

var<immediate> args: Args;

#ifdef X_VECTORS
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;
#endif
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f16>>;

#import half

const THREADS = 256u;

var<workgroup> largest: atomic<u32>;

// Vector `i`, of four elements, of a row; zeros after its end and after the last row.
fn four_of(row: u32, i: u32) -> vec4<f32> {
    var v = vec4<f32>(0.0);
    if row < args.rows && 4u * i < args.k {
        let at = args.x + row * args.k + 4u * i;
#ifdef X_VECTORS
        v = x[at >> 2u];
#else
        for (var j = 0u; j < 4u; j++) {
            if 4u * i + j < args.k {
                v[j] = x[at + j];
            }
        }
#endif
    }
    return v;
}

// Writes vector `i`, if it is before vector `end`.
fn put(row: u32, i: u32, end: u32, four: vec4<f16>) {
    if i < end {
        out[((row >> 4u) * args.runs + (i >> 2u)) * 64u + (row & 15u) * 4u + (i & 3u)] = four;
    }
}

@compute @workgroup_size(THREADS)
fn matmul_activations(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= args.rows_padded {
        return;
    }
    if thread == 0u {
        atomicStore(&largest, 0u);
    }
    workgroupBarrier();
    // Four at a time, so that the loads overlap.
    var own = 0u;
    for (var i = thread; 4u * i < args.k; i += 4u * THREADS) {
        let a = four_of(row, i);
        let b = four_of(row, i + THREADS);
        let c = four_of(row, i + 2u * THREADS);
        let d = four_of(row, i + 3u * THREADS);
        own = max(own, max(max(largest_bits(a), largest_bits(b)), max(largest_bits(c), largest_bits(d))));
    }
    atomicMax(&largest, own);
    workgroupBarrier();
    let exponent = row_exponent(atomicLoad(&largest));
    let power_of_row = power(exponent);
    let last = 4u * (args.runs - 1u);
    for (var i = thread; i < last; i += 4u * THREADS) {
        let a = four_of(row, i);
        let b = four_of(row, i + THREADS);
        let c = four_of(row, i + 2u * THREADS);
        let d = four_of(row, i + 3u * THREADS);
        put(row, i, last, activation(a, power_of_row));
        put(row, i + THREADS, last, activation(b, power_of_row));
        put(row, i + 2u * THREADS, last, activation(c, power_of_row));
        put(row, i + 3u * THREADS, last, activation(d, power_of_row));
    }
    if thread < 4u {
        put(row, last + thread, last + 4u, select(vec4<f16>(), exponent_four(exponent), thread == 0u));
    }
}
