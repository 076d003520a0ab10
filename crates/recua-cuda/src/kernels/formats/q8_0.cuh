// Q8_0: 32 values in 34 bytes, {f16 d, 32 signed bytes}.
#define BLOCK_VALUES 32
#define BLOCK_BYTES 34
// The largest code, or scale times code, that d is multiplied with.
#define LARGEST 128.0f
#define PLANE_8
#define HEADER_32

DEVICE u32 raw_code(const u8* b, u32 i) { return b[2 + i] ^ 128; }
DEVICE u32 raw_scale(const u8* b) { return raw_u16(b); }
