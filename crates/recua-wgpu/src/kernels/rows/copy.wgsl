// copy: dst = src, byte for byte.
// src, dst: bytes, from their starts on; ALIGNED: both starts and the length are whole words.
// One workgroup copies every num_workgroups'th block of 256 words of dst. Bound by memory.
// Unaligned: a thread builds a word of dst from two words of src, and keeps the bytes of dst outside the range.
@group(0) @binding(0) var<storage, read> src: array<u32>;
@group(0) @binding(1) var<storage, read_write> dst: array<u32>;

struct Args { n_bytes: u32, src_start: u32, dst_start: u32 }
var<immediate> args: Args;

@compute @workgroup_size(256)
fn copy(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let stride = groups.x * 256u;
#ifdef ALIGNED
    let n = args.n_bytes / 4u;
    for (var i = id.x; i < n; i += stride) {
        dst[args.dst_start / 4u + i] = src[args.src_start / 4u + i];
    }
#else
    // The words of dst that contain bytes of the range.
    let first = args.dst_start / 4u;
    let n = (args.dst_start + args.n_bytes + 3u) / 4u - first;
    for (var i = id.x; i < n; i += stride) {
        let old = dst[first + i];
        var word = 0u;
        for (var b = 0u; b < 4u; b++) {
            let at = (first + i) * 4u + b;
            var value = (old >> (8u * b)) & 0xffu;
            if at >= args.dst_start && at - args.dst_start < args.n_bytes {
                let place = args.src_start + (at - args.dst_start);
                value = (src[place / 4u] >> (8u * (place % 4u))) & 0xffu;
            }
            word |= value << (8u * b);
        }
        dst[first + i] = word;
    }
#endif
}
