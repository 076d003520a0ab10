// attention: out = softmax(scale * q . K^T) . V for every row over its own sequence, up to its own position.
// q, out: [n_rows, n_heads * head_dim]; the cache's layout is rope_store's. SPLIT: parts [rows, n_heads, n_chunks, head_dim + 2],
// a chunk's weighted sum of V, its largest score and its sum of weights, which attention_merge puts together.
// One workgroup computes up to 8 queries: heads that share a KV head, times neighbouring rows of one sequence; over one chunk of 128
// tokens (SPLIT) or over all, one after the other. Bound by reading the cache for single rows, by arithmetic for prompts.
// A chunk has a largest score, weights and sums of its own, and chunks are merged in order from position 0, by multiply-adds that
// are written out: a query's bits depend on nothing but itself and its sequence, split or not. (Online softmax and split KV:
// FlashAttention-2, Flash-Decoding.) Slots behind a row's position may hold NaN: their scores are replaced, their V is not read.
#import status
#import row_map
#import math
@group(0) @binding(4) var<storage, read> q: array<f32>;
@group(0) @binding(5) var<storage, read> k_cache: array<u32>;
@group(0) @binding(6) var<storage, read> v_cache: array<u32>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>;
#ifdef SPLIT
@group(0) @binding(8) var<storage, read_write> parts: array<f32>;
#endif
#ifdef WINDOWS
// A cache that one binding cannot hold: k_cache and v_cache are its first window_pages pages, these the next ones.
@group(0) @binding(9) var<storage, read> k_cache_1: array<u32>;
@group(0) @binding(10) var<storage, read> v_cache_1: array<u32>;
@group(0) @binding(11) var<storage, read> k_cache_2: array<u32>;
@group(0) @binding(12) var<storage, read> v_cache_2: array<u32>;
@group(0) @binding(13) var<storage, read> k_cache_3: array<u32>;
@group(0) @binding(14) var<storage, read> v_cache_3: array<u32>;
#endif

struct Args {
    rows: RowMap,
    first_row: u32,
    end_row: u32,
    n_heads: u32,
    n_kv_heads: u32,
    n_pages: u32,
    head_dim: u32,
    scale: f32,
    q_start: u32,
    k_start: u32,
    v_start: u32,
    out_start: u32,
    group: u32, // query heads of a KV head
    block_heads: u32, // of which a workgroup takes so many
    block_rows: u32,
    n_chunks: u32,
#ifdef WINDOWS
    window_pages: u32,
    k_starts: array<u32, 3>,
    v_starts: array<u32, 3>,
#endif
}
var<immediate> args: Args;

const PAGE = 32u;
const CHUNK = 128u;
const QUERIES = 8u;
const PARTS = CHUNK / QUERIES; // threads that look for a query's largest score
const LOWEST = -3.4028234e38;
override HEAD_MAX: u32 = 256u; // room for a head
// Threads that share the tokens of a word of V.
const SHARES_MAX = 4u;

var<workgroup> queries: array<vec4<f32>, HEAD_MAX * 2u>; // [head_dim][8 queries]
var<workgroup> weights: array<vec4<f32>, CHUNK * 2u>; // [token][8 queries]: scores, then weights
// Where a page's KV head begins: the window it is in, and its place there in words.
struct At { window: u32, place: u32 }
var<workgroup> pages_at: array<At, 4>;
var<workgroup> found: array<f32, CHUNK>;
var<workgroup> largest: array<vec4<f32>, 2>;
var<workgroup> total: array<vec4<f32>, 2>;
var<workgroup> shares: array<vec4<f32>, 384>;

// What chunks before have come to, for four queries.
struct Sum { largest: vec4<f32>, total: vec4<f32>, keep: vec4<f32>, take: vec4<f32> }

// Takes a chunk in: sums are to become fma(sum, keep, chunk * take).
fn merge(sum: Sum, chunk_largest: vec4<f32>, chunk_total: vec4<f32>, sees: vec4<bool>) -> Sum {
    let m = select(sum.largest, max(sum.largest, chunk_largest), sees);
    let keep = exp_negative(sum.largest - m);
    let take = exp_negative(min(chunk_largest - m, vec4<f32>(0.0)));
    let t = select(sum.total, fma(sum.total, keep, chunk_total * take), sees);
    return Sum(m, t, keep, take);
}

fn take_in(sum: vec4<f32>, chunk: vec4<f32>, by: Sum, sees: vec4<bool>) -> vec4<f32> {
    return select(sum, fma(sum, by.keep, chunk * by.take), sees);
}

// Tokens that a row sees; none if its position is out of range.
fn n_seen(row: u32) -> u32 {
    let position = positions[args.rows.positions_start + row];
    if position >= args.rows.pages_max * PAGE {
        return 0u;
    }
    return position + 1u;
}

fn n_seen_by(query: u32, first_row: u32, n_rows: u32) -> u32 {
    let row = query / args.block_heads;
    if row >= n_rows {
        return 0u;
    }
    return n_seen(first_row + row);
}

fn head_of(query: u32, block: u32) -> u32 {
    let blocks = (args.group + args.block_heads - 1u) / args.block_heads;
    return block / blocks * args.group + block % blocks * args.block_heads + query % args.block_heads;
}

// Whether a query is one: its row is in the block and its head in the group.
fn is_query(query: u32, block: u32, n_rows: u32) -> bool {
    let blocks = (args.group + args.block_heads - 1u) / args.block_heads;
    let in_group = block % blocks * args.block_heads + query % args.block_heads < args.group;
    return in_group && query / args.block_heads < n_rows;
}

fn load_query(query: u32, d: u32, block: u32, first_row: u32, n_rows: u32) -> f32 {
    if !is_query(query, block, n_rows) {
        return 0.0;
    }
    let row = first_row + query / args.block_heads;
    return q[args.q_start + (row * args.n_heads + head_of(query, block)) * args.head_dim + d];
}

// A word of the cache; `at` is the place of the page's KV head.
fn k_word(at: At, i: u32) -> u32 {
#ifdef WINDOWS
    switch at.window {
        case 0u: { return k_cache[args.k_start + at.place + i]; }
        case 1u: { return k_cache_1[args.k_starts[0] + at.place + i]; }
        case 2u: { return k_cache_2[args.k_starts[1] + at.place + i]; }
        default: { return k_cache_3[args.k_starts[2] + at.place + i]; }
    }
#else
    return k_cache[args.k_start + at.place + i];
#endif
}

fn v_word(at: At, i: u32) -> u32 {
#ifdef WINDOWS
    switch at.window {
        case 0u: { return v_cache[args.v_start + at.place + i]; }
        case 1u: { return v_cache_1[args.v_starts[0] + at.place + i]; }
        case 2u: { return v_cache_2[args.v_starts[1] + at.place + i]; }
        default: { return v_cache_3[args.v_starts[2] + at.place + i]; }
    }
#else
    return v_cache[args.v_start + at.place + i];
#endif
}

#ifdef CACHE_F16
// Elements 2 * pair and 2 * pair + 1 of a token's K.
fn load_k(at: At, pair: u32, slot: u32) -> vec2<f32> {
    let word = k_word(at, pair * PAGE + slot);
    return vec2<f32>(unpack2x16float(word).x, unpack2x16float(word >> 16u).x);
}
fn load_v(at: At, pair: u32, slot: u32) -> vec2<f32> {
    let word = v_word(at, slot * (args.head_dim / 2u) + pair);
    return vec2<f32>(unpack2x16float(word).x, unpack2x16float(word >> 16u).x);
}
fn words_of_head() -> u32 {
    return args.head_dim / 2u;
}
#else
fn load_k(at: At, pair: u32, slot: u32) -> vec2<f32> {
    let place = 2u * pair * PAGE + slot;
    return vec2<f32>(bitcast<f32>(k_word(at, place)), bitcast<f32>(k_word(at, place + PAGE)));
}
fn load_v(at: At, pair: u32, slot: u32) -> vec2<f32> {
    let place = slot * args.head_dim + 2u * pair;
    return vec2<f32>(bitcast<f32>(v_word(at, place)), bitcast<f32>(v_word(at, place + 1u)));
}
fn words_of_head() -> u32 {
    return args.head_dim;
}
#endif

// A pair of elements added to the scores of four queries.
fn dot_pair(score: vec4<f32>, k: vec2<f32>, place: u32) -> vec4<f32> {
    return fma(vec4<f32>(k.y), queries[place + 2u], fma(vec4<f32>(k.x), queries[place], score));
}

@compute @workgroup_size(CHUNK)
fn attention(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let first_row = args.first_row + group.x;
    let block = group.y;
    let sequence = sequences[args.rows.sequences_start + first_row];
    // The first row of a block of rows works for all of them.
    if first_row % args.block_rows != 0u && sequences[args.rows.sequences_start + first_row - 1u] == sequence {
        return;
    }
    if sequence >= args.rows.n_sequences {
        if thread == 0u {
            report(5u, sequence, args.rows.n_sequences);
        }
        return;
    }
    var n_rows = 1u;
    var n_tokens = n_seen(first_row);
    var is_bad = n_tokens == 0u;
    loop {
        let row = first_row + n_rows;
        if row >= args.end_row || row % args.block_rows == 0u {
            break;
        }
        if sequences[args.rows.sequences_start + row] != sequence {
            break;
        }
        let n = n_seen(row);
        is_bad = is_bad || n == 0u;
        n_tokens = max(n_tokens, n);
        n_rows++;
    }
    if is_bad && thread == 0u {
        for (var row = first_row; row < first_row + n_rows; row++) {
            if n_seen(row) == 0u {
                report(6u, positions[args.rows.positions_start + row], args.rows.pages_max * PAGE);
            }
        }
    }
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
    let blocks = (args.group + args.block_heads - 1u) / args.block_heads;
    let kv_head = block / blocks;
    let pairs = args.head_dim / 2u;
    let is_wide = n_rows * args.block_heads > 4u;

    for (var i = thread; i < args.head_dim * 2u; i += CHUNK) {
        let first = i % 2u * 4u;
        let d = i / 2u;
        queries[i] = vec4<f32>(
            load_query(first, d, block, first_row, n_rows),
            load_query(first + 1u, d, block, first_row, n_rows),
            load_query(first + 2u, d, block, first_row, n_rows),
            load_query(first + 3u, d, block, first_row, n_rows),
        );
    }
    let seen_0 = vec4<u32>(
        n_seen_by(0u, first_row, n_rows),
        n_seen_by(1u, first_row, n_rows),
        n_seen_by(2u, first_row, n_rows),
        n_seen_by(3u, first_row, n_rows),
    );
    let seen_1 = vec4<u32>(
        n_seen_by(4u, first_row, n_rows),
        n_seen_by(5u, first_row, n_rows),
        n_seen_by(6u, first_row, n_rows),
        n_seen_by(7u, first_row, n_rows),
    );

    // In the weighted sum a thread has one pair of elements and one share of the tokens.
    let n_shares = min(CHUNK / pairs, SHARES_MAX);
    let pair = thread % pairs;
    let share = thread / pairs;
    var sum_0 = Sum(vec4<f32>(LOWEST), vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0));
    var sum_1 = sum_0;
    // Elements 2 * pair and 2 * pair + 1 of queries 0 to 3 and 4 to 7.
    var even_0 = vec4<f32>(0.0);
    var even_1 = vec4<f32>(0.0);
    var odd_0 = vec4<f32>(0.0);
    var odd_1 = vec4<f32>(0.0);

    for (var chunk = first_chunk; chunk < end_chunk; chunk++) {
        let first_token = chunk * CHUNK;
        let chunk_tokens = min(n_tokens - first_token, CHUNK);
        if thread < 4u && thread * PAGE < chunk_tokens {
            var page = pages[args.rows.pages_start + sequence * args.rows.pages_max + chunk * 4u + thread];
            if page >= args.n_pages {
                report(7u, page, args.n_pages);
                page = 0u;
            }
            var window = 0u;
#ifdef WINDOWS
            window = page / args.window_pages;
            page = page % args.window_pages;
#endif
            pages_at[thread] = At(window, (page * args.n_kv_heads + kv_head) * PAGE * words_of_head());
        }
        workgroupBarrier();

        // Scores: a thread is a token.
        var score_0 = vec4<f32>(0.0);
        var score_1 = vec4<f32>(0.0);
        if thread < chunk_tokens {
            let at = pages_at[thread / PAGE];
            let slot = thread % PAGE;
            // Four loads are under way at once.
            var i = 0u;
            for (; i + 4u <= pairs; i += 4u) {
                let a = load_k(at, i, slot);
                let b = load_k(at, i + 1u, slot);
                let c = load_k(at, i + 2u, slot);
                let d = load_k(at, i + 3u, slot);
                score_0 = dot_pair(dot_pair(score_0, a, 4u * i), b, 4u * i + 4u);
                score_0 = dot_pair(dot_pair(score_0, c, 4u * i + 8u), d, 4u * i + 12u);
                if is_wide {
                    score_1 = dot_pair(dot_pair(score_1, a, 4u * i + 1u), b, 4u * i + 5u);
                    score_1 = dot_pair(dot_pair(score_1, c, 4u * i + 9u), d, 4u * i + 13u);
                }
            }
            for (; i < pairs; i++) {
                let k = load_k(at, i, slot);
                score_0 = dot_pair(score_0, k, 4u * i);
                score_1 = dot_pair(score_1, k, 4u * i + 1u);
            }
        }
        let token = vec4<u32>(first_token + thread);
        weights[2u * thread] = select(vec4<f32>(LOWEST), score_0 * args.scale, token < seen_0);
        weights[2u * thread + 1u] = select(vec4<f32>(LOWEST), score_1 * args.scale, token < seen_1);
        workgroupBarrier();

        // Weights: a query has 16 threads, a thread every 16th token.
        let query = thread / PARTS;
        let part = thread % PARTS;
        let quad = query / 4u;
        let lane = query % 4u;
        var m = LOWEST;
        for (var i = part; i < CHUNK; i += PARTS) {
            m = max(m, weights[2u * i + quad][lane]);
        }
        found[thread] = m;
        workgroupBarrier();
        m = LOWEST;
        for (var i = 0u; i < PARTS; i++) {
            m = max(m, found[query * PARTS + i]);
        }
        var t = 0.0;
        for (var i = part; i < CHUNK; i += 4u * PARTS) {
            let place = 2u * i + quad;
            let score = vec4<f32>(
                weights[place][lane],
                weights[place + 2u * PARTS][lane],
                weights[place + 4u * PARTS][lane],
                weights[place + 6u * PARTS][lane],
            );
            // A score that was replaced is far below m, unless all are.
            let weight = select(exp_negative(score - m), vec4<f32>(0.0), score == vec4<f32>(LOWEST));
            weights[place][lane] = weight.x;
            weights[place + 2u * PARTS][lane] = weight.y;
            weights[place + 4u * PARTS][lane] = weight.z;
            weights[place + 6u * PARTS][lane] = weight.w;
            t += (weight.x + weight.y) + (weight.z + weight.w);
        }
        workgroupBarrier();
        found[thread] = t;
        if part == 0u {
            largest[quad][lane] = m;
        }
        workgroupBarrier();
        if part == 0u {
            for (var i = 1u; i < PARTS; i++) {
                t += found[query * PARTS + i];
            }
            total[quad][lane] = t;
        }

        // The weighted sum of V.
        var e_0 = vec4<f32>(0.0);
        var e_1 = vec4<f32>(0.0);
        var o_0 = vec4<f32>(0.0);
        var o_1 = vec4<f32>(0.0);
        if share < n_shares {
            var i = share;
            for (; i + 3u * n_shares < chunk_tokens; i += 4u * n_shares) {
                let t_1 = i + n_shares;
                let t_2 = i + 2u * n_shares;
                let t_3 = i + 3u * n_shares;
                let a = load_v(pages_at[i / PAGE], pair, i % PAGE);
                let b = load_v(pages_at[t_1 / PAGE], pair, t_1 % PAGE);
                let c = load_v(pages_at[t_2 / PAGE], pair, t_2 % PAGE);
                let d = load_v(pages_at[t_3 / PAGE], pair, t_3 % PAGE);
                e_0 = fma(vec4<f32>(b.x), weights[2u * t_1], fma(vec4<f32>(a.x), weights[2u * i], e_0));
                o_0 = fma(vec4<f32>(b.y), weights[2u * t_1], fma(vec4<f32>(a.y), weights[2u * i], o_0));
                e_0 = fma(vec4<f32>(d.x), weights[2u * t_3], fma(vec4<f32>(c.x), weights[2u * t_2], e_0));
                o_0 = fma(vec4<f32>(d.y), weights[2u * t_3], fma(vec4<f32>(c.y), weights[2u * t_2], o_0));
                if is_wide {
                    let w_0 = weights[2u * i + 1u];
                    let w_1 = weights[2u * t_1 + 1u];
                    let w_2 = weights[2u * t_2 + 1u];
                    let w_3 = weights[2u * t_3 + 1u];
                    e_1 = fma(vec4<f32>(b.x), w_1, fma(vec4<f32>(a.x), w_0, e_1));
                    o_1 = fma(vec4<f32>(b.y), w_1, fma(vec4<f32>(a.y), w_0, o_1));
                    e_1 = fma(vec4<f32>(d.x), w_3, fma(vec4<f32>(c.x), w_2, e_1));
                    o_1 = fma(vec4<f32>(d.y), w_3, fma(vec4<f32>(c.y), w_2, o_1));
                }
            }
            for (; i < chunk_tokens; i += n_shares) {
                let v = load_v(pages_at[i / PAGE], pair, i % PAGE);
                let w_0 = weights[2u * i];
                let w_1 = weights[2u * i + 1u];
                e_0 = fma(vec4<f32>(v.x), w_0, e_0);
                e_1 = fma(vec4<f32>(v.x), w_1, e_1);
                o_0 = fma(vec4<f32>(v.y), w_0, o_0);
                o_1 = fma(vec4<f32>(v.y), w_1, o_1);
            }
            if share > 0u {
                let place = ((share - 1u) * pairs + pair) * 4u;
                shares[place] = e_0;
                shares[place + 1u] = e_1;
                shares[place + 2u] = o_0;
                shares[place + 3u] = o_1;
            }
        }
        workgroupBarrier();
        if share == 0u {
            for (var i = 1u; i < n_shares; i++) {
                let place = ((i - 1u) * pairs + pair) * 4u;
                e_0 += shares[place];
                e_1 += shares[place + 1u];
                o_0 += shares[place + 2u];
                o_1 += shares[place + 3u];
            }
#ifdef SPLIT
            let offset = (group.x * args.n_heads * args.n_chunks + chunk) * (args.head_dim + 2u);
            for (var i = 0u; i < QUERIES; i++) {
                if is_query(i, block, n_rows) && n_seen_by(i, first_row, n_rows) > first_token {
                    let row = i / args.block_heads;
                    let line = row * args.n_heads + head_of(i, block);
                    let place = offset + line * args.n_chunks * (args.head_dim + 2u);
                    parts[place + 2u * pair] = select(e_0, e_1, i >= 4u)[i % 4u];
                    parts[place + 2u * pair + 1u] = select(o_0, o_1, i >= 4u)[i % 4u];
                    if thread == 0u {
                        parts[place + args.head_dim] = largest[i / 4u][i % 4u];
                        parts[place + args.head_dim + 1u] = total[i / 4u][i % 4u];
                    }
                }
            }
#else
            let sees_0 = seen_0 > vec4<u32>(first_token);
            let sees_1 = seen_1 > vec4<u32>(first_token);
            sum_0 = merge(sum_0, largest[0], total[0], sees_0);
            sum_1 = merge(sum_1, largest[1], total[1], sees_1);
            even_0 = take_in(even_0, e_0, sum_0, sees_0);
            even_1 = take_in(even_1, e_1, sum_1, sees_1);
            odd_0 = take_in(odd_0, o_0, sum_0, sees_0);
            odd_1 = take_in(odd_1, o_1, sum_1, sees_1);
#endif
        }
        workgroupBarrier();
    }

#ifdef SPLIT
#else
    if share == 0u {
        for (var i = 0u; i < QUERIES; i++) {
            if is_query(i, block, n_rows) && n_seen_by(i, first_row, n_rows) > 0u {
                let factor = 1.0 / select(sum_0.total, sum_1.total, i >= 4u)[i % 4u];
                let row = first_row + i / args.block_heads;
                let place = args.out_start + (row * args.n_heads + head_of(i, block)) * args.head_dim;
                out[place + 2u * pair] = select(even_0, even_1, i >= 4u)[i % 4u] * factor;
                out[place + 2u * pair + 1u] = select(odd_0, odd_1, i >= 4u)[i % 4u] * factor;
            }
        }
    }
#endif
}

#ifdef SPLIT
// One workgroup puts the chunks of one head of one row together.
@compute @workgroup_size(64)
fn attention_merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = args.first_row + group.x;
    if sequences[args.rows.sequences_start + row] >= args.rows.n_sequences {
        return;
    }
    let n_tokens = n_seen(row);
    if n_tokens == 0u {
        return;
    }
    let line = args.head_dim + 2u;
    let first = (group.x * args.n_heads + group.y) * args.n_chunks * line;
    let all = vec4<bool>(true);
    var sum = Sum(vec4<f32>(LOWEST), vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0));
    // Elements thread, thread + 64, thread + 128 and thread + 192; those behind the head are not stored.
    var values = vec4<f32>(0.0);
    let last = args.head_dim - 1u;
    let d = min(vec4<u32>(thread, thread + 64u, thread + 128u, thread + 192u), vec4<u32>(last));
    for (var chunk = 0u; chunk * CHUNK < n_tokens; chunk++) {
        let place = first + chunk * line;
        let chunk_largest = vec4<f32>(parts[place + args.head_dim]);
        let chunk_total = vec4<f32>(parts[place + args.head_dim + 1u]);
        let chunk_values =
            vec4<f32>(parts[place + d.x], parts[place + d.y], parts[place + d.z], parts[place + d.w]);
        sum = merge(sum, chunk_largest, chunk_total, all);
        values = take_in(values, chunk_values, sum, all);
    }
    let place = args.out_start + (row * args.n_heads + group.y) * args.head_dim;
    let factor = 1.0 / sum.total.x;
    for (var i = 0u; i < 4u; i++) {
        if thread + 64u * i < args.head_dim {
            out[place + thread + 64u * i] = values[i] * factor;
        }
    }
}
#endif
