// Q4_0: 32 values in 18 bytes, {f16 d, 16 bytes of codes}; value i and i + 16 share a byte.
#define BLOCK_VALUES 32
#define BLOCK_BYTES 18
// The largest number that d is multiplied with for a scale.
#define LARGEST 1.0f
#define PLANE_4
#define HEADER_32
#define OFFSET 8

DEVICE u32 raw_code(const u8* b, u32 i) { return b[2 + i % 16] >> (i / 16 * 4) & 15; }
DEVICE u32 raw_scale(const u8* b) { return raw_u16(b); }
