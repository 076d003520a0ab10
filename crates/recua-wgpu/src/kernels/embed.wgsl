// out[r] = table[tokens[r]], decoded. If a word's top bit is set, it is a place in chosen, which holds the token; NONE there counts as
// token 0.
// Bindings: 0 status, 1 tokens, 2 table (a piece of it), 3 out, 4 chosen (anything if n_chosen is 0). An invocation decodes a part of 64
// columns of one row.
// Bound by latency: a row is a few kilobytes. The layout is that of the products, so a tied table is stored once.
#import status
#import decode
#import formats/*

struct Args {
    k: u32,
    rows: u32,
    units: u32,
    // Rows in the whole table.
    n: u32,
    // The bound piece of the table: its first row, and its number of rows.
    first: u32,
    count: u32,
    tokens: u32,
    out: u32,
    chosen: u32,
    n_chosen: u32,
}

var<immediate> args: Args;

@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> chosen: array<u32>;

const CHOSEN = 0x80000000u;
const NONE = 0xffffffffu;

fn vector_at(i: u32) -> vec4<u32> {
    return table[i];
}

fn word_at(i: u32) -> u32 {
    return table[i >> 2u][i & 3u];
}

@compute @workgroup_size(64)
fn embed(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let p = group.x * 64u + local;
    let row = group.y;
    var token = tokens[args.tokens + row];
    if (token & CHOSEN) != 0u && args.n_chosen > 0u {
        let place = token ^ CHOSEN;
        if place >= args.n_chosen {
            if p == 0u {
                report(11u, place, args.n_chosen);
            }
            return;
        }
        token = chosen[args.chosen + place];
        token = select(token, 0u, token == NONE);
    }
    if token >= args.n {
        if p == 0u {
            report(1u, token, args.n);
        }
        return;
    }
    if p >= args.units * PARTS || token < args.first || token >= args.first + args.count {
        return;
    }
    let table_row = token - args.first;
    let unit = p / PARTS;
    let part = p % PARTS;
    let first_vector = ((table_row >> 5u) * args.units + unit) * UNIT_VECTORS;
    for (var i = 0u; i < 4u; i++) {
        let h = i & 1u;
        let head_h = head(first_vector, table_row & 31u, h);
        let first = unit * PARTS * 64u + column(part, i);
        let v = values(head_h, codes(first_vector, table_row & 31u, part, h), part, h, i >> 1u);
        for (var j = 0u; j < 16u; j++) {
            if first + j < args.k {
                out[args.out + row * args.k + first + j] = v[j >> 2u][j & 3u];
            }
        }
    }
}
