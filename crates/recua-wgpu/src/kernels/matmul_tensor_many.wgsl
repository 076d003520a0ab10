// As matmul_tensor.wgsl, for many rows: one reading and decoding of a weight serves 128 rows, and a workgroup has 128 weight rows.
// Bindings: matmul_bindings.wgsl, x from matmul_activations.wgsl. GLU: half of a workgroup's weight rows are of gate, half of up.
// The 8 subgroups compute 32 rows of x by 64 weight rows each. Half a part, 32 columns, is staged in workgroup memory at a time: an
// invocation decodes a run of a weight row and copies its share of x. There is room for two halves, so that one is staged while the
// other is multiplied; loads are a part or more ahead.
// Bound by latency: only one workgroup fits on a core of the largest device, because sums and totals take half of its registers, and
// its subgroups wait for each other at every half. Without staging it would be 1.4 times as fast, without barriers twice.
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

const SPLITS: u32 = 8u;
// Subgroups next to each other along the weight rows; four along the rows of x. A software adapter has less workgroup memory.
// Vectors of four f16 between rows: 32 columns, padded so that they lie in different banks.
#ifdef EMULATED
const WIDTH: u32 = 1u;
const STRIDE: u32 = 8u;
#else
const WIDTH: u32 = 2u;
const STRIDE: u32 = 10u;
#endif
const X_STRIDE: u32 = STRIDE;
#define STAGES_X
// Tiles of 32 weight rows of a workgroup.
const TILES: u32 = 2u * WIDTH;
// Vectors of a half part's weights and rows of x.
const STAGE: u32 = TILES * 32u * STRIDE;
const X_STAGE: u32 = 128u * X_STRIDE;

// [half][weight row][32 columns]
var<workgroup> staged: array<vec4<f16>, 2u * STAGE>;
// [half][row of x][32 columns]
var<workgroup> staged_x: array<vec4<f16>, 2u * X_STAGE>;
// [subgroup][row of x][weight row]
var<workgroup> partial: array<f32, WIDTH * 4u * 256u>;

#import matmul_matrices

// This invocation's place.
var<private> subgroup: u32;
var<private> lane: u32;
// The workgroup's first tile of weight rows, the part's last one, and the first tile of 16 rows of x.
var<private> first_tile: u32;
var<private> last_tile: u32;
var<private> x_tile: u32;

// What is staged now and next of a weight row, and of x for each half.
var<private> row_head: Head;
var<private> row_codes: Codes;
var<private> next_head: Head;
var<private> next_codes: Codes;
// Tiles of 16 rows by 16 columns that a subgroup copies of a half.
#ifdef EMULATED
const COPIES: u32 = 4u;
#else
const COPIES: u32 = 2u;
#endif
var<private> x_ahead: array<array<vec4<u32>, COPIES>, 2>;

// The matrices of the half's first and second run.
struct Matrices {
    a_0: MatrixA,
    a_1: MatrixA,
    a_2: MatrixA,
    a_3: MatrixA,
    b_0: MatrixB,
    b_1: MatrixB,
}
var<private> first_run: Matrices;
var<private> second_run: Matrices;

// [rows of x / 16][weight rows / 16]
struct Tile {
    sums_00: Sums,
    sums_01: Sums,
    sums_02: Sums,
    sums_03: Sums,
    sums_10: Sums,
    sums_11: Sums,
    sums_12: Sums,
    sums_13: Sums,
}
var<private> sums: Tile;

// The weight rows that an invocation decodes: a tile, of which it has row `lane`, and whether runs 0 and 2 or runs 1 and 3.
fn own_tile() -> u32 {
    return subgroup % TILES;
}
fn own_runs() -> u32 {
    return subgroup / TILES;
}

// Asks for part `p` of the weight row; with GLU the second half of the tiles are of up.
fn ask_weight(p: u32) {
    var tile = own_tile();
#ifdef GLU
    weight_idx = tile / WIDTH;
    tile %= WIDTH;
#endif
    let first = (min(first_tile + tile, last_tile) * args.units + p / PARTS) * UNIT_VECTORS;
    next_head = head(first, lane, own_runs());
    next_codes = codes(first, lane, p % PARTS, own_runs());
}

fn take_weight() {
    row_head = next_head;
    row_codes = next_codes;
}

// Asks for 16 bytes of a row of x, of half `half` of part `p`: neighbours read what lies together.
fn ask_copy(p: u32, half: u32, copy: u32) {
    let i = COPIES * subgroup + copy;
    let run = p / PARTS * PARTS * 4u + column(p % PARTS, 2u * half + (i & 1u)) / 16u;
    let at = ((x_tile + (i >> 1u)) * (args.units * PARTS * 4u + 1u) + run) * 32u;
    x_ahead[half][copy] = x[at + (lane & 15u) * 2u + (lane >> 4u)];
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
    let at = half * X_STAGE + ((i >> 1u) * 16u + (lane & 15u)) * X_STRIDE + (i & 1u) * 4u + (lane >> 4u) * 2u;
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

// The matrices of run `i` of a half. With GLU two of gate and two of up.
fn load_run(half: u32, i: u32) -> Matrices {
    let column = subgroup % WIDTH;
#ifdef GLU
    let row = half * STAGE + column * 32u * STRIDE + 4u * i;
    let other = row + WIDTH * 32u * STRIDE;
#else
    let row = half * STAGE + column * 64u * STRIDE + 4u * i;
    let other = row + 32u * STRIDE;
#endif
    let x_row = half * X_STAGE + subgroup / WIDTH * 32u * X_STRIDE + 4u * i;
    return Matrices(
        load_a(row),
        load_a(row + 16u * STRIDE),
        load_a(other),
        load_a(other + 16u * STRIDE),
        load_b(x_row),
        load_b(x_row + 16u * X_STRIDE),
    );
}

fn multiply(run: Matrices) {
    sums.sums_00 = multiply_add(run.a_0, run.b_0, sums.sums_00);
    sums.sums_01 = multiply_add(run.a_1, run.b_0, sums.sums_01);
    sums.sums_02 = multiply_add(run.a_2, run.b_0, sums.sums_02);
    sums.sums_03 = multiply_add(run.a_3, run.b_0, sums.sums_03);
    sums.sums_10 = multiply_add(run.a_0, run.b_1, sums.sums_10);
    sums.sums_11 = multiply_add(run.a_1, run.b_1, sums.sums_11);
    sums.sums_12 = multiply_add(run.a_2, run.b_1, sums.sums_12);
    sums.sums_13 = multiply_add(run.a_3, run.b_1, sums.sums_13);
}

// Both halves of part `p`, while what comes next is staged; what comes behind that is asked for.
fn multiply_part(p: u32, parts: u32) {
    let next = min(p + 1u, parts - 1u);
    let second_next = min(p + 2u, parts - 1u);
    first_run = load_run(0u, 0u);
    second_run = load_run(0u, 1u);
    multiply(first_run);
    multiply(second_run);
    stage(p, 1u);
    take_weight();
    ask_weight(second_next);
    ask_x(next, 1u);
    workgroupBarrier();
    first_run = load_run(1u, 0u);
    second_run = load_run(1u, 1u);
    multiply(first_run);
    multiply(second_run);
    stage(next, 0u);
    ask_x(second_next, 0u);
    workgroupBarrier();
}

// A lane's elements of a matrix: every second row of x from lane / 16 on.
struct Elements {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn elements(sums: Sums) -> Elements {
    let slot = subgroup * 256u;
    sync();
    store(sums, slot);
    sync();
    let at = slot + lane;
    return Elements(
        vec4<f32>(partial[at], partial[at + 32u], partial[at + 64u], partial[at + 96u]),
        vec4<f32>(partial[at + 128u], partial[at + 160u], partial[at + 192u], partial[at + 224u]),
    );
}

fn write_elements(row: u32, i: u32, v: Elements) {
    let r = row + (lane >> 4u);
    let n = i + (lane & 15u);
    write_out(r, n, v.a.x);
    write_out(r + 2u, n, v.a.y);
    write_out(r + 4u, n, v.a.z);
    write_out(r + 6u, n, v.a.w);
    write_out(r + 8u, n, v.b.x);
    write_out(r + 10u, n, v.b.y);
    write_out(r + 12u, n, v.b.z);
    write_out(r + 14u, n, v.b.w);
}

#ifdef GLU
fn silu_four(v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(silu(v.x), silu(v.y), silu(v.z), silu(v.w));
}

fn write_pair(row: u32, i: u32, gate: Sums, up: Sums) {
    let g = elements(gate);
    let u = elements(up);
    write_elements(row, i, Elements(silu_four(g.a) * u.a, silu_four(g.b) * u.b));
}
#endif

@compute @workgroup_size(WIDTH * 128u)
fn matmul_tensor_many(
    @builtin(workgroup_id) id: vec3<u32>,
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
    // A part's last workgroup may have fewer tiles: it repeats the last one, and nobody writes the repetition.
#ifdef GLU
    first_tile = choose_part(id.x) * WIDTH;
#else
    first_tile = choose_part(id.x) * TILES;
#endif
    last_tile = (args.count[weight_idx] + 31u) / 32u - 1u;
    x_tile = id.y * 8u;
    // Ranges are of whole groups of four parts, as in matmul_tensor.wgsl.
    let parts = args.units * PARTS;
    let groups = (parts + 3u) / 4u;
    var totals = Tile();
    ask_weight(0u);
    ask_x(0u, 0u);
    take_weight();
    stage(0u, 0u);
    ask_weight(min(1u, parts - 1u));
    ask_x(0u, 1u);
    ask_x(min(1u, parts - 1u), 0u);
    workgroupBarrier();
    for (var split = 0u; split < SPLITS; split++) {
        sums = Tile();
        let begin = split * groups / SPLITS * 4u;
        let end = min((split + 1u) * groups / SPLITS * 4u, parts);
        for (var p = begin; p < end; p++) {
            multiply_part(p, parts);
        }
        totals.sums_00 = add_sums(totals.sums_00, sums.sums_00);
        totals.sums_01 = add_sums(totals.sums_01, sums.sums_01);
        totals.sums_02 = add_sums(totals.sums_02, sums.sums_02);
        totals.sums_03 = add_sums(totals.sums_03, sums.sums_03);
        totals.sums_10 = add_sums(totals.sums_10, sums.sums_10);
        totals.sums_11 = add_sums(totals.sums_11, sums.sums_11);
        totals.sums_12 = add_sums(totals.sums_12, sums.sums_12);
        totals.sums_13 = add_sums(totals.sums_13, sums.sums_13);
    }
    let row = x_tile * 16u + subgroup / WIDTH * 32u;
#ifdef GLU
    weight_idx = 0u;
    let i = first_tile * 32u + subgroup % WIDTH * 32u;
    write_pair(row, i, totals.sums_00, totals.sums_02);
    write_pair(row, i + 16u, totals.sums_01, totals.sums_03);
    write_pair(row + 16u, i, totals.sums_10, totals.sums_12);
    write_pair(row + 16u, i + 16u, totals.sums_11, totals.sums_13);
#else
    let i = first_tile * 32u + subgroup % WIDTH * 64u;
    write_elements(row, i, elements(totals.sums_00));
    write_elements(row, i + 16u, elements(totals.sums_01));
    write_elements(row, i + 32u, elements(totals.sums_02));
    write_elements(row, i + 48u, elements(totals.sums_03));
    write_elements(row + 16u, i, elements(totals.sums_10));
    write_elements(row + 16u, i + 16u, elements(totals.sums_11));
    write_elements(row + 16u, i + 32u, elements(totals.sums_12));
    write_elements(row + 16u, i + 48u, elements(totals.sums_13));
#endif
}
