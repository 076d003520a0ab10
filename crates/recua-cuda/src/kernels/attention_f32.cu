// attention_f32: as attention, over a cache of f32 and in f32. One block has one head of one row. Tokens are taken 128 at a time, in the
// order of their positions, and each run is summed by one tree. Bound by the latency of its steps; for those who want exactness.
#include "cache.cuh"

struct AttentionF32Args {
    Rows rows;
    const float* q;        // [n_rows][q_stride]
    const float* k_cache;
    const float* v_cache;
    float* out;            // [n_rows][n_heads * HEAD_DIM]
    u32 q_stride, n_heads, n_kv_heads;
    float scale;
};

#define THREADS 128
#define RUNS ((HEAD_DIM + THREADS - 1) / THREADS)

extern "C" __global__ void __launch_bounds__(THREADS) attention_f32(AttentionF32Args args) {
    __shared__ float q[HEAD_DIM], weights[THREADS], parts[2][THREADS / 32];
    __shared__ u64 places[THREADS];
    let_next_start();
    wait_for_previous();
    const u32 row = blockIdx.x, head = blockIdx.y, thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const u32 kv_head = head / (args.n_heads / args.n_kv_heads);
    const u32 sequence = args.rows.sequences[row], position = args.rows.positions[row];
    if (sequence == INERT) return;
    const u64 most = (u64)args.rows.pages_max * PAGE_TOKENS;
    if (sequence >= args.rows.n_sequences || position >= most) {
        if (thread == 0 && sequence >= args.rows.n_sequences) report(args.rows.status, BAD_SEQUENCE, sequence, args.rows.n_sequences);
        else if (thread == 0) report(args.rows.status, BAD_POSITION, position, (u32)min(most, 0xffffffffull));
        return;
    }
    for (u32 d = thread; d < HEAD_DIM; d += THREADS) q[d] = args.q[(u64)row * args.q_stride + (u64)head * HEAD_DIM + d];
    __syncthreads();
    float sums[RUNS], largest = -3.4028235e38f, total = 0.0f;
    for (int i = 0; i < RUNS; i++) sums[i] = 0.0f;
    for (u32 first = 0; first <= position; first += THREADS) {
        const u32 token = first + thread, n_here = min(position - first + 1, (u32)THREADS);
        float score = -3.4028235e38f;
        if (token <= position) {
            u32 page = args.rows.pages[(u64)sequence * args.rows.pages_max + token / PAGE_TOKENS];
            if (page >= args.rows.n_pages) {
                report(args.rows.status, BAD_PAGE, page, args.rows.n_pages);
                page = 0;
            }
            places[thread] = (((u64)page * args.n_kv_heads + kv_head) * PAGE_TOKENS + token % PAGE_TOKENS) * HEAD_DIM;
            const float* k = args.k_cache + places[thread];
            float dot = 0.0f;
            for (u32 d = 0; d < HEAD_DIM; d++) dot = __fmaf_rn(q[d], k[d], dot);
            score = dot * args.scale;
        }
        float most_here = score;
        for (int i = 16; i; i /= 2) most_here = fmaxf(most_here, __shfl_xor_sync(FULL, most_here, i));
        if (lane == 0) parts[0][warp] = most_here;
        __syncthreads();
        for (int w = 0; w < THREADS / 32; w++) most_here = fmaxf(most_here, parts[0][w]);
        most_here = fmaxf(most_here, largest);
        const float before = expf(largest - most_here), weight = token <= position ? expf(score - most_here) : 0.0f;
        weights[thread] = weight;
        float run = weight;
        for (int i = 16; i; i /= 2) run += __shfl_xor_sync(FULL, run, i);
        if (lane == 0) parts[1][warp] = run;
        __syncthreads();
        run = 0.0f;
        for (int w = 0; w < THREADS / 32; w++) run += parts[1][w];
        total = total * before + run;
        largest = most_here;
        for (int i = 0; i < RUNS; i++) {
            const u32 d = i * THREADS + thread;
            if (d >= HEAD_DIM) continue;
            float sum = sums[i] * before;
            for (u32 j = 0; j < n_here; j++) sum = __fmaf_rn(weights[j], args.v_cache[places[j] + d], sum);
            sums[i] = sum;
        }
        __syncthreads();
    }
    for (int i = 0; i < RUNS; i++) {
        const u32 d = i * THREADS + thread;
        if (d < HEAD_DIM) args.out[((u64)row * args.n_heads + head) * HEAD_DIM + d] = sums[i] / total;
    }
}
