// The scales and minima of Q4_K and Q5_K: 8 of each, six bits wide, in 12 bytes after d and dmin.
// Those of four groups form a word, one byte each; a part of 64 columns has two groups.
struct KScales {
    scales: u32,
    mins: u32,
}

fn k_scales(v: vec4<u32>, part: u32) -> KScales {
    let high_scales = (v.w & 0x0f0f0f0fu) | ((v.y >> 2u) & 0x30303030u);
    let high_mins = ((v.w >> 4u) & 0x0f0f0f0fu) | ((v.z >> 2u) & 0x30303030u);
    let scales = select(high_scales, v.y & 0x3f3f3f3fu, part < 2u);
    let mins = select(high_mins, v.z & 0x3f3f3f3fu, part < 2u);
    let shift = 16u * (part & 1u);
    return KScales(scales >> shift, mins >> shift);
}

#ifdef HALF
// The last two bytes as numbers.
fn two_bytes(v: u32) -> vec2<f16> {
    let bits = numbers(vec4<u32>((v & 0xffu) | ((v << 8u) & 0xff0000u)), 0xffffffffu).x;
    return pair(bits) - vec2<f16>(1024.0);
}

// Scale and minimum of group `j` of a part.
fn scale_and_min(v: vec4<u32>, part: u32, j: u32) -> Factors {
    let bytes = k_scales(v, part);
    let d = pair(v.x) * vec2<f16>(8.0, -8.0);
    let scales = two_bytes(bytes.scales) * vec2<f16>(d.x);
    let mins = two_bytes(bytes.mins) * vec2<f16>(d.y);
    return Factors(scales[j], mins[j]);
}
#else
// Scale and minimum of group `j` of a part.
fn scale_and_min(v: vec4<u32>, part: u32, j: u32) -> Factors {
    let bytes = k_scales(v, part);
    let scale = half_at(v.x) * f32(byte_at(bytes.scales, j));
    return factors(scale, -half_at(v.x >> 16u) * f32(byte_at(bytes.mins, j)));
}
#endif
