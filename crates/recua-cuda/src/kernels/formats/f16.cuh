// F16: the values themselves.
#define BLOCK_VALUES 1
#define BLOCK_BYTES 2
#define LARGEST 1.0f
#define PLANE_16

DEVICE u32 raw_code(const u8* b, u32 i) { return raw_u16(b); }
