// The rows of a product as the tensor cores read them: f16, [block of columns][tile of 256][step][half][column][8], the columns being
// the product's rows of x. A row that is very small or very large is multiplied by a power of two of its own: rows of any size keep their
// precision, and a row's bits depend on no other.
#pragma once
#include "base.cuh"

// Where the 8 bytes {columns 2 h + j = 0..3} of column 4 i of a row go: two words, `half_words` apart.
struct PackedRow {
    u32* words;
    u32 half_words;
    // `columns` of a block: the row's block and place.
    DEVICE_MEMBER PackedRow(u8* packed, u32 row, u32 columns, u32 k_tiles) {
        half_words = columns * 4;
        words = (u32*)(packed + ((u64)(row / columns) * k_tiles * 32 * columns + row % columns) * 16);
    }
    // Four elements from 4 i on, already multiplied.
    DEVICE_MEMBER void store(u32 i, float a, float b, float c, float d) {
        const u32 tile = i / 64, t = i / 16 & 3, step = i & 15;
        u32* p = words + (u64)(tile * 32 + step * 2) * half_words + t;
        p[0] = h2_from(a, b);
        p[half_words] = h2_from(c, d);
    }
    // Vector i: {step i / 2 % 16, half i % 2} of tile i / 32.
    DEVICE_MEMBER void store_vector(u32 i, uint4 v) { *(uint4*)(words + (u64)i * half_words) = v; }
    // One element, already multiplied.
    DEVICE_MEMBER void store_one(u32 k, float x) {
        const u32 tile = k / 256, t = k / 64 & 3, step = k / 4 & 15;
        u32* p = words + (u64)(tile * 32 + step * 2 + (k / 2 & 1)) * half_words + t;
        ((u16*)p)[k & 1] = h_from(x);
    }
};

// A row lies there as it is if its largest element is in [2^-4, 2^15): what f16 has no bits for does not matter then.
DEVICE bool fits_as_it_is(u32 largest_bits) { return largest_bits >= 0x3d800000u && largest_bits < 0x47000000u; }

// A row's power of two: none if it fits as it is, is zero or not finite; else the one that brings |largest| to [2^14, 2^15), or as near as
// numbers reach: a row below 2^-112 stays below 2^14.
DEVICE int row_exponent(float largest) {
    const u32 bits = __float_as_uint(largest) & 0x7fffffffu;
    if (fits_as_it_is(bits) || bits < 0x00800000u || bits >= 0x7f800000u) return 0;
    return min(14 - ((int)(bits >> 23) - 127), 126);
}

// 2 to the power of n, which is from -126 to 127.
DEVICE float power(int n) { return __uint_as_float((u32)(n + 127) << 23); }

// The largest of a block's threads, NaN if there is one.
DEVICE float nan_max(float a, float b) { return a != a ? a : (b > a || b != b ? b : a); }
