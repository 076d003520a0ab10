// layout 256: 0..144
// Q4_K: vector 0 is d, dmin and 12 bytes of six-bit scales and minima, 1..9 nibbles; d scale code - dmin min in groups of 32.
#define ONE_HEAD
#import formats/k_scales
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 288u;

struct Head {
    v: vec4<u32>,
}

struct Codes {
    v: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(vector_at(unit + row));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(vector_at(unit + row + 32u * (1u + 2u * part + h)));
}

fn column(part: u32, i: u32) -> u32 {
    return 64u * part + 16u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    return affine_nibbles(codes.v, j, 0.0, scale_and_min(head.v, part, j));
}
