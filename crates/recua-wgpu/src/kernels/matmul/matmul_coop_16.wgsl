// Like matmul_vec.wgsl, for 1 to 16 rows, on cooperative matrices: 16x16x16, f16 times f16 into f32 (weights and x scaled: see exponent.wgsl).
// Bindings: matmul_bindings.wgsl; with X_HALF, x is the output of matmul_activations.wgsl, otherwise at most X_ROWS rows of f32.
// A workgroup of 8 subgroups computes `args.tiles` tiles of 32 weight rows, one after the other; each subgroup has one of 8 ranges of K. A
// lane decodes one weight row, a run of 16 columns at a time, into the subgroup's own workgroup memory, from which the matrices are loaded.
// Bound by latency: leaving out the decoding, its stores to workgroup memory or either of the loads from there saves at most 5 %. Four
// parts (of 64 columns) are in flight, also from one tile to the next; the place of a part is refilled as soon as the part is used.
// Same bits for any number of rows: in a range, matrices are multiplied in the order of the format's runs; then the ranges are added, 0 to
// 7.
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
#import half
#import decode
#import formats/*
#import matmul_ahead

#ifdef X_HALF
const X_ROWS: u32 = 16u;
// Vectors of four f16 from one row of x, of 64 columns, to the next.
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
// 128 columns. Matrices always read 16 rows: if there are fewer, whatever follows them is read, and its products are not written.
const X_STRIDE: u32 = 34u;
// [subgroup][row of x][128 columns]
var<workgroup> staged_x: array<vec4<f16>, (SUBGROUPS * X_ROWS + 15u) * X_STRIDE>;
#endif
// [first and last 16 weight rows][range][row of x][weight row]
var<workgroup> partial: array<f32, 2u * SPLITS * 256u>;

#import matrices

#ifdef ONE_HEAD
const HEADS: u32 = 1u;
#else
const HEADS: u32 = 4u;
#endif

// A row's next parts, loaded before they are used.
struct Ahead {
    heads: array<PartHeads, HEADS>,
#ifdef ONE_HEAD
    next_heads: PartHeads,
#endif
    codes: array<PartCodes, 4>,
}

// For the weight rows 0 to 15 and 16 to 31.
struct Tile {
    sums_0: Sums,
    sums_1: Sums,
}

// This subgroup's tile.
var<private> tile: u32;
// The subgroup's groups of four parts, [begin, end).
var<private> begin: u32;
var<private> end: u32;

var<private> ahead: Ahead;
var<private> sums: Tile;

// Loads part `q` of group `t`.
fn ask(t: u32, q: u32) {
    let p = 4u * t + q;
#ifdef ONE_HEAD
    if q == 0u {
        ahead.next_heads = heads_at(p);
    }
#else
    ahead.heads[q] = heads_at(p);
#endif
    ahead.codes[q] = codes_at(p);
}

#ifdef X_HALF
// Eight columns of a row for each run of a part, in two halves of 16 rows.
var<private> x_ahead: array<vec4<u32>, 4>;

// Loads the columns of part `q` of group `t`.
fn ask_x(t: u32, q: u32) {
#for I in 0 1 2 3
    x_ahead[$I] = x[x_run(4u * t + q, $Iu, t < end) * 32u + 2u * (lane & 15u) + (lane >> 4u)];
#end
}

fn stage_x() {
    let at = (subgroup * X_ROWS + (lane & 15u)) * X_STRIDE + 2u * (lane >> 4u);
#for I in 0 1 2 3
    staged_x[at + 4u * $Iu] = vec4<f16>(pair(x_ahead[$I].x), pair(x_ahead[$I].y));
    staged_x[at + 4u * $Iu + 1u] = vec4<f16>(pair(x_ahead[$I].z), pair(x_ahead[$I].w));
#end
}

// The place where run `i` of part `q` is staged.
fn staged_run(q: u32, i: u32) -> u32 {
    return subgroup * X_ROWS * X_STRIDE + 4u * i;
}

fn exponent_of(row: u32) -> i32 {
    return exponent_in(x[exponent_place(row, args.runs)]);
}
#else
// The largest magnitude of each row, as bits.
var<workgroup> largest: array<atomic<u32>, X_ROWS>;
// The power of two of each row.
var<private> powers: array<f32, X_ROWS>;
// Vectors of a row that an invocation loads at a time, so that the loads overlap.
const AT_ONCE: u32 = 4u / X_ROWS;

// Finds the power of two of each row. Every workgroup reads x for that once more, while the first parts of the weight are on their way.
fn find_powers(local: u32) {
    if local < X_ROWS {
        atomicStore(&largest[local], 0u);
    }
    var own = array<u32, X_ROWS>();
#ifdef X_VECTORS
    let fours = args.k >> 2u;
    for (var i = local; i < fours; i += AT_ONCE * SUBGROUPS * 32u) {
        for (var r = 0u; r < X_ROWS; r++) {
            let row = (args.x + min(r, args.rows - 1u) * args.k) >> 2u;
            for (var j = 0u; j < AT_ONCE; j++) {
                own[r] = max(own[r], largest_bits(x[row + min(i + j * SUBGROUPS * 32u, fours - 1u)]));
            }
        }
    }
#else
    for (var i = local; i < args.k; i += SUBGROUPS * 32u) {
        for (var r = 0u; r < X_ROWS; r++) {
            own[r] = max(own[r], bitcast<u32>(x[args.x + min(r, args.rows - 1u) * args.k + i]) & 0x7fffffffu);
        }
    }
#endif
    workgroupBarrier();
    for (var r = 0u; r < X_ROWS; r++) {
        atomicMax(&largest[r], own[r]);
    }
    workgroupBarrier();
    for (var r = 0u; r < X_ROWS; r++) {
        powers[r] = power(exponent_of(r));
    }
}

fn exponent_of(row: u32) -> i32 {
    return row_exponent(atomicLoad(&largest[min(row, X_ROWS - 1u)]));
}

// Four columns of each row, for half a group.
var<private> x_ahead: array<vec4<f32>, X_ROWS>;

// The first of this lane's four columns, counted from the start of the group.
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

// Loads the columns of half a group.
fn ask_x(t: u32, half: u32) {
    for (var r = 0u; r < X_ROWS; r++) {
        x_ahead[r] = x_four(t, r, half);
    }
}

fn stage_x() {
    for (var r = 0u; r < X_ROWS; r++) {
        staged_x[(subgroup * X_ROWS + r) * X_STRIDE + lane] = activation(x_ahead[r], powers[r]);
    }
}

// The place where run `i` of part `q` is staged.
fn staged_run(q: u32, i: u32) -> u32 {
    return subgroup * X_ROWS * X_STRIDE + 16u * (q & 1u) + 4u * i;
}
#endif

// Stages and multiplies run `i` of part `q`.
fn step_run(q: u32, i: u32) {
    let h = i & 1u;
    stage_run(values(ahead.heads[q % HEADS][h], ahead.codes[q][h], q % PARTS, h, i >> 1u));
    sync();
    let b = load_b(staged_run(q, i));
#for R in 0 1
    sums.sums_$R = multiply_add(load_a((subgroup * 32u + 16u * $Ru) * STRIDE), b, sums.sums_$R);
#end
    sync();
}

// Multiplies part `q` of a group, and then loads that of group `next`.
fn step_part(q: u32, t: u32, next: u32) {
#ifdef X_HALF
    stage_x();
    ask_x(select(next, t, q < 3u), (q + 1u) % 4u);
#else
    if (q & 1u) == 0u {
        stage_x();
        ask_x(select(next, t, q < 2u), 1u - (q >> 1u));
    }
#endif
#ifdef EMULATED
    // If this loop were unrolled, a software driver would take minutes to compile it.
    for (var i = 0u; i < min(args.k, 4u); i++) {
        step_run(q, i);
    }
#else
#for I in 0 1 2 3
    step_run(q, $Iu);
#end
#endif
    ask(next, q);
}

// Multiplies the subgroup's range of a tile, and loads the beginning of the next.
fn accumulate(last: u32, next_tile: u32) {
    sums = Tile();
    for (var t = begin; t <= last; t++) {
#ifdef ONE_HEAD
        ahead.heads[0] = ahead.next_heads;
#endif
        // The group after the last is the first one of the next tile.
        let next = select(t + 1u, begin, t == last);
        tile = select(tile, next_tile, t == last);
#ifdef EMULATED
        for (var q = 0u; q < min(args.k, 4u); q++) {
            step_part(q, t, next);
        }
#else
#for Q in 0 1 2 3
        step_part($Qu, t, next);
#end
#endif
    }
}

// An element of the sum over the matrices of all ranges.
fn total(e: u32) -> f32 {
    var total = partial[e];
    for (var i = 1u; i < SPLITS; i++) {
        total += partial[e + i * 256u];
    }
    return total;
}

@compute @workgroup_size(SUBGROUPS * 32u)
fn matmul_coop_16(place: Place) {
    take_place(place);
    let first_tile = place.group.x * args.tiles;
    tile = first_tile;
    let groups = (args.units * PARTS + 3u) / 4u;
    begin = subgroup * groups / SPLITS;
    end = (subgroup + 1u) * groups / SPLITS;
    // All subgroups take the same number of steps; x is zero after the end of a range.
    let last = begin + (groups + SPLITS - 1u) / SPLITS - 1u;
    ask_x(begin, 0u);
    ask(begin, 0u);
    ask(begin, 1u);
    ask(begin, 2u);
    ask(begin, 3u);
#ifdef X_HALF
#else
    find_powers(place.local);
#endif
    // An invocation writes this row.
    let row = place.local >> 4u;
    let back = scale_back(exponent_of(row));
    for (var i = 0u; i < args.tiles; i++) {
        accumulate(last, min(first_tile + i + 1u, args.last_tile));
        workgroupBarrier();
        store(sums.sums_0, subgroup * 256u);
        store(sums.sums_1, (SPLITS + subgroup) * 256u);
        workgroupBarrier();
        let e = place.local;
        write_two(row, first_tile + i, e & 15u, back * total(e), back * total(SPLITS * 256u + e));
    }
}
