// The rows of a product as the tensor cores read them: f16, [block of columns][tile of 256][step][half][column][8], the columns being
// the product's rows of x. A row is multiplied by its own power of two, so that its largest element is in [2^14, 2^15): rows of any
// size keep their precision, and a row's bits depend on no other.
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
    // One element, already multiplied.
    DEVICE_MEMBER void store_one(u32 k, float x) {
        const u32 tile = k / 256, t = k / 64 & 3, step = k / 4 & 15;
        u32* p = words + (u64)(tile * 32 + step * 2 + (k / 2 & 1)) * half_words + t;
        ((u16*)p)[k & 1] = h_from(x);
    }
};

// The power of two that brings |largest| to [2^14, 2^15); 1 for zero and what is not finite.
DEVICE int row_exponent(float largest) {
    const u32 bits = __float_as_uint(largest) & 0x7fffffffu;
    if (bits < 0x00800000u || bits >= 0x7f800000u) return 0;
    return 14 - ((int)(bits >> 23) - 127);
}

DEVICE float power(int n) {
    // -127 and below only where the other factor is far above: two halves are exact.
    const int half = n / 2;
    return __uint_as_float((u32)(half + 127) << 23) * __uint_as_float((u32)(n - half + 127) << 23);
}

// The largest of a block's threads, NaN if there is one.
DEVICE float nan_max(float a, float b) { return a != a ? a : (b > a || b != b ? b : a); }
