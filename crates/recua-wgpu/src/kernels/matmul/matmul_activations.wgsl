// The rows of x as the B operand of matmul_coop_*.wgsl: x / 8 in f16, clamped to f16's range, in the order 0 2 1 3 within every four.
// Bindings: 0 x, 1 out as [tile of 16 rows][run of 16 columns, one more than x has][row][16]; zero after the last row and column.
// An invocation converts 4 columns of a row.
// Bound by latency: x is small next to the weights. Runs if more than a few rows share a pass, so that the many workgroups that read them
// need not convert each row; the values are those that these kernels would compute themselves.
enable f16;

struct Args {
    k: u32,
    rows: u32,
    // Runs of 16 columns, including the zero run.
    runs: u32,
    x: u32,
}

var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f16>>;

#import half

@compute @workgroup_size(64)
fn matmul_activations(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = 4u * id.x;
    let row = id.y;
    if id.x >= 4u * args.runs {
        return;
    }
    var v = vec4<f32>(0.0);
    if row < args.rows {
        let at = args.x + row * args.k + column;
        for (var i = 0u; i < 4u; i++) {
            if column + i < args.k {
                v[i] = x[at + i];
            }
        }
    }
    let tile = ((row >> 4u) * args.runs + (column >> 4u)) * 64u;
    out[tile + (row & 15u) * 4u + (id.x & 3u)] = activation(v);
}
