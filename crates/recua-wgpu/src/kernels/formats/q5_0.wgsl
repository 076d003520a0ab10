// layout 64: 6..22 28..44 2..6+24..28 0..2+22..24
// Q5_0: a vector of nibbles each of two blocks, then their fifth bits, then their d; d (code - 16) in groups of 32.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 88u;

struct Raw {
    a: vec4<u32>,
    b: vec4<u32>,
    high: vec2<u32>,
    d: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    let s = 4u * (unit + 64u) + 2u * lane;
    let high = vec2<u32>(word_at(s), word_at(s + 1u));
    return Raw(vector_at(at), vector_at(at + 32u), high, word_at(4u * (unit + 80u) + lane));
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let high = spread(select(raw.high.x, raw.high.y, i >= 2u) >> (16u * (i & 1u)));
    let codes = nibbles(select(raw.a, raw.b, i >= 2u), i & 1u) | (high << vec4<u32>(4u));
    return affine(codes, 16.0, half_at(raw.d >> (16u * (i >> 1u))), 0.0);
}
