// Like matmul_vec.wgsl, for 9 rows and more: out[r][i] = Σ_k x[r][k] w[i][k], in f32, on any adapter. Bindings: matmul_bindings.wgsl.
// A workgroup computes W_ROWS weight rows for X_ROWS rows of x. A run of 16 columns of both (two runs with fewer weight rows) is staged in
// workgroup memory at a time: an invocation decodes a run of one weight row and copies its share of x. Then it multiplies W_EACH weight
// rows, 16 apart, with X_EACH rows of x, 8 apart; what is staged next has been loaded before.
// SPLIT: a workgroup has one of the 8 ranges of K, for weights of few rows; matmul_sum.wgsl adds what it writes to out.
// By instruction count, bound by fma if there are many rows: 64 of them per 4 vector loads from workgroup memory; half of a large device's
// rate was measured. It uses 12 KB of that memory: small adapters have 16.
// The same bits as matmul_vec.wgsl: in each of 8 ranges of K one chain of fma in the order of runs and columns, then the ranges 0 to 7.
#import matmul_bindings
#import decode
#import formats/*

#ifdef X_ROWS_16
const W_EACH: u32 = 4u;
const X_EACH: u32 = 2u;
#define X_EACHES 0 1
#define TWO_RUNS
#endif
#ifdef X_ROWS_32
const W_EACH: u32 = 4u;
const X_EACH: u32 = 4u;
#define X_EACHES 0 1 2 3
#define TWO_RUNS
#define TWO_COPIES
#endif
#ifdef X_ROWS_64
const W_EACH: u32 = 8u;
const X_EACH: u32 = 8u;
#define X_EACHES 0 1 2 3 4 5 6 7
#define TWO_COPIES
#endif
const THREADS: u32 = 128u;
const W_ROWS: u32 = 16u * W_EACH;
const X_ROWS: u32 = 8u * X_EACH;
const TILES: u32 = W_ROWS / 32u;
const SPLITS: u32 = 8u;
// Vectors per staged row, and steps per part.
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

// For the weight row that this invocation decodes: its tile, its place there, and what has been loaded of it.
var<private> tile: u32;
var<private> lane: u32;
#ifdef TWO_RUNS
// The invocation decodes runs 0 and 2, or runs 1 and 3.
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

// The place of four columns of a staged row: neighbouring rows lie in different banks.
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

// Four columns of a row of x, zero after the last column. Rows after the last one repeat it: their products are not written.
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
    // Both are constants once the steps are unrolled.
    let h = s & 1u;
    let v = values(row_head[h], row_codes[h], p % PARTS, h, s >> 1u);
#endif
#for J in 0 1 2 3
    staged[place(row, first + $Ju)] = v[$J];
#end
    staged_x[place(local / VECTORS, local % VECTORS)] = x_ahead;
#ifdef TWO_COPIES
    let second = local + THREADS;
    staged_x[place(second / VECTORS, second % VECTORS)] = second_x_ahead;
#endif
}

// Below, sums are members, not array elements: not every compiler would unroll loops over arrays, and the sums must stay in registers.

// Four columns of each of four weight rows, 16 apart.
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

// Rows of x, 8 apart, by the first four of the weight rows, 16 apart.
struct Rows {
#for R in X_EACHES
    r_$R: vec4<f32>,
#end
}

var<private> sums: Rows;
#ifdef X_ROWS_64
// The same for the last four weight rows.
var<private> last_sums: Rows;
#endif

fn x_rows(at: u32) -> Rows {
    return Rows(
#for R in X_EACHES
        staged_x[at + 8u * $Ru * VECTORS],
#end
    );
}

fn multiply_add_rows(w: Columns, v: Rows, sums: Rows) -> Rows {
    return Rows(
#for R in X_EACHES
        multiply_add(w, v.r_$R, sums.r_$R),
#end
    );
}

fn add_rows(a: Rows, b: Rows) -> Rows {
    return Rows(
#for R in X_EACHES
        a.r_$R + b.r_$R,
#end
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

// Multiplies step `s` of part `p`, and then loads the step after it.
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

// Writes the products of a row of x with four weight rows, 16 apart, of two tiles. SPLIT: to `at`; otherwise as outputs.
fn write_four(row: u32, tile: u32, i: u32, at: u32, v: vec4<f32>) {
#ifdef SPLIT
#for J in 0 1 2 3
    out[at + 16u * $Ju] = v[$J];
#end
#else
    write_two(row, tile, i, v.x, v.y);
    write_two(row, tile + 1u, i, v.z, v.w);
#endif
}

// Writes all rows from `row` on; `first_tile` is the workgroup's first tile. SPLIT: the first row is written to `at`.
fn write_rows(row: u32, first_tile: u32, i: u32, at: u32, first: Rows, last: Rows) {
#for R in X_EACHES
    write_four(row + 8u * $Ru, first_tile, i, at + 8u * $Ru * 256u, first.r_$R);
#ifdef X_ROWS_64
    write_four(row + 8u * $Ru, first_tile + 2u, i, at + 8u * $Ru * 256u + 64u, last.r_$R);
#endif
#end
}

@compute @workgroup_size(THREADS)
fn matmul_tile(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first_tile = group.x * TILES;
#ifdef SPLIT
    // Four workgroups share the 256 weight rows of a tile of sums.
    first_row = group.z * X_ROWS;
    let first_split = group.y;
#else
    first_row = group.y * X_ROWS;
    let first_split = 0u;
#endif
    // The last workgroup may have fewer tiles: it repeats the last one, and the repetition is not written.
    tile = min(first_tile + (local % W_ROWS >> 5u), args.last_tile);
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
    let tile_idx = group.z * (groups.x / 4u) + group.x / 4u;
    let at = ((tile_idx * SPLITS + group.y) * X_ROWS + x_row) * 256u + group.x % 4u * W_ROWS + w_row;
    write_rows(0u, 0u, 0u, at, sums, sums);
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
#ifdef X_ROWS_64
    write_rows(first_row + x_row, first_tile, w_row, 0u, totals, last_totals);
#else
    write_rows(first_row + x_row, first_tile, w_row, 0u, totals, totals);
#endif
#endif
}
