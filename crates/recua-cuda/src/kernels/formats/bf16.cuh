// BF16: the upper halves of f32. They are kept as they are until the weight's power of two is known, and are f16 then.
#define BLOCK_VALUES 1
#define BLOCK_BYTES 2
#define LARGEST 1.0f
#define PLANE_16
#define CODE_IS_BF16

DEVICE u32 raw_code(const u8* b, u32 i) { return raw_u16(b); }
