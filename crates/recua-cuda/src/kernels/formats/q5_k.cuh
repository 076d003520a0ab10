// Q5_K: 256 values in 176 bytes, {f16 d, f16 dmin, 12 bytes of scales and mins, 32 bytes of fifth bits, 128 bytes of codes}; in each
// stretch of 64, value i and i + 32 share a byte; a byte of fifth bits has those of 8 values that are 32 apart.
#define BLOCK_VALUES 256
#define BLOCK_BYTES 176
// The largest number that d is multiplied with for a scale.
#define LARGEST 63.0f
#define PLANE_4
#define PLANE_1
#define HEADER_K
#define OFFSET 0
#include "k_scales.cuh"

DEVICE u32 raw_code(const u8* b, u32 i) {
    return (b[48 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15) | (b[16 + i % 32] >> i / 32 & 1) << 4;
}
