// layout 256: 0..176
// Q5_K: as Q4_K, with two vectors of fifth bits before the nibbles.
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 352u;

struct Raw {
    head: vec4<u32>,
    high_a: vec4<u32>,
    high_b: vec4<u32>,
    a: vec4<u32>,
    b: vec4<u32>,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    let low = at + 96u + 64u * part;
    return Raw(vector_at(at), vector_at(at + 32u), vector_at(at + 64u), vector_at(low), vector_at(low + 32u));
}

fn column(part: u32, i: u32) -> u32 {
    return 64u * part + 16u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let h = raw.head;
    let high_scales = (h.w & 0x0f0f0f0fu) | ((h.y >> 2u) & 0x30303030u);
    let high_mins = ((h.w >> 4u) & 0x0f0f0f0fu) | ((h.z >> 2u) & 0x30303030u);
    let scales = select(high_scales, h.y & 0x3f3f3f3fu, part < 2u);
    let mins = select(high_mins, h.z & 0x3f3f3f3fu, part < 2u);
    let group = ((2u * part) & 3u) + (i >> 1u);
    let scale = half_at(h.x) * f32(byte_at(scales, group));
    let min = half_at(h.x >> 16u) * f32(byte_at(mins, group));
    let second = (i & 1u) == 1u;
    let high = select(raw.high_a, raw.high_b, second) >> vec4<u32>(2u * part + (i >> 1u));
    let codes = nibbles(select(raw.a, raw.b, second), i >> 1u) | ((high & vec4<u32>(0x01010101u)) << vec4<u32>(4u));
    return affine(codes, 0.0, scale, -min);
}
