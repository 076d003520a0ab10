// layout 64: 2..34 36..68 0..2+34..36
// Q8_0: two vectors of signed bytes for each of two blocks, then their d; d code in groups of 32.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 136u;

struct Head {
    d: u32,
}

struct Codes {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(word_at(4u * (unit + 128u) + row));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    let at = unit + row + 32u * h;
    return Codes(vector_at(at), vector_at(at + 64u));
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let biased = select(codes.a, codes.b, j == 1u) ^ vec4<u32>(0x80808080u);
    return affine(biased, 128.0, half_at(head.d >> (16u * j)), 0.0);
}
