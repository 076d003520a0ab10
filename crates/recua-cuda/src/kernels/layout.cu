// layout: rows of GGML blocks become tiles (tile.cuh). One warp makes a tile; a lane gathers the codes of its two rows and 64 columns.
// settle: gives every d of the tiles the weight's power of two, when all of it is laid out and the largest is known.
// Bound by reading the blocks byte by byte from the cache, which is many times faster than they arrive.
#include "tile.cuh"

struct LayoutArgs {
    const u8* raw;     // [n_tiles * 16] rows of blocks, those behind n_rows are not read
    u8* tiles;         // [n_tiles][k_tiles]
    u32* largest;      // the bits of the largest |scale| there can be, as f32
    u64 row_bytes;
    u32 n_rows, n_columns, n_tiles, k_tiles;
};

struct SettleArgs {
    u8* tiles;
    const u32* largest;
    float* undo;       // what a product is multiplied with
    u64 n_tiles;       // of all
};

// A min counts as so much of a scale: it has to fit f16 where scales are below 2^15, and is kept 2^-14 times as large.
#define MIN_LIMIT 6.103515625e-5f

DEVICE u32 finite_bits(float x) {
    const u32 bits = __float_as_uint(x) & 0x7fffffffu;
    return bits < 0x7f800000u ? bits : 0;
}

#ifdef SCALE_IS_EXPONENT
// 2 to the power of n, of numbers that f32 has.
DEVICE float power_of_two(int n) {
    n = min(max(n, -126), 120);
    return __uint_as_float((u32)(n + 127) << 23);
}
#endif

// How large scales get with this scale, or d.
DEVICE u32 largest_of(u32 raw) {
#if defined(CODE_IS_BF16)
    return finite_bits(__uint_as_float(raw << 16));
#elif defined(SCALE_IS_EXPONENT)
    return finite_bits(power_of_two((int)raw - 129) * LARGEST);
#else
    return finite_bits(h_to_float((u16)raw) * LARGEST);
#endif
}

extern "C" __global__ void __launch_bounds__(128) layout(LayoutArgs args) {
    wait_for_previous();
    const u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const u64 index = (u64)blockIdx.x * 4 + warp;
    if (index >= (u64)args.n_tiles * args.k_tiles) return;
    const u32 row_tile = (u32)(index / args.k_tiles), k_tile = (u32)(index % args.k_tiles);
    u8* tile = args.tiles + index * TILE_BYTES;
    u32 largest = 0;

    const u8* rows[2];
    bool is_row[2];
    for (int r = 0; r < 2; r++) {
        const u32 row = row_tile * 16 + g + 8 * r;
        is_row[r] = row < args.n_rows;
        rows[r] = args.raw + (u64)row * args.row_bytes;
    }
    // The block of column 64 t + i of this lane.
    const u32 first = k_tile * TILE_COLUMNS + 64 * t;
    auto block = [&](int r, u32 i) { return rows[r] + (u64)((first + i) / BLOCK_VALUES) * BLOCK_BYTES; };
    auto is_there = [&](int r, u32 i) { return is_row[r] && first + i < args.n_columns; };

    for (u32 c = 0; c < 4; c++) {
#if defined(PLANE_1)
        u32 one = 0;
#endif
        for (u32 s = 0; s < 4; s++) {
#if defined(PLANE_4)
            u32 four = 0;
#endif
#if defined(PLANE_2)
            u32 two = 0;
#endif
            for (u32 h = 0; h < 2; h++)
                for (u32 r = 0; r < 2; r++)
                    for (u32 j = 0; j < 2; j++) {
                        const u32 i = 16 * c + 4 * s + 2 * h + j;
                        u32 code = 0;
                        if (is_there(r, i)) code = raw_code(block(r, i), (first + i) % BLOCK_VALUES);
#if defined(PLANE_16)
                        ((u16*)tile)[((c * 4 + s) * 32 + lane) * 8 + (r + 2 * h) * 2 + j] = (u16)code;
#if defined(CODE_IS_BF16)
                        largest = max(largest, largest_of(code));
#endif
#elif defined(PLANE_8)
                        tile[((c * 2 + s / 2) * 32 + lane) * 16 + ((s & 1) * 2 + h) * 4 + 2 * r + j] = (u8)code;
#else
#if defined(PLANE_4)
                        four |= (code & 15) << (4 * r + 8 * h + 16 * j);
                        code >>= 4;
#endif
#if defined(PLANE_2)
                        two |= (code & 3) << (8 * (s & 1) + 4 * r + 2 * h + 16 * j);
                        code >>= 2;
#endif
#if defined(PLANE_1)
                        one |= (code & 1) << ((s & 1) + 2 * h + 8 * (s / 2) + 4 * r + 16 * j);
#endif
#endif
                    }
#if defined(PLANE_4)
            ((u32*)tile)[(c * 32 + lane) * 4 + s] = four;
#endif
#if defined(PLANE_2)
            // Two steps share a word: the lane's own earlier half.
            u32* word = (u32*)(tile + PLANE_2_AT) + (c * 32 + lane) * 2 + s / 2;
            *word = (s & 1) ? *word | two : two;
#endif
        }
#if defined(PLANE_1)
        ((u32*)(tile + PLANE_1_AT))[c * 32 + lane] = one;
#endif
    }

    u8* header = tile + HEADER_AT;
#if defined(HEADER_32) || defined(HEADER_32M)
    for (u32 b = 0; b < 2; b++)
        for (u32 r = 0; r < 2; r++) {
            const bool here = is_there(r, 32 * b);
            const u32 scale = here ? raw_scale(block(r, 32 * b)) : 0;
            if (here) largest = max(largest, largest_of(scale));
#if defined(HEADER_32)
            ((u16*)header)[lane * 4 + b * 2 + r] = (u16)scale;
#else
            const u32 min_ = here ? raw_min(block(r, 32 * b)) : 0;
            largest = max(largest, finite_bits(h_to_float((u16)min_) * MIN_LIMIT));
            ((u16*)header)[lane * 8 + b * 4 + r] = (u16)scale;
            ((u16*)header)[lane * 8 + b * 4 + 2 + r] = (u16)min_;
#endif
        }
#elif defined(HEADER_K)
    u32 scale[4] = {0, 0, 0, 0}, min_[4] = {0, 0, 0, 0};
    for (u32 b = 0; b < 2; b++)
        for (u32 r = 0; r < 2; r++)
            if (is_there(r, 0)) {
                scale[2 * b + r] = raw_scale(block(r, 0), 2 * t + b);
                min_[2 * b + r] = raw_min(block(r, 0), 2 * t + b);
            }
    ((u32*)header)[lane] = scale[0] | scale[1] << 6 | (scale[3] & 15) << 12 | min_[0] << 16 | min_[1] << 22 | (min_[3] & 15) << 28;
    ((u16*)(header + 128))[lane] = (u16)(scale[2] | min_[2] << 6 | scale[3] >> 4 << 12 | min_[3] >> 4 << 14);
#elif defined(HEADER_6) || defined(HEADER_2)
    for (u32 c = 0; c < 4; c++)
        for (u32 r = 0; r < 2; r++)
            header[lane * 8 + c * 2 + r] = is_there(r, 0) ? (u8)raw_scale(block(r, 0), 4 * t + c) : 0;
#endif
#if defined(D_AT)
    if (t == 0)
        for (u32 r = 0; r < 2; r++) {
            const u32 d = is_there(r, 0) ? raw_d(block(r, 0)) : 0;
            largest = max(largest, largest_of(d));
#if defined(HEADER_6)
            ((u16*)(tile + D_AT))[g + 8 * r] = (u16)d;
#else
            const u32 dmin = is_there(r, 0) ? raw_dmin(block(r, 0)) : 0;
            largest = max(largest, finite_bits(h_to_float((u16)dmin) * LARGEST * MIN_LIMIT));
            ((u16*)(tile + D_AT))[(g + 8 * r) * 2] = (u16)d;
            ((u16*)(tile + D_AT))[(g + 8 * r) * 2 + 1] = (u16)(dmin ^ 0x8000u);
#endif
        }
#endif
    for (int i = 16; i; i /= 2) largest = max(largest, __shfl_xor_sync(FULL, largest, i));
    if (lane == 0 && largest) atomicMax(args.largest, largest);
}

// The power of two that brings the largest scale, or value, to [2^14, 2^15).
DEVICE int exponent_of(u32 largest) {
#if defined(PLANE_16) && !defined(CODE_IS_BF16)
    return 0;
#else
    return largest == 0 ? 0 : 14 - ((int)(largest >> 23) - 127);
#endif
}

// x 2^n, also where 2^n is no f32.
DEVICE float times_power(float x, int n) {
    const int half = n / 2;
    return x * __uint_as_float((u32)(half + 127) << 23) * __uint_as_float((u32)(n - half + 127) << 23);
}

extern "C" __global__ void __launch_bounds__(256) settle(SettleArgs args) {
    wait_for_previous();
    const int e = exponent_of(*args.largest);
#if defined(PLANE_16)
    const int values = e;
#else
    // Codes are 2^-24 times as large, and mins 2^10 times as large as values.
    const int values = e - 24, mins = values + 10;
#endif
    const u64 first = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    const u64 stride = (u64)gridDim.x * blockDim.x;
    if (first == 0) *args.undo = times_power(1.0f, -values);
    auto settle_one = [&](u16* p, int e) {
#if defined(CODE_IS_BF16)
        *p = h_from(times_power(__uint_as_float((u32)*p << 16), e));
#elif defined(SCALE_IS_EXPONENT)
        *p = *p == 0 ? 0 : h_from(times_power(power_of_two((int)*p - 129), e));
#else
        *p = h_from(times_power(h_to_float(*p), e));
#endif
    };
#if defined(PLANE_16)
#if defined(CODE_IS_BF16)
    for (u64 i = first; i < args.n_tiles * 4096; i += stride) settle_one((u16*)args.tiles + i, e);
#endif
#elif defined(D_AT)
#if defined(HEADER_6)
    const u32 each = 16;
#else
    const u32 each = 32;
#endif
    for (u64 i = first; i < args.n_tiles * each; i += stride)
#if defined(HEADER_6)
        settle_one((u16*)(args.tiles + i / each * TILE_BYTES + D_AT) + i % each, e);
#else
        settle_one((u16*)(args.tiles + i / each * TILE_BYTES + D_AT) + i % each, i % 2 ? mins : e);
#endif
#else
    const u32 each = HEADER_BYTES / 2;
    for (u64 i = first; i < args.n_tiles * each; i += stride)
#if defined(HEADER_32M)
        settle_one((u16*)(args.tiles + i / each * TILE_BYTES + HEADER_AT) + i % each, i % 4 < 2 ? e : mins);
#else
        settle_one((u16*)(args.tiles + i / each * TILE_BYTES + HEADER_AT) + i % each, e);
#endif
#endif
}
