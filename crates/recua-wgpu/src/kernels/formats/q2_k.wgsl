// layout 256: 0..80 80..84
// Q2_K: one vector of scales and minima (4 bits each), 4 of bit pairs, d and dmin; d scale code - dmin min in groups of 16.
// A part is 16 columns of each quarter of half a block.
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 168u;

struct Raw {
    scales: vec4<u32>,
    low: vec4<u32>,
    d: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    return Raw(vector_at(at), vector_at(at + 32u + 32u * part), word_at(4u * (unit + 160u) + lane));
}

fn column(part: u32, i: u32) -> u32 {
    return 128u * (part >> 1u) + 16u * (part & 1u) + 32u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let pair = select(raw.scales.xy, raw.scales.zw, part >= 2u);
    let word = select(pair.x, pair.y, i >= 2u);
    let bits = byte_at(word, 2u * (i & 1u) + (part & 1u));
    let scale = half_at(raw.d) * f32(bits & 15u);
    let min = half_at(raw.d >> 16u) * f32(bits >> 4u);
    return affine((raw.low >> vec4<u32>(2u * i)) & vec4<u32>(0x03030303u), 0.0, scale, -min);
}
