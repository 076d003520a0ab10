// rope_store: rotates q in place; rotates k, and writes it and v into the row's slot of the cache. HEAD_NORM: an RMS norm of each
// head of q and k before that.
// q: [n_rows, n_heads * head_dim]; k, v: [n_rows, n_kv_heads * head_dim]; table: [positions_max, pairs] of (cosine, sine).
// Inside a page this device keeps, for each KV head, K as words [head_dim / 2, 32 tokens] (f32: [head_dim, 32]), so that neighbouring
// threads of attention, which are tokens, read neighbouring words; and V as [32 tokens, head_dim].
// One workgroup computes one head of one row. Bound by memory. A cache that one binding cannot hold takes a dispatch a window.
#import status
#import row_map
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read> k: array<f32>;
@group(0) @binding(6) var<storage, read> v: array<f32>;
@group(0) @binding(7) var<storage, read> table: array<f32>;
@group(0) @binding(8) var<storage, read_write> k_cache: array<u32>;
@group(0) @binding(9) var<storage, read_write> v_cache: array<u32>;
#ifdef HEAD_NORM
@group(0) @binding(10) var<storage, read> q_norm: array<f32>;
@group(0) @binding(11) var<storage, read> k_norm: array<f32>;
#endif

struct Args {
    rows: RowMap,
    n_rows: u32,
    n_heads: u32,
    n_kv_heads: u32,
    n_pages: u32,
    positions_max: u32,
    pairs: u32,
    q_start: u32,
    k_start: u32,
    v_start: u32,
    table_start: u32,
    k_cache_start: u32,
    v_cache_start: u32,
    q_norm_start: u32,
    k_norm_start: u32,
    eps: f32,
    head_dim: u32,
    page_tokens: u32,
    first_page: u32, // the pages [first_page, first_page + window_pages) are bound; q is the first window's
    window_pages: u32,
}
var<immediate> args: Args;

const THREADS = 64u;

var<workgroup> head: array<f32, 256>;
var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn rope_store(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let heads = args.n_heads + args.n_kv_heads;
    let unit = group.y * groups.x + group.x;
    if unit >= args.n_rows * heads {
        return;
    }
    let row = unit / heads;
    let h = unit % heads;
    let is_q = h < args.n_heads;
    let kv_head = h - args.n_heads;

    // Where the row stands, if it stands anywhere.
    let position = positions[args.rows.positions_start + row];
    let sequence = sequences[args.rows.sequences_start + row];
    let page_idx = position / args.page_tokens;
    var page = 0u;
    var is_good = true;
    if sequence >= args.rows.n_sequences {
        is_good = false;
        if thread == 0u {
            report(2u, sequence, args.rows.n_sequences);
        }
    } else if page_idx >= args.rows.pages_max || position >= args.positions_max {
        is_good = false;
        if thread == 0u {
            report(3u, position, min(args.rows.pages_max * args.page_tokens, args.positions_max));
        }
    } else {
        page = pages[args.rows.pages_start + sequence * args.rows.pages_max + page_idx];
        if page >= args.n_pages {
            is_good = false;
            if thread == 0u {
                report(4u, page, args.n_pages);
            }
        }
    }

    let q_first = args.q_start + (row * args.n_heads + h) * args.head_dim;
    let k_first = args.k_start + (row * args.n_kv_heads + kv_head) * args.head_dim;
    for (var d = thread; d < args.head_dim; d += THREADS) {
        if is_q {
            head[d] = q[q_first + d];
        } else {
            head[d] = k[k_first + d];
        }
    }
    workgroupBarrier();

#ifdef HEAD_NORM
    var sum = 0.0;
    for (var d = thread; d < args.head_dim; d += THREADS) {
        sum = fma(head[d], head[d], sum);
    }
    sums[thread] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    workgroupBarrier();
    let scale = 1.0 / sqrt(sums[0] / f32(args.head_dim) + args.eps);
    for (var d = thread; d < args.head_dim; d += THREADS) {
        var weight: f32;
        if is_q {
            weight = q_norm[args.q_norm_start + d];
        } else {
            weight = k_norm[args.k_norm_start + d];
        }
        head[d] = head[d] * scale * weight;
    }
    workgroupBarrier();
#endif

    if is_good {
        for (var i = thread; i < args.pairs; i += THREADS) {
            let angle = args.table_start + (position * args.pairs + i) * 2u;
            let cosine = table[angle];
            let sine = table[angle + 1u];
#ifdef HALVES
            let first = i;
            let second = i + args.pairs;
#else
            let first = 2u * i;
            let second = 2u * i + 1u;
#endif
            let a = head[first];
            let b = head[second];
            head[first] = fma(a, cosine, -(b * sine));
            head[second] = fma(a, sine, b * cosine);
        }
    }
    workgroupBarrier();
    if !is_good || (is_q && args.first_page > 0u) {
        return;
    }

    if is_q {
        for (var d = thread; d < args.head_dim; d += THREADS) {
            q[q_first + d] = head[d];
        }
        return;
    }
    if page < args.first_page || page - args.first_page >= args.window_pages {
        return;
    }
    page -= args.first_page;
    let slot = position % args.page_tokens;
    let v_first = args.v_start + (row * args.n_kv_heads + kv_head) * args.head_dim;
#ifdef CACHE_F16
    let words = args.head_dim / 2u;
    let place = (page * args.n_kv_heads + kv_head) * args.page_tokens * words;
    for (var i = thread; i < words; i += THREADS) {
        let rotated = vec2<f32>(head[2u * i], head[2u * i + 1u]);
        k_cache[args.k_cache_start + place + i * args.page_tokens + slot] = pack2x16float(rotated);
        let value = vec2<f32>(v[v_first + 2u * i], v[v_first + 2u * i + 1u]);
        v_cache[args.v_cache_start + place + slot * words + i] = pack2x16float(value);
    }
#else
    let place = (page * args.n_kv_heads + kv_head) * args.page_tokens * args.head_dim;
    for (var d = thread; d < args.head_dim; d += THREADS) {
        k_cache[args.k_cache_start + place + d * args.page_tokens + slot] = bitcast<u32>(head[d]);
        v_cache[args.v_cache_start + place + slot * args.head_dim + d] = bitcast<u32>(v[v_first + d]);
    }
#endif
}
