// attention: softmax(scale q K^T) V of each row over its own sequence, up to its own position; the cache is f16.
//
// A block takes a tile of rows (work_list.cuh) and query heads of one KV head: its queries, QUERY_TILES x 8 of them, are the columns of
// the tensor core; S = K q^T and then the sum of P V, transposed, with 16 tokens a step. What a column holds changes no other.
//
// How a query's sums go, whatever tile it is in: tokens are cut into chunks of CHUNK from position 0. In a chunk warp w of 8 takes the
// runs of 16 tokens w, w + 8, ..., one after the other, rescaling as its maximum grows; then the warps are added in order; then the
// chunk is added to those before it. A chunk of which a query sees nothing leaves its bits alone.
//
// A warp fetches its own tokens: STAGES runs of K and V are under way. Bound by memory for few queries.
#include "cache.cuh"
#include "work_list.cuh"

#define WARPS 8
#define RUN 16
#define CHUNK 512
#define HEAD_TILES (HEAD_PADDED / 16)
#define QUERIES (QUERY_TILES * 8)
#define RUN_BYTES (RUN * HEAD_PADDED * 2)
#define RING_BYTES (STAGES * 2 * RUN_BYTES)
#define SUM_BYTES (HEAD_TILES * QUERY_TILES * 512)
#define WARP_BYTES (RING_BYTES > SUM_BYTES ? RING_BYTES : SUM_BYTES)
// Parts of the weighted sum that a warp folds: tiles of 16 elements of the head.
#define OWN_TILES ((HEAD_TILES + WARPS - 1) / WARPS)
// In shared memory before the warps' rings.
#define Q_BYTES (QUERY_TILES * HEAD_TILES * 256)

struct AttentionArgs {
    Rows rows;
    Work work;
    const float* q;        // [n_rows][q_stride]
    const u8* k_cache;
    const u8* v_cache;
    float* out;            // [n_rows][n_heads * HEAD_DIM]
    float* places;         // [place][n_heads][HEAD_PADDED + 2]: sums, largest score, sum of weights
    u32* tickets;          // [merge][blocks of a tile], zero before and after
    u32 q_stride, n_heads, n_kv_heads, heads, rows_max;   // a tile's heads and rows
    float scale;           // log2(e) included
};

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
DEVICE bool is_nothing(float largest) { return largest == -INFINITY; }

// a x + b y, in these two steps.
DEVICE float fold(float a, float x, float b, float y) { return __fmaf_rn(b, y, a * x); }

// What to multiply sums of `largest` with, where `new_largest` is at least as large.
DEVICE float rescale(float largest, float new_largest) { return is_nothing(largest) ? 0.0f : exp2_fast(largest - new_largest); }

#if KIND == NARROW
// The pieces of a tile that was split: the last block that is done with one adds them, in their order.
static __device__ __noinline__ void merge(const AttentionArgs& args, const Tile& tile, u32 group, u32 first_head, u32 n_heads) {
    __shared__ u32 found, is_last;
    if (threadIdx.x == 0) found = ALL;
    __threadfence();
    __syncthreads();
    const Entries all = entries(args.work, MERGES);
    for (u32 i = all.first + threadIdx.x; i < all.end; i += WARPS * 32) {
        const Merge one = merge_at(args.work, i, args.rows_max, args.rows.n_rows);
        if (one.place <= tile.place && tile.place - one.place < one.n_pieces * one.n_rows) found = i;
    }
    __syncthreads();
    if (found == ALL) return;
    const Merge whole = merge_at(args.work, found, args.rows_max, args.rows.n_rows);
    if (threadIdx.x == 0) {
        u32* counter = args.tickets + (u64)(found - all.first) * gridDim.y + group;
        is_last = ticket(counter) == whole.n_pieces - 1;
        if (is_last) *counter = 0;
        __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    const u32 n = whole.n_rows * n_heads * HEAD_PADDED;
    for (u32 i = threadIdx.x; i < n; i += WARPS * 32) {
        const u32 d = i % HEAD_PADDED, head = first_head + i / HEAD_PADDED % n_heads, row = i / HEAD_PADDED / n_heads;
        // Later pieces have a chunk each; the row may see fewer than its tile.
        const u32 n_chunks = args.rows.positions[whole.first_row + row] / CHUNK + 1;
        const u32 n_pieces = min(whole.n_pieces, n_chunks > whole.n_first ? n_chunks - whole.n_first + 1 : 1u);
        const float* from = args.places + ((u64)(whole.place + row) * args.n_heads + head) * (HEAD_PADDED + 2);
        const u64 stride = (u64)whole.n_rows * args.n_heads * (HEAD_PADDED + 2);
        float sum = 0.0f, largest = -INFINITY, total = 0.0f;
#pragma unroll 8
        for (u32 piece = 0; piece < n_pieces; piece++) {
            const float piece_max = __ldcg(from + piece * stride + HEAD_PADDED);
            const float piece_total = __ldcg(from + piece * stride + HEAD_PADDED + 1);
            const float piece_sum = __ldcg(from + piece * stride + d);
            const float both = fmaxf(largest, piece_max);
            const float old_factor = rescale(largest, both), new_factor = rescale(piece_max, both);
            sum = fold(sum, old_factor, piece_sum, new_factor);
            total = fold(total, old_factor, piece_total, new_factor);
            largest = both;
        }
        if (d < HEAD_DIM) args.out[((u64)(whole.first_row + row) * args.n_heads + head) * HEAD_DIM + d] = sum / total;
    }
}

#endif

// Starts to fetch a warp's run `i` of the tokens from `first_token` on.
DEVICE void fetch(const AttentionArgs& args, const u32* pages, u32 kv_head, u32 first_token, u32 i, u32 bar, u32 to) {
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const u32 token = first_token + (warp + i * WARPS) * RUN;
    u32 page = pages[token / PAGE_TOKENS];
    if (page >= args.rows.n_pages) {
        if (lane == 0) report(args.rows.status, BAD_PAGE, page, args.rows.n_pages);
        page = 0;
    }
    const u64 at = (((u64)page * args.n_kv_heads + kv_head) * PAGE_TOKENS + token % PAGE_TOKENS) * (HEAD_PADDED * 2);
    copies_expected(bar, 2 * RUN_BYTES, lane);
    copy_async(to, args.k_cache + at, RUN_BYTES, bar, lane);
    copy_async(to + RUN_BYTES, args.v_cache + at, RUN_BYTES, bar, lane);
    copies_issued(bar);
}

// Runs of a warp among `n` tokens.
DEVICE u32 own_runs_of(u32 n) {
    const u32 warp = threadIdx.x >> 5, n_runs = (n + RUN - 1) / RUN;
    return n_runs > warp ? (n_runs - warp + WARPS - 1) / WARPS : 0;
}

// Before the kernel before is done: fetches the first runs of the block's first tile, as far as they are older than the pass. The list and
// the rows are inputs of the program, whose first kernel has begun; what is wrong with them is found later. Returns how many runs.
DEVICE u32 fetch_early(const AttentionArgs& args, u32 kv_head, u32 bars, u32 ring) {
    const Entries all = entries(args.work, KIND);
    if (all.first + blockIdx.x >= all.end) return 0;
    const Tile tile = tile_at(args.work, all.first + blockIdx.x, args.rows_max, args.rows.n_rows);
    if (tile.n_rows == 0) return 0;
    const u32 sequence = args.rows.sequences[tile.first_row], position = args.rows.positions[tile.first_row];
    if (sequence >= args.rows.n_sequences || (u64)position + tile.n_rows > (u64)args.rows.pages_max * PAGE_TOKENS) return 0;
    // Another row of the sequence may be before this one in the pass.
    bool is_new = false;
    for (u32 row = threadIdx.x; row < args.rows.n_rows; row += WARPS * 32)
        is_new |= args.rows.sequences[row] == sequence && args.rows.positions[row] < position;
    if (__syncthreads_or(is_new)) return 0;
    const u32 first_token = tile.first_chunk * CHUNK;
    if (first_token >= position || tile.first_chunk >= tile.end_chunk) return 0;
    const u32 n_old = min(position - first_token, (u32)CHUNK), warp = threadIdx.x >> 5;
    u32 i = 0;
    for (; i < STAGES && (warp + i * WARPS + 1) * RUN <= n_old; i++)
        fetch(args, args.rows.pages + (u64)sequence * args.rows.pages_max, kv_head, first_token, i, bars + i * 8, ring + i * 2 * RUN_BYTES);
    return i;
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) attention(const __grid_constant__ AttentionArgs args) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ float maxima[WARPS][QUERIES], totals[WARPS][QUERIES], q_scales[QUERIES];
    const u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const u32 base = shared_address(shared), bars = base + warp * 64, q_shared = base + 512;
    const u32 ring = base + 512 + (Q_BYTES + 511) / 512 * 512 + warp * WARP_BYTES;
    const u32 group = args.n_heads / args.n_kv_heads, splits = (group + args.heads - 1) / args.heads;
    const u32 kv_head = blockIdx.y / splits, first_of_group = blockIdx.y % splits * args.heads;
    const u32 n_own_heads = min(args.heads, group - first_of_group), first_head = kv_head * group + first_of_group;
    if (lane == 0) {
        for (u32 i = 0; i < STAGES; i++) barrier_init(bars + i * 8, COPY_ARRIVALS);
        barriers_ready();
    }
    __syncthreads();
    let_next_start();
    u32 n_early = fetch_early(args, kv_head, bars, ring);
    wait_for_previous();

    u32 stage = 0, phase = 0;
    const Entries all = entries(args.work, KIND);
    for (u32 entry = all.first + blockIdx.x; entry < all.end; entry += gridDim.x) {
        const Tile tile = tile_at(args.work, entry, args.rows_max, args.rows.n_rows);
        if (tile.n_rows == 0) continue;
        const u32 sequence = args.rows.sequences[tile.first_row], first_position = args.rows.positions[tile.first_row];
        if (sequence == INERT) continue;
        const u64 most = (u64)args.rows.pages_max * PAGE_TOKENS;
        if (sequence >= args.rows.n_sequences) {
            if (threadIdx.x == 0) report(args.rows.status, BAD_SEQUENCE, sequence, args.rows.n_sequences);
            continue;
        }
        if ((u64)first_position + tile.n_rows > most) {
            if (threadIdx.x == 0) report(args.rows.status, BAD_POSITION, first_position + tile.n_rows - 1, (u32)min(most, 0xffffffffull));
            continue;
        }
        const u32* pages = args.rows.pages + (u64)sequence * args.rows.pages_max;
        // Tokens that somebody in the tile sees.
        const u32 n_tokens = first_position + tile.n_rows;
        const u32 n_chunks = min(tile.end_chunk, (n_tokens + CHUNK - 1) / CHUNK);

        // q as the tensor core reads it, each query with its own power of two. A query is head n % heads of row n / heads.
        for (u32 n = warp; n < QUERIES; n += WARPS) {
            const u32 row = n / n_own_heads;
            const bool is_there = row < tile.n_rows;
            const float* q = args.q + (u64)(tile.first_row + row) * args.q_stride + (u64)(first_head + n % n_own_heads) * HEAD_DIM;
            float x[(HEAD_PADDED + 31) / 32], largest = 0.0f;
#pragma unroll
            for (u32 i = 0; i < (HEAD_PADDED + 31) / 32; i++) {
                const u32 d = i * 32 + lane;
                x[i] = is_there && d < HEAD_DIM ? q[d] : 0.0f;
                largest = fmaxf(largest, fabsf(x[i]));
            }
            for (int i = 16; i; i /= 2) largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, i));
            const u32 bits = __float_as_uint(largest);
            // To [2^7, 2^8): sums of products with the largest f16 stay far inside f32.
            const int e = bits < 0x00800000u || bits >= 0x7f800000u ? 0 : max(-118, min(118, 134 - (int)(bits >> 23)));
            const float up = __uint_as_float((u32)(127 + e) << 23);
            if (lane == 0) q_scales[n] = __uint_as_float((u32)(127 - e) << 23) * args.scale;
#pragma unroll
            for (u32 i = 0; i < (HEAD_PADDED + 31) / 32; i++) {
                const u32 d = i * 32 + lane;
                const float next = __shfl_down_sync(FULL, x[i], 1);
                if (d < HEAD_PADDED && d % 2 == 0) {
                    const u32 place = ((n / 8 * HEAD_TILES + d / 16) * 32 + n % 8 * 4 + d / 2 % 4) * 8 + d / 8 % 2 * 4;
                    sts32(q_shared + place, h2_from(x[i] * up, next * up));
                }
            }
        }
        __syncthreads();

        // The last position that each of a lane's queries sees: columns 2 t and 2 t + 1 of each tile of queries.
        u32 last[QUERY_TILES][2];
        float q_scale[QUERY_TILES][2];
#pragma unroll
        for (int n = 0; n < QUERY_TILES; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const u32 query = n * 8 + t * 2 + j;
                last[n][j] = first_position + min(query / n_own_heads, tile.n_rows - 1);
                q_scale[n][j] = q_scales[query];
            }
        // What the chunks so far come to: the sums of tiles warp, warp + 8, ... of the head; the rest in every warp.
        float folded[OWN_TILES][QUERY_TILES][4], folded_max[QUERY_TILES][2], folded_total[QUERY_TILES][2];
#pragma unroll
        for (int n = 0; n < QUERY_TILES; n++) {
#pragma unroll
            for (int m = 0; m < OWN_TILES; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) folded[m][n][i] = 0.0f;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                folded_max[n][j] = -INFINITY;
                folded_total[n][j] = 0.0f;
            }
        }

#pragma unroll 1
        for (u32 chunk = tile.first_chunk; chunk < n_chunks; chunk++) {
            const u32 first_token = chunk * CHUNK, n_here = min(n_tokens - first_token, (u32)CHUNK);
            const u32 own_runs = own_runs_of(n_here);
            u32 fetch_stage = stage;
            for (u32 i = 0; i < STAGES && i < own_runs; i++) {
                if (i >= n_early) fetch(args, pages, kv_head, first_token, i, bars + fetch_stage * 8, ring + fetch_stage * 2 * RUN_BYTES);
                if (++fetch_stage == STAGES) fetch_stage = 0;
            }
            n_early = 0;
            float sums[HEAD_TILES][QUERY_TILES][4], largest[QUERY_TILES][2], total[QUERY_TILES][2];
#pragma unroll
            for (int n = 0; n < QUERY_TILES; n++) {
#pragma unroll
                for (int m = 0; m < HEAD_TILES; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    largest[n][j] = -INFINITY;
                    total[n][j] = 0.0f;
                }
            }
#pragma unroll 1
            for (u32 i = 0; i < own_runs; i++) {
                const u32 token = first_token + (warp + i * WARPS) * RUN;
                barrier_wait(bars + stage * 8, phase);
                const u32 k_run = ring + stage * 2 * RUN_BYTES, v_run = k_run + RUN_BYTES;
                if (n_tokens - token < RUN) {
                    // Behind the last token lies what an earlier use left, perhaps no number, and 0 times that is not 0.
                    for (u32 j = lane; j < RUN_BYTES / 16; j += 32)
                        if (token + j / HEAD_VECTORS >= n_tokens) sts128(v_run + j * 16, 0.0f, 0.0f, 0.0f, 0.0f);
                    __syncwarp();
                }
                float score[QUERY_TILES][4];
#pragma unroll
                for (int n = 0; n < QUERY_TILES; n++) score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0.0f;
                const u32 k_row = (lane & 7) + (lane >> 3 & 1) * 8, k_half = lane >> 4;
#pragma unroll
                for (int d = 0; d < HEAD_TILES; d++) {
                    u32 a[4];
                    ldmatrix4(k_run + (k_row * HEAD_VECTORS + exchanged(d * 2 + k_half, k_row)) * 16, a[0], a[1], a[2], a[3]);
#pragma unroll
                    for (int n = 0; n < QUERY_TILES; n++) {
                        const uint2 b = lds64(q_shared + ((n * HEAD_TILES + d) * 32 + lane) * 8);
                        mma16(score[n], a, b.x, b.y);
                    }
                }
                u32 p[QUERY_TILES][2];
                float before[QUERY_TILES][2];
#pragma unroll
                for (int n = 0; n < QUERY_TILES; n++) {
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const float first = token + g <= last[n][j] ? score[n][j] * q_scale[n][j] : -INFINITY;
                        const float second = token + g + 8 <= last[n][j] ? score[n][2 + j] * q_scale[n][j] : -INFINITY;
                        float most_here = fmaxf(first, second);
#pragma unroll
                        for (int w = 4; w < 32; w *= 2) most_here = fmaxf(most_here, __shfl_xor_sync(FULL, most_here, w));
                        most_here = fmaxf(most_here, largest[n][j]);
                        before[n][j] = rescale(largest[n][j], most_here);
                        largest[n][j] = most_here;
                        const float from = is_nothing(most_here) ? 0.0f : most_here;
                        score[n][j] = exp2_fast(first - from);
                        score[n][2 + j] = exp2_fast(second - from);
                        total[n][j] = __fmaf_rn(total[n][j], before[n][j], score[n][j] + score[n][2 + j]);
                    }
                    p[n][0] = transpose8x8(h2_from(score[n][0], score[n][1]));
                    p[n][1] = transpose8x8(h2_from(score[n][2], score[n][3]));
                }
                const u32 v_row = (lane & 7) + (lane >> 4) * 8, v_half = lane >> 3 & 1;
#pragma unroll
                for (int d = 0; d < HEAD_TILES; d++) {
                    u32 a[4];
                    ldmatrix4_transposed(v_run + (v_row * HEAD_VECTORS + exchanged(d * 2 + v_half, v_row)) * 16, a[0], a[1], a[2], a[3]);
#pragma unroll
                    for (int n = 0; n < QUERY_TILES; n++) {
                        sums[d][n][0] *= before[n][0];
                        sums[d][n][1] *= before[n][1];
                        sums[d][n][2] *= before[n][0];
                        sums[d][n][3] *= before[n][1];
                        mma16(sums[d][n], a, p[n][0], p[n][1]);
                    }
                }
                __syncwarp();
                if (i + STAGES < own_runs)
                    fetch(args, pages, kv_head, first_token, i + STAGES, bars + stage * 8, ring + stage * 2 * RUN_BYTES);
                if (++stage == STAGES) {
                    stage = 0;
                    phase ^= 1;
                }
            }

            // The warps' sums lie where their rings were.
#pragma unroll
            for (int n = 0; n < QUERY_TILES; n++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
#pragma unroll
                    for (int w = 4; w < 32; w *= 2) total[n][j] += __shfl_xor_sync(FULL, total[n][j], w);
                    if (g == 0) {
                        maxima[warp][n * 8 + t * 2 + j] = largest[n][j];
                        totals[warp][n * 8 + t * 2 + j] = total[n][j];
                    }
                }
#pragma unroll
                for (int d = 0; d < HEAD_TILES; d++)
                    sts128(ring + ((d * QUERY_TILES + n) * 32 + lane) * 16, sums[d][n][0], sums[d][n][1], sums[d][n][2], sums[d][n][3]);
            }
            __syncthreads();
#pragma unroll
            for (int n = 0; n < QUERY_TILES; n++) {
                float chunk_max[2], chunk_total[2], old_factor[2], new_factor[2];
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const u32 query = n * 8 + t * 2 + j;
                    chunk_max[j] = -INFINITY;
                    chunk_total[j] = 0.0f;
                    for (int w = 0; w < WARPS; w++) chunk_max[j] = fmaxf(chunk_max[j], maxima[w][query]);
                    for (int w = 0; w < WARPS; w++) chunk_total[j] = __fmaf_rn(totals[w][query], rescale(maxima[w][query], chunk_max[j]), chunk_total[j]);
                    const float both = fmaxf(folded_max[n][j], chunk_max[j]);
                    old_factor[j] = rescale(folded_max[n][j], both);
                    new_factor[j] = rescale(chunk_max[j], both);
                    folded_total[n][j] = fold(folded_total[n][j], old_factor[j], chunk_total[j], new_factor[j]);
                    folded_max[n][j] = both;
                }
#pragma unroll
                for (int m = 0; m < OWN_TILES; m++) {
                    const u32 d = warp + m * WARPS;
                    if (d >= HEAD_TILES) continue;
                    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                    for (int w = 0; w < WARPS; w++) {
                        const uint4 v = lds128(ring + (w - (int)warp) * WARP_BYTES + ((d * QUERY_TILES + n) * 32 + lane) * 16);
                        const float a = rescale(maxima[w][n * 8 + t * 2], chunk_max[0]), b = rescale(maxima[w][n * 8 + t * 2 + 1], chunk_max[1]);
                        sum[0] = __fmaf_rn(a, __uint_as_float(v.x), sum[0]);
                        sum[1] = __fmaf_rn(b, __uint_as_float(v.y), sum[1]);
                        sum[2] = __fmaf_rn(a, __uint_as_float(v.z), sum[2]);
                        sum[3] = __fmaf_rn(b, __uint_as_float(v.w), sum[3]);
                    }
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        folded[m][n][i] = fold(folded[m][n][i], old_factor[i & 1], sum[i], new_factor[i & 1]);
                }
            }
#if HAS_BULK
            // What was written here is not to meet the next copies.
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
            __syncthreads();
        }

#pragma unroll
        for (int n = 0; n < QUERY_TILES; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const u32 query = n * 8 + t * 2 + j, row = query / n_own_heads, head = first_head + query % n_own_heads;
                if (row >= tile.n_rows) continue;
                const bool is_whole = tile.place == ALL;
                float* to = is_whole ? args.out + ((u64)(tile.first_row + row) * args.n_heads + head) * HEAD_DIM
                                     : args.places + ((u64)(tile.place + row) * args.n_heads + head) * (HEAD_PADDED + 2);
                const u32 limit = is_whole ? HEAD_DIM : HEAD_PADDED;
#pragma unroll
                for (int m = 0; m < OWN_TILES; m++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const u32 d = (warp + m * WARPS) * 16 + g + half * 8;
                        const float sum = folded[m][n][half * 2 + j];
                        if (d < limit) to[d] = is_whole ? sum / folded_total[n][j] : sum;
                    }
                if (!is_whole && warp == 0 && g == 0) {
                    to[HEAD_PADDED] = folded_max[n][j];
                    to[HEAD_PADDED + 1] = folded_total[n][j];
                }
            }
#if KIND == NARROW
        if (tile.place != ALL) merge(args, tile, blockIdx.y, first_head, n_own_heads);
#endif
    }
}
