// Q6_K: 256 values in 210 bytes, {128 bytes of lower four bits, 64 of upper two, 16 signed scales, f16 d}; in each half of 128, values 64
// apart share a byte of the lower bits, values 32 apart one of the upper.
#define BLOCK_VALUES 256
#define BLOCK_BYTES 210
// The largest number that d is multiplied with for a scale.
#define LARGEST 128.0f
#define PLANE_4
#define PLANE_2
#define HEADER_6
#define OFFSET 32

DEVICE u32 raw_code(const u8* b, u32 i) {
    const u32 half = i / 128, rest = i % 128;
    return (b[half * 64 + rest % 64] >> (rest / 64 * 4) & 15) | (b[128 + half * 32 + rest % 32] >> (rest / 32 * 2) & 3) << 4;
}
DEVICE u32 raw_d(const u8* b) { return raw_u16(b + 208); }
DEVICE u32 raw_scale(const u8* b, u32 block) { return b[192 + block] ^ 128; }
