// layout 256: 0..208 208..210
// Q6_K: 8 vectors of low nibbles, 4 of high bit pairs, one of signed scales, then d; d scale (code - 32) in groups of 16.
// A part is 16 columns of each quarter of half a block.
#define ONE_HEAD
const PARTS: u32 = 4u;
const UNIT_VECTORS: u32 = 420u;

struct Head {
    scales: vec4<u32>,
    d: u32,
}

struct Codes {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn head(unit: u32, row: u32, h: u32) -> Head {
    let d = word_at(4u * (unit + 416u) + (row >> 1u)) >> (16u * (row & 1u));
    return Head(vector_at(unit + row + 384u), d);
}

fn codes(unit: u32, row: u32, part: u32, h: u32) -> Codes {
    let at = unit + row;
    let low = vector_at(at + 32u * (4u * (part >> 1u) + (part & 1u) + 2u * h));
    return Codes(low, vector_at(at + 32u * (8u + part)));
}

fn column(part: u32, i: u32) -> u32 {
    return 128u * (part >> 1u) + 16u * (part & 1u) + 32u * i;
}

fn scale(head: Head, part: u32, h: u32, j: u32) -> Factors {
    let word = two_of(head.scales, part >> 1u)[j];
    return factors(half_at(head.d) * signed_byte(byte_at(word, 2u * h + (part & 1u))), 0.0);
}

#ifdef HALF
fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    // The bit pairs of every other byte, shifted to where they belong: above the nibbles, as these are.
    let even_high = codes.high << vec4<u32>(4u - 2u * h);
    let odd_high = codes.high >> vec4<u32>(4u + 2u * h);
    let odd_low = codes.low >> vec4<u32>(8u);
    let by = scale(head, part, h, j);
    if j == 0u {
        let even = numbers(codes.low, 0x000f000fu) | (even_high & vec4<u32>(0x00300030u));
        let odd = numbers(odd_low, 0x000f000fu) | (odd_high & vec4<u32>(0x00300030u));
        return scaled(even, odd, 1.0, -1056.0, by);
    }
    // Sixteen times the code.
    let even = numbers(codes.low, 0x00f000f0u) | (even_high & vec4<u32>(0x03000300u));
    let odd = numbers(odd_low, 0x00f000f0u) | (odd_high & vec4<u32>(0x03000300u));
    return scaled(even, odd, 0.0625, -96.0, by);
}
#else
fn values(head: Head, codes: Codes, part: u32, h: u32, j: u32) -> Values {
    let high = codes.high >> vec4<u32>(2u * h);
    let top = select(high << vec4<u32>(4u), high, j == 1u) & vec4<u32>(0x30303030u);
    return affine_by(nibbles(codes.low, j) | top, 32.0, scale(head, part, h, j));
}
#endif
