// layout 64: 1..17 18..34 0..1+17..18
// MXFP4: a vector of nibbles (4-bit floats) each of two blocks, then their exponents; 2^(e - 128) level, the levels doubled to be whole.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 68u;
// The levels plus 12.
const LEVELS: vec4<u32> = vec4<u32>(0x0f0e0d0cu, 0x18141210u, 0x090a0b0cu, 0x00040608u);

struct Raw {
    a: vec4<u32>,
    b: vec4<u32>,
    exponents: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    let at = unit + lane;
    let exponents = word_at(4u * (unit + 64u) + (lane >> 1u)) >> (16u * (lane & 1u));
    return Raw(vector_at(at), vector_at(at + 32u), exponents);
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let e = byte_at(raw.exponents, i >> 1u);
    let scale = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
    let codes = nibbles(select(raw.a, raw.b, i >= 2u), i & 1u);
    return affine(look_up(codes, LEVELS), 12.0, scale, 0.0);
}
