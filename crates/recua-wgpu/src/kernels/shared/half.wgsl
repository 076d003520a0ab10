// Four activations as matmul_coop_*.wgsl multiply them. There, weights are eight times as large (so that small block scales remain normal
// f16 numbers) and activations an eighth (so that outliers up to half a million fit): the products need no correction.
fn activation(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v.xzyw * 0.125, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
