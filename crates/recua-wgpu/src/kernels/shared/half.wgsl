// Four elements of x as matmul_coop_*.wgsl multiply them, in the order 0 2 1 3; see exponent.wgsl.
#import exponent

fn activation(v: vec4<f32>, power_of_row: f32) -> vec4<f16> {
    return vec4<f16>(v.xzyw * power_of_row);
}

// What the last run has for a row.
fn exponent_four(exponent: i32) -> vec4<f16> {
    return vec4<f16>(f16(exponent), f16(0.0), f16(0.0), f16(0.0));
}
