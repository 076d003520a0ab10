// layout 64: 2..18 20..36 0..2+18..20
// Q4_0: a vector of nibbles for each of two blocks, then their d; d (code - 8) in groups of 32.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 72u;

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
    return affine(indexes, 8.0, half_at(head.d >> (16u * j)), 0.0);
}
