// layout 64: 0..128
// BF16: 8 vectors of 8 values.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 256u;

struct Raw {
    at: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    return Raw(unit + lane);
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn four(v: vec2<u32>) -> vec4<f32> {
    let bits = vec4<u32>(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u);
    return bitcast<vec4<f32>>(bits);
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let a = vector_at(raw.at + 64u * i);
    let b = vector_at(raw.at + 64u * i + 32u);
    return Values(plain(four(a.xy)), plain(four(a.zw)), plain(four(b.xy)), plain(four(b.zw)));
}
