// Adds the ranges of K, 0 to 7, into which another kernel has split a product, and writes the product.
// Bindings: matmul_bindings.wgsl, where instead of the weight there may be the f16 copy of x, whose exponents are taken back (args.runs is 0 if
// there is none); x: [tile of ROWS rows of x][tile of 256 weight rows][range][row of x][weight row].
// An invocation computes four weight rows for a row of x.
// Bound by memory.
#define X_VECTORS
#import matmul_bindings
#import exponent

// Rows of x in a tile.
#ifdef X_ROWS_16
const ROWS: u32 = 16u;
#endif
#ifdef X_ROWS_32
const ROWS: u32 = 32u;
#endif
#ifdef X_ROWS_64
const ROWS: u32 = 64u;
#endif
const SPLITS: u32 = 8u;
// Vectors for the 256 weight rows of a tile.
const WIDTH: u32 = 64u;

@compute @workgroup_size(256)
fn matmul_sum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y * (256u / WIDTH) + local / WIDTH;
    let i = local % WIDTH;
    let tile = row / ROWS * groups.x + group.x;
    let at = (tile * SPLITS * ROWS + row % ROWS) * WIDTH + i;
    var total = x[at];
    for (var range = 1u; range < SPLITS; range++) {
        total += x[at + range * ROWS * WIDTH];
    }
    if args.runs > 0u {
        total *= scale_back(exponent_in(weight[exponent_place(row, args.runs)]));
    }
    for (var j = 0u; j < 4u; j++) {
        write_out(row, group.x * 4u * WIDTH + 4u * i + j, total[j]);
    }
}
