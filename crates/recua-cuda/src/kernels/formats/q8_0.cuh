// Q8_0: 32 values in 34 bytes, {f16 d, 32 signed bytes}.
#define BLOCK_VALUES 32
#define BLOCK_BYTES 34
// The largest number that d is multiplied with for a scale.
#define LARGEST 1.0f
#define PLANE_8
#define HEADER_32

DEVICE u32 raw_code(const u8* b, u32 i) { return b[2 + i] ^ 128; }
DEVICE u32 raw_scale(const u8* b) { return raw_u16(b); }
