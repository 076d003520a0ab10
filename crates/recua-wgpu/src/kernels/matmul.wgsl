// out[r][i] = Σ_k x[r][k] w[i][k] (+ bias[i]) (+ add[r][i]); with GLU silu(x · gate) (x · up). In f32, on any adapter, 1 to 8 rows.
// Bindings: matmul_bindings.wgsl. A workgroup computes one tile of 32 weight rows for ROWS rows of x. Invocation (split, lane) has weight
// row `lane` and one of 8 ranges of K: it decodes each weight once for all ROWS, in registers, and needs no other invocation.
// Bound by instructions: about 3 to decode a weight and 1.25 a product; the bytes are read once, 16 to an invocation, next to each other.
// Same bits whatever ROWS: K is summed in each range by one chain of fma, then the ranges are added, 0 to 7.
#import matmul_bindings
#import matmul_decode
#import formats/*

#ifdef ROWS_1
const ROWS: u32 = 1u;
#endif
#ifdef ROWS_2
const ROWS: u32 = 2u;
#endif
#ifdef ROWS_4
const ROWS: u32 = 4u;
#endif
#ifdef ROWS_8
const ROWS: u32 = 8u;
#endif
const SPLITS: u32 = 8u;
// Rows that are summed up at a time.
const STEP: u32 = min(ROWS, 4u);
const STEPS: u32 = ROWS / STEP;

var<workgroup> partial: array<f32, 1024>;

// Four values of x from `column` on, zero behind the last one. Rows behind the last one repeat it: nobody writes their products.
fn x_at(row: u32, column: u32) -> vec4<f32> {
    let at = args.x + min(row, args.rows - 1u) * args.k + column;
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

fn accumulate(tile: u32, lane: u32, split: u32, row: u32, sums: ptr<function, array<f32, ROWS>>) {
    let parts = args.units * PARTS;
    let end = (split + 1u) * parts / SPLITS;
    for (var p = split * parts / SPLITS; p < end; p++) {
        let unit = p / PARTS;
        let part = p % PARTS;
        let first_vector = (tile * args.units + unit) * UNIT_VECTORS;
        let heads = array<Head, 2>(head(first_vector, lane, 0u), head(first_vector, lane, 1u));
        let part_codes = array<Codes, 2>(codes(first_vector, lane, part, 0u), codes(first_vector, lane, part, 1u));
        for (var j = 0u; j < 2u; j++) {
            for (var h = 0u; h < 2u; h++) {
                let first = unit * PARTS * 64u + column(part, h + 2u * j);
                let v = values(heads[h], part_codes[h], part, h, j);
                for (var c = 0u; c < 4u; c++) {
                    let at = first + 4u * c;
                    for (var r = 0u; r < ROWS; r++) {
                        let four = x_at(row + r, at);
                        let two = fma(v[c].y, four.y, fma(v[c].x, four.x, (*sums)[r]));
                        (*sums)[r] = fma(v[c].w, four.w, fma(v[c].z, four.z, two));
                    }
                }
            }
        }
    }
}

// The sums of the ranges for STEP rows from `r` on; invocation (q, lane) gets that of row r + q.
fn add_ranges(local: u32, r: u32, sums: ptr<function, array<f32, ROWS>>) -> f32 {
    for (var q = 0u; q < STEP; q++) {
        partial[q * 256u + local] = (*sums)[r + q];
    }
    workgroupBarrier();
    var total = 0.0;
    if local < 32u * STEP {
        let at = (local >> 5u) * 256u + (local & 31u);
        total = partial[at];
        for (var split = 1u; split < SPLITS; split++) {
            total += partial[at + split * 32u];
        }
    }
    workgroupBarrier();
    return total;
}

@compute @workgroup_size(256)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = choose_part(group.x);
    let lane = local & 31u;
    let row = group.y * ROWS;
    var sums: array<f32, ROWS>;
    accumulate(tile, lane, local >> 5u, row, &sums);
#ifdef GLU
    var gates: array<f32, STEPS>;
    for (var s = 0u; s < STEPS; s++) {
        gates[s] = add_ranges(local, s * STEP, &sums);
    }
    sums = array<f32, ROWS>();
    weight_idx = 1u;
    accumulate(tile, lane, local >> 5u, row, &sums);
#endif
    for (var s = 0u; s < STEPS; s++) {
        var total = add_ranges(local, s * STEP, &sums);
#ifdef GLU
        total = silu(gates[s]) * total;
#endif
        if local < 32u * STEP {
            write_out(row + s * STEP + (local >> 5u), tile * 32u + lane, total);
        }
    }
}
