// layout 64: 0..256
// F32: 16 vectors of 4 values.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 512u;

struct Raw {
    at: u32,
}

fn load(unit: u32, lane: u32, part: u32) -> Raw {
    return Raw(unit + lane);
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn four(at: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vector_at(at));
}

fn values(raw: Raw, part: u32, i: u32) -> Values {
    let at = raw.at + 128u * i;
    return Values(plain(four(at)), plain(four(at + 32u)), plain(four(at + 64u)), plain(four(at + 96u)));
}
