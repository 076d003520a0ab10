// layout 64: 0..128
// BF16: 8 vectors of 8 values.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 256u;

struct Head {
    at: u32,
}

struct Codes {
    at: u32,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(unit + row);
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(unit + row + 64u * h);
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn four(v: vec2<u32>) -> vec4<f32> {
    let bits = vec4<u32>(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u);
    return bitcast<vec4<f32>>(bits);
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let a = vector_at(codes.at + 128u * j);
    let b = vector_at(codes.at + 128u * j + 32u);
    return Values(plain(four(a.xy)), plain(four(a.zw)), plain(four(b.xy)), plain(four(b.zw)));
}
