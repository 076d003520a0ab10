// MXFP4: 32 values in 17 bytes, {the exponent of the scale plus 127, 16 bytes of codes}; value i and i + 16 share a byte. A code is a
// sign and one of the magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6. The scale is kept as it is until the weight's power of two is known.
#define BLOCK_VALUES 32
#define BLOCK_BYTES 17
// The largest number that d is multiplied with for a scale.
#define LARGEST 1.0f
#define PLANE_4
#define HEADER_32
#define SCALE_IS_EXPONENT
// Twice the values, plus 128; so the scale is half.
#define TABLE 0x83828180u, 0x8c888684u, 0x7d7e7f80u, 0x74787a7cu

DEVICE u32 raw_code(const u8* b, u32 i) { return b[1 + i % 16] >> (i / 16 * 4) & 15; }
// Half of 2^(e - 127) is 2^(e - 128). Zero means no block.
DEVICE u32 raw_scale(const u8* b) { return b[0] + 1; }
