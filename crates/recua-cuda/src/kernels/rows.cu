// The kernels that work row by row, each bound by latency or by reading its rows once.
#include "activations.cuh"
#include "status.cuh"

#define WARPS (THREADS / 32)

// The sum of a block's threads, in every thread: warps by halves, then one warp by halves. `shared` is used again after the next
// barrier.
DEVICE float block_sum(float x, float* shared) {
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = 16; i; i /= 2) x += __shfl_xor_sync(FULL, x, i);
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = lane < WARPS ? shared[lane] : 0.0f;
    for (int i = 16; i; i /= 2) x += __shfl_xor_sync(FULL, x, i);
    return x;
}

DEVICE float block_max(float x, float* shared) {
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = 16; i; i /= 2) x = nan_max(x, __shfl_xor_sync(FULL, x, i));
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = lane < WARPS ? shared[lane] : 0.0f;
    for (int i = 16; i; i /= 2) x = nan_max(x, __shfl_xor_sync(FULL, x, i));
    return x;
}

// rms_norm: out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight, and with `packed` what a product reads of it (activations.cuh).
// One block has a row. Four neighbours go to a thread, every THREADS'th four to the same, which sums in order.
struct RmsNormArgs {
    const float* x;        // [n_rows][dim]
    const float* weight;   // [dim]
    float* out;            // [n_rows][dim]; may be x
    u8* packed;            // or none
    float* undo;           // [n_rows]
    u32 dim, columns, k_tiles;
    float eps;
};

// Four elements from 4 i on of a row of `dim`, zeros behind it.
DEVICE float4 load_four(const float* row, u32 i, u32 dim) {
    if (dim % 4 == 0 && ((u64)row & 15) == 0) return 4 * i < dim ? ((const float4*)row)[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float4 v;
    v.x = 4 * i < dim ? row[4 * i] : 0.0f;
    v.y = 4 * i + 1 < dim ? row[4 * i + 1] : 0.0f;
    v.z = 4 * i + 2 < dim ? row[4 * i + 2] : 0.0f;
    v.w = 4 * i + 3 < dim ? row[4 * i + 3] : 0.0f;
    return v;
}
DEVICE void store_four(float* row, u32 i, u32 dim, float4 v) {
    if (dim % 4 == 0 && ((u64)row & 15) == 0) {
        if (4 * i < dim) ((float4*)row)[i] = v;
        return;
    }
    if (4 * i < dim) row[4 * i] = v.x;
    if (4 * i + 1 < dim) row[4 * i + 1] = v.y;
    if (4 * i + 2 < dim) row[4 * i + 2] = v.z;
    if (4 * i + 3 < dim) row[4 * i + 3] = v.w;
}
DEVICE float largest_of_four(float4 v) { return nan_max(nan_max(fabsf(v.x), fabsf(v.y)), nan_max(fabsf(v.z), fabsf(v.w))); }

// Packs a row (activations.cuh), multiplied by its power of two: four i is `mine[n]` of thread i - n THREADS, and behind those `rest(i)`.
// Largest is the thread's largest |element|.
template <typename Rest>
DEVICE void pack_row(u8* to, float* undo, u32 row, u32 columns, u32 k_tiles, const float4 (&mine)[FOURS], float largest, Rest rest) {
    __shared__ float maxima[WARPS];
    __shared__ u32 words[FOURS * THREADS * 2];
    const int e = row_exponent(block_max(largest, maxima));
    const float up = power(e);
    if (threadIdx.x == 0) undo[row] = power(-e);
    PackedRow packed(to, row, columns, k_tiles);
    // The words of a vector are 64 columns apart: through shared memory, so that whole vectors are written.
#pragma unroll
    for (u32 n = 0; n < FOURS; n++) {
        const u32 i = n * THREADS + threadIdx.x;
        *(uint2*)(words + 2 * i) = make_uint2(h2_from(mine[n].x * up, mine[n].y * up), h2_from(mine[n].z * up, mine[n].w * up));
    }
    __syncthreads();
    const u32 n_vectors = min(k_tiles * 32, FOURS * THREADS / 2);
    for (u32 i = threadIdx.x; i < n_vectors; i += THREADS) {
        const u32* from = words + i / 32 * 128 + i % 32;
        packed.store_vector(i, make_uint4(from[0], from[32], from[64], from[96]));
    }
    // Rows longer than the registers of a block.
    for (u32 i = FOURS * THREADS + threadIdx.x; i < k_tiles * 64; i += THREADS) {
        const float4 v = rest(i);
        packed.store(i, v.x * up, v.y * up, v.z * up, v.w * up);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm(RmsNormArgs args) {
    __shared__ float sums[WARPS];
    let_next_start();
    wait_for_previous();
    const u32 row = blockIdx.x;
    const float* x = args.x + (u64)row * args.dim;
    float* out = args.out + (u64)row * args.dim;
    float4 mine[FOURS];
    float sum = 0.0f;
#pragma unroll
    for (u32 n = 0; n < FOURS; n++) {
        mine[n] = load_four(x, n * THREADS + threadIdx.x, args.dim);
        const float4 v = mine[n];
        sum = __fmaf_rn(v.x, v.x, sum);
        sum = __fmaf_rn(v.y, v.y, sum);
        sum = __fmaf_rn(v.z, v.z, sum);
        sum = __fmaf_rn(v.w, v.w, sum);
    }
    // Rows longer than the registers of a block.
    for (u32 i = FOURS * THREADS + threadIdx.x; i < (args.dim + 3) / 4; i += THREADS) {
        const float4 v = load_four(x, i, args.dim);
        sum = __fmaf_rn(v.x, v.x, sum);
        sum = __fmaf_rn(v.y, v.y, sum);
        sum = __fmaf_rn(v.z, v.z, sum);
        sum = __fmaf_rn(v.w, v.w, sum);
    }
    const float scale = 1.0f / sqrtf(block_sum(sum, sums) / (float)args.dim + args.eps);
    auto normed = [&](float4 v, u32 i) {
        const float4 w = load_four(args.weight, i, args.dim);
        return make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    };
    float largest = 0.0f;
#pragma unroll
    for (u32 n = 0; n < FOURS; n++) {
        const u32 i = n * THREADS + threadIdx.x;
        mine[n] = normed(mine[n], i);
        store_four(out, i, args.dim, mine[n]);
        largest = nan_max(largest, largest_of_four(mine[n]));
    }
    for (u32 i = FOURS * THREADS + threadIdx.x; i < (args.dim + 3) / 4; i += THREADS) {
        const float4 v = normed(load_four(x, i, args.dim), i);
        store_four(out, i, args.dim, v);
        largest = nan_max(largest, largest_of_four(v));
    }
    if (!args.packed) return;
    // Of the rest, a thread reads what it has written.
    pack_row(args.packed, args.undo, row, args.columns, args.k_tiles, mine, largest, [&](u32 i) { return load_four(out, i, args.dim); });
}

// pack: what a product reads of x (activations.cuh). One block has a row.
struct PackArgs {
    const float* x;        // [n_rows][dim]
    u8* packed;
    float* undo;           // [n_rows]
    u32 dim, columns, k_tiles;
};

DEVICE void pack_row(const PackArgs& args, u32 row) {
    const float* x = args.x + (u64)row * args.dim;
    float4 mine[FOURS];
    float largest = 0.0f;
#pragma unroll
    for (u32 n = 0; n < FOURS; n++) {
        mine[n] = load_four(x, n * THREADS + threadIdx.x, args.dim);
        largest = nan_max(largest, largest_of_four(mine[n]));
    }
    for (u32 i = FOURS * THREADS + threadIdx.x; i < args.k_tiles * 64; i += THREADS)
        largest = nan_max(largest, largest_of_four(load_four(x, i, args.dim)));
    pack_row(args.packed, args.undo, row, args.columns, args.k_tiles, mine, largest, [&](u32 i) { return load_four(x, i, args.dim); });
}

extern "C" __global__ void __launch_bounds__(THREADS) pack(const __grid_constant__ PackArgs args) {
    let_next_start();
    wait_for_previous();
    pack_row(args, blockIdx.x);
}

// repack: pack for those rows that lie there as they are and do not fit so. One block looks at a row.
struct RepackArgs {
    PackArgs pack;
    u32* maxima;           // [n_rows]: the bits of the largest |element|, zero afterwards
};

extern "C" __global__ void __launch_bounds__(THREADS) repack(const __grid_constant__ RepackArgs args) {
    __shared__ u32 largest;
    let_next_start();
    wait_for_previous();
    const u32 row = blockIdx.x;
    if (threadIdx.x == 0) {
        largest = args.maxima[row];
        args.maxima[row] = 0;
    }
    __syncthreads();
    if (fits_as_it_is(largest)) {
        if (threadIdx.x == 0) args.pack.undo[row] = 1.0f;
        return;
    }
    pack_row(args.pack, row);
}

// glu: out = silu(gate) * out, where gate and up are of two formats and each has a product of its own.
struct GluArgs {
    const float* gate;
    float* out;            // up before
    u64 n;
};

extern "C" __global__ void __launch_bounds__(THREADS) glu(GluArgs args) {
    let_next_start();
    wait_for_previous();
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < args.n; i += (u64)gridDim.x * THREADS) {
        const float gate = args.gate[i];
        args.out[i] = gate / (1.0f + __expf(-gate)) * args.out[i];
    }
}

// gather_rows: out[i] = x[indexes[i]]. One block has a row; an index outside x is reported, and its row stays as it was.
struct GatherRowsArgs {
    const float* x;        // [n_rows][dim]
    const u32* indexes;    // [n]
    float* out;            // [n][dim]
    u32* status;
    u32 n_rows, dim;
};

extern "C" __global__ void __launch_bounds__(THREADS) gather_rows(GatherRowsArgs args) {
    let_next_start();
    wait_for_previous();
    const u32 index = args.indexes[blockIdx.x];
    if (index >= args.n_rows) {
        if (threadIdx.x == 0) report(args.status, BAD_ROW, index, args.n_rows);
        return;
    }
    const float* from = args.x + (u64)index * args.dim;
    float* to = args.out + (u64)blockIdx.x * args.dim;
    for (u32 i = threadIdx.x; i < args.dim; i += THREADS) to[i] = from[i];
}

// copy_pages: page list[i][0] of one pool becomes page list[i][1] of another, or of the same one, K and V. The next kernel does not start
// before it ends: attention may look at pages early.
struct CopyPagesArgs {
    const u32* list;       // [n_pairs][2]; a pair that names INERT is skipped
    const uint4* from_k;
    const uint4* from_v;
    uint4* to_k;
    uint4* to_v;
    u32* status;
    u32 n_pairs, n_from, n_to, page_vectors;
};

extern "C" __global__ void __launch_bounds__(THREADS) copy_pages(CopyPagesArgs args) {
    wait_for_previous();
    for (u32 pair = blockIdx.y; pair < args.n_pairs; pair += gridDim.y) {
        const u32 from = args.list[2 * pair], to = args.list[2 * pair + 1];
        if (from == 0xffffffffu || to == 0xffffffffu) continue;
        if (from >= args.n_from || to >= args.n_to) {
            if (threadIdx.x == 0 && from >= args.n_from) report(args.status, BAD_PAGE_FROM, from, args.n_from);
            else if (threadIdx.x == 0) report(args.status, BAD_PAGE_TO, to, args.n_to);
            continue;
        }
        const u64 src = (u64)from * args.page_vectors, dst = (u64)to * args.page_vectors;
        for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < args.page_vectors; i += gridDim.x * THREADS) {
            args.to_k[dst + i] = args.from_k[src + i];
            args.to_v[dst + i] = args.from_v[src + i];
        }
    }
}
