// layout 64: 0..128
// F16: 8 vectors of 8 values.
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
    return vec4<f32>(half_at(v.x), half_at(v.x >> 16u), half_at(v.y), half_at(v.y >> 16u));
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let a = vector_at(raw.at + 64u * i);
    let b = vector_at(raw.at + 64u * i + 32u);
    return Values(plain(four(a.xy)), plain(four(a.zw)), plain(four(b.xy)), plain(four(b.zw)));
}
