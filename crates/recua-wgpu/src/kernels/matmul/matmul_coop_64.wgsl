// Like matmul_coop_16.wgsl, for 17 rows and more, if matmul_coop_128.wgsl would have too few workgroups: a workgroup has 256 weight rows,
// so that few workgroups read the same x, and 16 rows of x for each of X_TILES. Bindings: matmul_bindings.wgsl, x from
// matmul_activations.wgsl.
// Each of 8 subgroups has a tile of 32 weight rows. A lane decodes one weight row, a run of 16 columns at a time, into the subgroup's own
// workgroup memory; the workgroup shares x, one part of which is multiplied while the next is staged. Parts of the weight move through
// registers as a queue: compilers place the loads for the next iteration at the end of a loop, just before their use, so everything is
// loaded one iteration earlier than it is needed.
// SPLIT: a workgroup has one of the 8 ranges of K, for weights of few rows; matmul_sum.wgsl adds what it writes to out, which is [tile of
// COLS * 16 rows of x][tile of 256 weight rows][range][row of x][weight row].
// Bound by workgroup memory and by latencies.
// The same bits as matmul_coop_16.wgsl: one range of K after the other, each in separate sums, which are then added to the totals.
enable f16;
#ifdef EMULATED
#else
enable wgpu_cooperative_matrix;
#endif
#define HALF
#define X_PACKED
#import matmul_bindings
#import half
#import decode
#import formats/*
#import matmul_ahead

#ifdef X_ROWS_32
#define X_TILES 0 1
const COLS: u32 = 2u;
#endif
#ifdef X_ROWS_64
#define X_TILES 0 1 2 3
const COLS: u32 = 4u;
#endif
const ROWS: u32 = SUBGROUPS * 32u;
// Vectors of four f16 from one row of x, of 64 columns, to the next.
const X_STRIDE: u32 = 18u;
const X_PART: u32 = COLS * 16u * X_STRIDE;
// Pairs of parts in flight.
const DEPTH: u32 = 2u;

// [first and second part][row of x][64 columns]
var<workgroup> staged_x: array<vec4<f16>, 2u * X_PART>;
// [subgroup][row of x][weight row]
var<workgroup> partial: array<f32, SUBGROUPS * 256u>;

#import matrices
#import matmul_write

// The heads of two parts.
#ifdef ONE_HEAD
const HEADS: u32 = 1u;
#else
const HEADS: u32 = 2u;
#endif
alias Heads = array<PartHeads, HEADS>;

// Rows of x / 16, weight rows / 16.
struct Tile {
#for C in X_TILES
    sums_$C_0: Sums,
    sums_$C_1: Sums,
#end
}

// This subgroup's tile.
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

// The heads of the parts `p` and `p + 1`.
fn heads_of_two(p: u32) -> Heads {
#ifdef ONE_HEAD
    return Heads(heads_at(p));
#else
    return Heads(heads_at(p), heads_at(p + 1u));
#endif
}

// Loads part `p` of all rows of x, which is stored as [tile of 16 rows][run][row].
fn ask_x(p: u32, local: u32) {
    let at = x_run(p, (local >> 5u) & 3u, true) * 32u + 2u * (local & 15u) + ((local >> 4u) & 1u);
    for (var j = 0u; j < X_EACH; j++) {
        x_ahead[j] = x[(x_tile + ((local + j * ROWS) >> 7u)) * args.runs * 32u + at];
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

// Stages and multiplies run `i` of the first or second (`which`) of the two current parts, `p` and `p + 1`.
fn step_run(p: u32, which: u32, i: u32) {
    let h = i & 1u;
    let part = ((p & 2u) + which) % PARTS;
    stage_run(values(heads[which % HEADS][h], codes_ahead[which][h], part, h, i >> 1u));
    sync();
    let a_0 = load_a(subgroup * 32u * STRIDE);
    let a_1 = load_a((subgroup * 32u + 16u) * STRIDE);
    let at = which * X_PART + 4u * i;
#for C in X_TILES
    let b_$C = load_b(at + 16u * $Cu * X_STRIDE);
    sums.sums_$C_0 = multiply_add(a_0, b_$C, sums.sums_$C_0);
    sums.sums_$C_1 = multiply_add(a_1, b_$C, sums.sums_$C_1);
#end
    sync();
}

// Multiplies a part, while the next one is staged.
fn step_part(p: u32, which: u32, local: u32) {
    stage_x(1u - which, local);
    ask_x(p + which + 2u, local);
#ifdef EMULATED
    // If this loop were unrolled, a software driver would take minutes to compile it.
    for (var i = 0u; i < min(args.k, 4u); i++) {
        step_run(p, which, i);
    }
#else
#for I in 0 1 2 3
    step_run(p, which, $Iu);
#end
#endif
    workgroupBarrier();
}

// Multiplies the ranges [first, end), one after the other.
fn accumulate(first: u32, end: u32, local: u32) {
    let groups = (args.units * PARTS + 3u) / 4u;
    let begin = first * groups / SPLITS * 4u;
    // The last pair of parts; if there is none, what is loaded is not used.
    let last = max(end * groups / SPLITS * 4u, begin + 2u) - 2u;
    var next_heads = heads_of_two(begin);
    for (var i = 0u; i < 2u * DEPTH; i++) {
        // After the last part, the last ones again: they are at hand, and a condition would delay the loads.
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
            next_heads = heads_of_two(min(p + 2u, last));
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
#for C in X_TILES
        totals.sums_$C_0 = add_sums(totals.sums_$C_0, sums.sums_$C_0);
        totals.sums_$C_1 = add_sums(totals.sums_$C_1, sums.sums_$C_1);
#end
#endif
    }
}

#ifdef SPLIT
// Writes a matrix whose first row of x and weight row are at `at`.
fn write_split(sums: Sums, at: u32) {
#ifdef EMULATED
    for (var e = 0u; e < 8u; e++) {
        out[at + (lane >> 1u) * ROWS + 8u * (lane & 1u) + e] = sums.v[e];
    }
#else
    coopStore(sums, &out[at], ROWS);
#endif
}
#endif

@compute @workgroup_size(ROWS)
fn matmul_coop_64(place: Place, @builtin(num_workgroups) groups: vec3<u32>) {
    take_place(place);
    let group = place.group;
    x_tile = group.z * COLS;
    // The last workgroup may have fewer tiles: it repeats the last one, and the repetition is not written.
    let own_tile = group.x * SUBGROUPS + subgroup;
    tile = min(own_tile, args.last_tile);
#ifdef SPLIT
    accumulate(group.y, group.y + 1u, place.local);
    let at = ((group.z * groups.x + group.x) * SPLITS + group.y) * COLS * 16u * ROWS + subgroup * 32u;
#for C in X_TILES
    write_split(sums.sums_$C_0, at + 16u * $Cu * ROWS);
    write_split(sums.sums_$C_1, at + 16u * $Cu * ROWS + 16u);
#end
#else
    totals = Tile();
    accumulate(0u, SPLITS, place.local);
#for C in X_TILES
    write_tile((x_tile + $Cu) * 16u, own_tile, totals.sums_$C_0, totals.sums_$C_1);
#end
#endif
}
