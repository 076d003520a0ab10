// layout 64: 0..256
// F32: 16 vectors of 4 values.
const PARTS: u32 = 1u;
const UNIT_VECTORS: u32 = 512u;

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
    return Codes(unit + row + 128u * h);
}

fn column(part: u32, i: u32) -> u32 {
    return 16u * i;
}

fn four(at: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vector_at(at));
}

fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let at = codes.at + 256u * j;
    return Values(plain(four(at)), plain(four(at + 32u)), plain(four(at + 64u)), plain(four(at + 96u)));
}
