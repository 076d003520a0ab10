// As matmul.wgsl, for 1 to 16 rows, on cooperative matrices: 16x16x16, f16 times f16 into f32 (weights and x scaled: matmul_half.wgsl).
// Bindings: matmul_bindings.wgsl; with X_HALF x is the output of matmul_activations.wgsl, else X_ROWS rows of f32 at most.
// A workgroup of 8 subgroups computes one tile of 32 weight rows; each subgroup has one of 8 ranges of K. A lane decodes one weight row,
// a run of 16 columns at a time, into the subgroup's own workgroup memory, from where the matrices are loaded.
// Bound by workgroup memory, which each decoded weight enters and leaves, and by the latency of what depends on it. Four parts (of 64
// columns) are in flight; a part's place is filled again as soon as it is used. The last group has a copy of the loop's body of its
// own: a loop that asked for parts it does not use would have its loads moved behind the check for its end.
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

const SPLITS: u32 = 8u;
// Units of a group, which is four parts.
const GROUP_UNITS: u32 = 4u / PARTS;
#ifdef X_ROWS_1
const X_ROWS: u32 = 1u;
#endif
#ifdef X_ROWS_4
const X_ROWS: u32 = 4u;
#endif
// Vectors of four f16 from one row of a staged run to the next: the padding keeps them in different banks.
const STRIDE: u32 = 6u;

// [subgroup][weight row][16 columns]
var<workgroup> staged: array<vec4<f16>, SPLITS * 32u * STRIDE>;
#ifdef X_HALF
#else
// The same from a row of x to the next, which has 256 columns. Matrices take 16 rows where there are fewer: what lies behind serves, as
// nobody writes its products.
const X_STRIDE: u32 = 66u;
#define STAGES_X
// [subgroup][row of x][256 columns]
var<workgroup> staged_x: array<vec4<f16>, (SPLITS * X_ROWS + 16u) * X_STRIDE>;
#endif
// [subgroup][row of x][weight row]
var<workgroup> partial: array<f32, SPLITS * 256u>;

#import matmul_matrices

// Parts of a weight that are in flight.
#ifdef GLU
const DEPTH: u32 = 2u;
#else
const DEPTH: u32 = 4u;
#endif

#ifdef ONE_HEAD
const HEADS: u32 = 1u;
#else
const HEADS: u32 = DEPTH;
#endif

// A row's next parts, asked for ahead of their use.
struct Ahead {
    // Of runs 0 and 2, and of runs 1 and 3.
    heads: array<array<Head, 2>, HEADS>,
#ifdef ONE_HEAD
    next_heads: array<Head, 2>,
#endif
    codes: array<array<Codes, 2>, DEPTH>,
}

// Of weight rows 0 to 15 and 16 to 31.
struct Tile {
    sums_0: Sums,
    sums_1: Sums,
}

// This subgroup's range, its workgroup's tile, and this lane's weight row.
var<private> split: u32;
var<private> lane: u32;
var<private> tile: u32;
// The range's groups, the end not included.
var<private> begin: u32;
var<private> end: u32;

// The parts in flight and the sums, with GLU of gate and of up.
var<private> ahead_0: Ahead;
var<private> tile_0: Tile;
#ifdef GLU
var<private> ahead_1: Ahead;
var<private> tile_1: Tile;
#endif

// The first vector of the unit of part `q` of group `t`; where there is none, of the row's last one.
fn unit_at(t: u32, q: u32) -> u32 {
    let unit = min(t * GROUP_UNITS + q / PARTS, args.units - 1u);
    return (tile * args.units + unit) * UNIT_VECTORS;
}

fn heads_at(unit: u32) -> array<Head, 2> {
    return array<Head, 2>(head(unit, lane, 0u), head(unit, lane, 1u));
}

// Asks for part `q` of group `t`.
fn ask(weight: ptr<private, Ahead>, t: u32, q: u32) {
    let unit = unit_at(t, q);
#ifdef ONE_HEAD
#else
    (*weight).heads[q % DEPTH] = heads_at(unit);
#endif
    let part = q % PARTS;
    (*weight).codes[q % DEPTH] = array<Codes, 2>(codes(unit, lane, part, 0u), codes(unit, lane, part, 1u));
}

// Asks for the first parts of the range.
fn ask_first(weight: ptr<private, Ahead>) {
#ifdef ONE_HEAD
    (*weight).next_heads = heads_at(unit_at(begin, 0u));
#endif
    ask(weight, begin, 0u);
    ask(weight, begin, 1u);
#ifdef GLU
#else
    ask(weight, begin, 2u);
    ask(weight, begin, 3u);
#endif
}

#ifdef X_HALF
#else
// Four columns of each row, from the first and the second half of a group.
var<private> x_ahead: array<array<vec4<f32>, 2>, X_ROWS>;

// The column of this lane's four, counted from the start of the group.
fn x_column(half: u32) -> u32 {
    let run = (lane >> 2u) + 8u * half;
    let q = run >> 2u;
    return q / PARTS * PARTS * 64u + column(q % PARTS, run & 3u) + 4u * (lane & 3u);
}

fn x_four(t: u32, x_row: u32, half: u32) -> vec4<f32> {
    let column = 256u * t + x_column(half);
    var v = vec4<f32>(0.0);
    if t < end && x_row < args.rows && column < args.k {
        let at = args.x + x_row * args.k + column;
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

// Asks for the columns of group `t`.
fn ask_x_group(t: u32) {
    for (var r = 0u; r < X_ROWS; r++) {
        x_ahead[r] = array<vec4<f32>, 2>(x_four(t, r, 0u), x_four(t, r, 1u));
    }
}

fn stage_x_group() {
    for (var r = 0u; r < X_ROWS; r++) {
        let at = (split * X_ROWS + r) * X_STRIDE + lane;
        staged_x[at] = activation(x_ahead[r][0]);
        staged_x[at + 32u] = activation(x_ahead[r][1]);
    }
}
#endif

// Run `i` of part `q` of group `t` of the rows of x.
fn load_columns(t: u32, q: u32, i: u32) -> MatrixB {
#ifdef X_HALF
    let unit = t * GROUP_UNITS + q / PARTS;
    let runs = args.units * PARTS * 4u;
    // The run behind the last one of x is zero.
    let run = select(runs, unit * PARTS * 4u + column(q % PARTS, i) / 16u, t < end && unit < args.units);
    return load_b(run * 64u);
#else
    return load_b(split * X_ROWS * X_STRIDE + 16u * q + 4u * i);
#endif
}

// Stages a decoded run, which can be loaded then, as can what was staged of x.
fn stage(v: Values) {
    let at = (split * 32u + lane) * STRIDE;
    staged[at] = v[0];
    staged[at + 1u] = v[1];
    staged[at + 2u] = v[2];
    staged[at + 3u] = v[3];
    sync();
}

// Multiplies the staged run with that of x; then another one can be staged.
fn multiply(sums: ptr<private, Tile>, columns: MatrixB) {
    let a_0 = load_a(split * 32u * STRIDE);
    let a_1 = load_a((split * 32u + 16u) * STRIDE);
    (*sums).sums_0 = multiply_add(a_0, columns, (*sums).sums_0);
    (*sums).sums_1 = multiply_add(a_1, columns, (*sums).sums_1);
    sync();
}

// Run `i` of part `q`.
fn decode(weight: ptr<private, Ahead>, q: u32, i: u32) -> Values {
    let h = i & 1u;
    return values((*weight).heads[q % HEADS][h], (*weight).codes[q % DEPTH][h], q % PARTS, h, i >> 1u);
}

// Run `i` of part `q` of group `t`, of gate and of up with GLU.
fn step_run(t: u32, q: u32, i: u32) {
    stage(decode(&ahead_0, q, i));
    let columns = load_columns(t, q, i);
    multiply(&tile_0, columns);
#ifdef GLU
    weight_idx = 1u;
    stage(decode(&ahead_1, q, i));
    multiply(&tile_1, columns);
    weight_idx = 0u;
#endif
}

// Asks for what comes DEPTH parts behind part `q` of group `t`, but for nothing behind the last group.
fn ask_next(weight: ptr<private, Ahead>, t: u32, q: u32, is_last: bool) {
    if !is_last || q + DEPTH < 4u {
        ask(weight, t + (q + DEPTH) / 4u, (q + DEPTH) % 4u);
    }
#ifdef ONE_HEAD
    if q == 0u && !is_last {
        (*weight).next_heads = heads_at(unit_at(t + 1u, 0u));
    }
#endif
}

fn step_part(t: u32, q: u32, is_last: bool) {
#ifdef EMULATED
    // Unrolled, a software driver would take minutes to compile it.
    for (var i = 0u; i < min(args.k, 4u); i++) {
        step_run(t, q, i);
    }
#else
    step_run(t, q, 0u);
    step_run(t, q, 1u);
    step_run(t, q, 2u);
    step_run(t, q, 3u);
#endif
    ask_next(&ahead_0, t, q, is_last);
#ifdef GLU
    weight_idx = 1u;
    ask_next(&ahead_1, t, q, is_last);
    weight_idx = 0u;
#endif
}

fn step_group(t: u32, is_last: bool) {
#ifdef ONE_HEAD
    ahead_0.heads[0] = ahead_0.next_heads;
#ifdef GLU
    ahead_1.heads[0] = ahead_1.next_heads;
#endif
#endif
#ifdef X_HALF
#else
    stage_x_group();
    ask_x_group(t + 1u);
#endif
#ifdef EMULATED
    for (var q = 0u; q < min(args.k, 4u); q++) {
        step_part(t, q, is_last);
    }
#else
    step_part(t, 0u, is_last);
    step_part(t, 1u, is_last);
    step_part(t, 2u, is_last);
    step_part(t, 3u, is_last);
#endif
}

// Multiplies this subgroup's range.
fn accumulate() {
    let groups = (args.units + GROUP_UNITS - 1u) / GROUP_UNITS;
    begin = split * groups / SPLITS;
    end = (split + 1u) * groups / SPLITS;
    // All subgroups take as many steps; x is zero behind a range's end.
    let last = begin + (groups + SPLITS - 1u) / SPLITS - 1u;
    tile_0 = Tile();
    ask_first(&ahead_0);
#ifdef GLU
    tile_1 = Tile();
    weight_idx = 1u;
    ask_first(&ahead_1);
    weight_idx = 0u;
#endif
#ifdef X_HALF
#else
    ask_x_group(begin);
#endif
    for (var t = begin; t < last; t++) {
        step_group(t, false);
    }
    step_group(last, true);
}

// This invocation's element of the sum of all subgroups' matrices.
fn add_ranges(sums: Sums, local: u32) -> f32 {
    workgroupBarrier();
    store(sums, split * 256u);
    workgroupBarrier();
    var total = partial[local];
    for (var i = 1u; i < SPLITS; i++) {
        total += partial[i * 256u + local];
    }
    return total;
}

// Writes this invocation's element of a matrix of 16x16; `i` is the first of its weight rows.
fn write_matrix(gate: Sums, up: Sums, local: u32, i: u32) {
    var total = add_ranges(gate, local);
#ifdef GLU
    total = silu(total) * add_ranges(up, local);
#endif
    write_out(local >> 4u, tile * 32u + i + (local & 15u), total);
}

@compute @workgroup_size(256)
fn matmul_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef EMULATED
) {
    split = local >> 5u;
    lane = local & 31u;
    emulated_lane = lane;
#else
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    split = subgroup;
    lane = invocation;
#endif
    tile = choose_part(group.x);
    accumulate();
    let gate = tile_0;
#ifdef GLU
    let up = tile_1;
#else
    let up = gate;
#endif
    write_matrix(gate.sums_0, up.sums_0, local, 0u);
    write_matrix(gate.sums_1, up.sums_1, local, 16u);
}
