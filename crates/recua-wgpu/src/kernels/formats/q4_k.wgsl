// layout 256: 0..144
// Q4_K: vector 0 is d, dmin and 12 bytes of six-bit scales and minima, 1..9 nibbles; d scale code - dmin min in groups of 32.
#define ONE_HEAD
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 288u;

struct Head {
    v: vec4<u32>,
}

struct Codes {
    v: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(vector_at(unit + row));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(vector_at(unit + row + 32u * (1u + 2u * part + h)));
}

fn column(part: u32, i: u32) -> u32 {
    return 64u * part + 16u * i;
}

// The scale and the minimum of a group of 32 columns.
fn scale_and_min(h: vec4<u32>, part: u32, j: u32) -> vec2<f32> {
    let high_scales = (h.w & 0x0f0f0f0fu) | ((h.y >> 2u) & 0x30303030u);
    let high_mins = ((h.w >> 4u) & 0x0f0f0f0fu) | ((h.z >> 2u) & 0x30303030u);
    let scales = select(high_scales, h.y & 0x3f3f3f3fu, part < 2u);
    let mins = select(high_mins, h.z & 0x3f3f3f3fu, part < 2u);
    let group = ((2u * part) & 3u) + j;
    return vec2<f32>(half_at(h.x) * f32(byte_at(scales, group)), half_at(h.x >> 16u) * f32(byte_at(mins, group)));
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let s = scale_and_min(head.v, part, j);
    return affine(nibbles(codes.v, j), 0.0, s.x, -s.y);
}
