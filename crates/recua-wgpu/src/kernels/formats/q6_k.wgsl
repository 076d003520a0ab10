// layout 256: 0..208 208..210
// Q6_K: 8 vectors of low nibbles, 4 of high bit pairs, one of signed scales, then d; d scale (code - 32) in groups of 16.
// A part is 16 columns of each quarter of half a block.
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 420u;

struct Raw {
    a: vec4<u32>,
    b: vec4<u32>,
    high: vec4<u32>,
    scales: vec4<u32>,
    d: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    let half = part >> 1u;
    let low = at + 32u * (4u * half + (part & 1u));
    let d = word_at(4u * (unit + 416u) + (lane >> 1u)) >> (16u * (lane & 1u));
    return Raw(vector_at(low), vector_at(low + 64u), vector_at(at + 32u * (8u + part)), vector_at(at + 384u), d);
}

fn column(part: u32, i: u32) -> u32 {
    return 128u * (part >> 1u) + 16u * (part & 1u) + 32u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let pair = select(raw.scales.xy, raw.scales.zw, part >= 2u);
    let word = select(pair.x, pair.y, i >= 2u);
    let scale = half_at(raw.d) * signed_byte(byte_at(word, 2u * (i & 1u) + (part & 1u)));
    let low = nibbles(select(raw.a, raw.b, (i & 1u) == 1u), i >> 1u);
    let high = ((raw.high >> vec4<u32>(2u * i)) & vec4<u32>(0x03030303u)) << vec4<u32>(4u);
    return affine(low | high, 32.0, scale, 0.0);
}
