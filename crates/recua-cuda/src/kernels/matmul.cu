// matmul: out[r] = x[r] . weight^T for up to COLUMNS rows of x at a time, which the tensor core calls columns; with GLU
// out = silu(x . gate^T) * (x . up^T), rows 0..7 of a tile being gate's and 8..15 up's.
//
// The sum over K: the tiles of 256 are cut into 8 slices, slice s = [s T / 8, (s + 1) T / 8); each is one chain of steps of 16 from
// zero, and the slices are added in order. It does not depend on COLUMNS, ARRANGE, or how many blocks there are, so a row's bits never
// do.
//
// Weights go through a ring of each warp: one asynchronous copy a tile, with STAGES tiles under way, the first before the wait for the
// kernel before. ARRANGE says who does what:
//   SIDE   8 warps, one for each slice of the same rows; x lies in shared memory as a whole. For few columns.
//   WHOLE  each warp has rows of its own and does one slice after the other; x comes through a ring of the block. For wide matrices.
//   SPLIT  each warp has rows of its own and one slice; the last one that is done adds the slices. For narrow matrices.
// Bound by memory for few columns, by decoding the weights and the tensor cores for many.
#include "activations.cuh"
#include "tile.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && COLUMNS >= 32 && WARPS % 4 == 0
#define GROUPS_OF_WARPS 1
#include "wgmma.cuh"
#else
#define GROUPS_OF_WARPS 0
#endif

#define SIDE 0
#define WHOLE 1
#define SPLIT 2
#define SLICES 8
#define N_TILES ((COLUMNS + 7) / 8)
#define X_TILE (COLUMNS * 512)

struct MatmulArgs {
    const u8* weight;      // [n_tiles][k_tiles] tiles
    const float* undo;     // takes the weight's power of two back
    const u8* x;           // activations.cuh
    const float* x_undo;   // [n_rows]: takes the rows' powers of two back
    const float* bias;     // [n], or none
    const float* add;      // [n_rows][out_stride], or none
    float* out;            // [n_rows][out_stride]
    u8* partial;           // SPLIT: [columns' block][n_tiles][SLICES][N_TILES][32] of float4
    u32* tickets;          // SPLIT: [columns' block][n_tiles], a multiple of SLICES before and after
    u8* packed;            // GLU: out as the next product reads it (activations.cuh), each row as it is, or none
    u32* maxima;           // GLU: [n_rows]: the bits of the largest |element| of each row
    u32 n_rows, n, n_tiles, k_tiles, out_stride, packed_columns, packed_k_tiles;
};

struct Output {
    const MatmulArgs& args;
    float undo;
    DEVICE_MEMBER Output(const MatmulArgs& args) : args(args), undo(*args.undo) {}

    // What is added to an output: the loads of several are under way at once.
    DEVICE_MEMBER float added(u32 row, u32 n) {
        if (row >= args.n_rows || n >= args.n) return 0.0f;
        return args.add[(u64)row * args.out_stride + n];
    }
    DEVICE_MEMBER void one(u32 row, u32 n, float value, float bias, float added) {
        if (row >= args.n_rows || n >= args.n) return;
        if (args.bias) value += bias;
        if (args.add) value += added;
        args.out[(u64)row * args.out_stride + n] = value;
    }
    // The same for the next product; by all lanes of a warp, of which eight have the row.
    DEVICE_MEMBER void pack(u32 row, u32 n, float value) {
        const bool is_there = row < args.n_rows && n < args.n;
        u32 bits = is_there ? __float_as_uint(value) & 0x7fffffffu : 0;
        for (int i = 4; i < 32; i *= 2) bits = max(bits, __shfl_xor_sync(FULL, bits, i));
        if (!is_there) return;
        PackedRow(args.packed, row, args.packed_columns, args.packed_k_tiles).store_one(n, value);
        if ((threadIdx.x & 31) < 4) atomicMax(args.maxima + row, bits);
    }
    // Four sums of a lane: rows of x `row` and row + 1, rows of the tile g and g + 8.
    DEVICE_MEMBER void four(u32 tile, u32 row, u32 g, float4 sum) {
        const float a = row < args.n_rows ? args.x_undo[row] : 0.0f, b = row + 1 < args.n_rows ? args.x_undo[row + 1] : 0.0f;
#ifndef GLU
        const u32 n = tile * 16 + g;
        float add[4] = {0.0f, 0.0f, 0.0f, 0.0f}, bias[2] = {0.0f, 0.0f};
        if (args.add) {
            add[0] = added(row, n);
            add[1] = added(row + 1, n);
            add[2] = added(row, n + 8);
            add[3] = added(row + 1, n + 8);
        }
        if (args.bias) {
            bias[0] = n < args.n ? args.bias[n] : 0.0f;
            bias[1] = n + 8 < args.n ? args.bias[n + 8] : 0.0f;
        }
#endif
        sum.x = sum.x * a * undo;
        sum.y = sum.y * b * undo;
        sum.z = sum.z * a * undo;
        sum.w = sum.w * b * undo;
#ifdef GLU
        const float x = sum.x / (1.0f + __expf(-sum.x)) * sum.z, y = sum.y / (1.0f + __expf(-sum.y)) * sum.w;
        one(row, tile * 8 + g, x, 0.0f, 0.0f);
        one(row + 1, tile * 8 + g, y, 0.0f, 0.0f);
        if (args.packed) {
            pack(row, tile * 8 + g, x);
            pack(row + 1, tile * 8 + g, y);
        }
#else
        one(row, n, sum.x, bias[0], add[0]);
        one(row + 1, n, sum.y, bias[0], add[1]);
        one(row, n + 8, sum.z, bias[1], add[2]);
        one(row + 1, n + 8, sum.w, bias[1], add[3]);
#endif
    }
};

extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS) matmul(const __grid_constant__ MatmulArgs args) {
    extern __shared__ __align__(1024) u8 shared[];
    const u32 base = shared_address(shared);
    const u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const u32 zero_row = base, x_full = base + 16, x_empty = base + 80, w_full = base + 144;
    static_assert(144 + 8 * WARPS * STAGES <= 1024 && X_STAGES <= 8, "barriers take more than their room");

    const u32 k_tiles = args.k_tiles;
#if ARRANGE == SIDE
    const u32 slice = warp, group_tiles = 1, own = 0, first_group = blockIdx.x, group_stride = gridDim.x;
#elif ARRANGE == WHOLE
    const u32 slice = 0, group_tiles = WARPS, own = warp, first_group = blockIdx.x, group_stride = gridDim.x;
#else
    const u32 slice = blockIdx.x % SLICES, group_tiles = WARPS, own = warp;
    const u32 first_group = blockIdx.x / SLICES, group_stride = gridDim.x / SLICES;
#endif
#if ARRANGE == WHOLE
    const u32 first_k = 0, end_k = k_tiles;
#else
    const u32 first_k = slice * k_tiles / SLICES, end_k = (slice + 1) * k_tiles / SLICES;
#endif
    const u32 item_k = end_k - first_k;
    const u32 n_groups = (args.n_tiles + group_tiles - 1) / group_tiles;

    // x: all of it, or X_STAGES tiles.
    const u32 xs = base + 1024;
#if ARRANGE == SIDE
    const u32 x_bytes = k_tiles * X_TILE;
#else
    const u32 x_bytes = X_STAGES * X_TILE;
#endif
    const u32 ring = xs + x_bytes + warp * STAGES * TILE_BYTES;
    const u32 sums = xs + x_bytes + WARPS * STAGES * TILE_BYTES;

    // One thread: a fence in every thread takes most of a microsecond.
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < WARPS * STAGES; i++) barrier_init(w_full + i * 8, COPY_ARRIVALS);
        for (u32 i = 0; i < X_STAGES; i++) {
            barrier_init(x_full + i * 8, COPY_ARRIVALS);
            barrier_init(x_empty + i * 8, WARPS);
        }
        barriers_ready();
    }
    if (threadIdx.x >= 32 && threadIdx.x < 36) sts32(zero_row + (threadIdx.x - 32) * 4, 0);
    __syncthreads();

    // The weights' ring.
    u32 next_group = first_group, next_k = 0, next_slot = 0;
    auto fetch_weights = [&]() {
        // A warp may have no tile in the last group.
        while (next_group < n_groups && (next_group * group_tiles + own >= args.n_tiles || item_k == 0)) next_group = n_groups;
        if (next_group >= n_groups) return;
        const u32 bar = w_full + (warp * STAGES + next_slot) * 8;
        const u64 tile = (u64)(next_group * group_tiles + own) * k_tiles + first_k + next_k;
        copies_expected(bar, TILE_BYTES, lane);
        copy_async(ring + next_slot * TILE_BYTES, args.weight + tile * TILE_BYTES, TILE_BYTES, bar, lane);
        copies_issued(bar);
        if (++next_slot == STAGES) next_slot = 0;
        if (++next_k == item_k) {
            next_k = 0;
            next_group += group_stride;
#if ARRANGE != SIDE
            // The next kernel's blocks take what places are free; those of the launch itself have to be spread first.
            if (next_group >= n_groups) let_next_start();
#endif
        }
    };
#pragma unroll 1
    for (u32 i = 0; i < STAGES; i++) fetch_weights();
#if ARRANGE == SIDE
    let_next_start();
#else
    if (next_group >= n_groups) let_next_start();
#endif
    wait_for_previous();

    const u8* x = args.x + (u64)blockIdx.y * k_tiles * X_TILE;
    const u32 first_row = blockIdx.y * COLUMNS;
#if ARRANGE == SIDE
    if (item_k) {
        const u32 bar = x_full + warp * 8;
        copies_expected(bar, item_k * X_TILE, lane);
        copy_async(xs + first_k * X_TILE, x + (u64)first_k * X_TILE, item_k * X_TILE, bar, lane);
        copies_issued(bar);
    }
    bool has_x = false;
    u32 adder = 0;
#else
    // Warp 0 fetches x for all: the tile X_STAGES - 1 ahead, when the tile before the present one is done with.
    u32 x_group = first_group, x_k = 0, x_next = 0;
    auto fetch_x = [&]() {
        if (x_group >= n_groups || item_k == 0) return;
        const u32 bar = x_full + x_next * 8;
        copies_expected(bar, X_TILE, lane);
        copy_async(xs + x_next * X_TILE, x + (u64)(first_k + x_k) * X_TILE, X_TILE, bar, lane);
        copies_issued(bar);
        if (++x_next == X_STAGES) x_next = 0;
        if (++x_k == item_k) {
            x_k = 0;
            x_group += group_stride;
        }
    };
    if (warp == 0)
        for (u32 i = 0; i < X_STAGES; i++) fetch_x();
    u32 x_slot = 0, x_phase = 0, empty_slot = 0, empty_phase = 0;
    bool is_first = true;
#endif
    Output output(args);

    u32 slot = 0, phase = 0, turn = 0;
#pragma unroll 1
    for (u32 group = first_group; group < n_groups; group += group_stride, turn ^= 1) {
        const u32 row_tile = group * group_tiles + own;
        const bool is_mine = row_tile < args.n_tiles;
        float acc[N_TILES][4];
#pragma unroll
        for (int n = 0; n < N_TILES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[n][i] = 0.0f;
#if ARRANGE == WHOLE
        float total[N_TILES][4];
#pragma unroll 1
        for (u32 s = 0; s < SLICES; s++) {
        const u32 from = s * k_tiles / SLICES, to = (s + 1) * k_tiles / SLICES;
#else
        const u32 from = 0, to = item_k;
#endif
#pragma unroll 1
        for (u32 k = from; k < to; k++) {
#if ARRANGE == SIDE
            if (!has_x) {
                barrier_wait(x_full + warp * 8, 0);
                has_x = true;
            }
            const u32 x_tile = xs + (first_k + k) * X_TILE;
#else
            if (warp == 0 && !is_first) {
                // All warps are done with the tile before, whose place is free now.
                if (x_group < n_groups) {
                    barrier_wait(x_empty + empty_slot * 8, empty_phase);
                    fetch_x();
                }
                if (++empty_slot == X_STAGES) {
                    empty_slot = 0;
                    empty_phase ^= 1;
                }
            }
            is_first = false;
            barrier_wait(x_full + x_slot * 8, x_phase);
            const u32 x_tile = xs + x_slot * X_TILE;
#endif
#if GROUPS_OF_WARPS
            // A warp without rows goes along with its group, with zeros.
            const u32 tile = ring + slot * TILE_BYTES;
            Header header;
            if (is_mine) {
                barrier_wait(w_full + (warp * STAGES + slot) * 8, phase);
                header.load(tile, lane);
            }
            u32 a[2][4][4];
            wgmma_fence();
#pragma unroll
            for (int c = 0; c < 4; c++) {
                // Those of chunk c - 2 have read their registers.
                if (c >= 2) wgmma_wait<1>();
                if (is_mine) decode_chunk(tile, lane, c, header, a[c & 1]);
                else
#pragma unroll
                    for (int i = 0; i < 16; i++) a[c & 1][i / 4][i % 4] = 0;
                wgmma_fence();
#pragma unroll
                for (int s = 0; s < 4; s++) {
                    const u64 b = wgmma_b(x_tile + (c * 4 + s) * COLUMNS * 32, COLUMNS * 16);
#if COLUMNS == 32
                    wgmma_32(acc, a[c & 1][s], b);
#else
                    wgmma_64(acc, a[c & 1][s], b);
#endif
                }
                wgmma_commit();
            }
            if (is_mine) {
                __syncwarp();
                fetch_weights();
                if (++slot == STAGES) {
                    slot = 0;
                    phase ^= 1;
                }
            }
            wgmma_wait<0>();
#else
            if (is_mine) {
                barrier_wait(w_full + (warp * STAGES + slot) * 8, phase);
                const u32 tile = ring + slot * TILE_BYTES;
                Header header;
                header.load(tile, lane);
                u32 at[N_TILES], step[N_TILES];
#pragma unroll
                for (int n = 0; n < N_TILES; n++) {
                    const u32 column = n * 8 + (lane & 7);
                    const bool is_there = COLUMNS % 8 == 0 || column < COLUMNS;
                    at[n] = is_there ? x_tile + ((lane >> 3) * COLUMNS + column) * 16 : zero_row;
                    step[n] = is_there ? COLUMNS * 64 : 0;
                }
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    u32 a[4][4];
                    decode_chunk(tile, lane, c, header, a);
#pragma unroll
                    for (int pair = 0; pair < 2; pair++)
#pragma unroll
                        for (int n = 0; n < N_TILES; n++) {
                            u32 b0, b1, b2, b3;
                            const u32 offset = (c * 2 + pair) * (COLUMNS % 8 == 0 ? COLUMNS * 64 : step[n]);
                            ldmatrix4(at[n] + offset, b0, b1, b2, b3);
                            mma16(acc[n], a[pair * 2], b0, b1);
                            mma16(acc[n], a[pair * 2 + 1], b2, b3);
                        }
                }
                __syncwarp();
                fetch_weights();
                if (++slot == STAGES) {
                    slot = 0;
                    phase ^= 1;
                }
            }
#endif
#if ARRANGE != SIDE
            __syncwarp();
            if (lane == 0) barrier_arrive(x_empty + x_slot * 8);
            if (++x_slot == X_STAGES) {
                x_slot = 0;
                x_phase ^= 1;
            }
#endif
        }
#if ARRANGE == WHOLE
#pragma unroll
        for (int n = 0; n < N_TILES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                total[n][i] = s == 0 ? acc[n][i] : total[n][i] + acc[n][i];
                acc[n][i] = 0.0f;
            }
        }
        if (is_mine) {
#pragma unroll
            for (int n = 0; n < N_TILES; n++)
                output.four(row_tile, first_row + n * 8 + (lane & 3) * 2, lane >> 2,
                            make_float4(total[n][0], total[n][1], total[n][2], total[n][3]));
        }
#elif ARRANGE == SPLIT
        if (is_mine) {
            const u64 place = (u64)blockIdx.y * args.n_tiles + row_tile;
            float4* mine = (float4*)args.partial + place * SLICES * N_TILES * 32 + lane;
#pragma unroll
            for (int n = 0; n < N_TILES; n++)
                __stcg(mine + (slice * N_TILES + n) * 32, make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]));
            __threadfence();
            __syncwarp();
            u32 before = 0;
            if (lane == 0) before = ticket(args.tickets + place);
            before = __shfl_sync(FULL, before, 0);
            if (before % SLICES == SLICES - 1) {
                __threadfence();
                // Two at a time: as many loads as registers hold.
#pragma unroll 2
                for (int n = 0; n < N_TILES; n++) {
                    float4 part[SLICES];
#pragma unroll
                    for (int s = 0; s < SLICES; s++) part[s] = load_fresh(mine + (s * N_TILES + n) * 32);
                    float4 sum = part[0];
#pragma unroll
                    for (int s = 1; s < SLICES; s++) {
                        sum.x += part[s].x;
                        sum.y += part[s].y;
                        sum.z += part[s].z;
                        sum.w += part[s].w;
                    }
                    output.four(row_tile, first_row + n * 8 + (lane & 3) * 2, lane >> 2, sum);
                }
            }
        }
#else
        // Two buffers: while some warps add, the others are at the next rows.
        const u32 buffer = sums + turn * (SLICES * N_TILES * 512);
#pragma unroll
        for (int n = 0; n < N_TILES; n++)
            sts128(buffer + ((warp * N_TILES + n) * 32 + lane) * 16, acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
        __syncthreads();
        // Different warps in turn, so that none is always late.
        adder = adder == SLICES - 1 ? 0 : adder + 1;
#pragma unroll
        for (u32 n = 0; n < N_TILES; n++) {
            if ((n + adder) % SLICES != warp) continue;
            float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
            for (int s = 0; s < SLICES; s++) {
                const u32 at = buffer + ((s * N_TILES + n) * 32 + lane) * 16;
                const uint4 v = lds128(at);
                const float4 f = make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w));
                if (s == 0) sum = f;
                else {
                    sum.x += f.x;
                    sum.y += f.y;
                    sum.z += f.z;
                    sum.w += f.w;
                }
            }
            output.four(row_tile, first_row + n * 8 + (lane & 3) * 2, lane >> 2, sum);
        }
#endif
    }
}
