// layout 64: 1..17 18..34 0..1+17..18
// MXFP4: for each of two blocks a vector of nibbles (4-bit floats), then their exponents; 2^(e - 128) level, with the levels doubled to
// make them integers.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 68u;
// The levels plus 12.
const LEVELS: vec4<u32> = vec4<u32>(0x0f0e0d0cu, 0x18141210u, 0x090a0b0cu, 0x00040608u);

struct Head {
    exponents: u32,
}

struct Codes {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    return Head(word_at(4u * (unit + 64u) + (row >> 1u)) >> (16u * (row & 1u)));
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    return Codes(vector_at(unit + row), vector_at(unit + row + 32u));
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let indexes = nibbles(select(codes.a, codes.b, j == 1u), h);
    let e = byte_at(head.exponents, j);
    let scale = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
    return affine(look_up(indexes, LEVELS), 12.0, scale, 0.0);
}
