// Q4_K: 256 values in 144 bytes, {f16 d, f16 dmin, 12 bytes of scales and mins, 128 bytes of codes}; in each stretch of 64, value i and
// i + 32 share a byte.
#define BLOCK_VALUES 256
#define BLOCK_BYTES 144
// The largest number that d is multiplied with for a scale.
#define LARGEST 63.0f
#define PLANE_4
#define HEADER_K
#define OFFSET 0
#include "k_scales.cuh"

DEVICE u32 raw_code(const u8* b, u32 i) { return b[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15; }
