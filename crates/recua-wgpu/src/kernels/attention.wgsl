// attention: out = softmax(scale * q . K^T) . V for every row over its own sequence, up to its own position.
// q, out: [n_rows, n_heads * head_dim]; the cache's layout is rope_store's. SPLIT: parts [rows, workgroups of a row, n_chunks, 130] of
// four queries: a chunk's weighted sum of V in the order of the threads, its largest scores and its sums of weights.
// One workgroup computes up to four heads of one row that share a KV head, over one chunk of 128 tokens (SPLIT; attention_merge puts
// the chunks together) or over all, one after the other. Bound by reading the cache: it is read once for all heads of a group of four.
// Rows with a neighbour of the same sequence may be left to attention_rows: ROWS.
#import attention_common

var<workgroup> queries: array<vec4<f32>, HEAD_MAX>; // [head_dim][4 queries]
var<workgroup> weights: array<vec4<f32>, CHUNK>; // [token][4 queries]
var<workgroup> classes: array<vec4<f32>, RUN>;
var<workgroup> runs: array<vec2<f32>, 1024>; // [8 runs][128 elements][2 queries]
var<workgroup> pages_at: array<At, 4>;

// The element of V that a thread has in the end.
fn element(thread: u32) -> u32 {
    return thread % 16u * 8u + thread / 16u;
}

fn in_order(thread: u32) -> vec2<f32> {
    var sum = vec2<f32>(0.0);
    for (var run = 0u; run < 8u; run++) {
        sum += runs[run * CHUNK + thread];
    }
    return sum;
}

fn classes_in_order() -> vec4<f32> {
    var sum = classes[0];
    for (var c = 1u; c < RUN; c++) {
        sum += classes[c];
    }
    return sum;
}

@compute @workgroup_size(CHUNK)
fn attention(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = args.first_row + group.x;
    let sequence = sequence_of(row);
    let n_tokens = n_seen(row);
    if sequence >= args.rows.n_sequences {
        if thread == 0u {
            report(5u, sequence, args.rows.n_sequences);
        }
        return;
    }
    if n_tokens == 0u {
        if thread == 0u {
            report(6u, positions[args.rows.positions_start + row], args.rows.pages_max * PAGE);
        }
        return;
    }
#ifdef ROWS
    let place_in_block = row % args.block_rows;
    if place_in_block > 0u && row > args.first_row && sequence_of(row - 1u) == sequence {
        return;
    }
    if place_in_block + 1u < args.block_rows && row + 1u < args.end_row && sequence_of(row + 1u) == sequence {
        return;
    }
#endif
    let block = group.y / dim_parts();
    let dim_part = group.y % dim_parts();
    let kv_head = block / blocks_of_head();
    let first_in_group = block % blocks_of_head() * args.block_heads;
    let n_queries = min(args.block_heads, args.group - first_in_group);
    let first_head = kv_head * args.group + first_in_group;
#ifdef SPLIT
    let first_chunk = group.z;
    let end_chunk = min(first_chunk + 1u, (n_tokens + CHUNK - 1u) / CHUNK);
    if first_chunk >= end_chunk {
        return;
    }
#else
    let first_chunk = 0u;
    let end_chunk = (n_tokens + CHUNK - 1u) / CHUNK;
#endif
    let n_units = (args.head_dim + 7u) / 8u;
    let q_first = args.q_start + (row * args.n_heads + first_head) * args.head_dim;
    for (var d = thread; d < n_units * 8u; d += CHUNK) {
        var four = vec4<f32>(0.0);
        for (var i = 0u; i < 4u; i++) {
            if i < n_queries && d < args.head_dim {
                four[i] = q[q_first + i * args.head_dim + d];
            }
        }
        queries[d] = four;
    }

    // In the weighted sum a thread has a unit of V and a run of tokens.
    let unit = dim_part * 16u + thread % 16u;
    let run = thread / 16u;
    var sum = nothing();
    var value = vec4<f32>(0.0);
    let all = vec4<bool>(true);

    for (var chunk = first_chunk; chunk < end_chunk; chunk++) {
        let first_token = chunk * CHUNK;
        let chunk_tokens = min(n_tokens - first_token, CHUNK);
        if thread < 4u && thread * PAGE < chunk_tokens {
            pages_at[thread] = page_at(sequence, chunk * 4u + thread, kv_head);
        }
        workgroupBarrier();

        // Scores: a thread is a token. Eight loads are under way at once.
        var score = vec4<f32>(LOWEST);
        if thread < chunk_tokens {
            let at = pages_at[thread / PAGE];
            let slot = thread % PAGE;
            score = vec4<f32>(0.0);
            var i = 0u;
            for (; i + 8u <= n_units; i += 8u) {
                let k_0 = load_k(at, i, slot);
                let k_1 = load_k(at, i + 1u, slot);
                let k_2 = load_k(at, i + 2u, slot);
                let k_3 = load_k(at, i + 3u, slot);
                let k_4 = load_k(at, i + 4u, slot);
                let k_5 = load_k(at, i + 5u, slot);
                let k_6 = load_k(at, i + 6u, slot);
                let k_7 = load_k(at, i + 7u, slot);
                score = dot_unit(score, k_0, 8u * i);
                score = dot_unit(score, k_1, 8u * i + 8u);
                score = dot_unit(score, k_2, 8u * i + 16u);
                score = dot_unit(score, k_3, 8u * i + 24u);
                score = dot_unit(score, k_4, 8u * i + 32u);
                score = dot_unit(score, k_5, 8u * i + 40u);
                score = dot_unit(score, k_6, 8u * i + 48u);
                score = dot_unit(score, k_7, 8u * i + 56u);
            }
            for (; i < n_units; i++) {
                score = dot_unit(score, load_k(at, i, slot), 8u * i);
            }
            score *= args.scale;
        }
        weights[thread] = score;
        workgroupBarrier();
        if thread < RUN {
            var m = weights[thread];
            for (var i = 1u; i < 8u; i++) {
                m = max(m, weights[thread + RUN * i]);
            }
            classes[thread] = m;
        }
        workgroupBarrier();
        var largest = classes[0];
        for (var c = 1u; c < RUN; c++) {
            largest = max(largest, classes[c]);
        }
        let weight = weight_of(weights[thread], largest);
        weights[thread] = weight;
        workgroupBarrier();
        if thread < RUN {
            var t = weights[thread];
            for (var i = 1u; i < 8u; i++) {
                t += weights[thread + RUN * i];
            }
            classes[thread] = t;
        }

        // The weighted sum of V.
        var eight = no_sum();
        let first = run * RUN;
        if unit < n_units && first < chunk_tokens {
            let at = pages_at[first / PAGE];
            let slot = first % PAGE;
            let n = min(chunk_tokens - first, RUN);
            var i = 0u;
            for (; i + 8u <= n; i += 8u) {
                let v_0 = load_v(at, unit, slot + i);
                let v_1 = load_v(at, unit, slot + i + 1u);
                let v_2 = load_v(at, unit, slot + i + 2u);
                let v_3 = load_v(at, unit, slot + i + 3u);
                let v_4 = load_v(at, unit, slot + i + 4u);
                let v_5 = load_v(at, unit, slot + i + 5u);
                let v_6 = load_v(at, unit, slot + i + 6u);
                let v_7 = load_v(at, unit, slot + i + 7u);
                eight = weigh(eight, v_0, weights[first + i]);
                eight = weigh(eight, v_1, weights[first + i + 1u]);
                eight = weigh(eight, v_2, weights[first + i + 2u]);
                eight = weigh(eight, v_3, weights[first + i + 3u]);
                eight = weigh(eight, v_4, weights[first + i + 4u]);
                eight = weigh(eight, v_5, weights[first + i + 5u]);
                eight = weigh(eight, v_6, weights[first + i + 6u]);
                eight = weigh(eight, v_7, weights[first + i + 7u]);
            }
            for (; i < n; i++) {
                eight = weigh(eight, load_v(at, unit, slot + i), weights[first + i]);
            }
        }
        // The runs in order, for two queries at a time: thread 16 * i + j has element i of unit j.
        let line = run * CHUNK + thread % 16u;
        runs[line] = eight.e_0.xy;
        runs[line + 16u] = eight.e_1.xy;
        runs[line + 32u] = eight.e_2.xy;
        runs[line + 48u] = eight.e_3.xy;
        runs[line + 64u] = eight.e_4.xy;
        runs[line + 80u] = eight.e_5.xy;
        runs[line + 96u] = eight.e_6.xy;
        runs[line + 112u] = eight.e_7.xy;
        workgroupBarrier();
        let two = in_order(thread);
        let total = classes_in_order();
        workgroupBarrier();
        runs[line] = eight.e_0.zw;
        runs[line + 16u] = eight.e_1.zw;
        runs[line + 32u] = eight.e_2.zw;
        runs[line + 48u] = eight.e_3.zw;
        runs[line + 64u] = eight.e_4.zw;
        runs[line + 80u] = eight.e_5.zw;
        runs[line + 96u] = eight.e_6.zw;
        runs[line + 112u] = eight.e_7.zw;
        workgroupBarrier();
        let chunk_value = vec4<f32>(two, in_order(thread));
#ifdef SPLIT
        let workgroups = args.n_kv_heads * blocks_of_head() * dim_parts();
        let place = ((group.x * workgroups + group.y) * args.n_chunks + chunk) * 130u;
        parts[place + thread] = chunk_value;
        if thread == 0u {
            parts[place + 128u] = largest;
            parts[place + 129u] = total;
        }
#else
        sum = merge(sum, largest, total, all);
        value = take_in(value, chunk_value, sum, all);
#endif
    }

#ifdef SPLIT
#else
    let d = dim_part * 128u + element(thread);
    if d < args.head_dim {
        let result = value * (vec4<f32>(1.0) / sum.total);
        let place = args.out_start + (row * args.n_heads + first_head) * args.head_dim + d;
        for (var i = 0u; i < n_queries; i++) {
            out[place + i * args.head_dim] = result[i];
        }
    }
#endif
}

fn dot_unit(score: vec4<f32>, k: Unit, d: u32) -> vec4<f32> {
    let half = dot_four(score, low(k), queries[d], queries[d + 1u], queries[d + 2u], queries[d + 3u]);
    return dot_four(half, high(k), queries[d + 4u], queries[d + 5u], queries[d + 6u], queries[d + 7u]);
}

// One workgroup puts together the chunks of what one workgroup of attention has computed.
@compute @workgroup_size(CHUNK)
fn attention_merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = args.first_row + group.x;
    let n_tokens = n_seen(row);
    if sequence_of(row) >= args.rows.n_sequences || n_tokens == 0u {
        return;
    }
    let block = group.y / dim_parts();
    let first_in_group = block % blocks_of_head() * args.block_heads;
    let first_head = block / blocks_of_head() * args.group + first_in_group;
    let n_queries = min(args.block_heads, args.group - first_in_group);
    let workgroups = args.n_kv_heads * blocks_of_head() * dim_parts();
    let first = (group.x * workgroups + group.y) * args.n_chunks * 130u;
    let n = (n_tokens + CHUNK - 1u) / CHUNK;
    let all = vec4<bool>(true);
    var sum = nothing();
    var value = vec4<f32>(0.0);
    // Four chunks are under way at once.
    for (var chunk = 0u; chunk < n; chunk += 4u) {
        let place = first + chunk * 130u;
        let place_1 = first + min(chunk + 1u, n - 1u) * 130u;
        let place_2 = first + min(chunk + 2u, n - 1u) * 130u;
        let place_3 = first + min(chunk + 3u, n - 1u) * 130u;
        let values = array<vec4<f32>, 4>(
            parts[place + thread], parts[place_1 + thread], parts[place_2 + thread], parts[place_3 + thread]);
        let largest = array<vec4<f32>, 4>(
            parts[place + 128u], parts[place_1 + 128u], parts[place_2 + 128u], parts[place_3 + 128u]);
        let totals = array<vec4<f32>, 4>(
            parts[place + 129u], parts[place_1 + 129u], parts[place_2 + 129u], parts[place_3 + 129u]);
        sum = merge(sum, largest[0], totals[0], all);
        value = take_in(value, values[0], sum, all);
        if chunk + 1u < n {
            sum = merge(sum, largest[1], totals[1], all);
            value = take_in(value, values[1], sum, all);
        }
        if chunk + 2u < n {
            sum = merge(sum, largest[2], totals[2], all);
            value = take_in(value, values[2], sum, all);
        }
        if chunk + 3u < n {
            sum = merge(sum, largest[3], totals[3], all);
            value = take_in(value, values[3], sum, all);
        }
    }
    let d = group.y % dim_parts() * 128u + element(thread);
    if d < args.head_dim {
        let result = value * (vec4<f32>(1.0) / sum.total);
        let place = args.out_start + (row * args.n_heads + first_head) * args.head_dim + d;
        for (var i = 0u; i < n_queries; i++) {
            out[place + i * args.head_dim] = result[i];
        }
    }
}
