// Like matmul_coop_16.wgsl, for many rows: each weight that is read and decoded serves 128 rows of x, and a workgroup has 128 weight rows.
// Bindings: matmul_bindings.wgsl, x from matmul_activations.wgsl.
// Each of the 8 subgroups computes 32 rows of x by 64 weight rows. Half a part, 32 columns, is staged in workgroup memory at a time: an
// invocation decodes a run of a weight row and copies its share of x. There is room for two halves, so that one is staged while the other
// is multiplied; loads are one part ahead.
// Bound by latency: only one workgroup fits on a core of the largest device, because sums and totals take half of its registers, and its
// subgroups wait for each other at every half. Without staging it would be 1.4 times as fast, without barriers twice as fast.
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

const SPLITS: u32 = 8u;
// WIDTH: subgroups along the weight rows; there are four along the rows of x. A software adapter has less workgroup memory.
// STRIDE: vectors of four f16 between rows of 32 columns, padded so that they lie in different banks.
#ifdef EMULATED
const WIDTH: u32 = 1u;
const STRIDE: u32 = 8u;
#else
const WIDTH: u32 = 2u;
const STRIDE: u32 = 10u;
#endif
const X_STRIDE: u32 = STRIDE;
// Tiles of 32 weight rows per workgroup.
const TILES: u32 = 2u * WIDTH;
// Vectors for half a part: of weights, and of rows of x.
const STAGE: u32 = TILES * 32u * STRIDE;
const X_STAGE: u32 = 128u * X_STRIDE;

// [half][weight row][32 columns]
var<workgroup> staged: array<vec4<f16>, 2u * STAGE>;
// [half][row of x][32 columns]
var<workgroup> staged_x: array<vec4<f16>, 2u * X_STAGE>;
// [subgroup][row of x][weight row]
var<workgroup> partial: array<f32, WIDTH * 4u * 256u>;

#import matrices
#import matmul_write

// The workgroup's first tile of weight rows, and its first tile of 16 rows of x.
var<private> first_tile: u32;
var<private> x_tile: u32;

// What is staged now and next: of a weight row, and of x for each half.
var<private> row_head: Head;
var<private> row_codes: Codes;
var<private> next_head: Head;
var<private> next_codes: Codes;
// Tiles of 16 rows by 16 columns that a subgroup copies for a half.
#ifdef EMULATED
const COPIES: u32 = 4u;
#else
const COPIES: u32 = 2u;
#endif
var<private> x_ahead: array<array<vec4<u32>, COPIES>, 2>;

// The matrices of a run.
struct Matrices {
#for W in 0 1 2 3
    a_$W: MatrixA,
#end
    b_0: MatrixB,
    b_1: MatrixB,
}

// Rows of x / 16, weight rows / 16.
struct Tile {
#for C in 0 1
#for W in 0 1 2 3
    sums_$C$W: Sums,
#end
#end
}
var<private> sums: Tile;

// The weight rows that an invocation decodes: a tile, of which it has row `lane`, and either runs 0 and 2 or runs 1 and 3.
fn own_tile() -> u32 {
    return subgroup % TILES;
}
fn own_runs() -> u32 {
    return subgroup / TILES;
}

// Loads part `p` of the weight row.
fn ask_weight(p: u32) {
    let first = (min(first_tile + own_tile(), args.last_tile) * args.units + p / PARTS) * UNIT_VECTORS;
    next_head = head(first, lane, own_runs());
    next_codes = codes(first, lane, p % PARTS, own_runs());
}

fn take_weight() {
    row_head = next_head;
    row_codes = next_codes;
}

// Loads 16 bytes of a row of x, of half `half` of part `p`: neighbouring invocations read adjacent bytes.
fn ask_copy(p: u32, half: u32, copy: u32) {
    let i = COPIES * subgroup + copy;
    let run = p / PARTS * PARTS * 4u + column(p % PARTS, 2u * half + (i & 1u)) / 16u;
    let at = ((x_tile + (i >> 1u)) * args.runs + run) * 32u;
    x_ahead[half][copy] = x[at + lane];
}

fn ask_x(p: u32, half: u32) {
    ask_copy(p, half, 0u);
    ask_copy(p, half, 1u);
#ifdef EMULATED
    ask_copy(p, half, 2u);
    ask_copy(p, half, 3u);
#endif
}

fn stage_copy(half: u32, copy: u32) {
    let i = COPIES * subgroup + copy;
    let at = half * X_STAGE + ((i >> 1u) * 16u + (lane >> 1u)) * X_STRIDE + (i & 1u) * 4u + (lane & 1u) * 2u;
    let v = x_ahead[half][copy];
    staged_x[at] = vec4<f16>(pair(v.x), pair(v.y));
    staged_x[at + 1u] = vec4<f16>(pair(v.z), pair(v.w));
}

// Stages half `half` of part `p`.
fn stage(p: u32, half: u32) {
    let at = half * STAGE + (own_tile() * 32u + lane) * STRIDE + own_runs() * 4u;
    let v = values(row_head, row_codes, p % PARTS, own_runs(), half);
    staged[at] = v[0];
    staged[at + 1u] = v[1];
    staged[at + 2u] = v[2];
    staged[at + 3u] = v[3];
    stage_copy(half, 0u);
    stage_copy(half, 1u);
#ifdef EMULATED
    stage_copy(half, 2u);
    stage_copy(half, 3u);
#endif
}

// The matrices of run `i` of a half.
fn load_run(half: u32, i: u32) -> Matrices {
    let row = half * STAGE + subgroup % WIDTH * 64u * STRIDE + 4u * i;
    let x_row = half * X_STAGE + subgroup / WIDTH * 32u * X_STRIDE + 4u * i;
    return Matrices(
#for W in 0 1 2 3
        load_a(row + 16u * $Wu * STRIDE),
#end
        load_b(x_row),
        load_b(x_row + 16u * X_STRIDE),
    );
}

fn multiply(run: Matrices) {
#for C in 0 1
#for W in 0 1 2 3
    sums.sums_$C$W = multiply_add(run.a_$W, run.b_$C, sums.sums_$C$W);
#end
#end
}

// Multiplies a staged half, all of which is loaded first.
fn multiply_half(half: u32) {
    let first = load_run(half, 0u);
    let second = load_run(half, 1u);
    multiply(first);
    multiply(second);
}

// Multiplies both halves of part `p`, while the next ones are staged. The loads come first; at the end, they would have to be waited for.
fn multiply_part(p: u32, next: u32) {
    ask_weight(next);
    ask_x(next, 0u);
    multiply_half(0u);
    stage(p, 1u);
    workgroupBarrier();
    ask_x(next, 1u);
    multiply_half(1u);
    take_weight();
    stage(next, 0u);
    workgroupBarrier();
}

@compute @workgroup_size(WIDTH * 128u)
fn matmul_coop_128(place: Place) {
    take_place(place);
    // The last workgroup may have fewer tiles: it repeats the last one, and the repetition is not written.
    first_tile = place.group.x * TILES;
    x_tile = place.group.y * 8u;
    // A range consists of whole groups of four parts, as in matmul_coop_16.wgsl.
    let parts = args.units * PARTS;
    let groups = (parts + 3u) / 4u;
    var totals = Tile();
    ask_weight(0u);
    ask_x(0u, 0u);
    ask_x(0u, 1u);
    take_weight();
    stage(0u, 0u);
    workgroupBarrier();
    for (var split = 0u; split < SPLITS; split++) {
        sums = Tile();
        let begin = split * groups / SPLITS * 4u;
        let end = min((split + 1u) * groups / SPLITS * 4u, parts);
        for (var p = begin; p < end; p++) {
            multiply_part(p, min(p + 1u, parts - 1u));
        }
#for C in 0 1
#for W in 0 1 2 3
        totals.sums_$C$W = add_sums(totals.sums_$C$W, sums.sums_$C$W);
#end
#end
    }
    let row = x_tile * 16u + subgroup / WIDTH * 32u;
    let tile = first_tile + subgroup % WIDTH * 2u;
#for C in 0 1
    write_tile(row + 16u * $Cu, tile, totals.sums_$C0, totals.sums_$C1);
    write_tile(row + 16u * $Cu, tile + 1u, totals.sums_$C2, totals.sums_$C3);
#end
}
