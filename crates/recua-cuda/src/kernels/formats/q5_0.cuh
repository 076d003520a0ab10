// Q5_0: 32 values in 22 bytes, {f16 d, 4 bytes of fifth bits, 16 bytes of codes}; value i and i + 16 share a byte.
#define BLOCK_VALUES 32
#define BLOCK_BYTES 22
// The largest number that d is multiplied with for a scale.
#define LARGEST 1.0f
#define PLANE_4
#define PLANE_1
#define HEADER_32
#define OFFSET 16

DEVICE u32 raw_code(const u8* b, u32 i) { return (b[6 + i % 16] >> (i / 16 * 4) & 15) | (b[2 + i / 8] >> i % 8 & 1) << 4; }
DEVICE u32 raw_scale(const u8* b) { return raw_u16(b); }
