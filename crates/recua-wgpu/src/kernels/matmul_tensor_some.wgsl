// As matmul_tensor.wgsl, for 17 rows and more, where matmul_tensor_many.wgsl would have too few workgroups: one has 256 weight rows, so
// that x is not read by many, and COLS * 16 rows of x. Bindings: matmul_bindings.wgsl, x from matmul_activations.wgsl.
// Each of 8 subgroups has 32 weight rows, with GLU of gate (subgroups 0 to 3) or of up. A lane decodes one weight row, a run of 16
// columns at a time, into the subgroup's own workgroup memory; the workgroup shares x, of which a part is multiplied while the next is
// staged. Parts of the weight move through registers as a queue: compilers ask for what a loop needs at its end, just before its use, and
// so what is asked for is needed one pass of the loop later.
// SPLIT: a workgroup has one of the 8 ranges of K, for weights of few rows; matmul_sum.wgsl adds what it writes to out_a, which
// is [tile of COLS * 16 rows of x][tile of 256 weight rows][range][row of x][weight row].
// Bound by workgroup memory and by latencies.
// The bits of matmul_tensor.wgsl: one range of K after the other, each in its own sums, which are then added to the totals.
enable f16;
#ifdef EMULATED
#else
enable wgpu_cooperative_matrix;
#endif
#define HALF
#define X_PACKED
#import matmul_bindings
#import matmul_half
#import matmul_decode
#import formats/*

#ifdef X_ROWS_32
const COLS: u32 = 2u;
#endif
#ifdef X_ROWS_64
const COLS: u32 = 4u;
#endif
const SUBGROUPS: u32 = 8u;
const ROWS: u32 = SUBGROUPS * 32u;
// Ranges of K.
const SPLITS: u32 = 8u;
// Vectors of four f16 from one row of a staged run to the next: the padding keeps them in different banks.
const STRIDE: u32 = 6u;
// The same from a row of x to the next, which has 64 columns.
const X_STRIDE: u32 = 18u;
const X_PART: u32 = COLS * 16u * X_STRIDE;
// Pairs of parts in flight.
const DEPTH: u32 = 2u;

// [subgroup][weight row][16 columns]
var<workgroup> staged: array<vec4<f16>, SUBGROUPS * 32u * STRIDE>;
// [first and second part][row of x][64 columns]
var<workgroup> staged_x: array<vec4<f16>, 2u * X_PART>;
// [subgroup][row of x][weight row]
var<workgroup> partial: array<f32, SUBGROUPS * 256u>;

#define STAGES_X
#import matmul_matrices

// Of two parts.
#ifdef ONE_HEAD
const HEADS: u32 = 1u;
#else
const HEADS: u32 = 2u;
#endif

// Of runs 0 and 2, and of runs 1 and 3.
alias Heads = array<array<Head, 2>, HEADS>;
alias PartCodes = array<Codes, 2>;

// [rows of x / 16][weight rows / 16]
struct Tile {
    sums_00: Sums,
    sums_01: Sums,
    sums_10: Sums,
    sums_11: Sums,
#ifdef X_ROWS_64
    sums_20: Sums,
    sums_21: Sums,
    sums_30: Sums,
    sums_31: Sums,
#endif
}

// This subgroup's place, its tile, and this lane's weight row.
var<private> subgroup: u32;
var<private> lane: u32;
var<private> tile: u32;
// The workgroup's first tile of 16 rows of x.
var<private> x_tile: u32;

var<private> heads: Heads;
var<private> codes_ahead: array<PartCodes, 2u * DEPTH>;
// Eight columns each of a part of x, on their way to workgroup memory.
const X_EACH: u32 = 128u * COLS / ROWS;
var<private> x_ahead: array<vec4<u32>, X_EACH>;
var<private> sums: Tile;
#ifdef SPLIT
#else
var<private> totals: Tile;
#endif

// The first vector of the unit of part `p`; where there is none, of the row's last one.
fn unit_at(p: u32) -> u32 {
    return (tile * args.units + min(p / PARTS, args.units - 1u)) * UNIT_VECTORS;
}

fn heads_at(p: u32) -> Heads {
    let unit = unit_at(p);
#ifdef ONE_HEAD
    return Heads(array<Head, 2>(head(unit, lane, 0u), head(unit, lane, 1u)));
#else
    let next = unit_at(p + 1u);
    return Heads(
        array<Head, 2>(head(unit, lane, 0u), head(unit, lane, 1u)),
        array<Head, 2>(head(next, lane, 0u), head(next, lane, 1u)),
    );
#endif
}

fn codes_at(p: u32) -> PartCodes {
    let unit = unit_at(p);
    let part = p % PARTS;
    return PartCodes(codes(unit, lane, part, 0u), codes(unit, lane, part, 1u));
}

// Asks for part `p` of all rows of x, which are [tile of 16 rows][run][row].
fn ask_x(p: u32, local: u32) {
    let runs = args.units * PARTS * 4u;
    let run = (local >> 5u) & 3u;
    let in_unit = column(p % PARTS, run) / 16u;
    // The run behind the last one of x is zero.
    let from_run = select(runs, p / PARTS * PARTS * 4u + in_unit, p < args.units * PARTS);
    let at = from_run * 32u + 2u * (local & 15u) + ((local >> 4u) & 1u);
    for (var j = 0u; j < X_EACH; j++) {
        x_ahead[j] = x[(x_tile + ((local + j * ROWS) >> 7u)) * (runs + 1u) * 32u + at];
    }
}

fn stage_x(which: u32, local: u32) {
    let column = 4u * ((local >> 5u) & 3u) + 2u * ((local >> 4u) & 1u);
    for (var j = 0u; j < X_EACH; j++) {
        let row = ((local + j * ROWS) >> 7u) * 16u + (local & 15u);
        let at = which * X_PART + row * X_STRIDE + column;
        let v = x_ahead[j];
        staged_x[at] = vec4<f16>(pair(v.x), pair(v.y));
        staged_x[at + 1u] = vec4<f16>(pair(v.z), pair(v.w));
    }
}

// Stages and multiplies run `i` of the first or the second (`which`) of the two parts in hand, the first of which is `p`.
fn step_run(p: u32, which: u32, i: u32) {
    let h = i & 1u;
    let part = ((p & 2u) + which) % PARTS;
    let v = values(heads[which % HEADS][h], codes_ahead[which][h], part, h, i >> 1u);
    let row = (subgroup * 32u + lane) * STRIDE;
    staged[row] = v[0];
    staged[row + 1u] = v[1];
    staged[row + 2u] = v[2];
    staged[row + 3u] = v[3];
    sync();
    let a_0 = load_a(subgroup * 32u * STRIDE);
    let a_1 = load_a((subgroup * 32u + 16u) * STRIDE);
    let at = which * X_PART + 4u * i;
    let b_0 = load_b(at);
    sums.sums_00 = multiply_add(a_0, b_0, sums.sums_00);
    sums.sums_01 = multiply_add(a_1, b_0, sums.sums_01);
    let b_1 = load_b(at + 16u * X_STRIDE);
    sums.sums_10 = multiply_add(a_0, b_1, sums.sums_10);
    sums.sums_11 = multiply_add(a_1, b_1, sums.sums_11);
#ifdef X_ROWS_64
    let b_2 = load_b(at + 32u * X_STRIDE);
    sums.sums_20 = multiply_add(a_0, b_2, sums.sums_20);
    sums.sums_21 = multiply_add(a_1, b_2, sums.sums_21);
    let b_3 = load_b(at + 48u * X_STRIDE);
    sums.sums_30 = multiply_add(a_0, b_3, sums.sums_30);
    sums.sums_31 = multiply_add(a_1, b_3, sums.sums_31);
#endif
    sync();
}

// A part, while the one that follows is staged.
fn step_part(p: u32, which: u32, local: u32) {
    stage_x(1u - which, local);
    ask_x(p + which + 2u, local);
#ifdef EMULATED
    // Unrolled, a software driver would take minutes to compile it.
    for (var i = 0u; i < min(args.k, 4u); i++) {
        step_run(p, which, i);
    }
#else
    step_run(p, which, 0u);
    step_run(p, which, 1u);
    step_run(p, which, 2u);
    step_run(p, which, 3u);
#endif
    workgroupBarrier();
}

// Multiplies the ranges `first` to `end`, which is not included, one after the other.
fn accumulate(first: u32, end: u32, local: u32) {
    let groups = (args.units * PARTS + 3u) / 4u;
    let begin = first * groups / SPLITS * 4u;
    // The last pair of parts; if there is none, nothing is done with what is asked for.
    let last = max(end * groups / SPLITS * 4u, begin + 2u) - 2u;
    var next_heads = heads_at(begin);
    for (var i = 0u; i < 2u * DEPTH; i++) {
        // Behind the last part, the last ones again: they are at hand, and a condition would delay what is asked for.
        codes_ahead[i] = codes_at(min(begin + i, last + (i & 1u)));
    }
    ask_x(begin, local);
    stage_x(0u, local);
    ask_x(begin + 1u, local);
    workgroupBarrier();
    for (var range = first; range < end; range++) {
        sums = Tile();
        let range_end = (range + 1u) * groups / SPLITS * 4u;
        for (var p = range * groups / SPLITS * 4u; p < range_end; p += 2u) {
            heads = next_heads;
            next_heads = heads_at(min(p + 2u, last));
            let far = min(p + 2u * DEPTH, last);
            let far_0 = codes_at(far);
            let far_1 = codes_at(far + 1u);
#ifdef EMULATED
            for (var which = 0u; which < min(args.k, 2u); which++) {
                step_part(p, which, local);
            }
#else
            step_part(p, 0u, local);
            step_part(p, 1u, local);
#endif
            for (var i = 0u; i < 2u * DEPTH - 2u; i++) {
                codes_ahead[i] = codes_ahead[i + 2u];
            }
            codes_ahead[2u * DEPTH - 2u] = far_0;
            codes_ahead[2u * DEPTH - 1u] = far_1;
        }
#ifdef SPLIT
#else
        totals.sums_00 = add_sums(totals.sums_00, sums.sums_00);
        totals.sums_01 = add_sums(totals.sums_01, sums.sums_01);
        totals.sums_10 = add_sums(totals.sums_10, sums.sums_10);
        totals.sums_11 = add_sums(totals.sums_11, sums.sums_11);
#ifdef X_ROWS_64
        totals.sums_20 = add_sums(totals.sums_20, sums.sums_20);
        totals.sums_21 = add_sums(totals.sums_21, sums.sums_21);
        totals.sums_30 = add_sums(totals.sums_30, sums.sums_30);
        totals.sums_31 = add_sums(totals.sums_31, sums.sums_31);
#endif
#endif
    }
}

#ifdef SPLIT
// Writes a matrix where `at` is its first row of x and weight row.
fn write_matrix(sums: Sums, at: u32) {
#ifdef EMULATED
    for (var e = 0u; e < 8u; e++) {
        out_a[at + (lane >> 1u) * ROWS + 8u * (lane & 1u) + e] = sums.v[e];
    }
#else
    coopStore(sums, &out_a[at], ROWS);
#endif
}
#else
// Writes a matrix; `x_row` and `i` are its first row of x and weight row.
fn write_matrix(sums: Sums, x_row: u32, i: u32) {
    store(sums, subgroup * 256u);
    workgroupBarrier();
#ifdef GLU
    weight_idx = 0u;
    if subgroup < SUBGROUPS / 2u {
        for (var e = lane; e < 256u; e += 32u) {
            let up = partial[(subgroup + SUBGROUPS / 2u) * 256u + e];
            write_out(x_row + (e >> 4u), i + (e & 15u), silu(partial[subgroup * 256u + e]) * up);
        }
    }
#else
    for (var e = lane; e < 256u; e += 32u) {
        write_out(x_row + (e >> 4u), i + (e & 15u), partial[subgroup * 256u + e]);
    }
#endif
    workgroupBarrier();
}
#endif

@compute @workgroup_size(ROWS)
fn matmul_tensor_some(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef EMULATED
) {
    subgroup = local >> 5u;
    lane = local & 31u;
    emulated_lane = lane;
#else
    @builtin(subgroup_id) subgroup_id: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    subgroup = subgroup_id;
    lane = invocation;
#endif
    let place = choose_part(group.x);
    x_tile = group.z * COLS;
#ifdef GLU
    weight_idx = subgroup / (SUBGROUPS / 2u);
    let first_tile = place * (SUBGROUPS / 2u) + subgroup % (SUBGROUPS / 2u);
    let tile_max = (args.count.x + 31u) / 32u - 1u;
#else
    let first_tile = place * SUBGROUPS + subgroup;
    let tile_max = (args.count[weight_idx] + 31u) / 32u - 1u;
#endif
    // A part's last workgroup may have fewer tiles: it repeats the last one, and nobody writes the repetition.
    tile = min(first_tile, tile_max);
#ifdef SPLIT
    accumulate(group.y, group.y + 1u, local);
    let at = ((group.z * groups.x + group.x) * SPLITS + group.y) * COLS * 16u * ROWS + subgroup * 32u;
    write_matrix(sums.sums_00, at);
    write_matrix(sums.sums_01, at + 16u);
    write_matrix(sums.sums_10, at + 16u * ROWS);
    write_matrix(sums.sums_11, at + 16u * ROWS + 16u);
#ifdef X_ROWS_64
    write_matrix(sums.sums_20, at + 32u * ROWS);
    write_matrix(sums.sums_21, at + 32u * ROWS + 16u);
    write_matrix(sums.sums_30, at + 48u * ROWS);
    write_matrix(sums.sums_31, at + 48u * ROWS + 16u);
#endif
#else
    totals = Tile();
    accumulate(0u, SPLITS, local);
    let x_row = x_tile * 16u;
    let i = first_tile * 32u;
    write_matrix(totals.sums_00, x_row, i);
    write_matrix(totals.sums_01, x_row, i + 16u);
    write_matrix(totals.sums_10, x_row + 16u, i);
    write_matrix(totals.sums_11, x_row + 16u, i + 16u);
#ifdef X_ROWS_64
    write_matrix(totals.sums_20, x_row + 32u, i);
    write_matrix(totals.sums_21, x_row + 32u, i + 16u);
    write_matrix(totals.sums_30, x_row + 48u, i);
    write_matrix(totals.sums_31, x_row + 48u, i + 16u);
#endif
#endif
}
