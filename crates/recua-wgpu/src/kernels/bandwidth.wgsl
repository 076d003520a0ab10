// bandwidth: reads x once and keeps nothing.
// x: [n] vectors of 16 bytes; sink: written only if a sum equals one particular value, which sums of zeros do not.
// One workgroup reads every num_workgroups'th block of 256 vectors. Bound by memory, which is the purpose.
// The sum keeps the compiler from removing the loads; four loads are in flight at once.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sink: array<u32>;

struct Args { n: u32 }
var<immediate> args: Args;

@compute @workgroup_size(256)
fn bandwidth(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let stride = groups.x * 256u;
    var sum = vec4<u32>(0u);
    var i = id.x;
    while i + 3u * stride < args.n {
        let a = x[i];
        let b = x[i + stride];
        let c = x[i + 2u * stride];
        let d = x[i + 3u * stride];
        sum += (a + b) + (c + d);
        i += 4u * stride;
    }
    while i < args.n {
        sum += x[i];
        i += stride;
    }
    if (sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u {
        sink[0] = 1u;
    }
}
