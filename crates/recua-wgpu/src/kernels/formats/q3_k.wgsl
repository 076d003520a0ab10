// layout 256: 0..96 96..108 108..110
// Q3_K: 2 vectors of third bits, 4 of bit pairs, 12 bytes of six-bit scales, d; d (scale - 32) (code - 4) in groups of 16.
// A part is 16 columns of each quarter of half a block.
#define ONE_HEAD
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 220u;

struct Head {
    scales: vec3<u32>,
    d: u32,
}

struct Codes {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    let s = 4u * (unit + 192u) + 3u * row;
    let d = word_at(4u * (unit + 216u) + (row >> 1u)) >> (16u * (row & 1u));
    return Head(vec3<u32>(word_at(s), word_at(s + 1u), word_at(s + 2u)), d);
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    let at = unit + row;
    return Codes(vector_at(at + 64u + 32u * part), vector_at(at + 32u * (part & 1u)));
}

fn column(part: u32, i: u32) -> u32 {
    return 128u * (part >> 1u) + 16u * (part & 1u) + 32u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let half = part >> 1u;
    let i = h + 2u * j;
    let byte = 2u * h + (part & 1u);
    let low_bits = (byte_at(head.scales[j], byte) >> (4u * half)) & 15u;
    let high_bits = (byte_at(head.scales.z, byte) >> (2u * (2u * half + j))) & 3u;
    let scale = half_at(head.d) * (f32(low_bits | (high_bits << 4u)) - 32.0);
    let low = (codes.low >> vec4<u32>(2u * i)) & vec4<u32>(0x03030303u);
    let high = ((codes.high >> vec4<u32>(4u * half + i)) & vec4<u32>(0x01010101u)) << vec4<u32>(2u);
    return affine(low | high, 4.0, scale, 0.0);
}
