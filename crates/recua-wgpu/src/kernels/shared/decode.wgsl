// Decodes codes to numbers, for the includes in formats/. For one weight type, such an include declares:
//   `layout UNIT: RANGES`  a comment that the upload reads (see weight.rs): columns of a unit, bytes of a unit piece by piece;
//   PARTS, UNIT_VECTORS    parts of 64 columns in a unit, and vectors of 16 bytes in a unit of 32 rows;
//   head(unit, row, h)     what row `row` of 32 needs for all parts (`unit`: the index of the unit's first vector);
//   codes(unit, row, part, h)  what it needs for runs h and h + 2 of a part's four (h is 0 or 1), 16 columns each;
//   column(part, i)        the first column of run `i`, counted from the unit's start;
//   values(head, codes, part, h, j)  the 16 values of run h + 2 j.
// The kernel declares `vector_at(i)` (16 bytes) and `word_at(i)` (4 bytes). HALF: values are f16, eight times as large (exponent.wgsl says
// why), in the order 0 2 1 3 within every four; otherwise f32 in order.

// Only the first component: a software driver gets the second one wrong.
fn half_at(bits: u32) -> f32 {
    return unpack2x16float(bits & 0xffffu).x;
}

// The first or the last two of four words. Indexing the vector at run time could make it go through memory.
fn two_of(v: vec4<u32>, i: u32) -> vec2<u32> {
    return select(v.zw, v.xy, i == 0u);
}

fn byte_at(word: u32, i: u32) -> u32 {
    return (word >> (8u * i)) & 255u;
}

fn signed_byte(byte: u32) -> f32 {
    return f32(bitcast<i32>(byte << 24u) >> 24u);
}

#ifdef HALF
alias Values = array<vec4<f16>, 4>;

// Two f16 from their bits. naga takes a bitcast to vec2<f16> for one to f32; drivers see that widening and narrowing cancel out.
fn pair(bits: u32) -> vec2<f16> {
#ifdef EMULATED
    return vec2<f16>(vec2<f32>(half_at(bits), half_at(bits >> 16u)));
#else
    return vec2<f16>(unpack2x16float(bits));
#endif
}

// A scale, and the number to add to the scaled codes.
alias Factors = vec2<f16>;

fn factors(scale: f32, min: f32) -> Factors {
    return Factors(vec2<f32>(scale, min) * 8.0);
}

// Puts bits at the end of f16 numbers: 0x6400 is 1024, whose last bit counts ones (the trick of FasterTransformer and Marlin). The compiler
// cannot know the constant, so it stays in a register, and one instruction masks the bits and sets these.
fn numbers(bits: vec4<u32>, mask: u32) -> vec4<u32> {
    return (bits & vec4<u32>(mask)) | vec4<u32>(0x64006400u | (args.k >> 31u));
}

// scale * (step * number + start) + min for 16 numbers, in pairs.
fn scaled(even: vec4<u32>, odd: vec4<u32>, step: f32, start: f32, by: Factors) -> Values {
    let a = vec2<f16>(f16(step));
    let b = vec2<f16>(f16(start));
    let s = vec2<f16>(by.x);
    let m = vec2<f16>(by.y);
    return Values(
        vec4<f16>(fma(fma(pair(even.x), a, b), s, m), fma(fma(pair(odd.x), a, b), s, m)),
        vec4<f16>(fma(fma(pair(even.y), a, b), s, m), fma(fma(pair(odd.y), a, b), s, m)),
        vec4<f16>(fma(fma(pair(even.z), a, b), s, m), fma(fma(pair(odd.z), a, b), s, m)),
        vec4<f16>(fma(fma(pair(even.w), a, b), s, m), fma(fma(pair(odd.w), a, b), s, m)),
    );
}

// scale * (code - offset) + min for 16 codes of one byte each.
fn affine_by(codes: vec4<u32>, offset: f32, by: Factors) -> Values {
    let even = numbers(codes, 0x00ff00ffu);
    let odd = numbers(codes >> vec4<u32>(8u), 0x00ff00ffu);
    return scaled(even, odd, 1.0, -1024.0 - offset, by);
}

// The same for nibble `i` of every byte. A high nibble is used in place, as sixteen times its value.
fn affine_nibbles(v: vec4<u32>, i: u32, offset: f32, by: Factors) -> Values {
    let odd = v >> vec4<u32>(8u);
    if i == 0u {
        return scaled(numbers(v, 0x000f000fu), numbers(odd, 0x000f000fu), 1.0, -1024.0 - offset, by);
    }
    return scaled(numbers(v, 0x00f000f0u), numbers(odd, 0x00f000f0u), 0.0625, -64.0 - offset, by);
}

// Four adjacent values.
fn plain(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(v.xzyw * 8.0);
}
#else
alias Values = array<vec4<f32>, 4>;

// A scale, and the number to add to the scaled codes.
alias Factors = vec2<f32>;

fn factors(scale: f32, min: f32) -> Factors {
    return Factors(scale, min);
}

fn affine4(codes: u32, offset: f32, by: Factors) -> vec4<f32> {
    return fma(vec4<f32>(unpack4xU8(codes)) - vec4<f32>(offset), vec4<f32>(by.x), vec4<f32>(by.y));
}

// scale * (code - offset) + min for 16 codes of one byte each.
fn affine_by(codes: vec4<u32>, offset: f32, by: Factors) -> Values {
    return Values(
        affine4(codes.x, offset, by),
        affine4(codes.y, offset, by),
        affine4(codes.z, offset, by),
        affine4(codes.w, offset, by),
    );
}

// The same for nibble `i` of every byte.
fn affine_nibbles(v: vec4<u32>, i: u32, offset: f32, by: Factors) -> Values {
    return affine_by(nibbles(v, i), offset, by);
}

// Four adjacent values.
fn plain(v: vec4<f32>) -> vec4<f32> {
    return v;
}
#endif

fn affine(codes: vec4<u32>, offset: f32, scale: f32, min: f32) -> Values {
    return affine_by(codes, offset, factors(scale, min));
}

// Nibble `i` of every byte, as bytes.
fn nibbles(v: vec4<u32>, i: u32) -> vec4<u32> {
    return (v >> vec4<u32>(4u * i)) & vec4<u32>(0x0f0f0f0fu);
}

// Looks up four nibbles, one byte each, in 16 levels of one byte each.
fn look_up4(indexes: u32, levels: vec4<u32>) -> u32 {
    var out = 0u;
    for (var i = 0u; i < 4u; i++) {
        let index = byte_at(indexes, i);
        let pair = select(levels.xy, levels.zw, index >= 8u);
        let word = select(pair.x, pair.y, (index & 4u) != 0u);
        out |= byte_at(word, index & 3u) << (8u * i);
    }
    return out;
}

fn look_up(indexes: vec4<u32>, levels: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(
        look_up4(indexes.x, levels),
        look_up4(indexes.y, levels),
        look_up4(indexes.z, levels),
        look_up4(indexes.w, levels),
    );
}

// Spreads 16 bits to one bit in each of 16 bytes.
fn spread(bits: u32) -> vec4<u32> {
    let four = (vec4<u32>(bits) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    return (four * vec4<u32>(0x00204081u)) & vec4<u32>(0x01010101u);
}
