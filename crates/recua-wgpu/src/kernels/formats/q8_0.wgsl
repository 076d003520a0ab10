// layout 64: 2..34 36..68 0..2+34..36
// Q8_0: two vectors of signed bytes each of two blocks, then their d; d code in groups of 32.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 136u;

struct Raw {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    e: vec4<u32>,
    d: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    let d = word_at(4u * (unit + 128u) + lane);
    return Raw(vector_at(at), vector_at(at + 32u), vector_at(at + 64u), vector_at(at + 96u), d);
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let first = select(raw.a, raw.b, (i & 1u) == 1u);
    let second = select(raw.c, raw.e, (i & 1u) == 1u);
    let codes = select(first, second, i >= 2u) ^ vec4<u32>(0x80808080u);
    return affine(codes, 128.0, half_at(raw.d >> (16u * (i >> 1u))), 0.0);
}
