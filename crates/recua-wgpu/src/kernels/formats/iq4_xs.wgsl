// layout 256: 8..136 0..8
// IQ4_XS: 8 vectors of nibbles that index 16 levels, then d and the six-bit scales; d (scale - 32) level in groups of 32.
#define ONE_HEAD
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 272u;
// The levels plus 128.
const LEVELS: vec4<u32> = vec4<u32>(0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);

struct Head {
    d: u32,
    scales: u32,
}

struct Codes {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    let s = 4u * (unit + 256u) + 2u * row;
    return Head(word_at(s), word_at(s + 1u));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    let at = unit + row + 64u * part;
    return Codes(vector_at(at), vector_at(at + 32u));
}

fn column(part: u32, i: u32) -> u32 {
    return 64u * part + 16u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let group = 2u * part + j;
    let bits = ((head.scales >> (4u * group)) & 15u) | (((head.d >> (16u + 2u * group)) & 3u) << 4u);
    let scale = half_at(head.d) * (f32(bits) - 32.0);
    let indexes = nibbles(select(codes.a, codes.b, j == 1u), h);
    return affine(look_up(indexes, LEVELS), 128.0, scale, 0.0);
}
