// layout 64: 2..18 20..36 0..2+18..20
// IQ4_NL: like Q4_0, but a nibble is the index of one of 16 levels.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 72u;

// The levels plus 128.
const LEVELS: vec4<u32> = vec4<u32>(0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);

struct Head {
    d: u32,
}

struct Codes {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(word_at(4u * (unit + 64u) + row));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(vector_at(unit + row), vector_at(unit + row + 32u));
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let indexes = nibbles(select(codes.a, codes.b, j == 1u), h);
    return affine(look_up(indexes, LEVELS), 128.0, half_at(head.d >> (16u * j)), 0.0);
}
