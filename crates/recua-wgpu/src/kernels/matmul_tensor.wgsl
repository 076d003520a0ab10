// As matmul.wgsl, for 1 to 64 rows, on cooperative matrices: 16x16x16, f16 times f16 into f32 (weights and x scaled: matmul_half.wgsl).
// Bindings: matmul_bindings.wgsl; with X_HALF x is the output of matmul_activations.wgsl, else at most 4 rows of f32.
// A workgroup of 8 subgroups computes one tile of 32 weight rows for COLS * 16 rows of x; each subgroup has one of 8 ranges of K. A lane
// decodes one weight row, 32 columns at a time, into the subgroup's own workgroup memory, from where the matrices are loaded.
// Bound by the weights' bytes: about 2.5 instructions decode a weight, whatever the rows. Four parts (of 64 columns) are in flight.
// Same bits for any rows: in a range, matrices are multiplied in the order of the format's runs; then the ranges are added, 0 to 7.
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

#ifdef COLS_1
const COLS: u32 = 1u;
#endif
#ifdef COLS_2
const COLS: u32 = 2u;
#define COLS_2_OR_4
#endif
#ifdef COLS_4
const COLS: u32 = 4u;
#define COLS_2_OR_4
#endif
const SPLITS: u32 = 8u;
// Vectors of four f16 from one row of the staged weights to the next, and from one of x: the paddings keep them in different banks.
#ifdef EMULATED
const STRIDE: u32 = 8u;
const X_STRIDE: u32 = 8u;
#else
const STRIDE: u32 = 10u;
const X_STRIDE: u32 = 10u;
#endif

// [subgroup][weight row][32 columns]
var<workgroup> staged: array<vec4<f16>, SPLITS * 32u * STRIDE>;
#ifdef X_HALF
#else
#define STAGES_X
// [subgroup][row of x][32 columns]
var<workgroup> staged_x: array<vec4<f16>, SPLITS * 16u * X_STRIDE>;
#endif
// [subgroup][row of x][weight row]
var<workgroup> partial: array<f32, SPLITS * 256u>;

#import matmul_matrices

// [rows of x / 16][weight rows / 16]
var<private> sums_00: Sums;
var<private> sums_01: Sums;
#ifdef COLS_2_OR_4
var<private> sums_10: Sums;
var<private> sums_11: Sums;
#endif
#ifdef COLS_4
var<private> sums_20: Sums;
var<private> sums_21: Sums;
var<private> sums_30: Sums;
var<private> sums_31: Sums;
#endif

// What a lane has asked for ahead of its use.
struct Ahead {
    raw: Raw,
#ifdef X_HALF
#else
    // Its four columns of one of four rows of x, in the first and the second half of a part.
    x_0: vec4<f32>,
    x_1: vec4<f32>,
#endif
}

// Which part of which unit comes at step `t` of a range.
struct Place {
    unit: u32,
    part: u32,
    // Whether the range has so many parts; all subgroups take as many steps.
    is_inside: bool,
}

fn place(split: u32, t: u32) -> Place {
    let parts = args.units * PARTS;
    let p = split * parts / SPLITS + t;
    let last = max((split + 1u) * parts / SPLITS, 1u) - 1u;
    let at = min(p, last);
    return Place(at / PARTS, at % PARTS, p < (split + 1u) * parts / SPLITS);
}

#ifdef X_HALF
#else
fn x_four(p: Place, lane: u32, half: u32) -> vec4<f32> {
    let row = lane >> 3u;
    let i = 2u * half + ((lane >> 2u) & 1u);
    let column = p.unit * PARTS * 64u + column(p.part, i) + 4u * (lane & 3u);
    var v = vec4<f32>(0.0);
    if p.is_inside && row < args.rows && column < args.k {
        let at = args.x + row * args.k + column;
#ifdef X_VECTORS
        v = x[at >> 2u];
#else
        for (var j = 0u; j < 4u; j++) {
            if column + j < args.k {
                v[j] = x[at + j];
            }
        }
#endif
    }
    return v;
}
#endif

fn ahead(tile: u32, split: u32, lane: u32, t: u32) -> Ahead {
    let p = place(split, t);
    let raw = load((tile * args.units + p.unit) * UNIT_VECTORS, lane, p.part);
#ifdef X_HALF
    return Ahead(raw);
#else
    return Ahead(raw, x_four(p, lane, 0u), x_four(p, lane, 1u));
#endif
}

// Stages runs 2 * half and 2 * half + 1 of a part and multiplies them.
fn half_step(a: Ahead, p: Place, split: u32, lane: u32, half: u32, x_tile: u32) {
#ifdef X_HALF
    // The run behind the last one of x is zero.
    let runs = args.units * PARTS * 4u;
    let first = p.unit * PARTS * 4u;
    let run_0 = select(runs, first + column(p.part, 2u * half) / 16u, p.is_inside);
    let run_1 = select(runs, first + column(p.part, 2u * half + 1u) / 16u, p.is_inside);
    let x_0 = (x_tile * (runs + 1u) + run_0) * 64u;
    let x_1 = (x_tile * (runs + 1u) + run_1) * 64u;
    let b_00 = load_b(x_0);
    let b_01 = load_b(x_1);
#ifdef COLS_2_OR_4
    let next = (runs + 1u) * 64u;
    let b_10 = load_b(x_0 + next);
    let b_11 = load_b(x_1 + next);
#endif
#ifdef COLS_4
    let b_20 = load_b(x_0 + 2u * next);
    let b_21 = load_b(x_1 + 2u * next);
    let b_30 = load_b(x_0 + 3u * next);
    let b_31 = load_b(x_1 + 3u * next);
#endif
#else
    let x_base = split * 16u * X_STRIDE;
    staged_x[x_base + (lane >> 3u) * X_STRIDE + (lane & 7u)] = activation(select(a.x_0, a.x_1, half == 1u));
#endif
    let base = split * 32u * STRIDE;
    let row = base + lane * STRIDE;
    let v_0 = values(a.raw, p.part, 2u * half);
    staged[row] = v_0[0];
    staged[row + 1u] = v_0[1];
    staged[row + 2u] = v_0[2];
    staged[row + 3u] = v_0[3];
    let v_1 = values(a.raw, p.part, 2u * half + 1u);
    staged[row + 4u] = v_1[0];
    staged[row + 5u] = v_1[1];
    staged[row + 6u] = v_1[2];
    staged[row + 7u] = v_1[3];
    sync();
    let a_00 = load_a(base);
    let a_01 = load_a(base + 4u);
    let a_10 = load_a(base + 16u * STRIDE);
    let a_11 = load_a(base + 16u * STRIDE + 4u);
#ifdef X_HALF
#else
    let b_00 = load_b(x_base);
    let b_01 = load_b(x_base + 4u);
#endif
    sums_00 = multiply_add(a_01, b_01, multiply_add(a_00, b_00, sums_00));
    sums_01 = multiply_add(a_11, b_01, multiply_add(a_10, b_00, sums_01));
#ifdef COLS_2_OR_4
    sums_10 = multiply_add(a_01, b_11, multiply_add(a_00, b_10, sums_10));
    sums_11 = multiply_add(a_11, b_11, multiply_add(a_10, b_10, sums_11));
#endif
#ifdef COLS_4
    sums_20 = multiply_add(a_01, b_21, multiply_add(a_00, b_20, sums_20));
    sums_21 = multiply_add(a_11, b_21, multiply_add(a_10, b_20, sums_21));
    sums_30 = multiply_add(a_01, b_31, multiply_add(a_00, b_30, sums_30));
    sums_31 = multiply_add(a_11, b_31, multiply_add(a_10, b_30, sums_31));
#endif
    sync();
}

fn step(a: Ahead, split: u32, lane: u32, t: u32, x_tile: u32) {
    let p = place(split, t);
#ifdef EMULATED
    for (var half = 0u; half < 2u; half++) {
        half_step(a, p, split, lane, half, x_tile);
    }
#else
    half_step(a, p, split, lane, 0u, x_tile);
    half_step(a, p, split, lane, 1u, x_tile);
#endif
}

// Multiplies this subgroup's range of the tile.
fn accumulate(tile: u32, split: u32, lane: u32, x_tile: u32) {
    sums_00 = Sums();
    sums_01 = Sums();
#ifdef COLS_2_OR_4
    sums_10 = Sums();
    sums_11 = Sums();
#endif
#ifdef COLS_4
    sums_20 = Sums();
    sums_21 = Sums();
    sums_30 = Sums();
    sums_31 = Sums();
#endif
    let steps = (args.units * PARTS + SPLITS - 1u) / SPLITS;
#ifdef EMULATED
    for (var t = 0u; t < steps; t++) {
        step(ahead(tile, split, lane, t), split, lane, t, x_tile);
    }
#else
    // Four by name and not an array, which would leave the registers.
    var a_0 = ahead(tile, split, lane, 0u);
    var a_1 = ahead(tile, split, lane, 1u);
    var a_2 = ahead(tile, split, lane, 2u);
    var a_3 = ahead(tile, split, lane, 3u);
    for (var t = 0u; t < steps; t += 4u) {
        step(a_0, split, lane, t, x_tile);
        a_0 = ahead(tile, split, lane, t + 4u);
        if t + 1u >= steps {
            break;
        }
        step(a_1, split, lane, t + 1u, x_tile);
        a_1 = ahead(tile, split, lane, t + 5u);
        if t + 2u >= steps {
            break;
        }
        step(a_2, split, lane, t + 2u, x_tile);
        a_2 = ahead(tile, split, lane, t + 6u);
        if t + 3u >= steps {
            break;
        }
        step(a_3, split, lane, t + 3u, x_tile);
        a_3 = ahead(tile, split, lane, t + 7u);
    }
#endif
}

// This invocation's element of the sum of all subgroups' `partial`.
fn add_ranges(local: u32) -> f32 {
    workgroupBarrier();
    var total = partial[local];
    for (var split = 1u; split < SPLITS; split++) {
        total += partial[split * 256u + local];
    }
    workgroupBarrier();
    return total;
}

// The tile's products: this invocation's element of each matrix of 16x16.
fn product(tile: u32, split: u32, lane: u32, local: u32, x_tile: u32) -> array<f32, 2u * COLS> {
    accumulate(tile, split, lane, x_tile);
    var totals: array<f32, 2u * COLS>;
    store(sums_00, split * 256u);
    totals[0] = add_ranges(local);
    store(sums_01, split * 256u);
    totals[1] = add_ranges(local);
#ifdef COLS_2_OR_4
    store(sums_10, split * 256u);
    totals[2] = add_ranges(local);
    store(sums_11, split * 256u);
    totals[3] = add_ranges(local);
#endif
#ifdef COLS_4
    store(sums_20, split * 256u);
    totals[4] = add_ranges(local);
    store(sums_21, split * 256u);
    totals[5] = add_ranges(local);
    store(sums_30, split * 256u);
    totals[6] = add_ranges(local);
    store(sums_31, split * 256u);
    totals[7] = add_ranges(local);
#endif
    return totals;
}

@compute @workgroup_size(256)
fn matmul_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef EMULATED
) {
    let split = local >> 5u;
    let lane = local & 31u;
    emulated_lane = lane;
#else
    @builtin(subgroup_id) split: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
#endif
    let tile = choose_part(group.x);
    let x_tile = group.y * COLS;
#ifdef X_HALF
#else
    // Rows of x that are not there.
    for (var i = lane; i < 16u * X_STRIDE; i += 32u) {
        staged_x[split * 16u * X_STRIDE + i] = vec4<f16>();
    }
    sync();
#endif
    var totals = product(tile, split, lane, local, x_tile);
#ifdef GLU
    weight_idx = 1u;
    let ups = product(tile, split, lane, local, x_tile);
    for (var i = 0u; i < 2u * COLS; i++) {
        totals[i] = silu(totals[i]) * ups[i];
    }
#endif
    for (var i = 0u; i < 2u * COLS; i++) {
        let row = x_tile * 16u + (i >> 1u) * 16u + (local >> 4u);
        write_out(row, tile * 32u + (i & 1u) * 16u + (local & 15u), totals[i]);
    }
}
