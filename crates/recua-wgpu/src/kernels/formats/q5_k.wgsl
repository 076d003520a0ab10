// layout 256: 0..176
// Q5_K: like Q4_K, with two vectors of fifth bits before the nibbles.
#define ONE_HEAD
#import formats/k_scales
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 352u;

struct Head {
    v: vec4<u32>,
    // The fifth bits of runs h and h + 2 of all parts.
    high: vec4<u32>,
}

struct Codes {
    v: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(vector_at(unit + row), vector_at(unit + row + 32u * (1u + h)));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(vector_at(unit + row + 32u * (3u + 2u * part + h)));
}

fn column(part: u32, i: u32) -> u32 {
    return 64u * part + 16u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let high = (head.high >> vec4<u32>(2u * part + j)) & vec4<u32>(0x01010101u);
    return affine_by(nibbles(codes.v, j) | (high << vec4<u32>(4u)), 0.0, scale_and_min(head.v, part, j));
}
