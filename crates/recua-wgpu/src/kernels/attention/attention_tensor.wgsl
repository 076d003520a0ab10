// attention on cooperative matrices: 16x16x16, f16 times f16 into f32, with subgroups of 32. It computes what attention does, with q and
// the weights rounded to f16. In a page, K and V are stored as matrices of 16x16 (see rope_store), and are loaded directly from there.
// One workgroup of eight subgroups computes a tile: heads that share a KV head, times the tile's rows, over its chunks of 128 tokens, one
// after the other. TWO_TILES: up to 32 queries, for wide tiles. The folded result of a piece of a split tile: pieces [places, workgroups of
// a row, block_heads, HEAD_DIM / 4 + 1]: weighted sums of V, then the largest score and the sum of weights; attention_tensor_merge folds
// these.
// In the scores a subgroup computes 16 tokens; in the weighted sum of V, 16 elements.
// Bound by the latency of a chunk's steps, each of which waits for the one before.
// An element of a product is a chain of 16 at a time, whatever the other rows and columns hold, so bits do not depend on QUERIES.
enable f16;
#ifdef EMULATED
#else
enable wgpu_cooperative_matrix;
#endif
#define TENSOR
#import attention_common
#import exponent

override HEAD_DIM: u32 = 128u;
const THREADS = 256u;
#ifdef TWO_TILES
const QUERIES = 32u;
#else
const QUERIES = 16u;
#endif

// The distance from one query to the next, padded so that they lie in different banks: in vectors of four f16, or of two f32.
fn q_stride() -> u32 {
    return HEAD_DIM / 4u + 2u;
}
const P_STRIDE = 34u;
const S_STRIDE = 66u;

var<workgroup> q_staged: array<vec4<f16>, QUERIES * (HEAD_DIM / 4u + 2u)>; // [query][head_dim]
var<workgroup> p_staged: array<vec4<f16>, QUERIES * P_STRIDE>; // [query][token]: weights
var<workgroup> sums: array<vec2<f32>, QUERIES * S_STRIDE>; // [query][token]: scores; then [query][element]: weighted sums of V
var<workgroup> v_staged: array<vec4<f16>, 4u * HEAD_DIM>; // [element][16 tokens] of the last tokens
var<workgroup> tops: array<f32, 8u * QUERIES>; // [run of 16 tokens][query]
var<workgroup> totals: array<f32, 8u * QUERIES>;
var<workgroup> seen: array<u32, QUERIES>; // number of tokens that each query sees
// A query is f16 times its own power of two; see exponent.wgsl.
var<workgroup> q_largest: array<atomic<u32>, QUERIES>;
// What turns a query's sums into scores.
var<workgroup> q_scales: array<f32, QUERIES>;
var<workgroup> keep: array<f32, QUERIES>;
var<workgroup> take: array<f32, QUERIES>;
var<workgroup> pages_at: array<At, 8>; // of this chunk and the next

#import attention_matrices

struct Block { first_row: u32, n_rows: u32, first_head: u32, n_heads: u32 }

// Whether there is such a query; and the query's start in q or out, whose rows are row_stride apart.
fn is_query(query: u32, block: Block) -> bool {
    return query % args.block_heads < block.n_heads && query / args.block_heads < block.n_rows;
}
fn place_of(query: u32, row_stride: u32, block: Block) -> u32 {
    let row = block.first_row + query / args.block_heads;
    return row * row_stride + (block.first_head + query % args.block_heads) * args.head_dim;
}
fn heads_of(block_idx: u32) -> Block {
    let first_in_group = block_idx % blocks_of_head() * args.block_heads;
    let first_head = block_idx / blocks_of_head() * args.group + first_in_group;
    return Block(0u, 1u, first_head, min(args.block_heads, args.group - first_in_group));
}

// The number of tokens that a query sees; 0 if there is no such query.
fn seen_by(query: u32, block: Block) -> u32 {
    let row = block.first_row + min(query / args.block_heads, block.n_rows - 1u);
    return select(0u, n_seen(row), is_query(query, block));
}

// Four elements of the queries, or zeros.
fn piece_of(i: u32, block: Block) -> vec4<f32> {
    let query = i / (HEAD_DIM / 4u);
    let is_there = is_query(query, block) && query < QUERIES;
    let place = args.q_start + select(0u, place_of(query, args.q_stride, block) + i % (HEAD_DIM / 4u) * 4u, is_there);
    let four = vec4<f32>(q[place], q[place + 1u], q[place + 2u], q[place + 3u]);
    return select(vec4<f32>(0.0), four, vec4<bool>(is_there));
}

fn score_of(query: u32, token: u32, sees: u32, score: f32) -> f32 {
    return select(LOWEST, score * q_scales[query], token < sees);
}

// The largest of a query's 16 scores in a run.
fn top_of(query: u32, run: u32, first_token: u32) -> f32 {
    let sees = seen[query];
    var top = LOWEST;
    for (var i = 0u; i < 8u; i++) {
        let two = sums[query * S_STRIDE + 8u * run + i];
        let token = first_token + 16u * run + 2u * i;
        top = max(top, max(score_of(query, token, sees, two.x), score_of(query, token + 1u, sees, two.y)));
    }
    return top;
}

// Stages the weights of a query's run, and returns their sum, added in order.
fn weigh_run(query: u32, run: u32, first_token: u32, largest: f32) -> f32 {
    let sees = seen[query];
    var total = 0.0;
    for (var i = 0u; i < 4u; i++) {
        let at = query * S_STRIDE + 8u * run + 2u * i;
        let a = sums[at];
        let b = sums[at + 1u];
        let token = first_token + 16u * run + 4u * i;
        let score = vec4<f32>(
            score_of(query, token, sees, a.x),
            score_of(query, token + 1u, sees, a.y),
            score_of(query, token + 2u, sees, b.x),
            score_of(query, token + 3u, sees, b.y),
        );
        let weight = vec4<f16>(weight_of(score, vec4<f32>(largest)));
        p_staged[query * P_STRIDE + 4u * run + i] = weight;
        let w = vec4<f32>(weight);
        total = (((total + w.x) + w.y) + w.z) + w.w;
    }
    return total;
}

fn largest_of(query: u32) -> f32 {
    let a = max(max(tops[query], tops[QUERIES + query]), max(tops[2u * QUERIES + query], tops[3u * QUERIES + query]));
    let b = max(max(tops[4u * QUERIES + query], tops[5u * QUERIES + query]),
        max(tops[6u * QUERIES + query], tops[7u * QUERIES + query]));
    return max(a, b);
}
fn total_of(query: u32) -> f32 {
    var t = ((totals[query] + totals[QUERIES + query]) + totals[2u * QUERIES + query]) + totals[3u * QUERIES + query];
    t = (((t + totals[4u * QUERIES + query]) + totals[5u * QUERIES + query]) + totals[6u * QUERIES + query])
        + totals[7u * QUERIES + query];
    return t;
}

// Finds the pages of a chunk. Missing ones repeat the first, and their scores are replaced.
fn find_pages(chunk: u32, sequence: u32, kv_head: u32, n_tokens: u32, thread: u32) {
    if thread < 4u {
        let page = select(0u, thread, (chunk * 4u + thread) * PAGE < n_tokens);
        pages_at[chunk % 2u * 4u + thread] = page_at(sequence, chunk * 4u + page, kv_head);
    }
}

// Four elements of a query.
fn element_four(query: u32, i: u32) -> vec4<f32> {
    let at = query * S_STRIDE + 2u * i;
    return vec4<f32>(sums[at], sums[at + 1u]);
}

@compute @workgroup_size(THREADS)
fn attention_tensor(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
#ifdef EMULATED
) {
    let subgroup = thread / 32u;
    emulated_lane = thread % 32u;
#else
    @builtin(subgroup_id) subgroup: u32,
) {
#endif
#ifdef TWO_TILES
    let entries = wide_tiles();
    var tile = tile_at(entries.first + group.x);
#else
    // Loaded together with the number of tiles, not after it.
    var tile = tile_at(group.x);
    let entries = tiles();
#endif
    let own = entries.first + group.x;
    for (var entry = own; entry < entries.end; entry += groups.x) {
        if entry != own {
            tile = tile_at(entry);
        }
        if tile.n_rows > 0u {
            attend(tile, group.y, thread, subgroup);
        }
        // The next tile reuses the workgroup memory.
        workgroupBarrier();
    }
}

fn attend(rows: Tile, block_idx: u32, thread: u32, subgroup: u32) {
    let first_row = rows.first_row;
    let sequence = sequence_of(first_row);
    if sequence >= args.n_sequences {
        if thread == 0u {
            report(5u, sequence, args.n_sequences);
        }
        return;
    }
    var n_tokens = 0u;
    for (var row = first_row; row < first_row + rows.n_rows; row++) {
        let n = n_seen(row);
        n_tokens = max(n_tokens, n);
        if n == 0u && thread == 0u {
            report(6u, positions[args.positions_start + row], args.pages_max * PAGE);
        }
    }
    let heads = heads_of(block_idx);
    let block = Block(first_row, rows.n_rows, heads.first_head, heads.n_heads);
    let kv_head = block_idx / blocks_of_head();
    let first_chunk = rows.first_chunk;
    let end_chunk = min(rows.end_chunk, (n_tokens + CHUNK - 1u) / CHUNK);
    if first_chunk >= end_chunk {
        return;
    }

    if thread < QUERIES {
        atomicStore(&q_largest[thread], 0u);
    }
    workgroupBarrier();
    // Four at a time, so that the loads overlap.
    for (var i = thread; i < QUERIES * (HEAD_DIM / 4u); i += 4u * THREADS) {
        let a = piece_of(i, block);
        let b = piece_of(i + THREADS, block);
        let c = piece_of(i + 2u * THREADS, block);
        let d = piece_of(i + 3u * THREADS, block);
        measure_q(i, a);
        measure_q(i + THREADS, b);
        measure_q(i + 2u * THREADS, c);
        measure_q(i + 3u * THREADS, d);
    }
    workgroupBarrier();
    for (var i = thread; i < QUERIES * (HEAD_DIM / 4u); i += 4u * THREADS) {
        let a = piece_of(i, block);
        let b = piece_of(i + THREADS, block);
        let c = piece_of(i + 2u * THREADS, block);
        let d = piece_of(i + 3u * THREADS, block);
        stage_q(i, a);
        stage_q(i + THREADS, b);
        stage_q(i + 2u * THREADS, c);
        stage_q(i + 3u * THREADS, d);
    }
    if thread < QUERIES {
        q_scales[thread] = power(-q_exponent(thread)) * args.scale;
        seen[thread] = seen_by(thread, block);
    }
    // The sixteen elements of the weighted sum that a subgroup computes; a subgroup without elements repeats those of another.
    let tile = subgroup % (HEAD_DIM / 16u);
    // In the scores, a thread handles a run of 16 tokens of a query, if there are that many.
    let query = thread % QUERIES;
    let run = thread / QUERIES;
    let has_run = run < 8u;
    var largest_before = LOWEST;
    var total_before = 0.0;
    // Four elements of query `piece / (HEAD_DIM / 4)`, for every 256th piece.
    var value_0 = vec4<f32>(0.0);
    var value_1 = vec4<f32>(0.0);
#ifdef TWO_TILES
    var value_2 = vec4<f32>(0.0);
    var value_3 = vec4<f32>(0.0);
#endif

    find_pages(first_chunk, sequence, kv_head, n_tokens, thread);
    for (var chunk = first_chunk; chunk < end_chunk; chunk++) {
        let first_token = chunk * CHUNK;
        let chunk_tokens = min(n_tokens - first_token, CHUNK);
        let pages = chunk % 2u * 4u;
        workgroupBarrier();
        multiply_keys(pages_at[pages + subgroup / 2u], subgroup % 2u * (HEAD_DIM / 16u) * MATRIX);
        store_tile(16u * subgroup);
        if chunk + 1u < end_chunk {
            find_pages(chunk + 1u, sequence, kv_head, n_tokens, thread);
        }
        // What lies beyond a sequence may be NaN.
        if chunk_tokens % 16u != 0u {
            let last = chunk_tokens / 16u;
            let at = last % 2u * (HEAD_DIM / 16u) * MATRIX;
            for (var i = thread; i < 4u * HEAD_DIM; i += THREADS) {
                let tokens = vec4<u32>(16u * last + 4u * (i % 4u)) + vec4<u32>(0u, 1u, 2u, 3u);
                v_staged[i] = select(vec4<f16>(), v_at(pages_at[pages + last / 2u], at + i), tokens < vec4<u32>(chunk_tokens));
            }
        }
        workgroupBarrier();
        if has_run {
            tops[run * QUERIES + query] = top_of(query, run, first_token);
        }
        workgroupBarrier();
        let largest = largest_of(query);
        if has_run {
            totals[run * QUERIES + query] = weigh_run(query, run, first_token, largest);
        }
        workgroupBarrier();
        if thread < QUERIES {
            let total = total_of(query);
            let sees = seen[query] > first_token;
            let by = merge_one(largest_before, total_before, largest, total, sees);
            largest_before = by.largest;
            total_before = by.total;
            keep[query] = select(1.0, by.keep, sees);
            take[query] = select(0.0, by.take, sees);
        }
        clear();
        if chunk_tokens == CHUNK {
            load_values(tile, pages);
            multiply_values();
        } else {
            for (var i = 0u; i < chunk_tokens / 16u; i++) {
                multiply_p(i, value_matrix(i, tile, pages));
            }
            if chunk_tokens % 16u != 0u {
                multiply_p(chunk_tokens / 16u, load_v_staged(tile * MATRIX));
            }
        }
        // Subgroups with the same tile store the same sums.
        store_tile(16u * tile);
        workgroupBarrier();
        value_0 = taken_in(value_0, thread, first_token);
        value_1 = taken_in(value_1, thread + THREADS, first_token);
#ifdef TWO_TILES
        value_2 = taken_in(value_2, thread + 2u * THREADS, first_token);
        value_3 = taken_in(value_3, thread + 3u * THREADS, first_token);
#endif
    }

#ifdef TWO_TILES
#else
    if rows.place != ALL {
        leave(thread, value_0, rows, block_idx, block);
        leave(thread + THREADS, value_1, rows, block_idx, block);
        if thread < QUERIES && is_query(thread, block) {
            pieces[piece_at(thread, rows, block_idx) + HEAD_DIM / 4u] = vec4<f32>(largest_before, total_before, 0.0, 0.0);
        }
        return;
    }
#endif
    workgroupBarrier();
    if thread < QUERIES {
        keep[thread] = 1.0 / total_before;
    }
    workgroupBarrier();
    put(thread, value_0, block);
    put(thread + THREADS, value_1, block);
#ifdef TWO_TILES
    put(thread + 2u * THREADS, value_2, block);
    put(thread + 3u * THREADS, value_3, block);
#endif
}

fn measure_q(i: u32, piece: vec4<f32>) {
    if i < QUERIES * (HEAD_DIM / 4u) {
        atomicMax(&q_largest[i / (HEAD_DIM / 4u)], largest_bits(piece));
    }
}

fn q_exponent(query: u32) -> i32 {
    return row_exponent(atomicLoad(&q_largest[query]));
}

fn stage_q(i: u32, piece: vec4<f32>) {
    if i < QUERIES * (HEAD_DIM / 4u) {
        let query = i / (HEAD_DIM / 4u);
        q_staged[query * q_stride() + i % (HEAD_DIM / 4u)] = vec4<f16>(piece * power(q_exponent(query)));
    }
}

struct One { largest: f32, total: f32, keep: f32, take: f32 }
fn merge_one(largest: f32, total: f32, chunk_largest: f32, chunk_total: f32, sees: bool) -> One {
    let by = merge(
        Sum(vec4<f32>(largest), vec4<f32>(total), vec4<f32>(0.0), vec4<f32>(0.0)),
        vec4<f32>(chunk_largest), vec4<f32>(chunk_total), vec4<bool>(sees));
    return One(by.largest.x, by.total.x, by.keep.x, by.take.x);
}

fn taken_in(value: vec4<f32>, piece: u32, first_token: u32) -> vec4<f32> {
    let query = piece / (HEAD_DIM / 4u);
    if query >= QUERIES {
        return value;
    }
    let chunk = element_four(query, piece % (HEAD_DIM / 4u));
    let next = fma(value, vec4<f32>(keep[query]), chunk * take[query]);
    return select(value, next, seen[query] > first_token);
}

fn put(piece: u32, value: vec4<f32>, block: Block) {
    let query = piece / (HEAD_DIM / 4u);
    if query < QUERIES && is_query(query, block) && seen[min(query, QUERIES - 1u)] > 0u {
        let place = args.out_start + place_of(query, args.n_heads * args.head_dim, block) + piece % (HEAD_DIM / 4u) * 4u;
        let result = value * keep[query];
        out[place] = result.x;
        out[place + 1u] = result.y;
        out[place + 2u] = result.z;
        out[place + 3u] = result.w;
    }
}

#ifdef TWO_TILES
#else
// The start of a query's piece; and of the first piece of a merge.
fn piece_at(query: u32, rows: Tile, block_idx: u32) -> u32 {
    return piece_of_row(rows.place + query / args.block_heads, query % args.block_heads, block_idx);
}
fn piece_of_row(place: u32, head: u32, block_idx: u32) -> u32 {
    return ((place * row_blocks() + block_idx) * args.block_heads + head) * (HEAD_DIM / 4u + 1u);
}
fn row_blocks() -> u32 {
    return args.n_kv_heads * blocks_of_head();
}

// Writes four elements of a query to its piece.
fn leave(piece: u32, value: vec4<f32>, rows: Tile, block_idx: u32, block: Block) {
    let query = piece / (HEAD_DIM / 4u);
    if query < QUERIES && is_query(query, block) {
        pieces[piece_at(query, rows, block_idx) + piece % (HEAD_DIM / 4u)] = value;
    }
}

// One workgroup folds the pieces of what one workgroup of attention_tensor would have computed unsplit.
@compute @workgroup_size(CHUNK)
fn attention_tensor_merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let entries = merges();
    for (var entry = entries.first + group.x; entry < entries.end; entry += groups.x) {
        let rows = merge_at(entry);
        let heads = heads_of(group.y);
        let block = Block(rows.first_row, rows.n_rows, heads.first_head, heads.n_heads);
        for (var i = thread; i < rows.n_rows * args.block_heads * (HEAD_DIM / 4u); i += CHUNK) {
            write_merged(i, rows, group.y, block);
        }
    }
}

// Four elements of a query.
fn write_merged(i: u32, rows: Merge, block_idx: u32, block: Block) {
    let query = i / (HEAD_DIM / 4u);
    let row = query / args.block_heads;
    let n_tokens = n_seen(rows.first_row + row);
    if !is_query(query, block) || n_tokens == 0u {
        return;
    }
    let n = pieces_seen(rows, n_tokens);
    let first = piece_of_row(rows.place + row, query % args.block_heads, block_idx);
    let step = rows.n_rows * row_blocks() * args.block_heads * (HEAD_DIM / 4u + 1u);
    let element = i % (HEAD_DIM / 4u);
    let last = HEAD_DIM / 4u;
    var largest = LOWEST;
    var total = 0.0;
    var value = vec4<f32>(0.0);
    // Four pieces are loaded at once.
    for (var piece = 0u; piece < n; piece += 4u) {
        let a = first + piece * step;
        let b = first + min(piece + 1u, n - 1u) * step;
        let c = first + min(piece + 2u, n - 1u) * step;
        let d = first + min(piece + 3u, n - 1u) * step;
        let values =
            array<vec4<f32>, 4>(pieces[a + element], pieces[b + element], pieces[c + element], pieces[d + element]);
        let sums_of = array<vec4<f32>, 4>(pieces[a + last], pieces[b + last], pieces[c + last], pieces[d + last]);
        for (var j = 0u; j < min(n - piece, 4u); j++) {
            let by = merge_one(largest, total, sums_of[j].x, sums_of[j].y, true);
            largest = by.largest;
            total = by.total;
            value = fma(value, vec4<f32>(by.keep), values[j] * by.take);
        }
    }
    let place = args.out_start + place_of(query, args.n_heads * args.head_dim, block) + 4u * element;
    let result = value * (1.0 / total);
    out[place] = result.x;
    out[place + 1u] = result.y;
    out[place + 2u] = result.z;
    out[place + 3u] = result.w;
}
#endif
