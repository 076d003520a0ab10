// copy_pages: copies page list[i][0] of one pool to page list[i][1] of another, or of the same one, K and V.
// list: [n_pairs, 2]; a pair that names INERT is skipped. A pool is whole vectors of 16 bytes, page after page. If a pool is spread over
// several allocations, a dispatch sees one of each pool, and copies the pages that lie there. Bound by memory.
#import status
#import args/copy_pages
@group(0) @binding(1) var<storage, read> list: array<u32>;
@group(0) @binding(2) var<storage, read> from_k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> from_v: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> to_k: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> to_v: array<vec4<u32>>;
var<immediate> args: Args;

const THREADS = 256u;
const INERT = 0xffffffffu;

@compute @workgroup_size(THREADS)
fn copy_pages(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var pair = group.y; pair < args.n_pairs; pair += groups.y) {
        let from_page = list[args.list_start + 2u * pair];
        let to_page = list[args.list_start + 2u * pair + 1u];
        if from_page == INERT || to_page == INERT {
            continue;
        }
        if from_page >= args.n_from || to_page >= args.n_to {
            if thread == 0u && from_page >= args.n_from {
                report(9u, from_page, args.n_from);
            } else if thread == 0u {
                report(10u, to_page, args.n_to);
            }
            continue;
        }
        let is_here = from_page >= args.from_first && from_page - args.from_first < args.from_pages
            && to_page >= args.to_first && to_page - args.to_first < args.to_pages;
        if !is_here {
            continue;
        }
        let src = (from_page - args.from_first) * args.page_vectors;
        let dst = (to_page - args.to_first) * args.page_vectors;
        for (var i = group.x * THREADS + thread; i < args.page_vectors; i += groups.x * THREADS) {
            to_k[dst + i] = from_k[src + i];
            to_v[dst + i] = from_v[src + i];
        }
    }
}
