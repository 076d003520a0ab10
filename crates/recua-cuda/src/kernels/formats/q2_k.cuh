// Q2_K: 256 values in 84 bytes, {16 bytes of scales and mins of four bits, 64 of codes, f16 d, f16 dmin}; in each half of 128, values 32
// apart share a byte.
#define BLOCK_VALUES 256
#define BLOCK_BYTES 84
// The largest number that d is multiplied with for a scale.
#define LARGEST 15.0f
#define PLANE_2
#define HEADER_2
#define OFFSET 0

DEVICE u32 raw_code(const u8* b, u32 i) { return b[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3; }
DEVICE u32 raw_d(const u8* b) { return raw_u16(b + 80); }
DEVICE u32 raw_dmin(const u8* b) { return raw_u16(b + 82); }
DEVICE u32 raw_scale(const u8* b, u32 block) { return b[block]; }
