// attention: out = softmax(scale * q . K^T) . V for every row over its own sequence, up to its own position.
// q, out: [n_rows, n_heads * head_dim]; the cache's layout is rope_store's. SPLIT: parts [rows, workgroups of a row, n_chunks, 130] of
// four queries: a chunk's weighted sum of V in the order of the threads, its largest scores and its sums of weights.
// One workgroup computes up to four heads of one row that share a KV head, over one chunk of 128 tokens (SPLIT; attention_merge
// puts the chunks together) or over all. Its threads are TEAMS of 128, each of
// which takes a chunk at a time. Bound by reading the cache, which is read once for all heads of a group of four; and, with few rows, by
// the latency of a chunk's steps: hence teams.
// Rows with a neighbour of the same sequence may be left to attention_rows: ROWS.
#import attention_common

#ifdef TEAMS_4
const TEAMS = 4u;
#define HAS_TEAMS
#endif
#ifdef TEAMS_2
const TEAMS = 2u;
#define HAS_TEAMS
#endif
#ifdef HAS_TEAMS
var<workgroup> largest_of: array<vec4<f32>, TEAMS>;
var<workgroup> total_of: array<vec4<f32>, TEAMS>;
#else
const TEAMS = 1u;
#endif

var<workgroup> queries: array<vec4<f32>, HEAD_MAX>; // [head_dim][4 queries]
// The others are a team's, one behind the other.
var<workgroup> weights: array<vec4<f32>, TEAMS * CHUNK>; // [token][4 queries]
var<workgroup> classes: array<vec4<f32>, TEAMS * RUN>;
// [4 quarters][2][128 tokens][2 queries]; then [8 runs][128 elements][2 queries]; then [2][128 elements][2 queries]
var<workgroup> runs: array<vec2<f32>, TEAMS * 1024u>;
var<workgroup> pages_at: array<At, TEAMS * 4u>;

var<private> team: u32;

// The element of V that a thread has in the end.
fn element(thread: u32) -> u32 {
    return thread % 16u * 8u + thread / 16u;
}

fn quarter_of(quarter: u32, token: u32) -> vec4<f32> {
    let place = team * 1024u + quarter * 2u * CHUNK + token;
    return vec4<f32>(runs[place], runs[place + CHUNK]);
}

fn in_order(thread: u32) -> vec2<f32> {
    let i = team * 1024u + thread;
    let four = ((runs[i] + runs[i + 128u]) + runs[i + 256u]) + runs[i + 384u];
    return (((four + runs[i + 512u]) + runs[i + 640u]) + runs[i + 768u]) + runs[i + 896u];
}

// Written out, here and below: compilers leave such loops as they are, and each turn would wait for its load.
fn classes_in_order() -> vec4<f32> {
    let i = team * RUN;
    var sum = ((classes[i] + classes[i + 1u]) + classes[i + 2u]) + classes[i + 3u];
    sum = (((sum + classes[i + 4u]) + classes[i + 5u]) + classes[i + 6u]) + classes[i + 7u];
    sum = (((sum + classes[i + 8u]) + classes[i + 9u]) + classes[i + 10u]) + classes[i + 11u];
    sum = (((sum + classes[i + 12u]) + classes[i + 13u]) + classes[i + 14u]) + classes[i + 15u];
    return sum;
}

fn largest_class() -> vec4<f32> {
    let i = team * RUN;
    let a = max(max(classes[i], classes[i + 1u]), max(classes[i + 2u], classes[i + 3u]));
    let b = max(max(classes[i + 4u], classes[i + 5u]), max(classes[i + 6u], classes[i + 7u]));
    let c = max(max(classes[i + 8u], classes[i + 9u]), max(classes[i + 10u], classes[i + 11u]));
    let d = max(max(classes[i + 12u], classes[i + 13u]), max(classes[i + 14u], classes[i + 15u]));
    return max(max(a, b), max(c, d));
}

@compute @workgroup_size(TEAMS * CHUNK)
fn attention(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
#ifdef HAS_TEAMS
    team = local / CHUNK;
    let thread = local % CHUNK;
#else
    team = 0u;
    let thread = local;
#endif
    let row = args.first_row + group.x;
    let sequence = sequence_of(row);
    let n_tokens = n_seen(row);
    if sequence >= args.rows.n_sequences {
        if local == 0u {
            report(5u, sequence, args.rows.n_sequences);
        }
        return;
    }
    if n_tokens == 0u {
        if local == 0u {
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
    let q_first = args.q_start + row * args.q_stride + first_head * args.head_dim;
    for (var d = local; d < n_units * 8u; d += TEAMS * CHUNK) {
        // Queries that are not there repeat the last, and are not stored.
        let place = q_first + min(d, args.head_dim - 1u);
        let four = vec4<f32>(
            q[place],
            q[place + min(1u, n_queries - 1u) * args.head_dim],
            q[place + min(2u, n_queries - 1u) * args.head_dim],
            q[place + (n_queries - 1u) * args.head_dim],
        );
        queries[d] = select(vec4<f32>(0.0), four, vec4<bool>(d < args.head_dim));
    }

    // In the weighted sum a thread has a unit of V and a run of tokens.
    let unit = dim_part * 16u + thread % 16u;
    let run = thread / 16u;
    var sum = nothing();
    var value = vec4<f32>(0.0);
    let all = vec4<bool>(true);

    for (var team_0_chunk = first_chunk; team_0_chunk < end_chunk; team_0_chunk += TEAMS) {
        let chunk = team_0_chunk + team;
        let first_token = chunk * CHUNK;
        // None for a team behind the last chunk.
        let chunk_tokens = min(max(n_tokens, first_token) - first_token, CHUNK);
        // Pages that are not there repeat the first, and their scores are replaced.
        if thread < 4u {
            let page = select(0u, thread, thread * PAGE < chunk_tokens);
            pages_at[team * 4u + thread] = page_at(sequence, min(chunk, end_chunk - 1u) * 4u + page, kv_head);
        }
        workgroupBarrier();

        // Scores: a thread has a quarter of the elements of the tokens lane, lane + 32, lane + 64 and lane + 96. So each query that is
        // read from workgroup memory serves four tokens. Eight loads are under way at once.
        if chunk_tokens > 0u {
            let lane = thread % 32u;
            let quarter = thread / 32u;
            let end = (quarter + 1u) * n_units / 4u;
            let at_0 = pages_at[team * 4u + 0u];
            let at_1 = pages_at[team * 4u + 1u];
            let at_2 = pages_at[team * 4u + 2u];
            let at_3 = pages_at[team * 4u + 3u];
            var s_0 = vec4<f32>(0.0);
            var s_1 = vec4<f32>(0.0);
            var s_2 = vec4<f32>(0.0);
            var s_3 = vec4<f32>(0.0);
            var i = quarter * n_units / 4u;
            for (; i + 2u <= end; i += 2u) {
                let k_00 = load_k(at_0, i, lane);
                let k_10 = load_k(at_1, i, lane);
                let k_20 = load_k(at_2, i, lane);
                let k_30 = load_k(at_3, i, lane);
                let k_01 = load_k(at_0, i + 1u, lane);
                let k_11 = load_k(at_1, i + 1u, lane);
                let k_21 = load_k(at_2, i + 1u, lane);
                let k_31 = load_k(at_3, i + 1u, lane);
                s_0 = dot_unit(s_0, k_00, 8u * i);
                s_1 = dot_unit(s_1, k_10, 8u * i);
                s_2 = dot_unit(s_2, k_20, 8u * i);
                s_3 = dot_unit(s_3, k_30, 8u * i);
                s_0 = dot_unit(s_0, k_01, 8u * i + 8u);
                s_1 = dot_unit(s_1, k_11, 8u * i + 8u);
                s_2 = dot_unit(s_2, k_21, 8u * i + 8u);
                s_3 = dot_unit(s_3, k_31, 8u * i + 8u);
            }
            if i < end {
                s_0 = dot_unit(s_0, load_k(at_0, i, lane), 8u * i);
                s_1 = dot_unit(s_1, load_k(at_1, i, lane), 8u * i);
                s_2 = dot_unit(s_2, load_k(at_2, i, lane), 8u * i);
                s_3 = dot_unit(s_3, load_k(at_3, i, lane), 8u * i);
            }
            let line = team * 1024u + quarter * 2u * CHUNK + lane;
            runs[line] = s_0.xy;
            runs[line + 32u] = s_1.xy;
            runs[line + 64u] = s_2.xy;
            runs[line + 96u] = s_3.xy;
            runs[line + 128u] = s_0.zw;
            runs[line + 160u] = s_1.zw;
            runs[line + 192u] = s_2.zw;
            runs[line + 224u] = s_3.zw;
        }
        workgroupBarrier();
        var score = quarter_of(0u, thread) + quarter_of(1u, thread);
        score = (score + quarter_of(2u, thread)) + quarter_of(3u, thread);
        score = select(vec4<f32>(LOWEST), score * args.scale, vec4<bool>(thread < chunk_tokens));
        let token = team * CHUNK + thread;
        weights[token] = score;
        workgroupBarrier();
        if thread < RUN {
            let a = max(weights[token], weights[token + 16u]);
            let b = max(weights[token + 32u], weights[token + 48u]);
            let c = max(weights[token + 64u], weights[token + 80u]);
            let d = max(weights[token + 96u], weights[token + 112u]);
            classes[team * RUN + thread] = max(max(a, b), max(c, d));
        }
        workgroupBarrier();
        let largest = largest_class();
        let weight = weight_of(weights[token], largest);
        weights[token] = weight;
        workgroupBarrier();
        if thread < RUN {
            let t = ((weights[token] + weights[token + 16u]) + weights[token + 32u]) + weights[token + 48u];
            let u = ((t + weights[token + 64u]) + weights[token + 80u]) + weights[token + 96u];
            classes[team * RUN + thread] = u + weights[token + 112u];
        }

        // The weighted sum of V.
        var eight = no_sum();
        let first = run * RUN;
        if unit < n_units && first < chunk_tokens {
            let at = pages_at[team * 4u + first / PAGE];
            let weight_at = team * CHUNK + first;
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
                eight = weigh(eight, v_0, weights[weight_at + i]);
                eight = weigh(eight, v_1, weights[weight_at + i + 1u]);
                eight = weigh(eight, v_2, weights[weight_at + i + 2u]);
                eight = weigh(eight, v_3, weights[weight_at + i + 3u]);
                eight = weigh(eight, v_4, weights[weight_at + i + 4u]);
                eight = weigh(eight, v_5, weights[weight_at + i + 5u]);
                eight = weigh(eight, v_6, weights[weight_at + i + 6u]);
                eight = weigh(eight, v_7, weights[weight_at + i + 7u]);
            }
            for (; i < n; i++) {
                eight = weigh(eight, load_v(at, unit, slot + i), weights[weight_at + i]);
            }
        }
        // The runs in order, for two queries at a time: thread 16 * i + j has element i of unit j.
        let line = team * 1024u + run * CHUNK + thread % 16u;
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
#ifdef HAS_TEAMS
        workgroupBarrier();
        runs[team * 1024u + thread] = chunk_value.xy;
        runs[team * 1024u + thread + 128u] = chunk_value.zw;
        if thread == 0u {
            largest_of[team] = largest;
            total_of[team] = total;
        }
        workgroupBarrier();
        if team == 0u {
            let n = min(end_chunk - team_0_chunk, TEAMS);
            for (var i = 0u; i < n; i++) {
                let of_team = vec4<f32>(runs[i * 1024u + thread], runs[i * 1024u + thread + 128u]);
                sum = merge(sum, largest_of[i], total_of[i], all);
                value = take_in(value, of_team, sum, all);
            }
        }
#else
        sum = merge(sum, largest, total, all);
        value = take_in(value, chunk_value, sum, all);
#endif
#endif
    }

#ifdef SPLIT
#else
    let d = dim_part * 128u + element(thread);
    if d < args.head_dim && team == 0u {
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

#ifdef SPLIT
// Puts together the chunks of what workgroup `block_idx` of the `i`th row has computed.
fn write_merged(i: u32, block_idx: u32, thread: u32) {
    let row = args.first_row + i;
    let block = block_idx / dim_parts();
    let first_in_group = block % blocks_of_head() * args.block_heads;
    let first_head = block / blocks_of_head() * args.group + first_in_group;
    let n_queries = min(args.block_heads, args.group - first_in_group);
    let workgroups = args.n_kv_heads * blocks_of_head() * dim_parts();
    let first = (i * workgroups + block_idx) * args.n_chunks * 130u;
    let result = merged(first, 130u, (n_seen(row) + CHUNK - 1u) / CHUNK, thread);
    let d = block_idx % dim_parts() * 128u + element(thread);
    if d < args.head_dim {
        let place = args.out_start + (row * args.n_heads + first_head) * args.head_dim + d;
        for (var query = 0u; query < n_queries; query++) {
            out[place + query * args.head_dim] = result[query];
        }
    }
}

// One workgroup puts together the chunks of what one workgroup of attention has computed.
@compute @workgroup_size(CHUNK)
fn attention_merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = args.first_row + group.x;
    if sequence_of(row) < args.rows.n_sequences && n_seen(row) > 0u {
        write_merged(group.x, group.y, thread);
    }
}
#endif
