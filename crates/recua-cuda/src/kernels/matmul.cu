// matmul: out[r] = x[r] . weight^T for up to COLUMNS rows of x at a time, which the tensor core calls columns; with GLU
// out = silu(x . gate^T) * (x . up^T), rows 0..7 of a tile being gate's and 8..15 up's.
//
// The sum over K: the tiles of 256 are cut into 8 slices, slice s = [s T / 8, (s + 1) T / 8); each is one chain of steps of 16 from
// zero, and the slices are added in order. It does not depend on COLUMNS, ARRANGE, or how many blocks there are, so a row's bits never
// do.
//
// Weights go through a ring of each warp: one asynchronous copy a tile, with STAGES tiles under way, the first before the wait for the
// kernel before. ARRANGE says who does what:
//   SIDE    8 warps, one for each slice of the same rows; x lies in shared memory as a whole. For few columns. With EARLY, a warp's first
//           tile is decoded before the wait for the kernel before, which takes registers.
//   STREAM  each warp has rows of its own and does 8 / PARTS slices, one after the other; with more than one part, the last one that is
//           done adds the slices. x comes through a ring of the block: the last warp that is done with a place fills it again. Parts are
//           for narrow matrices.
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
#define STREAM 1
#define SLICES 8
#define N_TILES ((COLUMNS + 7) / 8)
#define X_TILE (COLUMNS * 512)
#if ARRANGE == SIDE
#define OWN_SLICES 1
// Of a group of rows, SIDE adds what these lanes have of each slice. There are so many places for that that warps which do not add need
// not wait, as long as they are small.
#define SUM_LANES (COLUMNS <= 2 ? 8 : COLUMNS <= 4 ? 16 : 32)
#define SUM_PLACES (COLUMNS <= 2 ? 8 : 2)
#else
#define OWN_SLICES (SLICES / PARTS)
#endif

// Which launch of several this is, of which none depends on another: they run side by side.
#define FIRST 1
#define NEXT 2

struct MatmulArgs {
    const u8* weight;      // [n_tiles][k_tiles] tiles
    const float* undo;     // takes the weight's power of two back
    const u8* x;           // activations.cuh
    const float* x_undo;   // [n_rows]: takes the rows' powers of two back
    const float* bias;     // [n], or none
    const float* add;      // [n_rows][out_stride], or none
    float* out;            // [n_rows][out_stride]
    u8* partial;           // PARTS > 1: [columns' block][n_tiles][SLICES][N_TILES][32] of float4
    u32* tickets;          // PARTS > 1: [columns' block][n_tiles], a multiple of SLICES before and after
    u8* packed;            // GLU of few rows: out as the next product reads it (activations.cuh), each row as it is, or none
    u32* maxima;           // GLU: [n_rows]: the bits of the largest |element| of each row
    u32 n_rows, n, n_tiles, k_tiles, out_stride, packed_columns, packed_k_tiles;
    u32 turn;              // 0 (alone), FIRST or NEXT
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
#if defined(GLU) && COLUMNS <= 16
    // The same for the next product; by all lanes of a warp, of which eight have the row.
    DEVICE_MEMBER void pack(u32 row, u32 n, float value) {
        const bool is_there = row < args.n_rows && n < args.n;
        u32 bits = is_there ? __float_as_uint(value) & 0x7fffffffu : 0;
        for (int i = 4; i < 32; i *= 2) bits = max(bits, __shfl_xor_sync(FULL, bits, i));
        if (!is_there) return;
        PackedRow(args.packed, row, args.packed_columns, args.packed_k_tiles).store_one(n, value);
        if ((threadIdx.x & 31) < 4) atomicMax(args.maxima + row, bits);
    }
#endif
    // What four sums of a lane end with: rows of x `row` and row + 1, rows of the tile g and g + 8. It can be loaded before they are there.
    struct Ends {
        float a, b;
#ifndef GLU
        float add[4], bias[2];
#endif
    };
    DEVICE_MEMBER Ends ends(u32 tile, u32 row, u32 g) {
        Ends ends;
        ends.a = row < args.n_rows ? args.x_undo[row] : 0.0f;
        ends.b = row + 1 < args.n_rows ? args.x_undo[row + 1] : 0.0f;
#ifndef GLU
        const u32 n = tile * 16 + g;
        ends.add[0] = ends.add[1] = ends.add[2] = ends.add[3] = 0.0f;
        if (args.add) {
            ends.add[0] = added(row, n);
            ends.add[1] = added(row + 1, n);
            ends.add[2] = added(row, n + 8);
            ends.add[3] = added(row + 1, n + 8);
        }
        ends.bias[0] = args.bias && n < args.n ? args.bias[n] : 0.0f;
        ends.bias[1] = args.bias && n + 8 < args.n ? args.bias[n + 8] : 0.0f;
#endif
        return ends;
    }
    DEVICE_MEMBER void four(u32 tile, u32 row, u32 g, float4 sum, const Ends& ends) {
        sum.x = sum.x * undo * ends.a;
        sum.y = sum.y * undo * ends.b;
        sum.z = sum.z * undo * ends.a;
        sum.w = sum.w * undo * ends.b;
#ifdef GLU
        const float x = sum.x / (1.0f + __expf(-sum.x)) * sum.z, y = sum.y / (1.0f + __expf(-sum.y)) * sum.w;
        one(row, tile * 8 + g, x, 0.0f, 0.0f);
        one(row + 1, tile * 8 + g, y, 0.0f, 0.0f);
#if COLUMNS <= 16
        if (args.packed) {
            pack(row, tile * 8 + g, x);
            pack(row + 1, tile * 8 + g, y);
        }
#endif
#else
        const u32 n = tile * 16 + g;
        one(row, n, sum.x, ends.bias[0], ends.add[0]);
        one(row + 1, n, sum.y, ends.bias[0], ends.add[1]);
        one(row, n + 8, sum.z, ends.bias[1], ends.add[2]);
        one(row + 1, n + 8, sum.w, ends.bias[1], ends.add[3]);
#endif
    }
};


// x of a tile in shared memory, as the tensor core's 16 x 8 matrices read it.
struct XTile {
    u32 at[N_TILES], step[N_TILES];
    DEVICE_MEMBER XTile(u32 x, u32 zero_row, u32 lane) {
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            const u32 column = n * 8 + (lane & 7);
            const bool is_there = COLUMNS % 8 == 0 || column < COLUMNS;
            at[n] = is_there ? x + ((lane >> 3) * COLUMNS + column) * 16 : zero_row;
            step[n] = is_there ? COLUMNS * 64 : 0;
        }
    }
    // Adds chunk c.
    DEVICE_MEMBER void multiply(const u32 (&a)[4][4], int c, float (&acc)[N_TILES][4]) {
#pragma unroll
        for (int pair = 0; pair < 2; pair++)
#pragma unroll
            for (int n = 0; n < N_TILES; n++) {
                u32 b0, b1, b2, b3;
                ldmatrix4(at[n] + (c * 2 + pair) * (COLUMNS % 8 == 0 ? COLUMNS * 64 : step[n]), b0, b1, b2, b3);
                mma16(acc[n], a[pair * 2], b0, b1);
                mma16(acc[n], a[pair * 2 + 1], b2, b3);
            }
    }
};

DEVICE void clear(float (&acc)[N_TILES][4]) {
#pragma unroll
    for (int n = 0; n < N_TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) acc[n][i] = 0.0f;
}
DEVICE float4 four_of(const float (&acc)[4]) { return make_float4(acc[0], acc[1], acc[2], acc[3]); }
DEVICE float4 sum_of(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
DEVICE float4 lds_four(u32 at) {
    const uint4 v = lds128(at);
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w));
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS) matmul(const __grid_constant__ MatmulArgs args) {
    extern __shared__ __align__(1024) u8 shared[];
    const u32 base = shared_address(shared);
    // The compiler has to know that a warp has one number.
    const u32 warp = __shfl_sync(FULL, threadIdx.x >> 5, 0), lane = threadIdx.x & 31;
    // In front of x: a row of zeros, barriers, and how many warps were done with each place of x.
    const u32 zero_row = base, x_full = base + 16, x_done = x_full + 8 * X_STAGES, w_full = x_done + 8 * X_STAGES;
    static_assert(16 + 16 * X_STAGES + 8 * WARPS * STAGES <= 1024, "barriers take more than their room");

    const u32 k_tiles = args.k_tiles;
#if ARRANGE == SIDE
    const u32 first_slice = warp, group_tiles = 1, own = 0, first_group = blockIdx.x, group_stride = gridDim.x;
#else
    const u32 first_slice = blockIdx.x % PARTS * OWN_SLICES, group_tiles = WARPS, own = warp;
    const u32 first_group = blockIdx.x / PARTS, group_stride = gridDim.x / PARTS;
#endif
    const u32 first_k = first_slice * k_tiles / SLICES, item_k = (first_slice + OWN_SLICES) * k_tiles / SLICES - first_k;
    const u32 n_groups = (args.n_tiles + group_tiles - 1) / group_tiles;

    // x: all of it, or X_STAGES tiles.
    const u32 xs = base + 1024;
#if ARRANGE == SIDE
    const u32 x_bytes = k_tiles * X_TILE;
#else
    const u32 x_bytes = X_STAGES * X_TILE;
#endif
    const u32 ring = xs + x_bytes + warp * STAGES * TILE_BYTES;
    // SIDE: places for all slices' sums. Groups of warps: each warp's sum of its slices so far.
    const u32 sums = xs + x_bytes + WARPS * STAGES * TILE_BYTES;

    // One thread: a fence in every thread takes most of a microsecond.
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < WARPS * STAGES; i++) barrier_init(w_full + i * 8, COPY_ARRIVALS);
        for (u32 i = 0; i < X_STAGES; i++) {
            barrier_init(x_full + i * 8, COPY_ARRIVALS);
            sts32(x_done + i * 8, 0);
        }
        barriers_ready();
    }
    if (threadIdx.x >= 32 && threadIdx.x < 36) sts32(zero_row + (threadIdx.x - 32) * 4, 0);
    __syncthreads();

    const u8* x = args.x + (u64)blockIdx.y * k_tiles * X_TILE;
    const u32 first_row = blockIdx.y * COLUMNS;
    // The weights' ring.
    u32 next_group = first_group, next_k = 0, next_slot = 0;
    auto fetch_weights = [&]() {
        if (next_group >= n_groups || item_k == 0) return;
        const u32 bar = w_full + (warp * STAGES + next_slot) * 8;
        // A warp that has no rows in the last group does the last ones along, for nothing.
        const u32 row_tile = min(next_group * group_tiles + own, args.n_tiles - 1);
        const u64 tile = (u64)row_tile * k_tiles + first_k + next_k;
        copies_expected(bar, TILE_BYTES, lane);
        copy_async(ring + next_slot * TILE_BYTES, args.weight + tile * TILE_BYTES, TILE_BYTES, bar, lane);
        copies_issued(bar);
        if (++next_slot == STAGES) next_slot = 0;
        if (++next_k == item_k) {
            next_k = 0;
            next_group += group_stride;
#if ARRANGE != SIDE
            // The next kernel's blocks take what places are free; those of the launch itself have to be spread first.
            if (next_group >= n_groups && args.turn != FIRST) let_next_start();
#endif
        }
    };
#pragma unroll 1
    for (u32 i = 0; i < STAGES; i++) fetch_weights();
#if ARRANGE == SIDE
    if (args.turn != FIRST) let_next_start();
#else
    if (next_group >= n_groups && args.turn != FIRST) let_next_start();
#endif
#ifdef EARLY
    // Of the first tile, what does not need x.
    u32 early[4][4][4];
    if (item_k) {
        barrier_wait(w_full + warp * STAGES * 8, 0);
        Header header;
        header.load(ring, lane);
#pragma unroll
        for (int c = 0; c < 4; c++) decode_chunk(Codes(ring, lane, c), c, header, early[c]);
    }
#endif
    // Of several, those behind the first start when it is past its wait, and end when it has ended.
    if (args.turn != NEXT) wait_for_previous();
    if (args.turn == FIRST) let_next_start();

    Output output(args);
    float acc[N_TILES][4];
    u32 slot = 0, phase = 0;
    auto next_weights = [&]() {
        __syncwarp();
        fetch_weights();
        if (++slot == STAGES) {
            slot = 0;
            phase ^= 1;
        }
    };
    // Adds a tile's products; the codes of the next chunk come while one is multiplied.
    auto multiply_tile = [&](u32 x_at) {
        const u32 tile = ring + slot * TILE_BYTES;
        Header header;
        header.load(tile, lane);
        Codes codes(tile, lane, 0);
        XTile x_tile(x_at, zero_row, lane);
#pragma unroll
        for (int c = 0; c < 4; c++) {
            u32 a[4][4];
            decode_chunk(codes, c, header, a);
            if (c < 3) codes = Codes(tile, lane, c + 1);
            x_tile.multiply(a, c, acc);
        }
    };
    auto ends_of = [&](u32 row_tile, int n) { return output.ends(row_tile, first_row + n * 8 + (lane & 3) * 2, lane >> 2); };
    auto put = [&](u32 row_tile, int n, float4 sum, const Output::Ends& ends) {
        output.four(row_tile, first_row + n * 8 + (lane & 3) * 2, lane >> 2, sum, ends);
    };

#if ARRANGE == SIDE
    if (item_k) {
        const u32 bar = x_full + warp * 8;
        copies_expected(bar, item_k * X_TILE, lane);
        copy_async(xs + first_k * X_TILE, x + (u64)first_k * X_TILE, item_k * X_TILE, bar, lane);
        copies_issued(bar);
    }
    bool has_x = false;
    u32 turn = 0, k = 0;
    clear(acc);
#ifdef EARLY
    if (item_k) {
        barrier_wait(x_full + warp * 8, 0);
        has_x = true;
        XTile x_tile(xs + first_k * X_TILE, zero_row, lane);
#pragma unroll
        for (int c = 0; c < 4; c++) x_tile.multiply(early[c], c, acc);
        next_weights();
        k = 1;
    }
#endif
#pragma unroll 1
    for (u32 group = first_group; group < n_groups; group += group_stride, turn++) {
        // Warps add in turn.
        const u32 place = turn % SUM_PLACES, adder = turn % WARPS;
        Output::Ends ends;
        if (warp == adder) ends = ends_of(group, 0);
#pragma unroll 1
        for (; k < item_k; k++) {
            if (!has_x) {
                barrier_wait(x_full + warp * 8, 0);
                has_x = true;
            }
            barrier_wait(w_full + (warp * STAGES + slot) * 8, phase);
            multiply_tile(xs + (first_k + k) * X_TILE);
            next_weights();
        }
        // A place is written again when its sums were added: whoever waited since then knows.
        const u32 at = sums + (place * SLICES * SUM_LANES + (lane >> 2) * (SUM_LANES / 8) + (lane & 3)) * 16;
        const bool has_sum = (lane & 3) < SUM_LANES / 8;
        if (has_sum) sts128(at + warp * SUM_LANES * 16, acc[0][0], acc[0][1], acc[0][2], acc[0][3]);
        clear(acc);
        k = 0;
        if (SUM_PLACES < WARPS || warp == adder) named_wait(1 + place, WARPS * 32);
        else named_arrive(1 + place, WARPS * 32);
        if (warp != adder) continue;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (has_sum) {
            sum = lds_four(at);
#pragma unroll
            for (int s = 1; s < SLICES; s++) sum = sum_of(sum, lds_four(at + s * SUM_LANES * 16));
        }
        put(group, 0, sum, ends);
    }
#else
    // Tiles of x for all of the block's groups of rows.
    const u32 n_x = first_group < n_groups ? (n_groups - first_group + group_stride - 1) / group_stride * item_k : 0;
    auto x_fetch = [&](u32 stage, u32 k) {
        while (k >= item_k) k -= item_k;
        const u32 bar = x_full + stage * 8;
        copies_expected(bar, X_TILE, lane);
        copy_async(xs + stage * X_TILE, x + (u64)(first_k + k) * X_TILE, X_TILE, bar, lane);
        copies_issued(bar);
    };
    if (warp == 0)
        for (u32 i = 0; i < X_STAGES && i < n_x; i++) x_fetch(i, i);
    u32 x_stage = 0, x_phase = 0, x_count = 0;
    auto x_arrived = [&]() { barrier_wait(x_full + x_stage * 8, x_phase); };
    auto x_next = [&]() {
        x_count++;
        if (++x_stage == X_STAGES) {
            x_stage = 0;
            x_phase ^= 1;
        }
    };
    // This warp is done with a place, which has the `count`-th tile of all, the k-th of its group.
    auto x_release = [&](u32 stage, u32 count, u32 k) {
        if (count + X_STAGES >= n_x) return;
        u32 before = 0;
        if (lane == 0) before = ticket_shared(x_done + stage * 8);
#if !HAS_BULK
        before = __shfl_sync(FULL, before, 0);
#endif
        if (before % WARPS == WARPS - 1) x_fetch(stage, k + X_STAGES);
    };
#if GROUPS_OF_WARPS
    const u32 x_matrix = wgmma_low(xs, COLUMNS * 16);
#elif PARTS == 1
    float total[N_TILES][4];
#endif
#pragma unroll 1
    for (u32 group = first_group; group < n_groups; group += group_stride) {
        const u32 row_tile = group * group_tiles + own;
        const bool is_mine = row_tile < args.n_tiles;
#if PARTS > 1
        const u64 place = (u64)blockIdx.y * args.n_tiles + row_tile;
        float4* const mine = (float4*)args.partial + place * SLICES * N_TILES * 32 + lane;
#endif
        // The slice that is summed now, and where it ends.
        u32 slice = first_slice;
        auto slice_end = [&]() { return (slice + 1) * k_tiles / SLICES - first_k; };
        clear(acc);
        auto end_slice = [&]() {
#pragma unroll
            for (int n = 0; n < N_TILES; n++) {
#if PARTS > 1
                if (is_mine) __stcg(mine + (slice * N_TILES + n) * 32, four_of(acc[n]));
#elif GROUPS_OF_WARPS
                const u32 at = sums + ((warp * N_TILES + n) * 32 + lane) * 16;
                const float4 sum = slice == 0 ? four_of(acc[n]) : sum_of(lds_four(at), four_of(acc[n]));
                sts128(at, sum.x, sum.y, sum.z, sum.w);
#else
#pragma unroll
                for (int i = 0; i < 4; i++) total[n][i] = slice == 0 ? acc[n][i] : total[n][i] + acc[n][i];
#endif
            }
            clear(acc);
            slice++;
        };
#if GROUPS_OF_WARPS
        u32 last_stage = 0;
#endif
#pragma unroll 1
        for (u32 k = 0; k < item_k; k++) {
            x_arrived();
            barrier_wait(w_full + (warp * STAGES + slot) * 8, phase);
#if GROUPS_OF_WARPS
            // Products run while the next chunk is decoded.
            const u32 tile = ring + slot * TILE_BYTES, b = x_matrix + x_stage * (X_TILE >> 4);
            Header header;
            header.load(tile, lane);
            Codes codes(tile, lane, 0);
            u32 a[2][4][4];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                // Those of the chunk before the last have read their registers, and their x.
                wgmma_wait<1>();
                if (c == 1 && k > 0) x_release(last_stage, x_count - 1, k - 1);
                // Always. But without a branch the assembler takes the decoding for a part of the products under way, and has each wait
                // for the one before.
                if (args.n_rows) decode_chunk(codes, c, header, a[c & 1]);
                if (c < 3) codes = Codes(tile, lane, c + 1);
                if (c == 0 && k == slice_end()) {
                    wgmma_wait<0>();
                    while (k == slice_end()) end_slice();
                }
                wgmma_fence();
#pragma unroll
                for (int s = 0; s < 4; s++) {
#if COLUMNS == 32
                    wgmma_32(acc, a[c & 1][s], wgmma_b(b + (c * 4 + s) * COLUMNS * 2));
#else
                    wgmma_64(acc, a[c & 1][s], wgmma_b(b + (c * 4 + s) * COLUMNS * 2));
#endif
                }
                wgmma_commit();
            }
            last_stage = x_stage;
#else
            while (k == slice_end()) end_slice();
            multiply_tile(xs + x_stage * X_TILE);
            __syncwarp();
            x_release(x_stage, x_count, k);
#endif
            x_next();
            next_weights();
        }
#if GROUPS_OF_WARPS
        wgmma_wait<0>();
        if (item_k) x_release(last_stage, x_count - 1, item_k - 1);
#endif
        while (slice < first_slice + OWN_SLICES) end_slice();
        if (!is_mine) continue;
#if PARTS == 1
#pragma unroll
        for (int n = 0; n < N_TILES; n++)
#if GROUPS_OF_WARPS
            put(row_tile, n, lds_four(sums + ((warp * N_TILES + n) * 32 + lane) * 16), ends_of(row_tile, n));
#else
            put(row_tile, n, four_of(total[n]), ends_of(row_tile, n));
#endif
#else
        // What a warp has written comes before its ticket, and what it reads after it: lane 0 releases and acquires for all.
        __syncwarp();
        u32 before = 0;
        if (lane == 0) before = ticket(args.tickets + place, OWN_SLICES);
        before = __shfl_sync(FULL, before, 0);
        __syncwarp();
        if (before % SLICES == SLICES - OWN_SLICES) {
            // Two at a time: as many loads as registers hold.
#pragma unroll 2
            for (int n = 0; n < N_TILES; n++) {
                float4 part[SLICES];
#pragma unroll
                for (int s = 0; s < SLICES; s++) part[s] = load_fresh(mine + (s * N_TILES + n) * 32);
                float4 sum = part[0];
#pragma unroll
                for (int s = 1; s < SLICES; s++) sum = sum_of(sum, part[s]);
                put(row_tile, n, sum, ends_of(row_tile, n));
            }
        }
#endif
    }
#endif
    if (args.turn == NEXT) wait_for_previous();
}
