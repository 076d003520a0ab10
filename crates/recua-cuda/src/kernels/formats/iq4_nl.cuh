// IQ4_NL: 32 values in 18 bytes, {f16 d, 16 bytes of codes}; value i and i + 16 share a byte. A code is the index of a level.
#define BLOCK_VALUES 32
#define BLOCK_BYTES 18
// The largest number that d is multiplied with for a scale.
#define LARGEST 1.0f
#define PLANE_4
#define HEADER_32
// -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, plus 128.
#define TABLE 0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u

DEVICE u32 raw_code(const u8* b, u32 i) { return b[2 + i % 16] >> (i / 16 * 4) & 15; }
DEVICE u32 raw_scale(const u8* b) { return raw_u16(b); }
