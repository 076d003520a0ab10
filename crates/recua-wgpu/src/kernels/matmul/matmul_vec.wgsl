// out[r][i] = Σ_k x[r][k] w[i][k] (+ bias[i]) (+ add[r][i]), or silu(x · gate) (x · up). In f32, on any adapter, 1 to 8 rows.
// Bindings: matmul_bindings.wgsl. A workgroup computes one tile of 32 weight rows for ROWS rows of x.
// An invocation has one weight row and one of 8 ranges of K: it decodes each weight once for all ROWS, in registers. x is read through
// workgroup memory, where it is zero after K.
// By instruction count, small devices are bound by reading the weights or by instructions: about 2.5 to decode a weight and 1.25 per
// product. A large device reads at a quarter of its bandwidth for one row of x. AHEAD parts (of 64 columns) are loaded before they are
// used; the place of a part is refilled as soon as the part is used.
// Same bits for any ROWS: in each range, K is summed by one chain of fma; then the ranges are added, 0 to 7.
#import matmul_bindings
#import decode
#import formats/*

#ifdef ROWS_1
const ROWS: u32 = 1u;
const AHEAD: u32 = 4u;
const X_PARTS: u32 = 4u;
#endif
#ifdef ROWS_2
const ROWS: u32 = 2u;
const AHEAD: u32 = 4u;
const X_PARTS: u32 = 4u;
#endif
#ifdef ROWS_4
const ROWS: u32 = 4u;
const AHEAD: u32 = 2u;
const X_PARTS: u32 = 2u;
#endif
#ifdef ROWS_8
const ROWS: u32 = 8u;
const AHEAD: u32 = 1u;
const X_PARTS: u32 = 1u;
#define EARLY
#endif
const SPLITS: u32 = 8u;
// Vectors of x that are staged at a time: of a row, and of all rows.
const X_ROW: u32 = SPLITS * X_PARTS * 16u;
const X_ALL: u32 = ROWS * X_ROW;

// [row][range][part][16 vectors], in the order of the runs; then [range][weight row], each of four rows.
var<workgroup> staged: array<vec4<f32>, max(X_ALL, 256u)>;

struct Ahead {
    heads: array<Head, 2>,
    codes: array<Codes, 2>,
}

// The loops below are unrolled by hand, so that every index is a constant: compilers do not unroll large loops, and would keep the arrays
// that they index in memory.

// The parts that are being loaded, AHEAD of them, and this invocation's vectors of x.
var<private> ahead: array<Ahead, 4>;
var<private> x_ahead: array<vec4<f32>, 4>;
// For ROWS rows.
var<private> sums: array<f32, 8>;

// This invocation's tile, weight row and parts [begin, end); the first row of x.
var<private> tile: u32;
var<private> lane: u32;
var<private> begin: u32;
var<private> end: u32;
var<private> first_row: u32;

fn range_begin(range: u32) -> u32 {
    return range * args.units * PARTS / SPLITS;
}

// Loads part `p`; after the last part, that one again: it is at hand, and a condition would delay the load.
fn ask(a: u32, p: u32) {
    if a < AHEAD {
        let last = min(p, max(end, 1u) - 1u);
        let first_vector = (tile * args.units + last / PARTS) * UNIT_VECTORS;
        let part = last % PARTS;
        ahead[a].heads = array<Head, 2>(head(first_vector, lane, 0u), head(first_vector, lane, 1u));
        ahead[a].codes = array<Codes, 2>(codes(first_vector, lane, part, 0u), codes(first_vector, lane, part, 1u));
    }
}

// Loads vector `i` of x of each range's parts from `t` on, counted from the start of the range. Rows after the last one repeat it: their
// products are not written.
fn ask_x(i: u32, t: u32, local: u32) {
    if 256u * i < X_ALL {
        let e = local + 256u * i;
        let row = args.x + min(first_row + e / X_ROW, args.rows - 1u) * args.k;
        let range = e % X_ROW / (X_PARTS * 16u);
        let p = range_begin(range) + t + e / 16u % X_PARTS;
        let part_column = p / PARTS * PARTS * 64u + column(p % PARTS, e / 4u % 4u) + 4u * (e % 4u);
        let column = select(args.k, part_column, p < range_begin(range + 1u));
        var v = vec4<f32>(0.0);
#ifdef X_VECTORS
        if column < args.k {
            v = x[(row + column) >> 2u];
        }
#else
        for (var j = 0u; j < 4u; j++) {
            if column + j < args.k {
                v[j] = x[row + column + j];
            }
        }
#endif
        x_ahead[i] = v;
    }
}

fn stage_x(i: u32, local: u32) {
    if 256u * i < X_ALL {
        staged[local + 256u * i] = x_ahead[i];
    }
}

fn multiply_row(r: u32, v: Values, at: u32) {
    if r < ROWS {
        let a = staged[at + r * X_ROW];
        let b = staged[at + r * X_ROW + 1u];
        let c = staged[at + r * X_ROW + 2u];
        let d = staged[at + r * X_ROW + 3u];
        var sum = sums[r];
        sum = fma(v[0].w, a.w, fma(v[0].z, a.z, fma(v[0].y, a.y, fma(v[0].x, a.x, sum))));
        sum = fma(v[1].w, b.w, fma(v[1].z, b.z, fma(v[1].y, b.y, fma(v[1].x, b.x, sum))));
        sum = fma(v[2].w, c.w, fma(v[2].z, c.z, fma(v[2].y, c.y, fma(v[2].x, c.x, sum))));
        sum = fma(v[3].w, d.w, fma(v[3].z, d.z, fma(v[3].y, d.y, fma(v[3].x, d.x, sum))));
        sums[r] = sum;
    }
}

// Multiplies run h + 2 j of a part whose x is staged from `x_at` on.
fn multiply_run(now: Ahead, part: u32, x_at: u32, h: u32, j: u32) {
    let v = values(now.heads[h], now.codes[h], part, h, j);
    let at = x_at + 4u * h + 8u * j;
#for R in 0 1 2 3 4 5 6 7
    multiply_row($Ru, v, at);
#end
}

// Multiplies part `t`, counted from the start of the range, which is at place `a`.
fn step_part(a: u32, t: u32, local: u32) {
    if a >= AHEAD {
        return;
    }
    if a % X_PARTS == 0u {
        workgroupBarrier();
#for I in 0 1 2 3
        stage_x($Iu, local);
#end
        workgroupBarrier();
#for I in 0 1 2 3
        ask_x($Iu, t + X_PARTS, local);
#end
    }
    let p = begin + t;
    let now = ahead[a];
    // If only one part is loaded ahead, it is requested before the current one is multiplied.
#ifdef EARLY
    ask(a, p + AHEAD);
#endif
    if p < end {
        let x_at = ((local >> 5u) * X_PARTS + a % X_PARTS) * 16u;
        let part = p % PARTS;
        multiply_run(now, part, x_at, 0u, 0u);
        multiply_run(now, part, x_at, 1u, 0u);
        multiply_run(now, part, x_at, 0u, 1u);
        multiply_run(now, part, x_at, 1u, 1u);
    }
#ifdef EARLY
#else
    ask(a, p + AHEAD);
#endif
}

// The sum over all ranges of weight row `i`, for row `q` of the four that are staged.
fn total(i: u32, q: u32) -> f32 {
    var total = staged[i][q];
    for (var split = 1u; split < SPLITS; split++) {
        total += staged[i + split * 32u][q];
    }
    return total;
}

// Adds the ranges for four rows from `r` on, and writes them.
fn write_rows(r: u32, local: u32) {
    if r >= ROWS {
        return;
    }
    workgroupBarrier();
    staged[local] = vec4<f32>(sums[r], sums[r + 1u], sums[r + 2u], sums[r + 3u]);
    workgroupBarrier();
    let q = local >> 5u;
    // A lane writes the result of two weight rows.
    if q < min(ROWS, 4u) && lane < 16u {
        write_two(first_row + r + q, tile, lane, total(lane, q), total(lane + 16u, q));
    }
}

@compute @workgroup_size(256)
fn matmul_vec(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    tile = group.x;
    lane = local & 31u;
    first_row = group.y * ROWS;
    let range = local >> 5u;
    begin = range_begin(range);
    end = range_begin(range + 1u);
    sums = array<f32, 8>();
#for I in 0 1 2 3
    ask_x($Iu, 0u, local);
#end
#for A in 0 1 2 3
    ask($Au, begin + $Au);
#end
    // The same number for all ranges.
    let parts = (args.units * PARTS + SPLITS - 1u) / SPLITS;
    for (var t = 0u; t < parts; t += AHEAD) {
#for A in 0 1 2 3
        step_part($Au, t + $Au, local);
#end
    }
    write_rows(0u, local);
    write_rows(4u, local);
}
