// layout 256: 0..80 80..84
// Q2_K: one vector of scales and minima (4 bits each), 4 of bit pairs, d and dmin; d scale code - dmin min in groups of 16.
// A part is 16 columns of each quarter of half a block.
#define ONE_HEAD
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 168u;

struct Head {
    scales: vec4<u32>,
    d: u32,
}

struct Codes {
    v: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(vector_at(unit + row), word_at(4u * (unit + 160u) + row));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(vector_at(unit + row + 32u * (1u + part)));
}

fn column(part: u32, i: u32) -> u32 {
    return 128u * (part >> 1u) + 16u * (part & 1u) + 32u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let bits = byte_at(two_of(head.scales, part >> 1u)[j], 2u * h + (part & 1u));
    let scale = half_at(head.d) * f32(bits & 15u);
    let min = half_at(head.d >> 16u) * f32(bits >> 4u);
    return affine((codes.v >> vec4<u32>(2u * h + 4u * j)) & vec4<u32>(0x03030303u), 0.0, scale, -min);
}
