// What Q4_K and Q5_K begin with: f16 d, f16 dmin, and 12 bytes with six bits of scale and six of min of each block of 32.
#pragma once
DEVICE u32 raw_d(const u8* b) { return raw_u16(b); }
DEVICE u32 raw_dmin(const u8* b) { return raw_u16(b + 2); }
// Blocks 0 to 3 have a byte each; the later ones four bits and the two that those bytes leave.
DEVICE u32 raw_scale(const u8* b, u32 block) {
    const u8* s = b + 4;
    return block < 4 ? s[block] & 63 : (s[block + 4] & 15) | s[block - 4] >> 6 << 4;
}
DEVICE u32 raw_min(const u8* b, u32 block) {
    const u8* s = b + 4;
    return block < 4 ? s[block + 4] & 63 : s[block + 4] >> 4 | s[block] >> 6 << 4;
}
