// Q4_1: 32 values in 20 bytes, {f16 d, f16 m, 16 bytes of codes}; value i and i + 16 share a byte.
#define BLOCK_VALUES 32
#define BLOCK_BYTES 20
// The largest number that d is multiplied with for a scale.
#define LARGEST 1.0f
#define PLANE_4
#define HEADER_32M
#define OFFSET 0

DEVICE u32 raw_code(const u8* b, u32 i) { return b[4 + i % 16] >> (i / 16 * 4) & 15; }
DEVICE u32 raw_scale(const u8* b) { return raw_u16(b); }
DEVICE u32 raw_min(const u8* b) { return raw_u16(b + 2); }
