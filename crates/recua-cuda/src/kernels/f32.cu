// Products and rows of weights of f32, in f32: routers, and those who want exactness. [n][k] as it came.
//
// matmul_f32: one warp has an output of up to 8 rows of x. Lane l takes the columns l, l + 32, ... in order, and the lanes are added by
// halves, whatever the rows: bound by reading weights for few rows.
#include "status.cuh"

struct MatmulF32Args {
    const float* weight;   // [n][k]
    const float* up;       // GLU: [n][k]
    const float* x;        // [n_rows][k]
    const float* bias;     // [n], or none
    const float* add;      // [n_rows][out_stride], or none
    float* out;            // [n_rows][out_stride]
    u32 n_rows, n, k, out_stride;
};

DEVICE void dots(const float* weight, const MatmulF32Args& args, u32 first, u32 lane, float* sums) {
    for (int r = 0; r < 8; r++) sums[r] = 0.0f;
    for (u32 i = lane; i < args.k; i += 32) {
        const float w = weight[i];
#pragma unroll
        for (int r = 0; r < 8; r++)
            if (first + r < args.n_rows) sums[r] = __fmaf_rn(w, args.x[(u64)(first + r) * args.k + i], sums[r]);
    }
    for (int r = 0; r < 8; r++)
        for (int i = 16; i; i /= 2) sums[r] += __shfl_xor_sync(FULL, sums[r], i);
}

extern "C" __global__ void __launch_bounds__(128) matmul_f32(MatmulF32Args args) {
    let_next_start();
    wait_for_previous();
    const u32 lane = threadIdx.x & 31;
    const u64 n = (u64)blockIdx.x * 4 + (threadIdx.x >> 5);
    if (n >= args.n) return;
    const u32 first = blockIdx.y * 8;
    float sums[8];
    dots(args.weight + n * args.k, args, first, lane, sums);
    if (args.up) {
        float ups[8];
        dots(args.up + n * args.k, args, first, lane, ups);
        for (int r = 0; r < 8; r++) sums[r] = sums[r] / (1.0f + __expf(-sums[r])) * ups[r];
    }
#pragma unroll
    for (int r = 0; r < 8; r++) {
        if (lane != r || first + r >= args.n_rows) continue;
        const u64 at = (u64)(first + r) * args.out_stride + n;
        float value = sums[r];
        if (args.bias) value += args.bias[n];
        if (args.add) value += args.add[at];
        args.out[at] = value;
    }
}

struct EmbedF32Args {
    const float* table;    // [n_here][dim]
    Tokens tokens;
    float* out;            // [n_rows][dim]
    u32 dim, first, n_here;
};

extern "C" __global__ void __launch_bounds__(128) embed_f32(EmbedF32Args args) {
    let_next_start();
    wait_for_previous();
    bool is_good;
    const u32 token = args.tokens.get(blockIdx.x, is_good);
    if (!is_good || token < args.first || token - args.first >= args.n_here) return;
    for (u32 i = threadIdx.x; i < args.dim; i += 128)
        args.out[(u64)blockIdx.x * args.dim + i] = args.table[(u64)(token - args.first) * args.dim + i];
}
