// As matmul.wgsl, for 9 rows and more: out[r][i] = Σ_k x[r][k] w[i][k], in f32, on any adapter. Bindings: matmul_bindings.wgsl.
// A workgroup computes W_ROWS weight rows (with GLU half of them of gate, half of up) for X_ROWS rows of x. A run of 16 columns of both
// (two for fewer weight rows) is staged in workgroup memory at a time: an invocation decodes a run of one weight row and copies its
// share of x. Then it multiplies W_EACH weight rows, 16 apart, with X_EACH rows of x, 8 apart; what is staged next was asked for before.
// SPLIT: a workgroup has one of the 8 ranges of K, for weights of few rows; matmul_sum.wgsl adds what it writes to out_a.
// Bound by fma where rows are many: 64 of them for 4 loads from workgroup memory. 12 KB of it: small adapters have 16.
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
#endif
#ifdef X_ROWS_64
const W_EACH: u32 = 8u;
const X_EACH: u32 = 8u;
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
const COPIES: u32 = X_ROWS * VECTORS / THREADS;

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
var<private> x_ahead: array<vec4<f32>, COPIES>;
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

// Asks for the columns of step `s` of part `p`.
fn ask_x(p: u32, s: u32, local: u32) {
    for (var i = 0u; i < COPIES; i++) {
        let v = local + THREADS * i;
        let c = v % VECTORS;
        let run = s * (VECTORS / 4u) + (c >> 2u);
        x_ahead[i] = x_four(v / VECTORS, p / PARTS * PARTS * 64u + column(p % PARTS, run) + 4u * (c & 3u));
    }
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
    for (var i = 0u; i < COPIES; i++) {
        let v = local + THREADS * i;
        staged_x[place(v / VECTORS, v % VECTORS)] = x_ahead[i];
    }
}

// [row of x][weight row]
var<private> sums: array<f32, X_EACH * W_EACH>;

fn multiply(w_row: u32, x_row: u32) {
    for (var c = 0u; c < VECTORS; c++) {
        var w: array<vec4<f32>, W_EACH>;
        for (var i = 0u; i < W_EACH; i++) {
            w[i] = staged[place(w_row, c) + 16u * VECTORS * i];
        }
        for (var r = 0u; r < X_EACH; r++) {
            let v = staged_x[place(x_row, c) + 8u * VECTORS * r];
            for (var i = 0u; i < W_EACH; i++) {
                let at = r * W_EACH + i;
                sums[at] = fma(w[i].w, v.w, fma(w[i].z, v.z, fma(w[i].y, v.y, fma(w[i].x, v.x, sums[at]))));
            }
        }
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
    let last_split = group.y;
#else
    let place_in_part = choose_part(group.x);
    first_row = group.y * X_ROWS;
    let first_split = 0u;
    let last_split = SPLITS - 1u;
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
#ifdef SPLIT
#else
    var totals: array<f32, X_EACH * W_EACH>;
#endif
    for (var split = first_split; split <= last_split; split++) {
        for (var i = 0u; i < X_EACH * W_EACH; i++) {
            sums[i] = 0.0;
        }
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
#ifdef SPLIT
#else
        for (var i = 0u; i < X_EACH * W_EACH; i++) {
            totals[i] = select(totals[i] + sums[i], sums[i], split == 0u);
        }
#endif
    }
    weight_idx = part_idx;
    let w_row = local & 15u;
    for (var r = 0u; r < X_EACH; r++) {
        let x_row = (local >> 4u) + 8u * r;
#ifdef SPLIT
        let tile_idx = group.z * (groups.x / 4u) + group.x / 4u;
        let at = ((tile_idx * SPLITS + group.y) * X_ROWS + x_row) * 256u + group.x % 4u * W_ROWS + w_row;
        for (var i = 0u; i < W_EACH; i++) {
            out_a[at + 16u * i] = sums[r * W_EACH + i];
        }
#else
#ifdef GLU
        for (var i = 0u; i < W_EACH / 2u; i++) {
            let at = r * W_EACH + i;
            let product = silu(totals[at]) * totals[at + W_EACH / 2u];
            write_out(first_row + x_row, place_in_part * (W_ROWS / 2u) + w_row + 16u * i, product);
        }
#else
        for (var i = 0u; i < W_EACH; i++) {
            write_out(first_row + x_row, place_in_part * W_ROWS + w_row + 16u * i, totals[r * W_EACH + i]);
        }
#endif
#endif
    }
}
