// As matmul_tensor.wgsl, for more than 64 rows: one reading and decoding of a weight serves 64 rows, and a workgroup has 128 weight rows.
// Bindings: matmul_bindings.wgsl, x from matmul_activations.wgsl. No GLU: `out` meets SILU, then MULTIPLY.
// The 8 subgroups compute 32x32 each. For a part of 64 columns, an invocation decodes half of a weight row's and copies its share of x
// into workgroup memory; meanwhile the next part is on its way to the registers.
// Bound by the tensor cores and by workgroup memory: 4 matrices loaded for 4 multiplied.
// The bits of matmul_tensor.wgsl: one range of K after the other, each in its own sums, which are then added to the totals.
enable f16;
#ifdef EMULATED
#else
enable wgpu_cooperative_matrix;
#endif
#define HALF
#import matmul_bindings
#import matmul_half
#import matmul_decode
#import formats/*

const SPLITS: u32 = 8u;
// Subgroups next to each other along the weight rows; two along the rows of x.
const WIDTH: u32 = 4u;
// Vectors of four f16 between rows: 64 columns, padded so that they lie in different banks.
#ifdef EMULATED
const STRIDE: u32 = 16u;
#else
const STRIDE: u32 = 18u;
#endif
const X_STRIDE: u32 = STRIDE;
#define STAGES_X

// [weight row][64 columns]
var<workgroup> staged: array<vec4<f16>, WIDTH * 32u * STRIDE>;
// [64 rows of x][64 columns]
var<workgroup> staged_x: array<vec4<f16>, 64u * STRIDE>;
// [subgroup][row of x][weight row]
var<workgroup> partial: array<f32, WIDTH * 2u * 256u>;

#import matmul_matrices

// [rows of x / 16][weight rows / 16]
var<private> sums_00: Sums;
var<private> sums_01: Sums;
var<private> sums_10: Sums;
var<private> sums_11: Sums;

struct Ahead {
    unit_head: Head,
    part_codes: Codes,
    x: array<vec4<f16>, 4>,
}

// 16 columns of a row of x: number `i` of 256.
fn x_run(i: u32, x_tile: u32, unit: u32, part: u32) -> array<vec4<f16>, 4> {
    // [tile of 16 rows][run][row]: neighbours read what lies together.
    let run = unit * PARTS * 4u + column(part, (i >> 4u) & 3u) / 16u;
    let at = ((x_tile + (i >> 6u)) * (args.units * PARTS * 4u + 1u) + run) * 64u + (i & 15u) * 4u;
    return array<vec4<f16>, 4>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
}

// Half `h` of part `p` of a weight row, and this invocation's share of the rows of x.
fn ahead(tile: u32, row: u32, p: u32, h: u32, x_tile: u32, local: u32) -> Ahead {
    let unit = p / PARTS;
    let part = p % PARTS;
    let first = (tile * args.units + unit) * UNIT_VECTORS;
    return Ahead(head(first, row, h), codes(first, row, part, h), x_run(local, x_tile, unit, part));
}

fn stage_x(i: u32, v: array<vec4<f16>, 4>) {
    let at = ((i >> 6u) * 16u + (i & 15u)) * STRIDE + 4u * ((i >> 4u) & 3u);
    staged_x[at] = v[0];
    staged_x[at + 1u] = v[1];
    staged_x[at + 2u] = v[2];
    staged_x[at + 3u] = v[3];
}

fn stage(a: Ahead, part: u32, group: u32, lane: u32, local: u32) {
    // Two subgroups share 32 weight rows.
    let h = group / WIDTH;
    let row = ((group % WIDTH) * 32u + lane) * STRIDE + 4u * h;
    let v_0 = values(a.unit_head, a.part_codes, part, h, 0u);
    staged[row] = v_0[0];
    staged[row + 1u] = v_0[1];
    staged[row + 2u] = v_0[2];
    staged[row + 3u] = v_0[3];
    let v_1 = values(a.unit_head, a.part_codes, part, h, 1u);
    staged[row + 8u] = v_1[0];
    staged[row + 9u] = v_1[1];
    staged[row + 10u] = v_1[2];
    staged[row + 11u] = v_1[3];
    stage_x(local, a.x);
}

// Multiplies run `i` of the staged part.
fn multiply(group: u32, i: u32) {
    let row = (group % WIDTH) * 32u * STRIDE + 4u * i;
    let x_row = (group / WIDTH) * 32u * STRIDE + 4u * i;
    let a_0 = load_a(row);
    let a_1 = load_a(row + 16u * STRIDE);
    let b_0 = load_b(x_row);
    let b_1 = load_b(x_row + 16u * STRIDE);
    sums_00 = multiply_add(a_0, b_0, sums_00);
    sums_01 = multiply_add(a_1, b_0, sums_01);
    sums_10 = multiply_add(a_0, b_1, sums_10);
    sums_11 = multiply_add(a_1, b_1, sums_11);
}

// Writes a matrix of 16x16 that this subgroup has in `partial`.
fn write_matrix(group: u32, lane: u32, row: u32, i: u32) {
    sync();
    for (var e = lane; e < 256u; e += 32u) {
        write_out(row + (e >> 4u), i + (e & 15u), partial[group * 256u + e]);
    }
    sync();
}

@compute @workgroup_size(WIDTH * 64u)
fn matmul_tensor_many(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef EMULATED
) {
    let group = local >> 5u;
    let lane = local & 31u;
    emulated_lane = lane;
#else
    @builtin(subgroup_id) group: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
#endif
    // A part's last workgroup may have fewer tiles: it repeats the last one, and nobody writes the repetition.
    let first_tile = choose_part(id.x) * WIDTH;
    let tile_max = (args.count[weight_idx] + 31u) / 32u - 1u;
    let tile = min(first_tile + group % WIDTH, tile_max);
    let x_tile = id.y * 4u;
    // Ranges are of whole groups of four parts, as in matmul_tensor.wgsl.
    let parts = args.units * PARTS;
    let groups = (parts + 3u) / 4u;
    let h = group / WIDTH;
    var totals_00 = Sums();
    var totals_01 = Sums();
    var totals_10 = Sums();
    var totals_11 = Sums();
    var a = ahead(tile, lane, 0u, h, x_tile, local);
    for (var split = 0u; split < SPLITS; split++) {
        sums_00 = Sums();
        sums_01 = Sums();
        sums_10 = Sums();
        sums_11 = Sums();
        let end = min((split + 1u) * groups / SPLITS * 4u, parts);
        for (var p = split * groups / SPLITS * 4u; p < end; p++) {
            stage(a, p % PARTS, group, lane, local);
            workgroupBarrier();
            a = ahead(tile, lane, min(p + 1u, parts - 1u), h, x_tile, local);
            multiply(group, 0u);
            multiply(group, 1u);
            multiply(group, 2u);
            multiply(group, 3u);
            workgroupBarrier();
        }
        totals_00 = add_sums(totals_00, sums_00);
        totals_01 = add_sums(totals_01, sums_01);
        totals_10 = add_sums(totals_10, sums_10);
        totals_11 = add_sums(totals_11, sums_11);
    }
    let row = x_tile * 16u + (group / WIDTH) * 32u;
    let i = (first_tile + group % WIDTH) * 32u;
    store(totals_00, group * 256u);
    write_matrix(group, lane, row, i);
    store(totals_01, group * 256u);
    write_matrix(group, lane, row, i + 16u);
    store(totals_10, group * 256u);
    write_matrix(group, lane, row + 16u, i);
    store(totals_11, group * 256u);
    write_matrix(group, lane, row + 16u, i + 16u);
}
