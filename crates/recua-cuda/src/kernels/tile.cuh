// A weight's tile: 16 rows x 256 columns, the same bytes for decode and prompts, one format at a time (FORMAT_FILE).
//
// Which column is which. The tensor core takes 16 columns a step. Position (step s of chunk c, half h, pair j) of lane t in a group of
// four is column 64 t + 16 c + 4 s + 2 h + j: a lane has 64 columns that follow each other, two blocks of 32, for rows g and g + 8, where
// lane = 4 g + t. The order of columns inside a step changes no bit of its sum.
//
// Codes lie in planes of so many bits a value, each as whole words that a lane reads at once:
//   PLANE_16  [chunk][step][lane] of 16 bytes: word r + 2 h, halves j
//   PLANE_8   [chunk][2][lane] of 16 bytes: word 2 (s % 2) + h of half s / 2, byte 2 r + j
//   PLANE_4   [chunk][lane] of 16 bytes: word s, bit 4 r + 8 h + 16 j
//   PLANE_2   [chunk][lane] of 8 bytes: word s / 2, bit 8 (s % 2) + 4 r + 2 h + 16 j
//   PLANE_1   [chunk][lane] of 4 bytes: bit s % 2 + 2 h + 8 (s / 2) + 4 r + 16 j
// where r tells row g from row g + 8. A value's code is the bits of the planes, those of PLANE_4 lowest, then PLANE_2, then PLANE_1.
//
// Scales, by header:
//   HEADER_32   [lane] of 8 bytes: f16 (block of 32, r)
//   HEADER_32M  [lane] of 16 bytes: of each block {scale of r, of r + 8}, {min of r, of r + 8}, f16
//   HEADER_K    [lane] of 4 bytes and [lane] of 2: six bits of scale and min of each block of 32; [row] of {d, -dmin}, f16
//   HEADER_6    [lane] of 8 bytes: byte 2 c + r, a scale of a block of 16, plus 128; [row] of d, f16
//   HEADER_2    [lane] of 8 bytes: byte 2 c + r, four bits of scale, four of min; [row] of {d, -dmin}, f16
// A value is scale * (code - OFFSET), plus the min if there is one. With TABLE the code is an index.
//
// A code in the lowest bits of an f16 is code * 2^-24, exactly, so one multiply-add makes two values of two codes: scales are 2^24 times as
// large as values are small. Every d is multiplied by one power of two a weight for that: the largest scale is in [2^14, 2^15), and values
// are below 1. The product's epilogue takes it back. Mins are kept 2^10 times as large as they are added, so that small ones keep their
// bits. A header of zeros gives zeros: rows and columns that are not there.
#pragma once
#include "base.cuh"
#include FORMAT_FILE

#define TILE_ROWS 16
#define TILE_COLUMNS 256

#if defined(PLANE_16)
#define BASE_BYTES 8192
#elif defined(PLANE_8)
#define BASE_BYTES 4096
#elif defined(PLANE_4)
#define BASE_BYTES 2048
#else
#define BASE_BYTES 0
#endif
#ifdef PLANE_2
#define PLANE_2_AT BASE_BYTES
#define PLANE_1_AT (BASE_BYTES + 1024)
#else
#define PLANE_1_AT BASE_BYTES
#endif
#ifdef PLANE_1
#define HEADER_AT (PLANE_1_AT + 512)
#else
#define HEADER_AT PLANE_1_AT
#endif

#if defined(HEADER_32)
#define HEADER_BYTES 256
#elif defined(HEADER_32M)
#define HEADER_BYTES 512
#elif defined(HEADER_K)
#define HEADER_BYTES 256
#define D_AT (HEADER_AT + 192)
#elif defined(HEADER_6)
#define HEADER_BYTES 288
#define D_AT (HEADER_AT + 256)
#elif defined(HEADER_2)
#define HEADER_BYTES 320
#define D_AT (HEADER_AT + 256)
#else
#define HEADER_BYTES 0
#endif
#define TILE_BYTES (HEADER_AT + HEADER_BYTES)

#define H2(bits) ((bits) | (bits) << 16)
// f16x2: 1024 with a code in its lowest bits is 1024 + code.
#define MAGIC H2(0x6400u)
#define H2_MINUS_1024 H2(0xE400u)
#define H2_MINUS_1152 H2(0xE480u)
#define H2_SIXTEENTH H2(0x2C00u)
// What a min is added as.
#define H2_MIN H2(0x1400u)
#define MIN_FACTOR 0.0009765625f
#define CODE_FACTOR 5.9604644775390625e-8f

#if defined(PLANE_8) || defined(TABLE)
#define ZERO_CODE 128
#elif defined(OFFSET)
#define ZERO_CODE OFFSET
#else
#define ZERO_CODE 0
#endif

// What a lane knows of a tile before it decodes chunks.
struct Header {
#if defined(HEADER_32) || defined(HEADER_32M) || defined(HEADER_K)
    // By block of 32 and row: 2 b + r, both halves the same.
    u32 scale[4];
#endif
#if defined(HEADER_32M) || defined(HEADER_K)
    u32 added[4];
#endif
#if defined(HEADER_6) || defined(HEADER_2)
    u32 bytes[2];
    // d of row g, and of row g + 8; HEADER_2: {d, -dmin} of each.
    u32 d[2];
#endif

    DEVICE_MEMBER void load(u32 tile, u32 lane) {
        const u32 g = lane >> 2;
#if defined(HEADER_32)
        const uint2 v = lds64(tile + HEADER_AT + lane * 8);
        scale[0] = h2_low(v.x);
        scale[1] = h2_high(v.x);
        scale[2] = h2_low(v.y);
        scale[3] = h2_high(v.y);
#elif defined(HEADER_32M)
        const uint4 v = lds128(tile + HEADER_AT + lane * 16);
        scale[0] = h2_low(v.x);
        scale[1] = h2_high(v.x);
        scale[2] = h2_low(v.z);
        scale[3] = h2_high(v.z);
        const u32 m0 = h2_mul(v.y, H2_MIN), m1 = h2_mul(v.w, H2_MIN);
        added[0] = h2_low(m0);
        added[1] = h2_high(m0);
        added[2] = h2_low(m1);
        added[3] = h2_high(m1);
#elif defined(HEADER_K)
        const u32 a = lds32(tile + HEADER_AT + lane * 4), b = lds16(tile + HEADER_AT + 128 + lane * 2);
        const u32 d0 = lds32(tile + D_AT + g * 4), d1 = lds32(tile + D_AT + 32 + g * 4);
        u32 pair[4];
        pair[0] = and_or(a, 0x003f003fu, MAGIC);
        pair[1] = and_or(a >> 6, 0x003f003fu, MAGIC);
        pair[2] = and_or(b << 10, 0x003f0000u, and_or(b, 0x3fu, MAGIC));
        pair[3] = and_or(b << 6, 0x00300000u, and_or(b >> 8, 0x30u, and_or(a >> 12, 0x000f000fu, MAGIC)));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 v = h2_mul(h2_add(pair[i], H2_MINUS_1024), (i & 1) ? d1 : d0);
            scale[i] = h2_low(v);
            added[i] = h2_mul(h2_high(v), H2_MIN);
        }
#elif defined(HEADER_6)
        const uint2 v = lds64(tile + HEADER_AT + lane * 8);
        bytes[0] = v.x;
        bytes[1] = v.y;
        d[0] = lds16(tile + D_AT + g * 2) | lds16(tile + D_AT + 16 + g * 2) << 16;
        d[1] = 0;
#elif defined(HEADER_2)
        const uint2 v = lds64(tile + HEADER_AT + lane * 8);
        bytes[0] = v.x;
        bytes[1] = v.y;
        d[0] = lds32(tile + D_AT + g * 4);
        d[1] = lds32(tile + D_AT + 32 + g * 4);
#endif
    }

    // What chunk c's codes are multiplied with, and what is added then, of rows g and g + 8.
    DEVICE_MEMBER void of_chunk(int c, u32* s, u32* m) {
#if defined(HEADER_32) || defined(HEADER_32M) || defined(HEADER_K)
        s[0] = scale[(c >> 1) * 2];
        s[1] = scale[(c >> 1) * 2 + 1];
#if !defined(HEADER_32)
        m[0] = added[(c >> 1) * 2];
        m[1] = added[(c >> 1) * 2 + 1];
#endif
#elif defined(HEADER_6)
        const u32 two = __byte_perm(bytes[c >> 1], 0x64646464u, (c & 1) ? 0x4342 : 0x4140);
        const u32 v = h2_mul(h2_add(two, H2_MINUS_1152), d[0]);
        s[0] = h2_low(v);
        s[1] = h2_high(v);
#elif defined(HEADER_2)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const u32 byte = bytes[c >> 1] >> ((c & 1) * 16 + r * 8);
            const u32 pair = and_or(byte << 12, 0x000f0000u, and_or(byte, 0xfu, MAGIC));
            const u32 v = h2_mul(h2_add(pair, H2_MINUS_1024), d[r]);
            s[r] = h2_low(v);
            m[r] = h2_mul(h2_high(v), H2_MIN);
        }
#endif
#if ZERO_CODE
        // -ZERO_CODE in f16 codes: exact, and so is its product with a scale.
        const u32 minus_zero = H2(0x8000u + ZERO_CODE);
        m[0] = h2_mul(s[0], minus_zero);
        m[1] = h2_mul(s[1], minus_zero);
#endif
    }
};

#ifdef TABLE
// The table's bytes, plus 128, at four times four bits of `nibbles`.
DEVICE u32 table_bytes(u32 nibbles) {
    const u32 table[4] = {TABLE};
    const u32 index = nibbles & 0x7777u;
    const u32 low = __byte_perm(table[0], table[1], index), high = __byte_perm(table[2], table[3], index);
    // The highest bit of each four chooses: the selector of byte i is i, or 4 + i.
    return __byte_perm(low, high, 0x3210u + ((nibbles >> 1) & 0x4444u));
}
#endif

// What a lane has of a chunk's planes.
struct Codes {
#if defined(PLANE_16)
    uint4 words[4];
#elif defined(PLANE_8)
    uint4 words[2];
#elif defined(PLANE_4)
    uint4 words[1];
#endif
#if defined(PLANE_2)
    uint2 two_bits;
#endif
#if defined(PLANE_1)
    u32 one_bit;
#endif

    DEVICE_MEMBER Codes(u32 tile, u32 lane, int c) {
#if defined(PLANE_16) || defined(PLANE_8) || defined(PLANE_4)
        const int n = sizeof(words) / sizeof(uint4);
#pragma unroll
        for (int i = 0; i < n; i++) words[i] = lds128(tile + ((c * n + i) * 32 + lane) * 16);
#endif
#if defined(PLANE_2)
        two_bits = lds64(tile + PLANE_2_AT + c * 256 + lane * 8);
#endif
#if defined(PLANE_1)
        one_bit = lds32(tile + PLANE_1_AT + c * 128 + lane * 4);
#endif
    }
};

// The values of chunk c: a[s][r + 2 h], halves j.
DEVICE void decode_chunk(const Codes& codes, int c, Header& header, u32 (&a)[4][4]) {
#if defined(PLANE_16)
#pragma unroll
    for (int s = 0; s < 4; s++) {
        const uint4 v = codes.words[s];
        a[s][0] = v.x;
        a[s][1] = v.y;
        a[s][2] = v.z;
        a[s][3] = v.w;
    }
#else
    u32 scale[2], added[2] = {0, 0};
    header.of_chunk(c, scale, added);
#if defined(PLANE_8)
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint4 v = codes.words[half];
        const u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int reg = 0; reg < 4; reg++) {
                const u32 both = __byte_perm(w[i * 2 + (reg >> 1)], 0, (reg & 1) ? 0x4342 : 0x4140);
                a[half * 2 + i][reg] = h2_fma(both, scale[reg & 1], added[reg & 1]);
            }
    }
#elif defined(TABLE)
    const uint4 v = codes.words[0];
    const u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int s = 0; s < 4; s++) {
        const u32 first = table_bytes(w[s] & 0xffffu), second = table_bytes(w[s] >> 16);
        // Byte r + 2 h of both.
#pragma unroll
        for (int reg = 0; reg < 4; reg++) {
            const u32 both = __byte_perm(first, second, reg | (4 + reg) << 4);
            a[s][reg] = h2_fma(__byte_perm(both, 0, 0x4140), scale[reg & 1], added[reg & 1]);
        }
    }
#else
#if defined(PLANE_4)
    const uint4 v = codes.words[0];
    const u32 w[4] = {v.x, v.y, v.z, v.w};
    // The upper one of two codes in a byte is 16 times as large.
    const u32 upper_scale = h2_mul(scale[1], H2_SIXTEENTH);
#endif
#if defined(PLANE_2)
    const uint2 two_bits = codes.two_bits;
#endif
#if defined(PLANE_1)
    const u32 one_bit = codes.one_bit;
#endif
#pragma unroll
    for (int s = 0; s < 4; s++) {
#if defined(PLANE_4)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const u32 x = w[s] >> (8 * h);
            u32 low = x & 0x000f000fu, high = x & 0x00f000f0u;
#if defined(PLANE_2)
            {
                // Bits 0 and 4 of this half's byte go to bits 4 and 8.
                const u32 bits = s < 2 ? two_bits.x : two_bits.y;
                const int from = (s & 1) * 8 + h * 2;
                const u32 at = from <= 4 ? bits << (4 - from) : bits >> (from - 4);
                low = and_or(at, 0x00300030u, low);
                high = and_or(at, 0x03000300u, high);
            }
#endif
#if defined(PLANE_1)
            {
                const int from = (s & 1) + h * 2 + (s >> 1) * 8;
                const u32 at = from <= 4 ? one_bit << (4 - from) : one_bit >> (from - 4);
                low = and_or(at, 0x00100010u, low);
                high = and_or(at, 0x01000100u, high);
            }
#endif
            a[s][2 * h] = h2_fma(low, scale[0], added[0]);
            a[s][2 * h + 1] = h2_fma(high, upper_scale, added[1]);
        }
#else
        // Two bits, and perhaps a third.
        const u32 bits = s < 2 ? two_bits.x : two_bits.y;
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                u32 code = bits >> ((s & 1) * 8 + r * 4 + h * 2) & 0x00030003u;
#if defined(PLANE_1)
                const int from = (s & 1) + h * 2 + (s >> 1) * 8 + r * 4;
                code = and_or(from <= 2 ? one_bit << (2 - from) : one_bit >> (from - 2), 0x00040004u, code);
#endif
                a[s][r + 2 * h] = h2_fma(code, scale[r], added[r]);
            }
#endif
    }
#endif
#endif
}

// ---- single values, in f32, where few are wanted

// Where row and column are: lane, r, and the place in the lane's columns.
struct Place {
    u32 lane, r, c, s, h, j;
    DEVICE_MEMBER Place(u32 row, u32 column) {
        lane = (row & 7) * 4 + column / 64;
        r = row >> 3;
        c = column / 16 & 3;
        s = column / 4 & 3;
        h = column / 2 & 1;
        j = column & 1;
    }
};

DEVICE u32 plane_code(const u8* tile, const Place& p) {
#if defined(PLANE_16)
    return ((const u16*)tile)[((p.c * 4 + p.s) * 32 + p.lane) * 8 + (p.r + 2 * p.h) * 2 + p.j];
#elif defined(PLANE_8)
    return tile[((p.c * 2 + p.s / 2) * 32 + p.lane) * 16 + ((p.s & 1) * 2 + p.h) * 4 + 2 * p.r + p.j];
#else
    u32 code = 0;
    // From the highest bits down.
#if defined(PLANE_1)
    const u32 one = ((const u32*)(tile + PLANE_1_AT))[p.c * 32 + p.lane];
    code = one >> ((p.s & 1) + 2 * p.h + 8 * (p.s / 2) + 4 * p.r + 16 * p.j) & 1;
#endif
#if defined(PLANE_2)
    const u32 two = ((const u32*)(tile + PLANE_2_AT))[(p.c * 32 + p.lane) * 2 + p.s / 2];
    code = code << 2 | (two >> (8 * (p.s & 1) + 4 * p.r + 2 * p.h + 16 * p.j) & 3);
#endif
#if defined(PLANE_4)
    const u32 word = ((const u32*)tile)[(p.c * 32 + p.lane) * 4 + p.s];
    code = code << 4 | (word >> (4 * p.r + 8 * p.h + 16 * p.j) & 15);
#endif
    return code;
#endif
}

// The value of a row and column of a tile in global memory, still with the weight's power of two.
DEVICE float decode_one(const u8* tile, u32 row, u32 column) {
    const Place p(row, column);
    const u32 code = plane_code(tile, p);
#if defined(PLANE_16)
    return h_to_float((u16)code);
#else
    const u8* header = tile + HEADER_AT;
    float scale = 0.0f, added = 0.0f;
    const u32 block = p.c >> 1;
#if defined(HEADER_32)
    scale = h_to_float(((const u16*)header)[p.lane * 4 + block * 2 + p.r]);
#elif defined(HEADER_32M)
    scale = h_to_float(((const u16*)header)[p.lane * 8 + block * 4 + p.r]);
    added = h_to_float(((const u16*)header)[p.lane * 8 + block * 4 + 2 + p.r]) * MIN_FACTOR;
#elif defined(HEADER_K)
    const u32 a = ((const u32*)header)[p.lane], b = ((const u16*)(header + 128))[p.lane];
    const u16* d = (const u16*)(tile + D_AT) + row * 2;
    u32 s6, m6;
    if (block == 0) {
        s6 = a >> (6 * p.r) & 63;
        m6 = a >> (16 + 6 * p.r) & 63;
    } else if (p.r == 0) {
        s6 = b & 63;
        m6 = b >> 6 & 63;
    } else {
        s6 = (a >> 12 & 15) | (b >> 8 & 0x30);
        m6 = (a >> 28 & 15) | (b >> 10 & 0x30);
    }
    scale = h_to_float(d[0]) * (float)s6;
    added = h_to_float(d[1]) * (float)m6 * MIN_FACTOR;
#elif defined(HEADER_6)
    scale = h_to_float(((const u16*)(tile + D_AT))[row]) * ((float)header[p.lane * 8 + p.c * 2 + p.r] - 128.0f);
#elif defined(HEADER_2)
    const u32 byte = header[p.lane * 8 + p.c * 2 + p.r];
    const u16* d = (const u16*)(tile + D_AT) + row * 2;
    scale = h_to_float(d[0]) * (float)(byte & 15);
    added = h_to_float(d[1]) * (float)(byte >> 4) * MIN_FACTOR;
#endif
    float number = (float)code;
#if defined(TABLE)
    const u32 table[4] = {TABLE};
    number = (float)(table[code / 4] >> (8 * (code & 3)) & 255);
#endif
    return scale * CODE_FACTOR * (number - (float)ZERO_CODE) + added;
#endif
}
