// exp for x <= 0, only from multiply-adds, so that every kernel that imports it computes the same bits. 0 for x < -87, NaN for NaN.
fn exp_negative(x: vec4<f32>) -> vec4<f32> {
    let y = max(x, vec4<f32>(-87.0));
    // x = n ln 2 + r with |r| <= ln(2) / 2. The first part of ln 2 has few bits, so that n times it is exact.
    let n = round(y * 1.4426950408889634);
    let r = fma(n, vec4<f32>(2.1219444e-4), fma(n, vec4<f32>(-0.6933594), y));
    var q = fma(vec4<f32>(1.3926251e-3), r, vec4<f32>(8.363233e-3));
    q = fma(q, r, vec4<f32>(4.1666554e-2));
    q = fma(q, r, vec4<f32>(1.6666577e-1));
    q = fma(q, r, vec4<f32>(0.5));
    let p = fma(q, r * r, r) + vec4<f32>(1.0);
    let power = bitcast<vec4<f32>>((vec4<i32>(n) + vec4<i32>(127)) << vec4<u32>(23u));
    // `max` may have lost a NaN; it is above no number.
    return select(select(x, vec4<f32>(0.0), x < vec4<f32>(-87.0)), p * power, x >= vec4<f32>(-87.0));
}
