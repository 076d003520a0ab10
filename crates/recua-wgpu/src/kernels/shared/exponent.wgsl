// A row of x as matmul_coop_*.wgsl multiply it: in f16, times a power of two of its own that brings its largest element to [2^14, 2^15).
// So rows of any size are equally exact, and a row's bits depend on no other. Weights are eight times as large there, so that small block
// scales remain normal f16 numbers. Behind the sum, `scale_back` undoes both; it is a power of two and therefore exact.

// The largest of four magnitudes, as bits: they are in the order of the magnitudes, with NaN above all numbers.
fn largest_bits(v: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The exponent of a row's power of two. It is limited so that `scale_back` is a normal number.
fn row_exponent(largest: u32) -> i32 {
    return min(141 - i32(largest >> 23u), 123);
}

// 2 to the power of n, which is from -126 to 127.
fn power(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

fn scale_back(exponent: i32) -> f32 {
    return power(-exponent - 3);
}

// The f16 copy of x is [tile of 16 rows][run of 16 columns][row][16 columns]. Behind the runs of x there is one of zeros; the first element of
// a row in the last one is its exponent. The place of that element, in vectors of eight.
fn exponent_place(row: u32, runs: u32) -> u32 {
    return ((row >> 4u) * runs + runs - 1u) * 32u + 2u * (row & 15u);
}

fn exponent_in(vector: vec4<u32>) -> i32 {
    return i32(unpack2x16float(vector.x).x);
}
