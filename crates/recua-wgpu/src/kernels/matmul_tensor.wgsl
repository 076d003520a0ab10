// As matmul.wgsl, for 1 to 16 rows, on cooperative matrices: 16x16x16, f16 times f16 into f32 (weights and x scaled: matmul_half.wgsl).
// Bindings: matmul_bindings.wgsl; with X_HALF x is the output of matmul_activations.wgsl, else X_ROWS rows of f32 at most.
// A workgroup of 8 subgroups computes one tile of 32 weight rows, of whose K each subgroup has one of 8 ranges; with TILES_2 two tiles,
// where each has two ranges: tiles of gate and of up, or two that follow each other. A lane decodes one weight row, a run of 16 columns
// at a time, into the subgroup's own workgroup memory, from where the matrices are loaded.
// Bound by workgroup memory, which each decoded weight enters and leaves, by decoding, and by the latency of what depends on it. Four
// parts (of 64 columns) are in flight; a part's place is filled again as soon as it is used.
// Same bits for any rows: in a range, matrices are multiplied in the order of the format's runs; then the ranges are added, 0 to 7.
enable f16;
#ifdef EMULATED
#else
enable wgpu_cooperative_matrix;
#endif
#define HALF
#ifdef X_HALF
#define X_PACKED
#endif
#import matmul_bindings
#import matmul_half
#import matmul_decode
#import formats/*

const SUBGROUPS: u32 = 8u;
// Ranges of K.
const SPLITS: u32 = 8u;
#ifdef TILES_2
const TILES: u32 = 2u;
#else
const TILES: u32 = 1u;
#endif
// Units of a group, which is four parts.
const GROUP_UNITS: u32 = 4u / PARTS;
// Vectors of four f16 from one row of a staged run to the next: the padding keeps them in different banks.
const STRIDE: u32 = 6u;

// [subgroup][weight row][16 columns]
var<workgroup> staged: array<vec4<f16>, SUBGROUPS * 32u * STRIDE>;
#ifdef X_HALF
const X_ROWS: u32 = 16u;
// The same from a row of x to the next, which has 64 columns.
const X_STRIDE: u32 = 18u;
// [subgroup][row of x][64 columns]
var<workgroup> staged_x: array<vec4<f16>, SUBGROUPS * X_ROWS * X_STRIDE>;
#else
#ifdef X_ROWS_1
const X_ROWS: u32 = 1u;
#endif
#ifdef X_ROWS_4
const X_ROWS: u32 = 4u;
#endif
// 128 columns. Matrices take 16 rows where there are fewer: what lies behind serves, as nobody writes its products.
const X_STRIDE: u32 = 34u;
// [subgroup][row of x][128 columns]
var<workgroup> staged_x: array<vec4<f16>, (SUBGROUPS * X_ROWS + 15u) * X_STRIDE>;
#endif
// [tile][range][row of x][weight row]
var<workgroup> partial: array<f32, TILES * SPLITS * 256u>;

#define STAGES_X
#import matmul_matrices

#ifdef ONE_HEAD
const HEADS: u32 = 1u;
#else
const HEADS: u32 = 4u;
#endif

// A row's next parts, asked for ahead of their use.
struct Ahead {
    // Of runs 0 and 2, and of runs 1 and 3.
    heads: array<array<Head, 2>, HEADS>,
#ifdef ONE_HEAD
    next_heads: array<Head, 2>,
#endif
    codes: array<array<Codes, 2>, 4>,
}

// Of the weight rows 0 to 15 and 16 to 31.
struct Tile {
    sums_0: Sums,
    sums_1: Sums,
}

// This subgroup's place, its tile, and this lane's weight row.
var<private> subgroup: u32;
var<private> lane: u32;
var<private> tile: u32;
// The subgroup's groups, the end not included.
var<private> begin: u32;
var<private> end: u32;

var<private> ahead: Ahead;
var<private> sums: Tile;
#ifdef TILES_2
// Of the first of two ranges.
var<private> first_sums: Tile;
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
fn ask(t: u32, q: u32) {
    let unit = unit_at(t, q);
#ifdef ONE_HEAD
    if q == 0u {
        ahead.next_heads = heads_at(unit);
    }
#else
    ahead.heads[q] = heads_at(unit);
#endif
    let part = q % PARTS;
    ahead.codes[q] = array<Codes, 2>(codes(unit, lane, part, 0u), codes(unit, lane, part, 1u));
}

#ifdef X_HALF
// Eight columns of a row, of each run of a part: as two halves of 16 rows.
var<private> x_ahead: array<vec4<u32>, 4>;

// Asks for the columns of part `q` of group `t`.
fn ask_x(t: u32, q: u32) {
    let unit = t * GROUP_UNITS + q / PARTS;
    let runs = args.units * PARTS * 4u;
    for (var i = 0u; i < 4u; i++) {
        // The run behind the last one of x is zero.
        let run = select(runs, unit * PARTS * 4u + column(q % PARTS, i) / 16u, t < end && unit < args.units);
        x_ahead[i] = x[run * 32u + 2u * (lane & 15u) + (lane >> 4u)];
    }
}

fn stage_x() {
    let at = (subgroup * X_ROWS + (lane & 15u)) * X_STRIDE + 2u * (lane >> 4u);
    for (var i = 0u; i < 4u; i++) {
        let v = x_ahead[i];
        staged_x[at + 4u * i] = vec4<f16>(pair(v.x), pair(v.y));
        staged_x[at + 4u * i + 1u] = vec4<f16>(pair(v.z), pair(v.w));
    }
}

// Where run `i` of part `q` is staged.
fn staged_run(q: u32, i: u32) -> u32 {
    return subgroup * X_ROWS * X_STRIDE + 4u * i;
}
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

// Asks for the columns of half a group.
fn ask_x(t: u32, half: u32) {
    for (var r = 0u; r < X_ROWS; r++) {
        x_ahead[r][half] = x_four(t, r, half);
    }
}

fn stage_x(half: u32) {
    for (var r = 0u; r < X_ROWS; r++) {
        staged_x[(subgroup * X_ROWS + r) * X_STRIDE + lane] = activation(x_ahead[r][half]);
    }
}

// Where run `i` of part `q` is staged.
fn staged_run(q: u32, i: u32) -> u32 {
    return subgroup * X_ROWS * X_STRIDE + 16u * (q & 1u) + 4u * i;
}
#endif

// Stages and multiplies run `i` of part `q`.
fn step_run(q: u32, i: u32) {
    let h = i & 1u;
    let v = values(ahead.heads[q % HEADS][h], ahead.codes[q][h], q % PARTS, h, i >> 1u);
    let at = (subgroup * 32u + lane) * STRIDE;
    staged[at] = v[0];
    staged[at + 1u] = v[1];
    staged[at + 2u] = v[2];
    staged[at + 3u] = v[3];
    sync();
    let b = load_b(staged_run(q, i));
    sums.sums_0 = multiply_add(load_a(subgroup * 32u * STRIDE), b, sums.sums_0);
    sums.sums_1 = multiply_add(load_a((subgroup * 32u + 16u) * STRIDE), b, sums.sums_1);
    sync();
}

// Part `q` of a group; then asks for that of group `next`.
fn step_part(q: u32, t: u32, next: u32) {
#ifdef X_HALF
    stage_x();
    ask_x(select(next, t, q < 3u), (q + 1u) % 4u);
#else
    if (q & 1u) == 0u {
        stage_x(q >> 1u);
        ask_x(next, q >> 1u);
    }
#endif
#ifdef EMULATED
    // Unrolled, a software driver would take minutes to compile it.
    for (var i = 0u; i < min(args.k, 4u); i++) {
        step_run(q, i);
    }
#else
    step_run(q, 0u);
    step_run(q, 1u);
    step_run(q, 2u);
    step_run(q, 3u);
#endif
    ask(next, q);
}

// Multiplies this subgroup's ranges.
fn accumulate() {
    let groups = (args.units + GROUP_UNITS - 1u) / GROUP_UNITS;
    let range = subgroup % (SPLITS / TILES) * TILES;
    begin = range * groups / SPLITS;
    end = (range + TILES) * groups / SPLITS;
    // All subgroups take as many steps; x is zero behind a range's end.
    let last = begin + (groups * TILES + SPLITS - 1u) / SPLITS - 1u;
    sums = Tile();
    ask(begin, 0u);
    ask_x(begin, 0u);
    ask(begin, 1u);
    ask(begin, 2u);
    ask(begin, 3u);
#ifdef X_HALF
#else
    ask_x(begin, 1u);
#endif
#ifdef TILES_2
    first_sums = Tile();
    let middle = (range + 1u) * groups / SPLITS;
#endif
    for (var t = begin; t <= last; t++) {
#ifdef ONE_HEAD
        ahead.heads[0] = ahead.next_heads;
#endif
        // Behind the last group, the same one again: it is at hand, and a condition would delay what is asked for.
        let next = min(t + 1u, last);
#ifdef EMULATED
        for (var q = 0u; q < min(args.k, 4u); q++) {
            step_part(q, t, next);
        }
#else
        step_part(0u, t, next);
        step_part(1u, t, next);
        step_part(2u, t, next);
        step_part(3u, t, next);
#endif
#ifdef TILES_2
        if t + 1u == middle {
            first_sums = sums;
            sums = Tile();
        }
#endif
    }
}

// An element of the sum of all ranges of a tile.
fn total(tile_idx: u32, e: u32) -> f32 {
    let at = tile_idx * SPLITS * 256u + e;
    var total = partial[at];
    for (var i = 1u; i < SPLITS; i++) {
        total += partial[at + i * 256u];
    }
    return total;
}

// Adds all ranges' matrices and writes element `e`; `i` is the first of their 16 weight rows.
fn write_matrix(first: Sums, second: Sums, e: u32, i: u32) {
    workgroupBarrier();
#ifdef TILES_2
    store(first, 2u * subgroup * 256u);
    store(second, (2u * subgroup + 1u) * 256u);
#else
    store(first, subgroup * 256u);
#endif
    workgroupBarrier();
    let x_row = e >> 4u;
    let column = i + (e & 15u);
#ifdef GLU
    weight_idx = 0u;
    write_out(x_row, column, silu(total(0u, e)) * total(1u, e));
#else
    write_out(x_row, column, total(0u, e));
#ifdef TILES_2
    write_out(x_row, column + 32u, total(1u, e));
#endif
#endif
}

@compute @workgroup_size(SUBGROUPS * 32u)
fn matmul_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
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
#ifdef GLU
    weight_idx = subgroup / (SUBGROUPS / 2u);
    tile = place;
    let i = place * 32u;
#else
    // A part's last workgroup may have one tile fewer: it repeats the last one, and nobody writes the repetition.
    let tile_max = (args.count[weight_idx] + 31u) / 32u - 1u;
    tile = min(place * TILES + subgroup / (SUBGROUPS / TILES), tile_max);
    let i = place * TILES * 32u;
#endif
    accumulate();
#ifdef TILES_2
    write_matrix(first_sums.sums_0, sums.sums_0, local, i);
    write_matrix(first_sums.sums_1, sums.sums_1, local, i + 16u);
#else
    write_matrix(sums.sums_0, sums.sums_0, local, i);
    write_matrix(sums.sums_1, sums.sums_1, local, i + 16u);
#endif
}
