// attention: out = softmax(scale * q . K^T) . V for every row, over its own sequence up to its own position.
// q, out: [n_rows, n_heads * head_dim]; rope_store defines the cache's layout. Tiles are single rows. The folded result of a piece of a
// split row: pieces [places, workgroups of a row, 130] of four queries: a weighted sum of V in the order of the threads, the largest scores
// and the sums of weights.
// One workgroup computes up to four heads of one row that share a KV head, over the chunks of a tile. Its threads are TEAMS of 128, each of
// which takes a chunk of 128 tokens at a time. Bound by reading the cache, which is read once for all heads of a group of four; and, with
// few rows, by the latency of a chunk's steps: hence the teams.
// attention_merge folds the pieces of split rows.
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
// In the arrays below, each team has a part; the parts are stored one after the other.
var<workgroup> weights: array<vec4<f32>, TEAMS * CHUNK>; // [token][4 queries]
var<workgroup> classes: array<vec4<f32>, TEAMS * RUN>;
// [4 quarters][2][128 tokens][2 queries]; then [8 runs][128 elements][2 queries]; then [2][128 elements][2 queries]
var<workgroup> runs: array<vec2<f32>, TEAMS * 1024u>;
var<workgroup> pages_at: array<At, TEAMS * 4u>;

var<private> team: u32;

// The element of V that a thread holds at the end.
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

// Unrolled by hand, here and below: compilers do not unroll such loops, and each iteration would wait for its load.
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
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // Loaded together with the number of tiles, not after it.
    var tile = tile_at(group.x);
    let end = tiles().end;
    for (var entry = group.x; entry < end; entry += groups.x) {
        if entry != group.x {
            tile = tile_at(entry);
        }
        attend(tile, group.y, local);
        // The next tile reuses the workgroup memory.
        workgroupBarrier();
    }
}

fn attend(tile: Tile, block_idx: u32, local: u32) {
#ifdef HAS_TEAMS
    team = local / CHUNK;
    let thread = local % CHUNK;
#else
    team = 0u;
    let thread = local;
#endif
    if tile.n_rows == 0u {
        return;
    }
    let row = tile.first_row;
    let sequence = sequence_of(row);
    let n_tokens = n_seen(row);
    if sequence >= args.n_sequences {
        if local == 0u {
            report(5u, sequence, args.n_sequences);
        }
        return;
    }
    if n_tokens == 0u {
        if local == 0u {
            report(6u, positions[args.positions_start + row], args.pages_max * PAGE);
        }
        return;
    }
    let block = block_idx / dim_parts();
    let dim_part = block_idx % dim_parts();
    let kv_head = block / blocks_of_head();
    let first_in_group = block % blocks_of_head() * args.block_heads;
    let n_queries = min(args.block_heads, args.group - first_in_group);
    let first_head = kv_head * args.group + first_in_group;
    let first_chunk = tile.first_chunk;
    let end_chunk = min(tile.end_chunk, (n_tokens + CHUNK - 1u) / CHUNK);
    let n_units = (args.head_dim + 7u) / 8u;
    let q_first = args.q_start + row * args.q_stride + first_head * args.head_dim;
    for (var d = local; d < n_units * 8u; d += TEAMS * CHUNK) {
        // Missing queries repeat the last one, and are not stored.
        let place = q_first + min(d, args.head_dim - 1u);
        let four = vec4<f32>(
            q[place],
            q[place + min(1u, n_queries - 1u) * args.head_dim],
            q[place + min(2u, n_queries - 1u) * args.head_dim],
            q[place + (n_queries - 1u) * args.head_dim],
        );
        queries[d] = select(vec4<f32>(0.0), four, vec4<bool>(d < args.head_dim));
    }

    // In the weighted sum, a thread computes a unit of V over a run of tokens.
    let unit = dim_part * 16u + thread % 16u;
    let run = thread / 16u;
    var sum = nothing();
    var value = vec4<f32>(0.0);
    let all = vec4<bool>(true);

    for (var team_0_chunk = first_chunk; team_0_chunk < end_chunk; team_0_chunk += TEAMS) {
        let chunk = team_0_chunk + team;
        let first_token = chunk * CHUNK;
        // A team after the last chunk has no tokens.
        let chunk_tokens = min(max(n_tokens, first_token) - first_token, CHUNK);
        // Missing pages repeat the first one, and their scores are replaced.
        if thread < 4u {
            let page = select(0u, thread, thread * PAGE < chunk_tokens);
            pages_at[team * 4u + thread] = page_at(sequence, min(chunk, end_chunk - 1u) * 4u + page, kv_head);
        }
        workgroupBarrier();

        // Scores: a thread computes a quarter of the elements for the tokens lane, lane + 32, lane + 64 and lane + 96, so that each query
        // read from workgroup memory serves four tokens. Eight loads are in flight at once.
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
            let page_offset = first % PAGE;
            let n = min(chunk_tokens - first, RUN);
            var i = 0u;
            for (; i + 8u <= n; i += 8u) {
                let v_0 = load_v(at, unit, page_offset + i);
                let v_1 = load_v(at, unit, page_offset + i + 1u);
                let v_2 = load_v(at, unit, page_offset + i + 2u);
                let v_3 = load_v(at, unit, page_offset + i + 3u);
                let v_4 = load_v(at, unit, page_offset + i + 4u);
                let v_5 = load_v(at, unit, page_offset + i + 5u);
                let v_6 = load_v(at, unit, page_offset + i + 6u);
                let v_7 = load_v(at, unit, page_offset + i + 7u);
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
                eight = weigh(eight, load_v(at, unit, page_offset + i), weights[weight_at + i]);
            }
        }
        // The runs in order, for two queries at a time: thread 16 * i + j holds element i of unit j.
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
    }

    if tile.place != ALL {
        if team == 0u {
            let at = (tile.place * row_blocks() + block_idx) * 130u;
            pieces[at + thread] = value;
            if thread == 0u {
                pieces[at + 128u] = sum.largest;
                pieces[at + 129u] = sum.total;
            }
        }
        return;
    }
    let d = dim_part * 128u + element(thread);
    if d < args.head_dim && team == 0u {
        let result = value * (vec4<f32>(1.0) / sum.total);
        let place = args.out_start + (row * args.n_heads + first_head) * args.head_dim + d;
        for (var i = 0u; i < n_queries; i++) {
            out[place + i * args.head_dim] = result[i];
        }
    }
}

fn dot_unit(score: vec4<f32>, k: Unit, d: u32) -> vec4<f32> {
    let half = dot_four(score, low(k), queries[d], queries[d + 1u], queries[d + 2u], queries[d + 3u]);
    return dot_four(half, high(k), queries[d + 4u], queries[d + 5u], queries[d + 6u], queries[d + 7u]);
}

// Workgroups of a row.
fn row_blocks() -> u32 {
    return args.n_kv_heads * blocks_of_head() * dim_parts();
}

// One workgroup folds the pieces of what one workgroup of attention would have computed unsplit.
@compute @workgroup_size(CHUNK)
fn attention_merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let entries = merges();
    for (var entry = entries.first + group.x; entry < entries.end; entry += groups.x) {
        let tile = merge_at(entry);
        if tile.n_rows > 0u && n_seen(tile.first_row) > 0u {
            write_merged(tile, group.y, thread);
        }
    }
}

fn write_merged(tile: Merge, block_idx: u32, thread: u32) {
    let row = tile.first_row;
    let block = block_idx / dim_parts();
    let first_in_group = block % blocks_of_head() * args.block_heads;
    let first_head = block / blocks_of_head() * args.group + first_in_group;
    let n_queries = min(args.block_heads, args.group - first_in_group);
    let first = (tile.place * row_blocks() + block_idx) * 130u;
    let result = merged(first, row_blocks() * 130u, pieces_seen(tile, n_seen(row)), thread);
    let d = block_idx % dim_parts() * 128u + element(thread);
    if d < args.head_dim {
        let place = args.out_start + (row * args.n_heads + first_head) * args.head_dim + d;
        for (var query = 0u; query < n_queries; query++) {
            out[place + query * args.head_dim] = result[query];
        }
    }
}

// Folds the pieces of four queries, `step` apart, for element `thread`.
fn merged(first: u32, step: u32, n: u32, thread: u32) -> vec4<f32> {
    let all = vec4<bool>(true);
    var sum = nothing();
    var value = vec4<f32>(0.0);
    // Four pieces are loaded at once.
    for (var piece = 0u; piece < n; piece += 4u) {
        let place = first + piece * step;
        let place_1 = first + min(piece + 1u, n - 1u) * step;
        let place_2 = first + min(piece + 2u, n - 1u) * step;
        let place_3 = first + min(piece + 3u, n - 1u) * step;
        let values = array<vec4<f32>, 4>(
            pieces[place + thread], pieces[place_1 + thread], pieces[place_2 + thread], pieces[place_3 + thread]);
        let largest = array<vec4<f32>, 4>(
            pieces[place + 128u], pieces[place_1 + 128u], pieces[place_2 + 128u], pieces[place_3 + 128u]);
        let totals = array<vec4<f32>, 4>(
            pieces[place + 129u], pieces[place_1 + 129u], pieces[place_2 + 129u], pieces[place_3 + 129u]);
        sum = merge(sum, largest[0], totals[0], all);
        value = take_in(value, values[0], sum, all);
        if piece + 1u < n {
            sum = merge(sum, largest[1], totals[1], all);
            value = take_in(value, values[1], sum, all);
        }
        if piece + 2u < n {
            sum = merge(sum, largest[2], totals[2], all);
            value = take_in(value, values[2], sum, all);
        }
        if piece + 3u < n {
            sum = merge(sum, largest[3], totals[3], all);
            value = take_in(value, values[3], sum, all);
        }
    }
    return value * (vec4<f32>(1.0) / sum.total);
}
