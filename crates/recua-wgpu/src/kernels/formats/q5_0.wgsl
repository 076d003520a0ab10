// layout 64: 6..22 28..44 2..6+24..28 0..2+22..24
// Q5_0: a vector of nibbles for each of two blocks, then their fifth bits, then their d; d (code - 16) in groups of 32.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 88u;

struct Head {
    high: vec2<u32>,
    d: u32,
}

struct Codes {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    let s = 4u * (unit + 64u) + 2u * row;
    return Head(vec2<u32>(word_at(s), word_at(s + 1u)), word_at(4u * (unit + 80u) + row));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(vector_at(unit + row), vector_at(unit + row + 32u));
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let indexes = nibbles(select(codes.a, codes.b, j == 1u), h);
    let high = spread(head.high[j] >> (16u * h));
    return affine(indexes | (high << vec4<u32>(4u)), 16.0, half_at(head.d >> (16u * j)), 0.0);
}
