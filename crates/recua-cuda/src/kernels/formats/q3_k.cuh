// Q3_K: 256 values in 110 bytes, {32 bytes of third bits, 64 of lower two, 12 of scales, f16 d}; in each half of 128, values 32 apart share
// a byte of the lower bits; a byte of third bits has those of 8 values that are 32 apart. A scale has six bits, of which 32 is zero.
#define BLOCK_VALUES 256
#define BLOCK_BYTES 110
// The largest number that d is multiplied with for a scale.
#define LARGEST 32.0f
#define PLANE_2
#define PLANE_1
#define HEADER_6
#define OFFSET 4

DEVICE u32 raw_code(const u8* b, u32 i) { return (b[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) | (b[i % 32] >> i / 32 & 1) << 2; }
DEVICE u32 raw_d(const u8* b) { return raw_u16(b + 108); }
// Lower four bits in bytes 0 to 7, upper two in bytes 8 to 11.
DEVICE u32 raw_scale(const u8* b, u32 block) {
    const u8* s = b + 96;
    const u32 low = s[block % 8] >> (block / 8 * 4) & 15, high = s[8 + block % 4] >> (block / 4 * 2) & 3;
    return (low | high << 4) + 96;
}
