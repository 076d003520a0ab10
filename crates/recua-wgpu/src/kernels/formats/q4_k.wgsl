// layout 256: 0..144
// Q4_K: vector 0 is d, dmin and 12 bytes of six-bit scales and minima, 1..9 nibbles; d scale code - dmin min in groups of 32.
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 288u;

struct Raw {
    head: vec4<u32>,
    a: vec4<u32>,
    b: vec4<u32>,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    return Raw(vector_at(at), vector_at(at + 32u + 64u * part), vector_at(at + 64u + 64u * part));
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
    return affine(nibbles(select(raw.a, raw.b, (i & 1u) == 1u), i >> 1u), 0.0, scale, -min);
}
