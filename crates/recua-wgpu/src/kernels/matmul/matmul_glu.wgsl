// out[i] = silu(out[i]) * up[i]: the end of a GLU whose gate and up have different formats and are therefore two products.
// Bindings: 0 out, which holds the products with gate; 1 up, the products with up.
// Bound by memory.
struct Args {
    n: u32,
    out: u32,
}

var<immediate> args: Args;

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;

@compute @workgroup_size(256)
fn matmul_glu(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + local;
    if i < args.n {
        let gate = out[args.out + i];
        out[args.out + i] = gate / (1.0 + exp(-gate)) * up[i];
    }
}
