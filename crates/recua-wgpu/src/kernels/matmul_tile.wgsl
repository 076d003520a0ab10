// As matmul.wgsl, for 9 rows and more: out[r][i] = Σ_k x[r][k] w[i][k], in f32, on any adapter. Bindings: matmul_bindings.wgsl.
// A workgroup computes 64 weight rows (two tiles of 32; with GLU one of gate and one of up) for X_ROWS rows of x. Of both, half a part,
// 32 columns, is staged in workgroup memory at a time: half of the invocations decode a run of a weight row each, the others copy x.
// Then each multiplies four weight rows, 16 apart, with X_EACH rows of x, 16 apart. What is staged next is asked for before that.
// Bound by fma where rows are many: 16 to 64 of them for 5 to 8 loads from workgroup memory. 16 KB of it, as small adapters have.
// The bits of matmul.wgsl: in each of 8 ranges of K four chains (k mod 4) of fma in the same order, the chains as (0+1)+(2+3), the
// ranges 0 to 7.
#import matmul_bindings
#import matmul_decode
#import formats/*

#ifdef X_EACH_1
const X_EACH: u32 = 1u;
#endif
#ifdef X_EACH_2
const X_EACH: u32 = 2u;
#endif
#ifdef X_EACH_4
const X_EACH: u32 = 4u;
#endif
const X_ROWS: u32 = 16u * X_EACH;
const SPLITS: u32 = 8u;

// [row][four columns]; see `place`.
var<workgroup> staged: array<vec4<f32>, 512>;
var<workgroup> staged_x: array<vec4<f32>, X_ROWS * 8u>;

// Of the weight row that this invocation decodes: its tile and place there, whether it has runs 0 and 2 or runs 1 and 3, and what it
// has asked for.
var<private> tile: u32;
var<private> lane: u32;
var<private> own_h: u32;
var<private> row_head: Head;
var<private> row_codes: Codes;
// Of the invocations that copy x: what they have asked for.
var<private> x_ahead: array<vec4<f32>, X_EACH>;
// The workgroup's first row of x.
var<private> first_row: u32;

// Where four columns of a staged row are: neighbouring rows lie in different banks.
fn place(row: u32, c: u32) -> u32 {
    return row * 8u + (c ^ (row & 7u));
}

// The first of four columns of half `j` of part `p`.
fn column_of(p: u32, j: u32, c: u32) -> u32 {
    return p / PARTS * PARTS * 64u + column(p % PARTS, (c >> 2u) + 2u * j) + 4u * (c & 3u);
}

fn ask_weight(p: u32) {
    let unit = (tile * args.units + p / PARTS) * UNIT_VECTORS;
    row_head = head(unit, lane, own_h);
    row_codes = codes(unit, lane, p % PARTS, own_h);
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

fn ask_x(p: u32, j: u32, copier: u32) {
    for (var i = 0u; i < X_EACH; i++) {
        let v = copier + 128u * i;
        x_ahead[i] = x_four(v >> 3u, column_of(p, j, v & 7u));
    }
}

// Stages half `j` of part `p`.
fn stage(p: u32, j: u32, local: u32) {
    if local < 128u {
        let v = values(row_head, row_codes, p % PARTS, own_h, j);
        let row = local & 63u;
        staged[place(row, 4u * own_h)] = v[0];
        staged[place(row, 4u * own_h + 1u)] = v[1];
        staged[place(row, 4u * own_h + 2u)] = v[2];
        staged[place(row, 4u * own_h + 3u)] = v[3];
    } else {
        for (var i = 0u; i < X_EACH; i++) {
            let v = local - 128u + 128u * i;
            staged_x[place(v >> 3u, v & 7u)] = x_ahead[i];
        }
    }
}

// [row of x][weight row]
alias Sums = array<vec4<f32>, 4u * X_EACH>;

@compute @workgroup_size(256)
fn matmul_tile(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place_in_part = choose_part(group.x);
    let part_idx = weight_idx;
    // A part's last workgroup may have one tile: it repeats it, and nobody writes the repetition.
    let own_tile = (local >> 5u) & 1u;
#ifdef GLU
    weight_idx = own_tile;
    tile = place_in_part;
#else
    tile = min(place_in_part * 2u + own_tile, (args.count[weight_idx] + 31u) / 32u - 1u);
#endif
    lane = local & 31u;
    own_h = (local >> 6u) & 1u;
    first_row = group.y * X_ROWS;
    let w_row = local & 15u;
    let x_row = local >> 4u;
    let parts = args.units * PARTS;
    var totals: array<f32, 4u * X_EACH>;
    var sums: Sums;
    if local < 128u {
        ask_weight(0u);
    } else {
        ask_x(0u, 0u, local - 128u);
    }
    for (var split = 0u; split < SPLITS; split++) {
        for (var i = 0u; i < 4u * X_EACH; i++) {
            sums[i] = vec4<f32>(0.0);
        }
        let end = (split + 1u) * parts / SPLITS;
        for (var p = split * parts / SPLITS; p < end; p++) {
            for (var j = 0u; j < 2u; j++) {
                workgroupBarrier();
                stage(p, j, local);
                workgroupBarrier();
                let next = min(p + j, parts - 1u);
                if local >= 128u {
                    ask_x(next, 1u - j, local - 128u);
                } else if j == 1u {
                    ask_weight(next);
                }
                for (var c = 0u; c < 8u; c++) {
                    if column_of(p, j, c) < args.k {
                        let at = w_row * 8u + (c ^ (w_row & 7u));
                        let x_at = x_row * 8u + (c ^ (x_row & 7u));
                        let w_0 = staged[at];
                        let w_1 = staged[at + 128u];
                        let w_2 = staged[at + 256u];
                        let w_3 = staged[at + 384u];
                        for (var r = 0u; r < X_EACH; r++) {
                            let v = staged_x[x_at + 128u * r];
                            sums[4u * r] = fma(w_0, v, sums[4u * r]);
                            sums[4u * r + 1u] = fma(w_1, v, sums[4u * r + 1u]);
                            sums[4u * r + 2u] = fma(w_2, v, sums[4u * r + 2u]);
                            sums[4u * r + 3u] = fma(w_3, v, sums[4u * r + 3u]);
                        }
                    }
                }
            }
        }
        for (var i = 0u; i < 4u * X_EACH; i++) {
            let s = sums[i];
            let sum = (s.x + s.y) + (s.z + s.w);
            totals[i] = select(totals[i] + sum, sum, split == 0u);
        }
    }
    weight_idx = part_idx;
    for (var r = 0u; r < X_EACH; r++) {
        let row = first_row + x_row + 16u * r;
#ifdef GLU
        let i = place_in_part * 32u + w_row;
        write_out(row, i, silu(totals[4u * r]) * totals[4u * r + 2u]);
        write_out(row, i + 16u, silu(totals[4u * r + 1u]) * totals[4u * r + 3u]);
#else
        let i = place_in_part * 64u + w_row;
        write_out(row, i, totals[4u * r]);
        write_out(row, i + 16u, totals[4u * r + 1u]);
        write_out(row, i + 32u, totals[4u * r + 2u]);
        write_out(row, i + 48u, totals[4u * r + 3u]);
#endif
    }
}
