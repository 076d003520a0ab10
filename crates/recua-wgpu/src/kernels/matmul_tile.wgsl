// As matmul.wgsl, for 9 rows and more: out[r][i] = Σ_k x[r][k] w[i][k], in f32, on any adapter. Bindings: matmul_bindings.wgsl.
// A workgroup computes W_ROWS weight rows (with GLU half of them of gate, half of up) for X_ROWS rows of x. A run of 16 columns of both
// (two for fewer weight rows) is staged in workgroup memory at a time: an invocation decodes a run of one weight row and copies its
// share of x. Then it multiplies W_EACH weight rows, 16 apart, with X_EACH rows of x, 8 apart; what is staged next was asked for before.
// SPLIT: a workgroup has one of the 8 ranges of K, for weights of few rows; matmul_sum.wgsl adds what it writes to out_a.
// By the count bound by fma where rows are many: 64 of them for 4 loads of a vector from workgroup memory; half of a large device's rate
// was measured. 12 KB of that memory: small adapters have 16.
// The bits of matmul.wgsl: in each of 8 ranges of K one chain of fma in the order of runs and columns, then the ranges 0 to 7.
#import matmul_bindings
#import matmul_decode
#import formats/*

#ifdef X_ROWS_16
const W_EACH: u32 = 4u;
const X_EACH: u32 = 2u;
#define TWO_RUNS
#endif
#ifdef X_ROWS_32
const W_EACH: u32 = 4u;
const X_EACH: u32 = 4u;
#define TWO_RUNS
#define FOUR_ROWS
#define TWO_COPIES
#endif
#ifdef X_ROWS_64
const W_EACH: u32 = 8u;
const X_EACH: u32 = 8u;
#define FOUR_ROWS
#define EIGHT_ROWS
#define TWO_COPIES
#endif
const THREADS: u32 = 128u;
const W_ROWS: u32 = 16u * W_EACH;
const X_ROWS: u32 = 8u * X_EACH;
const TILES: u32 = W_ROWS / 32u;
const SPLITS: u32 = 8u;
// Vectors of a staged row, and steps of a part.
#ifdef TWO_RUNS
const VECTORS: u32 = 8u;
const STEPS: u32 = 2u;
#else
const VECTORS: u32 = 4u;
const STEPS: u32 = 4u;
#endif

// [row][four columns]; see `place`.
var<workgroup> staged: array<vec4<f32>, W_ROWS * VECTORS>;
var<workgroup> staged_x: array<vec4<f32>, X_ROWS * VECTORS>;

// Of the weight row that this invocation decodes: its tile and place there, and what it has asked for.
var<private> tile: u32;
var<private> lane: u32;
#ifdef TWO_RUNS
// It has runs 0 and 2 or runs 1 and 3.
var<private> own_h: u32;
var<private> row_head: Head;
var<private> row_codes: Codes;
#else
var<private> row_head: array<Head, 2>;
var<private> row_codes: array<Codes, 2>;
#endif
var<private> x_ahead: vec4<f32>;
#ifdef TWO_COPIES
var<private> second_x_ahead: vec4<f32>;
#endif
// The workgroup's first row of x.
var<private> first_row: u32;

// Where four columns of a staged row are: neighbouring rows lie in different banks.
fn place(row: u32, c: u32) -> u32 {
#ifdef TWO_RUNS
    return row * 8u + (c ^ (row & 7u));
#else
    return row * 4u + (c ^ ((row >> 1u) & 3u));
#endif
}

fn ask_weight(p: u32) {
    let unit = (tile * args.units + p / PARTS) * UNIT_VECTORS;
#ifdef TWO_RUNS
    row_head = head(unit, lane, own_h);
    row_codes = codes(unit, lane, p % PARTS, own_h);
#else
    row_head = array<Head, 2>(head(unit, lane, 0u), head(unit, lane, 1u));
    row_codes = array<Codes, 2>(codes(unit, lane, p % PARTS, 0u), codes(unit, lane, p % PARTS, 1u));
#endif
}

// Four columns of a row of x, zero behind the last one. Rows behind the last one repeat it: nobody writes their products.
fn x_four(row: u32, column: u32) -> vec4<f32> {
    let at = args.x + min(first_row + row, args.rows - 1u) * args.k + column;
    var v = vec4<f32>(0.0);
    if column < args.k {
#ifdef X_VECTORS
        v = x[at >> 2u];
#else
        for (var i = 0u; i < 4u; i++) {
            if column + i < args.k {
                v[i] = x[at + i];
            }
        }
#endif
    }
    return v;
}

// Four of the columns of step `s` of part `p`.
fn copy_of(p: u32, s: u32, i: u32) -> vec4<f32> {
    let c = i % VECTORS;
    let run = s * (VECTORS / 4u) + (c >> 2u);
    return x_four(i / VECTORS, p / PARTS * PARTS * 64u + column(p % PARTS, run) + 4u * (c & 3u));
}

fn ask_x(p: u32, s: u32, local: u32) {
    x_ahead = copy_of(p, s, local);
#ifdef TWO_COPIES
    second_x_ahead = copy_of(p, s, local + THREADS);
#endif
}

// Stages step `s` of part `p`.
fn stage(p: u32, s: u32, local: u32) {
#ifdef TWO_RUNS
    let row = local & 63u;
    let first = 4u * own_h;
    let v = values(row_head, row_codes, p % PARTS, own_h, s);
#else
    let row = local;
    let first = 0u;
    // Both are known where the steps are unrolled.
    let h = s & 1u;
    let v = values(row_head[h], row_codes[h], p % PARTS, h, s >> 1u);
#endif
    staged[place(row, first)] = v[0];
    staged[place(row, first + 1u)] = v[1];
    staged[place(row, first + 2u)] = v[2];
    staged[place(row, first + 3u)] = v[3];
    staged_x[place(local / VECTORS, local % VECTORS)] = x_ahead;
#ifdef TWO_COPIES
    let second = local + THREADS;
    staged_x[place(second / VECTORS, second % VECTORS)] = second_x_ahead;
#endif
}

// Everything below is written out, without loops over arrays: not every compiler would unroll them, and these belong into registers.

// Four columns, each of four weight rows, 16 apart.
struct Columns {
    x: vec4<f32>,
    y: vec4<f32>,
    z: vec4<f32>,
    w: vec4<f32>,
}

fn columns(at: u32) -> Columns {
    let a = staged[at];
    let b = staged[at + 16u * VECTORS];
    let c = staged[at + 32u * VECTORS];
    let d = staged[at + 48u * VECTORS];
    return Columns(
        vec4<f32>(a.x, b.x, c.x, d.x),
        vec4<f32>(a.y, b.y, c.y, d.y),
        vec4<f32>(a.z, b.z, c.z, d.z),
        vec4<f32>(a.w, b.w, c.w, d.w),
    );
}

fn multiply_add(w: Columns, v: vec4<f32>, sums: vec4<f32>) -> vec4<f32> {
    let two = fma(w.y, vec4<f32>(v.y), fma(w.x, vec4<f32>(v.x), sums));
    return fma(w.w, vec4<f32>(v.w), fma(w.z, vec4<f32>(v.z), two));
}

// Rows of x, 8 apart, by weight rows, 16 apart: the first four of those.
struct Rows {
    r_0: vec4<f32>,
    r_1: vec4<f32>,
#ifdef FOUR_ROWS
    r_2: vec4<f32>,
    r_3: vec4<f32>,
#endif
#ifdef EIGHT_ROWS
    r_4: vec4<f32>,
    r_5: vec4<f32>,
    r_6: vec4<f32>,
    r_7: vec4<f32>,
#endif
}

var<private> sums: Rows;
#ifdef X_ROWS_64
// The last four weight rows.
var<private> last_sums: Rows;
#endif

fn x_rows(at: u32) -> Rows {
    return Rows(
        staged_x[at],
        staged_x[at + 8u * VECTORS],
#ifdef FOUR_ROWS
        staged_x[at + 16u * VECTORS],
        staged_x[at + 24u * VECTORS],
#endif
#ifdef EIGHT_ROWS
        staged_x[at + 32u * VECTORS],
        staged_x[at + 40u * VECTORS],
        staged_x[at + 48u * VECTORS],
        staged_x[at + 56u * VECTORS],
#endif
    );
}

fn multiply_add_rows(w: Columns, v: Rows, sums: Rows) -> Rows {
    return Rows(
        multiply_add(w, v.r_0, sums.r_0),
        multiply_add(w, v.r_1, sums.r_1),
#ifdef FOUR_ROWS
        multiply_add(w, v.r_2, sums.r_2),
        multiply_add(w, v.r_3, sums.r_3),
#endif
#ifdef EIGHT_ROWS
        multiply_add(w, v.r_4, sums.r_4),
        multiply_add(w, v.r_5, sums.r_5),
        multiply_add(w, v.r_6, sums.r_6),
        multiply_add(w, v.r_7, sums.r_7),
#endif
    );
}

fn add_rows(a: Rows, b: Rows) -> Rows {
    return Rows(
        a.r_0 + b.r_0,
        a.r_1 + b.r_1,
#ifdef FOUR_ROWS
        a.r_2 + b.r_2,
        a.r_3 + b.r_3,
#endif
#ifdef EIGHT_ROWS
        a.r_4 + b.r_4,
        a.r_5 + b.r_5,
        a.r_6 + b.r_6,
        a.r_7 + b.r_7,
#endif
    );
}

fn multiply(w_row: u32, x_row: u32) {
    for (var c = 0u; c < VECTORS; c++) {
        let at = place(w_row, c);
        let v = x_rows(place(x_row, c));
        sums = multiply_add_rows(columns(at), v, sums);
#ifdef X_ROWS_64
        last_sums = multiply_add_rows(columns(at + 64u * VECTORS), v, last_sums);
#endif
    }
}

// Step `s` of part `p`; then it asks for what comes after it.
fn step(p: u32, s: u32, last: u32, local: u32) {
    workgroupBarrier();
    stage(p, s, local);
    workgroupBarrier();
    if s + 1u < STEPS {
        ask_x(p, s + 1u, local);
    } else {
        let next = min(p + 1u, last);
        ask_x(next, 0u, local);
        ask_weight(next);
    }
    multiply(local & 15u, local >> 4u);
}

// Sums a range of K.
fn multiply_range(split: u32, parts: u32, local: u32) {
    sums = Rows();
#ifdef X_ROWS_64
    last_sums = Rows();
#endif
    let end = (split + 1u) * parts / SPLITS;
    for (var p = split * parts / SPLITS; p < end; p++) {
        step(p, 0u, parts - 1u, local);
        step(p, 1u, parts - 1u, local);
#ifdef TWO_RUNS
#else
        step(p, 2u, parts - 1u, local);
        step(p, 3u, parts - 1u, local);
#endif
    }
}

// Writes a row of x's products with four weight rows, which begin at `i`, and with GLU those of gate and of up.
fn write_four(row: u32, i: u32, v: vec4<f32>) {
#ifdef SPLIT
    out_a[i] = v.x;
    out_a[i + 16u] = v.y;
    out_a[i + 32u] = v.z;
    out_a[i + 48u] = v.w;
#else
    write_out(row, i, v.x);
    write_out(row, i + 16u, v.y);
#ifdef GLU
#ifdef X_ROWS_64
    write_out(row, i + 32u, v.z);
    write_out(row, i + 48u, v.w);
#endif
#else
    write_out(row, i + 32u, v.z);
    write_out(row, i + 48u, v.w);
#endif
#endif
}

#ifdef GLU
fn silu_four(v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(silu(v.x), silu(v.y), silu(v.z), silu(v.w));
}
#endif

// Writes a row of x's products with all weight rows; `last` are those with the last four.
fn write_row(row: u32, i: u32, first: vec4<f32>, last: vec4<f32>) {
#ifdef GLU
#ifdef X_ROWS_64
    write_four(row, i, silu_four(first) * last);
#else
    write_four(row, i, silu_four(first) * first.zwzw);
#endif
#else
    write_four(row, i, first);
#ifdef X_ROWS_64
    write_four(row, i + 64u, last);
#endif
#endif
}

// Writes all rows from `row` on. SPLIT: `i` is where the first is written, and `step` how far apart they are.
fn write_rows(row: u32, i: u32, step: u32, first: Rows, last: Rows) {
    write_row(row, i, first.r_0, last.r_0);
    write_row(row + 8u, i + step, first.r_1, last.r_1);
#ifdef FOUR_ROWS
    write_row(row + 16u, i + 2u * step, first.r_2, last.r_2);
    write_row(row + 24u, i + 3u * step, first.r_3, last.r_3);
#endif
#ifdef EIGHT_ROWS
    write_row(row + 32u, i + 4u * step, first.r_4, last.r_4);
    write_row(row + 40u, i + 5u * step, first.r_5, last.r_5);
    write_row(row + 48u, i + 6u * step, first.r_6, last.r_6);
    write_row(row + 56u, i + 7u * step, first.r_7, last.r_7);
#endif
}

@compute @workgroup_size(THREADS)
fn matmul_tile(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
#ifdef SPLIT
    // Four workgroups have the 256 weight rows of a tile of sums.
    let place_in_part = choose_part(group.x / 4u) * 4u + group.x % 4u;
    first_row = group.z * X_ROWS;
    let first_split = group.y;
#else
    let place_in_part = choose_part(group.x);
    first_row = group.y * X_ROWS;
    let first_split = 0u;
#endif
    let part_idx = weight_idx;
    // A part's last workgroup may have fewer tiles: it repeats the last one, and nobody writes the repetition.
    tile = (local % W_ROWS) >> 5u;
    let last_tile = (args.count[weight_idx] + 31u) / 32u - 1u;
#ifdef GLU
    weight_idx = tile / (TILES / 2u);
    tile = min(place_in_part * (TILES / 2u) + tile % (TILES / 2u), last_tile);
#else
    tile = min(place_in_part * TILES + tile, last_tile);
#endif
    lane = local & 31u;
#ifdef TWO_RUNS
    own_h = local >> 6u;
#endif
    let parts = args.units * PARTS;
    let first_part = first_split * parts / SPLITS;
    ask_weight(first_part);
    ask_x(first_part, 0u, local);
    let w_row = local & 15u;
    let x_row = local >> 4u;
#ifdef SPLIT
    multiply_range(first_split, parts, local);
    weight_idx = part_idx;
    let tile_idx = group.z * (groups.x / 4u) + group.x / 4u;
    let at = ((tile_idx * SPLITS + group.y) * X_ROWS + x_row) * 256u + group.x % 4u * W_ROWS + w_row;
    write_rows(0u, at, 8u * 256u, sums, sums);
#else
    multiply_range(0u, parts, local);
    var totals = sums;
#ifdef X_ROWS_64
    var last_totals = last_sums;
#endif
    for (var split = 1u; split < SPLITS; split++) {
        multiply_range(split, parts, local);
        totals = add_rows(totals, sums);
#ifdef X_ROWS_64
        last_totals = add_rows(last_totals, last_sums);
#endif
    }
    weight_idx = part_idx;
#ifdef GLU
    let i = place_in_part * (W_ROWS / 2u) + w_row;
#else
    let i = place_in_part * W_ROWS + w_row;
#endif
#ifdef X_ROWS_64
    write_rows(first_row + x_row, i, 0u, totals, last_totals);
#else
    write_rows(first_row + x_row, i, 0u, totals, totals);
#endif
#endif
}
