// layout 64: 8..24 32..48 4..8+28..32 0..4+24..28
// Q5_1: a vector of nibbles each of two blocks, then their fifth bits, then their d and m; d code + m in groups of 32.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 96u;

struct Raw {
    a: vec4<u32>,
    b: vec4<u32>,
    high: vec2<u32>,
    d: vec2<u32>,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    let s = 4u * (unit + 64u) + 2u * lane;
    let high = vec2<u32>(word_at(s), word_at(s + 1u));
    let d = vec2<u32>(word_at(s + 64u), word_at(s + 65u));
    return Raw(vector_at(at), vector_at(at + 32u), high, d);
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let high = spread(select(raw.high.x, raw.high.y, i >= 2u) >> (16u * (i & 1u)));
    let codes = nibbles(select(raw.a, raw.b, i >= 2u), i & 1u) | (high << vec4<u32>(4u));
    let d = select(raw.d.x, raw.d.y, i >= 2u);
    return affine(codes, 0.0, half_at(d), half_at(d >> 16u));
}
