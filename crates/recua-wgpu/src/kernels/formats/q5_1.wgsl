// layout 64: 8..24 32..48 4..8+28..32 0..4+24..28
// Q5_1: a vector of nibbles for each of two blocks, then their fifth bits, then their d and m; d code + m in groups of 32.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 96u;

struct Head {
    high: vec2<u32>,
    d: vec2<u32>,
}

struct Codes {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    let s = 4u * (unit + 64u) + 2u * row;
    let d = vec2<u32>(word_at(s + 64u), word_at(s + 65u));
    return Head(vec2<u32>(word_at(s), word_at(s + 1u)), d);
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
    let d = head.d[j];
    return affine(indexes | (high << vec4<u32>(4u)), 0.0, half_at(d), half_at(d >> 16u));
}
