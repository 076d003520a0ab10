// layout 64: 2..18 20..36 0..2+18..20
// IQ4_NL: as Q4_0, but a nibble is the index of one of 16 levels.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 72u;

// The levels plus 128.
const LEVELS: vec4<u32> = vec4<u32>(0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);

struct Raw {
    a: vec4<u32>,
    b: vec4<u32>,
    d: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    return Raw(vector_at(at), vector_at(at + 32u), word_at(4u * (unit + 64u) + lane));
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let codes = nibbles(select(raw.a, raw.b, i >= 2u), i & 1u);
    return affine(look_up(codes, LEVELS), 128.0, half_at(raw.d >> (16u * (i >> 1u))), 0.0);
}
