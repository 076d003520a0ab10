// attention_prefill: the same bits as attention, for wide tiles: neighbouring rows of prompts, each tile unsplit.
// One workgroup computes a block of queries: QUADS times four, from the heads that share a KV head and the rows of a tile.
// Bound by arithmetic: a thread computes 4 tokens by 4 or 8 queries of the scores, and 8 elements by 4 queries of the weighted sum.
#import attention_common

#ifdef TWO_QUADS
const QUADS = 8u;
#else
const QUADS = 4u;
#endif
var<workgroup> queries: array<vec4<f32>, HEAD_MAX * QUADS>; // [quad][head_dim]
var<workgroup> weights: array<vec4<f32>, CHUNK * QUADS>; // [quad][token]
var<workgroup> tops: array<vec4<f32>, RUN * QUADS>;
var<workgroup> classes: array<vec4<f32>, RUN * QUADS>;
var<workgroup> seen: array<vec4<u32>, QUADS>; // number of tokens that each query sees
var<workgroup> pages_at: array<At, 4>;

struct Block { first_row: u32, n_rows: u32, first_head: u32, n_heads: u32 }

// Whether there is such a query; and the query's start in q or out, whose rows are row_stride apart.
fn is_query(query: u32, block: Block) -> bool {
    return query % args.block_heads < block.n_heads && query / args.block_heads < block.n_rows;
}
fn place_of(query: u32, row_stride: u32, block: Block) -> u32 {
    let row = block.first_row + query / args.block_heads;
    return row * row_stride + (block.first_head + query % args.block_heads) * args.head_dim;
}

// An element of a query, or zero.
fn element_of(query: u32, d: u32, block: Block) -> f32 {
    let is_there = is_query(query, block) && d < args.head_dim;
    return select(0.0, q[args.q_start + select(0u, place_of(query, args.q_stride, block) + d, is_there)], is_there);
}

// The number of tokens that a query sees; 0 if there is no such query.
fn seen_by(query: u32, block: Block) -> u32 {
    let row = block.first_row + min(query / args.block_heads, block.n_rows - 1u);
    return select(0u, n_seen(row), is_query(query, block));
}

fn dot_quad(score: vec4<f32>, k: Unit, place: u32) -> vec4<f32> {
    let q_0 = queries[place];
    let q_1 = queries[place + 1u];
    let q_2 = queries[place + 2u];
    let q_3 = queries[place + 3u];
    let half = dot_four(score, low(k), q_0, q_1, q_2, q_3);
    let q_4 = queries[place + 4u];
    let q_5 = queries[place + 5u];
    let q_6 = queries[place + 6u];
    let q_7 = queries[place + 7u];
    return dot_four(half, high(k), q_4, q_5, q_6, q_7);
}

fn replace_unseen(score: vec4<f32>, token: u32, quad: u32) -> vec4<f32> {
    return select(vec4<f32>(LOWEST), score * args.scale, vec4<u32>(token) < seen[quad]);
}

fn largest_of(quad: u32) -> vec4<f32> {
    let first = quad * RUN;
    let a = max(max(tops[first], tops[first + 1u]), max(tops[first + 2u], tops[first + 3u]));
    let b = max(max(tops[first + 4u], tops[first + 5u]), max(tops[first + 6u], tops[first + 7u]));
    let c = max(max(tops[first + 8u], tops[first + 9u]), max(tops[first + 10u], tops[first + 11u]));
    let d = max(max(tops[first + 12u], tops[first + 13u]), max(tops[first + 14u], tops[first + 15u]));
    return max(max(a, b), max(c, d));
}

@compute @workgroup_size(CHUNK)
fn attention_prefill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let entries = wide_tiles();
    for (var entry = entries.first + group.x; entry < entries.end; entry += groups.x) {
        let tile = tile_at(entry);
        if tile.n_rows > 0u {
            attend(tile, group.y, thread);
        }
        // The next tile reuses the workgroup memory.
        workgroupBarrier();
    }
}

fn attend(tile: Tile, block_of: u32, thread: u32) {
    let first_row = tile.first_row;
    let n_rows = tile.n_rows;
    let sequence = sequence_of(first_row);
    if sequence >= args.n_sequences {
        if thread == 0u {
            report(5u, sequence, args.n_sequences);
        }
        return;
    }
    var n_tokens = 0u;
    for (var row = first_row; row < first_row + n_rows; row++) {
        let n = n_seen(row);
        n_tokens = max(n_tokens, n);
        if n == 0u && thread == 0u {
            report(6u, positions[args.positions_start + row], args.pages_max * PAGE);
        }
    }
    let block_idx = block_of / dim_parts();
    let dim_part = block_of % dim_parts();
    let kv_head = block_idx / blocks_of_head();
    let first_in_group = block_idx % blocks_of_head() * args.block_heads;
    let block = Block(
        first_row,
        n_rows,
        kv_head * args.group + first_in_group,
        min(args.block_heads, args.group - first_in_group),
    );
    let n_units = (args.head_dim + 7u) / 8u;
    let width = n_units * 8u;
    for (var i = thread; i < width * QUADS; i += CHUNK) {
        let quad = i / width;
        let d = i % width;
        // Unrolled by hand: compilers do not unroll such loops, and each iteration would wait for its load.
        let four = vec4<f32>(
            element_of(4u * quad, d, block),
            element_of(4u * quad + 1u, d, block),
            element_of(4u * quad + 2u, d, block),
            element_of(4u * quad + 3u, d, block),
        );
        queries[quad * HEAD_MAX + d] = four;
    }
    if thread < QUADS {
        let first = 4u * thread;
        seen[thread] = vec4<u32>(
            seen_by(first, block), seen_by(first + 1u, block), seen_by(first + 2u, block), seen_by(first + 3u, block));
    }

    // In the scores, a thread computes the tokens lane, lane + 32, lane + 64 and lane + 96, for one quad of queries or two.
    let lane = thread % 32u;
#ifdef TWO_QUADS
    let quad_0 = thread / 32u * 2u;
    let quad_1 = quad_0 + 1u;
#else
    let quad_0 = thread / 32u;
#endif
    // In the weighted sum, it computes a unit of V for one quad.
    let unit = dim_part * 16u + thread % 16u;
    let quad = thread / 16u;
    let has_sum = quad < QUADS && unit < n_units;
    var sum = nothing();
    var values = no_sum();
    let end_chunk = (n_tokens + CHUNK - 1u) / CHUNK;

    for (var chunk = 0u; chunk < end_chunk; chunk++) {
        let first_token = chunk * CHUNK;
        let chunk_tokens = min(n_tokens - first_token, CHUNK);
        // Missing pages repeat the first one, and their scores are replaced.
        if thread < 4u {
            let page = select(0u, thread, thread * PAGE < chunk_tokens);
            pages_at[thread] = page_at(sequence, chunk * 4u + page, kv_head);
        }
        workgroupBarrier();
        {
            let at_0 = pages_at[0];
            let at_1 = pages_at[1];
            let at_2 = pages_at[2];
            let at_3 = pages_at[3];
            var a_0 = vec4<f32>(0.0);
            var a_1 = vec4<f32>(0.0);
            var a_2 = vec4<f32>(0.0);
            var a_3 = vec4<f32>(0.0);
#ifdef TWO_QUADS
            var b_0 = vec4<f32>(0.0);
            var b_1 = vec4<f32>(0.0);
            var b_2 = vec4<f32>(0.0);
            var b_3 = vec4<f32>(0.0);
#endif
            for (var quarter = 0u; quarter < 4u; quarter++) {
                var c_0 = vec4<f32>(0.0);
                var c_1 = vec4<f32>(0.0);
                var c_2 = vec4<f32>(0.0);
                var c_3 = vec4<f32>(0.0);
#ifdef TWO_QUADS
                var d_0 = vec4<f32>(0.0);
                var d_1 = vec4<f32>(0.0);
                var d_2 = vec4<f32>(0.0);
                var d_3 = vec4<f32>(0.0);
#endif
                let end = (quarter + 1u) * n_units / 4u;
                for (var i = quarter * n_units / 4u; i < end; i++) {
                    let k_0 = load_k(at_0, i, lane);
                    let k_1 = load_k(at_1, i, lane);
                    let k_2 = load_k(at_2, i, lane);
                    let k_3 = load_k(at_3, i, lane);
                    let place = quad_0 * HEAD_MAX + 8u * i;
                    c_0 = dot_quad(c_0, k_0, place);
                    c_1 = dot_quad(c_1, k_1, place);
                    c_2 = dot_quad(c_2, k_2, place);
                    c_3 = dot_quad(c_3, k_3, place);
#ifdef TWO_QUADS
                    d_0 = dot_quad(d_0, k_0, place + HEAD_MAX);
                    d_1 = dot_quad(d_1, k_1, place + HEAD_MAX);
                    d_2 = dot_quad(d_2, k_2, place + HEAD_MAX);
                    d_3 = dot_quad(d_3, k_3, place + HEAD_MAX);
#endif
                }
                a_0 += c_0;
                a_1 += c_1;
                a_2 += c_2;
                a_3 += c_3;
#ifdef TWO_QUADS
                b_0 += d_0;
                b_1 += d_1;
                b_2 += d_2;
                b_3 += d_3;
#endif
            }
            let token = first_token + lane;
            let line = quad_0 * CHUNK + lane;
            weights[line] = replace_unseen(a_0, token, quad_0);
            weights[line + 32u] = replace_unseen(a_1, token + 32u, quad_0);
            weights[line + 64u] = replace_unseen(a_2, token + 64u, quad_0);
            weights[line + 96u] = replace_unseen(a_3, token + 96u, quad_0);
#ifdef TWO_QUADS
            weights[line + CHUNK] = replace_unseen(b_0, token, quad_1);
            weights[line + CHUNK + 32u] = replace_unseen(b_1, token + 32u, quad_1);
            weights[line + CHUNK + 64u] = replace_unseen(b_2, token + 64u, quad_1);
            weights[line + CHUNK + 96u] = replace_unseen(b_3, token + 96u, quad_1);
#endif
        }
        workgroupBarrier();
        // Thread 16 * i + j sums class j of quad i: 8 tokens.
        let line = quad * CHUNK + thread % RUN;
        if quad < QUADS {
            let a = max(weights[line], weights[line + 16u]);
            let b = max(weights[line + 32u], weights[line + 48u]);
            let c = max(weights[line + 64u], weights[line + 80u]);
            let m = max(max(a, b), max(c, max(weights[line + 96u], weights[line + 112u])));
            tops[thread] = m;
        }
        workgroupBarrier();
        var largest = vec4<f32>(0.0);
        if quad < QUADS {
            largest = largest_of(quad);
            let w_0 = weight_of(weights[line], largest);
            let w_1 = weight_of(weights[line + 16u], largest);
            let w_2 = weight_of(weights[line + 32u], largest);
            let w_3 = weight_of(weights[line + 48u], largest);
            let w_4 = weight_of(weights[line + 64u], largest);
            let w_5 = weight_of(weights[line + 80u], largest);
            let w_6 = weight_of(weights[line + 96u], largest);
            let w_7 = weight_of(weights[line + 112u], largest);
            weights[line] = w_0;
            weights[line + 16u] = w_1;
            weights[line + 32u] = w_2;
            weights[line + 48u] = w_3;
            weights[line + 64u] = w_4;
            weights[line + 80u] = w_5;
            weights[line + 96u] = w_6;
            weights[line + 112u] = w_7;
            let t = ((((((w_0 + w_1) + w_2) + w_3) + w_4) + w_5) + w_6) + w_7;
            classes[thread] = t;
        }
        workgroupBarrier();

        if has_sum {
            let c = quad * RUN;
            var total = ((classes[c] + classes[c + 1u]) + classes[c + 2u]) + classes[c + 3u];
            total = (((total + classes[c + 4u]) + classes[c + 5u]) + classes[c + 6u]) + classes[c + 7u];
            total = (((total + classes[c + 8u]) + classes[c + 9u]) + classes[c + 10u]) + classes[c + 11u];
            total = (((total + classes[c + 12u]) + classes[c + 13u]) + classes[c + 14u]) + classes[c + 15u];
            var chunk_values = no_sum();
            for (var first = 0u; first < chunk_tokens; first += RUN) {
                let at = pages_at[first / PAGE];
                let page_offset = first % PAGE;
                let n = min(chunk_tokens - first, RUN);
                let weights_at = quad * CHUNK + first;
                var run = no_sum();
                var i = 0u;
                // Four loads are in flight at once.
                for (; i + 4u <= n; i += 4u) {
                    let v_0 = load_v(at, unit, page_offset + i);
                    let v_1 = load_v(at, unit, page_offset + i + 1u);
                    let v_2 = load_v(at, unit, page_offset + i + 2u);
                    let v_3 = load_v(at, unit, page_offset + i + 3u);
                    run = weigh(run, v_0, weights[weights_at + i]);
                    run = weigh(run, v_1, weights[weights_at + i + 1u]);
                    run = weigh(run, v_2, weights[weights_at + i + 2u]);
                    run = weigh(run, v_3, weights[weights_at + i + 3u]);
                }
                for (; i < n; i++) {
                    run = weigh(run, load_v(at, unit, page_offset + i), weights[weights_at + i]);
                }
                chunk_values = Eight(
                    chunk_values.e_0 + run.e_0,
                    chunk_values.e_1 + run.e_1,
                    chunk_values.e_2 + run.e_2,
                    chunk_values.e_3 + run.e_3,
                    chunk_values.e_4 + run.e_4,
                    chunk_values.e_5 + run.e_5,
                    chunk_values.e_6 + run.e_6,
                    chunk_values.e_7 + run.e_7,
                );
            }
            let sees = seen[quad] > vec4<u32>(first_token);
            sum = merge(sum, largest, total, sees);
            values = Eight(
                take_in(values.e_0, chunk_values.e_0, sum, sees),
                take_in(values.e_1, chunk_values.e_1, sum, sees),
                take_in(values.e_2, chunk_values.e_2, sum, sees),
                take_in(values.e_3, chunk_values.e_3, sum, sees),
                take_in(values.e_4, chunk_values.e_4, sum, sees),
                take_in(values.e_5, chunk_values.e_5, sum, sees),
                take_in(values.e_6, chunk_values.e_6, sum, sees),
                take_in(values.e_7, chunk_values.e_7, sum, sees),
            );
        }
        workgroupBarrier();
    }

    if !has_sum {
        return;
    }
    let factor = vec4<f32>(1.0) / sum.total;
    for (var j = 0u; j < 4u; j++) {
        if !is_query(4u * quad + j, block) || seen[quad][j] == 0u {
            continue;
        }
        let place = args.out_start + place_of(4u * quad + j, args.n_heads * args.head_dim, block) + 8u * unit;
        let first = vec4<f32>(values.e_0[j], values.e_1[j], values.e_2[j], values.e_3[j]) * factor[j];
        let second = vec4<f32>(values.e_4[j], values.e_5[j], values.e_6[j], values.e_7[j]) * factor[j];
        for (var i = 0u; i < 4u; i++) {
            if 8u * unit + i < args.head_dim {
                out[place + i] = first[i];
            }
            if 8u * unit + 4u + i < args.head_dim {
                out[place + 4u + i] = second[i];
            }
        }
    }
}
