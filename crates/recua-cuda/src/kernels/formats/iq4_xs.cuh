// IQ4_XS: 256 values in 136 bytes, {f16 d, 2 bytes of upper bits of scales, 4 of lower, 128 of codes}; in each block of 32, value i and
// i + 16 share a byte. A scale has six bits, of which 32 is zero; a code is the index of a level.
#define BLOCK_VALUES 256
#define BLOCK_BYTES 136
// The largest number that d is multiplied with for a scale.
#define LARGEST 32.0f
#define PLANE_4
#define HEADER_6
// As in IQ4_NL.
#define TABLE 0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u

DEVICE u32 raw_code(const u8* b, u32 i) { return b[8 + i / 32 * 16 + i % 16] >> (i / 16 % 2 * 4) & 15; }
DEVICE u32 raw_d(const u8* b) { return raw_u16(b); }
// Of a block of 16: two have the same.
DEVICE u32 raw_scale(const u8* b, u32 block) {
    const u32 of32 = block / 2;
    return ((b[4 + of32 / 2] >> (of32 % 2 * 4) & 15) | (raw_u16(b + 2) >> (2 * of32) & 3) << 4) + 96;
}
