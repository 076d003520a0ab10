// layout 256: 0..96 96..108 108..110
// Q3_K: 2 vectors of third bits, 4 of bit pairs, 12 bytes of six-bit scales, d; d (scale - 32) (code - 4) in groups of 16.
// A part is 16 columns of each quarter of half a block.
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 220u;

struct Raw {
    low: vec4<u32>,
    high: vec4<u32>,
    scales: vec3<u32>,
    d: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    let s = 4u * (unit + 192u) + 3u * lane;
    let d = word_at(4u * (unit + 216u) + (lane >> 1u)) >> (16u * (lane & 1u));
    let scales = vec3<u32>(word_at(s), word_at(s + 1u), word_at(s + 2u));
    return Raw(vector_at(at + 64u + 32u * part), vector_at(at + 32u * (part & 1u)), scales, d);
}

fn column(part: u32, i: u32) -> u32 {
    return 128u * (part >> 1u) + 16u * (part & 1u) + 32u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let half = part >> 1u;
    let byte = 2u * (i & 1u) + (part & 1u);
    let word = select(raw.scales.x, raw.scales.y, i >= 2u);
    let low_bits = (byte_at(word, byte) >> (4u * half)) & 15u;
    let high_bits = (byte_at(raw.scales.z, byte) >> (2u * (2u * half + (i >> 1u)))) & 3u;
    let scale = half_at(raw.d) * (f32(low_bits | (high_bits << 4u)) - 32.0);
    let low = (raw.low >> vec4<u32>(2u * i)) & vec4<u32>(0x03030303u);
    let high = ((raw.high >> vec4<u32>(4u * half + i)) & vec4<u32>(0x01010101u)) << vec4<u32>(2u);
    return affine(low | high, 4.0, scale, 0.0);
}
