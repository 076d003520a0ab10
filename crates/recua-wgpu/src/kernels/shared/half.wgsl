// Four activations as matmul_coop_*.wgsl multiply them. Weights are eight times as large there (so that the small scales of a block stay
// normal numbers of f16) and activations an eighth (so that outliers up to half a million fit): the products need no correction.
fn activation(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v.xzyw * 0.125, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
