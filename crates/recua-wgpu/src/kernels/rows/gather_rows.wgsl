// gather_rows: out[i] = x[indexes[i]].
// indexes: [n_out]; x: [n_window, dim], the rows [first, first + n_window) of n_rows; out: [n_out, dim]; each begins at its start.
// One workgroup copies one row. Bound by memory.
// Another dispatch copies the rows outside the window; an index outside x is reported, and its output row stays unchanged.
#import status
@group(0) @binding(1) var<storage, read> indexes: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

struct Args {
    n_out: u32,
    dim: u32,
    n_rows: u32,
    first: u32,
    n_window: u32,
    x_start: u32,
    indexes_start: u32,
    out_start: u32,
}
var<immediate> args: Args;

@compute @workgroup_size(256)
fn gather_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= args.n_out {
        return;
    }
    let index = indexes[args.indexes_start + row];
    if index >= args.n_rows {
        if thread == 0u {
            report(8u, index, args.n_rows);
        }
        return;
    }
    if index < args.first || index - args.first >= args.n_window {
        return;
    }
    let src = args.x_start + (index - args.first) * args.dim;
    let dst = args.out_start + row * args.dim;
    for (var i = thread; i < args.dim; i += 256u) {
        out[dst + i] = x[src + i];
    }
}
