// rope_store: rotates q in place; rotates k, and writes it and v into the cache, at the row's position. HEAD_NORM: an RMS norm of each
// head of q and k before that.
// One warp has one head of one row; lane l has the pairs l, l + 32, ... of what is rotated. Bound by latency: position, then page.
#include "cache.cuh"

struct RopeStoreArgs {
    Rows rows;
    float* q;              // [n_rows][q_stride]
    const float* k;        // [n_rows][k_stride]
    const float* v;        // [n_rows][v_stride]
    const float* table;    // [positions_max][pairs] of {cosine, sine}
    const float* q_norm;   // [HEAD_DIM]
    const float* k_norm;
    u8* k_cache;
    u8* v_cache;
    u32 q_stride, k_stride, v_stride, n_heads, n_kv_heads, positions_max, pairs;
    float eps;
};

#define THREADS 128

// An element as an f16 cache holds it: what is finite and beyond its range is cut to it and counted; infinities and NaN stay.
DEVICE float held(float x, u32& n_cut) {
    const u32 magnitude = __float_as_uint(x) & 0x7fffffffu;
    if (magnitude <= 0x477fe000u || magnitude >= 0x7f800000u) return x;
    n_cut++;
    return x < 0.0f ? -65504.0f : 65504.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS) rope_store(RopeStoreArgs args) {
    __shared__ float heads[THREADS / 32][HEAD_PADDED];
    let_next_start();
    wait_for_previous();
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const u32 unit = blockIdx.x * (THREADS / 32) + warp, n_all = args.n_heads + args.n_kv_heads;
    const u32 row = unit / n_all, h = unit % n_all;
    if (row >= args.rows.n_rows) return;
    const u32 sequence = args.rows.sequences[row], position = args.rows.positions[row];
    if (sequence == INERT) return;
    const u32 page_idx = position / PAGE_TOKENS;
    if (sequence >= args.rows.n_sequences) {
        if (lane == 0) report(args.rows.status, BAD_SEQUENCE_STORE, sequence, args.rows.n_sequences);
        return;
    }
    if (page_idx >= args.rows.pages_max || position >= args.positions_max) {
        const u32 limit = min((u64)args.rows.pages_max * PAGE_TOKENS, (u64)args.positions_max);
        if (lane == 0) report(args.rows.status, BAD_POSITION_STORE, position, limit);
        return;
    }
    const u32 page = args.rows.pages[(u64)sequence * args.rows.pages_max + page_idx];
    if (page >= args.rows.n_pages) {
        if (lane == 0) report(args.rows.status, BAD_PAGE_STORE, page, args.rows.n_pages);
        return;
    }

    const bool is_q = h < args.n_heads;
    const u32 kv_head = h - args.n_heads;
    float* const q = args.q + (u64)row * args.q_stride + (u64)h * HEAD_DIM;
    const float* const from = is_q ? q : args.k + (u64)row * args.k_stride + (u64)kv_head * HEAD_DIM;
    float* const head = heads[warp];
    for (u32 d = lane; d < HEAD_PADDED; d += 32) head[d] = d < HEAD_DIM ? from[d] : 0.0f;
    __syncwarp();
#ifdef HEAD_NORM
    float sum = 0.0f;
    for (u32 d = lane; d < HEAD_DIM; d += 32) sum = __fmaf_rn(head[d], head[d], sum);
    for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(FULL, sum, i);
    const float scale = 1.0f / sqrtf(sum / HEAD_DIM + args.eps);
    for (u32 d = lane; d < HEAD_DIM; d += 32) head[d] = head[d] * scale * (is_q ? args.q_norm : args.k_norm)[d];
    __syncwarp();
#endif
    const float2* angles = (const float2*)args.table + (u64)position * args.pairs;
    for (u32 i = lane; i < args.pairs; i += 32) {
        const float2 angle = angles[i];
#ifdef HALVES
        const u32 first = i, second = i + args.pairs;
#else
        const u32 first = 2 * i, second = 2 * i + 1;
#endif
        const float a = head[first], b = head[second];
        head[first] = __fmaf_rn(a, angle.x, -(b * angle.y));
        head[second] = __fmaf_rn(a, angle.y, b * angle.x);
    }
    __syncwarp();
    if (is_q) {
        for (u32 d = lane; d < HEAD_DIM; d += 32) q[d] = head[d];
        return;
    }
    const float* v = args.v + (u64)row * args.v_stride + (u64)kv_head * HEAD_DIM;
    const u32 token = position % PAGE_TOKENS;
    const u64 place = ((u64)page * args.n_kv_heads + kv_head) * PAGE_TOKENS + token;
#ifdef CACHE_F16
    u32 n_cut = 0;
    for (u32 i = lane; i < HEAD_PADDED / 2; i += 32) {
        const u64 at = place * HEAD_PADDED / 2 + exchanged(i / 4, token) * 4 + i % 4;
        const u32 d = 2 * i;
        ((u32*)args.k_cache)[at] = h2_from(held(head[d], n_cut), held(head[d + 1], n_cut));
        const float a = d < HEAD_DIM ? v[d] : 0.0f, b = d + 1 < HEAD_DIM ? v[d + 1] : 0.0f;
        ((u32*)args.v_cache)[at] = h2_from(held(a, n_cut), held(b, n_cut));
    }
    report_cut(args.rows.status, n_cut);
#else
    for (u32 d = lane; d < HEAD_DIM; d += 32) {
        ((float*)args.k_cache)[place * HEAD_DIM + d] = head[d];
        ((float*)args.v_cache)[place * HEAD_DIM + d] = v[d];
    }
#endif
}
